"""Does a first training learn? Every small network with nothing but `data` and `model` in its file, by recipe and seed.

    python benchmarks/defaults.py --root DATA --seeds 5
    python benchmarks/defaults.py --root DATA --networks lenet5_modern mlp --recipes default adamw --output rows.jsonl
    python benchmarks/defaults.py --tiny

DATA holds Fashion-MNIST's files and the folder of CIFAR-10's batches. A recipe is a set of overrides over the defaults.
Trained are 10 epochs on 5,000 images of CIFAR-10 or Fashion-MNIST (large networks: 4 epochs on 2,000), or on all of
digits; the figure is the accuracy on 1,000 other training images after the last epoch. A row that is in the output file
already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "unclipped": {"training.clip_norm": None},
    "warmup": {"schedule.warmup": {"epochs": 1}},
    "adamw": {"optimizer": {"name": "adamw"}},
}
SMALL = ("softmax_regression", "mlp", "convnet", "lenet5", "lenet5_modern")
LARGE = ("nin_cifar", "vgg11_cifar", "resnet20", "alexnet")
ONLY_COLOUR = ("nin_cifar", "vgg11_cifar", "resnet20", "alexnet")
DATA = ("digits", "fashion_mnist", "cifar10")


def subset(name: str, root: Path, folder: Path, examples: int) -> str:
    """The data section of `examples` training images and of 1,000 others to validate with."""
    if name == "digits":
        return "digits"
    from torchvision.datasets import CIFAR10

    path = folder / f"{name}-{examples}.npz"
    if not path.is_file():
        if name == "cifar10":
            whole = CIFAR10(root, train=True)
            images, labels = whole.data, np.array(whole.targets)
        else:
            raw = fashion(root)
            images, labels = raw.data.numpy(), raw.targets.numpy()
        count = examples + 1000
        np.savez(path, images=images[:count], labels=labels[:count], classes=np.array([str(i) for i in range(10)]))
    return f"{{name: arrays, path: {path}, test: 0.0, validation: {1000 / (examples + 1000):.6f}}}"


def fashion(root: Path, part: str = "train") -> Any:
    """Fashion-MNIST from its four files, wherever torchvision or the publisher puts them. part: `train` or `t10k`."""
    import gzip
    from types import SimpleNamespace

    import torch

    folder = next(p.parent for p in sorted(root.rglob("train-images-idx3-ubyte.gz")) if "fashion" in str(p).lower())
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return SimpleNamespace(data=torch.tensor(images), targets=torch.tensor(labels).long())


def train(data: str, network: str, recipe: dict[str, Any], seed: int, epochs: int) -> dict[str, Any]:
    """The last metrics of a training, or what ended it."""
    from dltrain import Experiment, build

    training = f"{{epochs: {epochs}, precision: float32, compile: false}}"
    text = f"seed: {seed}\ndata: {data}\nmodel: {network}\ntraining: {training}"
    experiment = Experiment.parse(text)
    experiment = experiment.override_all(recipe) if recipe else experiment
    trainer = build(experiment, device="cpu")
    start, last = time.monotonic(), {}
    try:
        for event in trainer.run():
            last = getattr(event, "metrics", last)
        ended = ""
    except Exception as error:  # a diverged training is a result here
        ended = f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        trainer.close()
    return {
        "accuracy": last.get("validation/accuracy", 0.1) if not ended else 0.1,
        "loss": last.get("train/loss"), "ended": ended, "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def cases(options: argparse.Namespace) -> Iterator[tuple[str, str, int, int]]:
    """Data, network, examples and epochs of every training."""
    for data in options.data:
        for network in options.networks:
            if data == "digits" and network not in ("softmax_regression", "mlp", "convnet"):
                continue
            if data == "fashion_mnist" and network in ONLY_COLOUR:
                continue
            large = network in LARGE
            yield data, network, 2000 if large else 5000, 1 if options.tiny else 4 if large else 10


def main() -> None:
    """Train what is missing, then print a line a network and the recipes' accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--data", nargs="+", default=list(DATA))
    parser.add_argument("--networks", nargs="+", default=[*SMALL, *LARGE])
    parser.add_argument("--recipes", nargs="+", default=["default"])
    parser.add_argument("--recipe", type=json.loads, help="another recipe, as a JSON object {name: {key: value}}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="file of results, which later calls continue")
    parser.add_argument("--tiny", action="store_true", help="one short training, to see that this script works")
    options = parser.parse_args()
    if options.tiny:
        options.data, options.networks, options.seeds = ["digits"], ["softmax_regression"], 1
    recipes = RECIPES | (options.recipe or {})
    wanted = [*options.recipes, *(options.recipe or {})]
    rows = (
        [json.loads(line) for line in options.output.read_text().splitlines()]
        if options.output and options.output.is_file()
        else []
    )
    done = {(r["data"], r["network"], r["recipe"], r["seed"]) for r in rows}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, options.seeds + 1):
            for data, network, examples, epochs in cases(options):
                section = subset(data, options.root, Path(folder), examples)
                for recipe in wanted:
                    if (data, network, recipe, seed) in done:
                        continue
                    row = {"data": data, "network": network, "recipe": recipe, "seed": seed}
                    row |= train(section, network, recipes[recipe], seed, epochs)
                    rows.append(row)
                    if options.output:
                        with options.output.open("a") as file:
                            file.write(json.dumps(row) + "\n")
    print("| data | network | " + " | ".join(wanted) + " |\n|---" * 1 + "|---" * (1 + len(wanted)) + "|")
    for data, network, *_ in cases(options):
        cells = []
        for recipe in wanted:
            found = [r["accuracy"] for r in rows if (r["data"], r["network"], r["recipe"]) == (data, network, recipe)]
            cells.append(f"{statistics.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})" if found else "-")
        print(f"| {data} | {network} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
