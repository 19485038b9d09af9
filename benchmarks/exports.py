"""Do exported files answer as their runs do? Every family of networks, on real photos, from raw files.

    python benchmarks/exports.py --photos FOLDER --table penguins.csv
    python benchmarks/exports.py --photos FOLDER --networks "resnet18 96" "zfnet 96" --keep runs_here
    python benchmarks/exports.py --tiny

FOLDER holds `train/` and `val/`, with a folder of photos per class each. Every network is trained for some steps, so
that its norms have seen photos, in float32, as the file computes, and exported to ONNX: `dltrain export` compares it.
Then this script is a stranger: Pillow opens each validation photo, and onnxruntime alone answers. Columns:

    pixels: of 255, the largest difference between what the file makes of a photo and what evaluation does
    answers differ by: what `dltrain export` found; of probabilities, or of outputs where there are none
    classes: how many of them the file answers with; where it is one, that it is the same says little
    same class: as `dltrain.load(run).predict` has, of the same pixels
    as `predict`: as `dltrain predict RUN` has, which reads large JPEG files at a part of their size
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from contest import machine
from PIL import Image, ImageOps

IMAGES: list[tuple[str, int]] = [
    ("lenet5_modern", 64), ("alexnet", 96), ("zfnet", 96), ("nin", 96), ("vgg11_cifar", 32), ("googlenet", 64),
    ("inception_v3", 128), ("inception_resnet_v2", 128), ("resnet18", 96), ("preact_resnet20", 32),
    ("wide_resnet_16_4", 32), ("resnext50_32x4d", 64), ("se_resnet18", 64), ("cbam_resnet50", 64), ("densenet121", 64),
    ("squeezenet1_1", 96), ("mobilenet_v1_025", 64), ("mobilenet_v2", 64), ("mobilenet_v3_small", 64),
    ("shufflenet_v1", 64), ("ghostnet_050", 64), ("xception", 96), ("nasnet_mobile", 64), ("efficientnet_b0", 64),
    ("timm/vit_tiny_patch16_224", 96), ("{name: resnet20, activation: prelu}", 64),
    ("{name: resnet20, activation: acon_c}", 64), ("{name: convnet, widths: [16, 32]}", 224),
]  # fmt: skip
"""Classifiers, and the size of their images."""
AUTOENCODER = ("{name: autoencoder, channels: [16, 32], code: 64}", 64)
TABLE = ("{name: mlp, hidden: [32]}", 0)
TITLES = (
    "network", "MB", "ms: run, file", "pixels", "answers differ by", "classes", "same class", "as `predict`",
    "run, file",
)  # fmt: skip
TINY = [("{name: convnet, widths: [4]}", 24), ("{name: autoencoder, code: 4}", 16), TABLE]


def dltrain(*arguments: Any) -> str:
    """What a command prints. Raises SystemExit with what it says when it fails."""
    from typer.testing import CliRunner

    from dltrain.cli import app

    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exit_code:
        raise SystemExit(f"dltrain {' '.join(map(str, arguments))}\n{done.stderr}")
    return done.stdout


def fitted(model: str, size: int, options: argparse.Namespace, folder: Path) -> Path:
    """The run of a short training."""
    data: dict[str, Any] = {
        "name": "table",
        "path": str(options.table),
        "target": options.target,
        "missing": "indicator",
    }
    task = None
    if size:
        data = {"name": "image_folder", "root": str(options.photos), "size": size}
        task = "reconstruction" if "autoencoder" in model else None
    document = {"name": f"{model.strip('{').partition(',')[0].removeprefix('name: ').replace('/', '_')}_{size}",
                "data": data, "model": yaml.safe_load(model), "optimizer": "adamw",
                "training": {"epochs": 1, "batch_size": 4 if options.tiny else 32, "limit_batches": 8,
                             "precision": "float32"}, **({"task": task} if task else {})}  # fmt: skip
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    before = {*folder.glob("*/*/experiment.yaml")}
    dltrain("fit", file, "--runs", folder)
    [made] = {*folder.glob("*/*/experiment.yaml")} - before
    return made.parent


def rows(asked: Path, *paths: Any) -> list[dict[str, Any]]:
    """What `predict` answers, in the order of the files."""
    return [json.loads(line) for line in dltrain("predict", asked, *paths, "--format", "jsonl").splitlines()]


def row(model: str, size: int, options: argparse.Namespace, folder: Path) -> str:
    """A line of the table."""
    import onnxruntime

    import dltrain as library

    run = fitted(model, size, options, folder)
    proof = json.loads(dltrain("export", run, "--json"))
    file, pixels, same, as_predict, classes = run / "export" / "model.onnx", "", "", "", ""
    if size:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        trained = library.load(run, device="cpu")
        paths = validation_of(run)
        photos = [np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")) for path in paths]
        pixels = f"{largest_pixel(trained, photos)} of 255"
        if proof.get("agreement") is None:
            by_file = [session.run(["reconstructions"], {"images": photo[None]})[0][0] for photo in photos]
            pixels += f", answers {shown(trained, photos, by_file):.2g}"
        else:
            best = [int(session.run(["class"], {"images": photo[None]})[0][0]) for photo in photos]
            names = [trained.names[place] for place in best]
            classes = str(len({*names}))
            same = share(names, trained.predict(photos).classes)
            as_predict = share(names, [each["class"] for each in rows(run, *paths)])
    else:
        key = "class" if proof.get("agreement") is not None else None
        pair = [[each[key] for each in rows(asked, options.table)] if key else [] for asked in (run, file)]
        same, classes = share(*pair), str(len({*pair[1]}))
        as_predict = same
    sizes, times, metrics = proof["bytes"], proof["latency_ms"], proof["metrics"]
    name = next(iter(set(metrics["run"]) & {"accuracy"}), "mse" if "mse" in metrics["run"] else "loss")
    title = model.strip("{}").removeprefix("name: ") + (f", {size} pixels" if size else f", {options.table.name}")
    cells = [
        title, f"{sizes['file'] / 1e6:.2f}", f"{times['run']:.1f}, {times['file']:.1f}", pixels,
        f"{proof['difference']:.1g}", classes, same, as_predict,
        f"{name} {metrics['run'][name]:.4f}, {metrics['file'][name]:.4f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def share(one: list[str], other: list[str]) -> str:
    """How many of two lists are equal."""
    assert len(one) == len(other)
    return f"{sum(a == b for a, b in zip(one, other, strict=True))} of {len(one)}"


def validation_of(run: Path) -> list[str]:
    """The photos of the validation split, as `eval` names them."""
    import csv

    dltrain("eval", run, "--split", "validation")
    with (run / "eval" / "validation.csv").open(newline="") as file:
        return sorted(each["path"] for each in csv.DictReader(file))


def largest_pixel(trained: Any, photos: list[np.ndarray]) -> int:
    """Of 255: by how much what the file's graph makes of a photo differs from what evaluation makes of it."""
    import torch

    from dltrain.data.images.decoding import place
    from dltrain.export.resampling import Resample

    canvas = trained._predictor.layout
    found = 0
    for photo in photos:
        image = torch.from_numpy(photo.copy())
        seen = place(image.permute(2, 0, 1), canvas)[0].float()
        found = max(found, int((Resample(canvas)(image[None])[0] - seen).abs().max()))
    return found


def shown(trained: Any, photos: list[np.ndarray], by_file: list[np.ndarray]) -> float:
    """Of 255: by how much reconstructions differ, (H, W, C) each."""
    import torch

    by_run = trained.predict(photos).arrays["reconstructions"]
    scaling = trained._predictor.pipeline.scaling
    pixels = scaling.invert(torch.from_numpy(by_run)).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    return float(np.abs(pixels - np.stack(by_file)).max())


def main() -> None:
    """A line a network, as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photos per class")
    parser.add_argument("--table", type=Path, help="a table")
    parser.add_argument("--target", default="species", help="the column of it that is learned, of words")
    parser.add_argument("--networks", nargs="+", help='such as "resnet18 96"')
    parser.add_argument("--keep", type=Path, help="where the runs stay; default: nowhere")
    parser.add_argument("--tiny", action="store_true", help="three small networks, to see that this script works")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        cases = [*IMAGES, AUTOENCODER, TABLE]
        if options.tiny:
            cases, options.target = TINY, "sold"
            options.photos, options.table = make_tiny(Path(made) / "data")
        if options.networks:
            cases = [(name, int(size)) for name, _, size in (each.rpartition(" ") for each in options.networks)]
        print(machine("onnxruntime", "onnx", "onnxscript"))
        print(f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}")
        for model, size in cases:
            if (options.photos if size else options.table) is not None:
                print(row(model, size, options, folder), flush=True)


def make_tiny(folder: Path) -> tuple[Path, Path]:
    """Sixteen pictures of two classes, and a table of forty rows."""
    random = np.random.default_rng(0)
    for number in range(16):
        file = folder / "photos" / ("val" if number > 11 else "train") / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        size = random.integers(40, 90, 2)
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(file)
    lines = [f"{n % 7},{'ab'[n % 2]},{'yes' if n % 7 > 3 else 'no'}" for n in range(40)]
    (folder / "table.csv").write_text("\n".join(["size,town,sold", *lines]))
    return folder / "photos", folder / "table.csv"


if __name__ == "__main__":
    main()
