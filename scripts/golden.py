"""Golden digests: what a refactoring must not change, down to the last bit. Record before it, compare after it.

    python scripts/golden.py record /tmp/golden.json
    python scripts/golden.py compare /tmp/golden.json
    python scripts/golden.py compare /tmp/golden.json --only sam lbfgs

Each case is trained, evaluated and asked for predictions by the command line, in processes of their own, so that no
name inside the package takes part. Of checkpoints the digest is that of the tensors, of metrics all columns but times.
Digests hold on the machine that recorded them only, and with the same versions of torch, timm and torchvision.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
TIMES = ("seconds/", "throughput/")
OF_THIS_RUN = ("wall_s", "seconds", "images_per_second", "run", "checkpoint", "when", "path")
"""Keys of results that say where and when."""

SMALL = "training: {epochs: 2, batch_size: 32, limit_batches: 6}\n"
IMAGES = "data: {name: digits}\n"
CONVNET = "model: {name: convnet, widths: [8, 16], dropout: 0.1}\n"
CASES = {
    "digits": ((REPOSITORY / "experiments" / "digits.yaml").read_text(), ["training.epochs=2"]),
    "resnet20": (
        "data: {name: synthetic, examples: 160, classes: 4, shape: [3, 16, 16]}\n"
        "augmentation: [{name: random_crop, padding: 2}, horizontal_flip, {name: mixup}]\n"
        "model: resnet20\ntraining: {epochs: 2, batch_size: 32, average: {name: ema, decay: 0.9}}\n",
        [],
    ),
    "streamed": (
        "data: {name: image_folder, root: photos, validation: 0.25, size: 16, loader: streaming, workers: 1}\n"
        "augmentation: [random_resized_crop, horizontal_flip]\n" + CONVNET + "training: {epochs: 2, batch_size: 8}\n",
        [],
    ),
    "sam": (IMAGES + CONVNET + "optimizer: {name: sgd, lr: 0.1, momentum: 0.9, sam: {}}\n" + SMALL, []),
    "lookahead": (IMAGES + CONVNET + "optimizer: {name: adamw, lookahead: {steps: 3}}\n" + SMALL, []),
    "lbfgs": (IMAGES + "model: {name: mlp, hidden: [16]}\noptimizer: lbfgs\n" + SMALL, []),
    "muon": (IMAGES + CONVNET + "optimizer: muon\npenalties: [{name: l1, strength: 1.0e-4}]\n" + SMALL, []),
    "accumulated": (
        IMAGES + CONVNET + "loss: {name: cross_entropy, class_weights: balanced, label_smoothing: 0.1}\n"
        "training: {epochs: 2, batch_size: 32, accumulate: 4, limit_batches: 6}\n",
        [],
    ),
    "jsd": (
        IMAGES + CONVNET + "augmentation: [{name: aug_mix, views: 3}]\nloss: jsd\n"
        "schedule: {name: reduce_on_plateau, patience: 1}\n" + SMALL,
        [],
    ),
    "two_devices": (IMAGES + CONVNET + SMALL, ["--devices", "2", "--device", "cpu"]),
}  # fmt: skip


def main() -> int:
    """Record or compare; 1 where a digest differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="+", default=[*CASES, "plan", "list"])
    args = parser.parse_args()
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        photos(Path("photos"))
        for name in args.only:
            found |= {f"{name} {what}": digest for what, digest in digests(name)}
    if args.what == "record":
        args.file.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    before = {key: value for key, value in json.loads(args.file.read_text()).items() if key.split()[0] in args.only}
    differing = sorted(key for key in {*before, *found} if before.get(key) != found.get(key))
    print("\n".join(f"differs: {key}" for key in differing) or f"{len(found)} digests hold")
    return 1 if differing else 0


def digests(name: str) -> Iterator[tuple[str, str]]:
    """What a case gives, each with its digest."""
    if name in ("plan", "list"):
        Path("e.yaml").write_text(CASES["resnet20"][0])
        arguments = ["plan", "e.yaml", "--device", "cpu", "--json"] if name == "plan" else ["list", "--json"]
        yield "json", of_text(canonical(json.loads(dltrain(*arguments))))
        return
    text, overrides = CASES[name]
    Path(f"{name}.yaml").write_text(text)
    dltrain("fit", f"{name}.yaml", *overrides)
    run = Path("runs", name, "001")
    for checkpoint in ("best", "last"):
        state = load(run / "checkpoints" / f"{checkpoint}.pt")
        for part in ("model", "average", "optimizer", "lookahead", "metrics"):
            if state.get(part) is not None:
                yield f"{checkpoint} {part}", of_state(state[part])
    left_out = (*TIMES, "smoothed/")  # it follows from the others
    with (run / "metrics.csv").open() as file:
        rows = [
            {key: value for key, value in row.items() if not key.startswith(left_out)} for row in csv.DictReader(file)
        ]
    yield "metrics", of_text(json.dumps(rows))
    decisions = json.loads((run / "environment.json").read_text())["decisions"]
    yield "decisions", of_text(canonical({key: value["value"] for key, value in decisions.items()}))
    split = ["--split", "validation"]
    yield "eval", of_text(canonical(json.loads(dltrain("eval", str(run), "--json", *split, "--device", "cpu"))))
    if name == "streamed":
        yield "predict", of_text(dltrain("predict", str(run), "photos", "--device", "cpu"))


def dltrain(*arguments: str) -> str:
    """The command's output; its errors end the program."""
    command = [sys.executable, "-m", "dltrain", *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


def photos(folder: Path) -> None:
    """Two classes of 20 JPEG files each, of several sizes."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for label, name in enumerate(("a", "b")):
        (folder / name).mkdir(parents=True)
        for index in range(20):
            values = draw.normal(80 + 80 * label, 40, (24 + index, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{index:02}.jpg", quality=90)


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's values, with torch alone."""
    import torch

    values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return values


def of_state(value: Any) -> str:
    """The digest of nested values, tensors by their bytes; keys in their order."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                digest.update(repr(key).encode())
                add(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                add(inner)
        elif hasattr(value, "numpy"):
            tensor = value.detach().float() if str(value.dtype) == "torch.bfloat16" else value.detach()
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode() + tensor.contiguous().numpy().tobytes())
        else:
            digest.update(repr(value).encode())

    add(value)
    return digest.hexdigest()[:16]


def of_text(text: str) -> str:
    """The digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def canonical(value: Any) -> str:
    """A JSON value without what belongs to this machine and hour."""
    if isinstance(value, dict):
        value = {key: json.loads(canonical(inner)) for key, inner in value.items() if key not in OF_THIS_RUN}
    elif isinstance(value, list):
        value = [json.loads(canonical(inner)) for inner in value]
    return json.dumps(value, sort_keys=True)


if __name__ == "__main__":
    sys.exit(main())
