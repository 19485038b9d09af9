"""Seconds until a training reaches an accuracy: dltrain fit against the loop that everybody writes.

    python benchmarks/time_to_accuracy.py --goal digits --seeds 5
    python benchmarks/time_to_accuracy.py --goal fashion --root ../shared/data/fashion-mnist
    python benchmarks/time_to_accuracy.py --tiny
    python benchmarks/time_to_accuracy.py --goal cifar10 --seeds 20 --experiment experiments/cifar10_94.yaml \\
        --rival ../cifar10-airbench/airbench94_muon.py --rival ../cifar10-speedrun/cifar10_speedrun.py    # a GPU

Goals:
    digits    98 % of scikit-learn's digits
    fashion   90 % of Fashion-MNIST after learning from 58,000 of its images
    cifar10   mean accuracy on CIFAR-10's test images, of whole trainings on a GPU, beside the record scripts

For digits and fashion both train the same network with the same optimizer and schedule on the same images, with random
crops (and flips of clothes); the rival has a DataLoader with torchvision's transforms. Accuracy is that of the
validation part, after every epoch. Counted are training, evaluation and, of dltrain, checkpoints, until the first epoch
that reaches the goal; imports, loading of the data and the network's making are not. For cifar10 the timer rules are
those of the record scripts: training and the evaluation of the test images count, compiling does not; the seconds of
the whole process are printed too.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from contest import in_turn, machine, ratio, spread

GOALS = {
    "digits": (0.98, 20, 64, 1, 0.1, "{name: convnet, widths: [16, 32]}"),
    "fashion": (0.90, 8, 128, 1, 0.1, "{name: convnet, widths: [16, 32, 64]}"),
}  # fmt: skip
"""Accuracy, epochs at most, batch size, pixels of padding for the crop, learning rate, network."""
EXPERIMENT = """
name: goal
seed: {seed}
data: {data}
augmentation: {augmentation}
model: {model}
optimizer: {{name: sgd, lr: {lr}, momentum: 0.9, nesterov: true, weight_decay: 5.0e-4}}
schedule: cosine
training: {{epochs: {epochs}, batch_size: {batch}, average: null, clip_norm: null}}
"""
RECORD = re.compile(r"\|\s*eval\s*\|\s*[\d.]+\s*\|\s*[\d.]+\s*\|\s*([\d.]+)\s*\|\s*([\d.]+)\s*\|")


def write_fashion(root: Path, path: Path, examples: int) -> None:
    """An .npz of the first `examples` training images and of 2,000 that validate, from the official files."""
    import gzip

    import numpy as np

    count = examples + 2000
    with gzip.open(root / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + count * 784)[16:], np.uint8).reshape(count, 1, 28, 28)
    with gzip.open(root / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + count)[8:], np.uint8).astype(np.int64)
    np.savez(path, images=images, labels=labels)


def experiment_text(args: argparse.Namespace, folder: Path) -> str:
    """The ordinary experiment that `dltrain fit` gets; its data is in `folder`."""
    flips = args.goal == "fashion"
    data = "{name: digits, validation: 0.2}"
    if flips:
        path = folder / "fashion.npz"
        write_fashion(Path(args.root), path, args.examples)
        data = f"{{name: arrays, path: {path}, test: 0, validation: 2000}}"
    moves = f"[{{name: random_crop, padding: {args.padding}}}{', horizontal_flip' if flips else ''}]"
    return EXPERIMENT.format(
        seed=args.round, data=data, augmentation=moves, model=args.model, lr=args.lr, epochs=args.epochs,
        batch=args.batch,
    )  # fmt: skip


def reached(accuracies: list[float], seconds: list[float], goal: float) -> list[float]:
    """Seconds until the first epoch that reaches the goal (infinite when none does), and the best accuracy."""
    total = 0.0
    for accuracy, spent in zip(accuracies, seconds, strict=True):
        total += spent
        if accuracy >= goal:
            return [total, max(accuracies)]
    return [math.inf, max(accuracies)]


def measure_dltrain(args: argparse.Namespace) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "goal.yaml")
        path.write_text(experiment_text(args, Path(folder)))
        command = [sys.executable, "-m", "dltrain", "fit", str(path), "--runs", folder, "--device", "cpu"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with Path(folder, "goal", "001", "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
    seconds = [sum(float(value) for key, value in row.items() if key.startswith("seconds/")) for row in rows]
    return reached([float(row["validation/accuracy"]) for row in rows], seconds, args.accuracy)


def measure_loop(args: argparse.Namespace) -> list[float]:
    """Written as the tutorials do it, around the same split of the same images."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms as T

    from dltrain import Experiment
    from dltrain.data.types import ImageShape
    from dltrain.tasks.outputs import Logits

    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment.parse(experiment_text(args, Path(folder)))
        splits = experiment.data.load()
        train, validation = splits.train, splits.validation
        pixels = torch.tensor(train.images)
        mean, std = float((pixels / 255.0).mean()), float((pixels / 255.0).std())
    size = pixels.shape[-1]
    scale = [T.ConvertImageDtype(torch.float32), T.Normalize((mean,), (std,))]
    moves = [T.RandomCrop(size, args.padding), *([T.RandomHorizontalFlip()] if args.goal == "fashion" else [])]

    class Images(Dataset[Any]):
        def __init__(self, source: Any, transform: Any) -> None:
            self.images, self.labels = torch.tensor(source.images), torch.tensor(source.targets).long()
            self.transform = transform

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: int) -> Any:
            return self.transform(self.images[index]), self.labels[index]

    torch.manual_seed(args.round)
    network = experiment.model.make(ImageShape(1, size, size), Logits(10))
    workers = 2 if args.goal == "fashion" else 0  # starting them takes longer than an epoch of digits
    loader = DataLoader(
        Images(train, T.Compose([*moves, *scale])), args.batch, shuffle=True, num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip
    test_loader = DataLoader(Images(validation, T.Compose(scale)), args.batch)
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), args.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(loader))
    accuracies, seconds = [], []
    for _ in range(args.epochs):
        started = time.perf_counter()
        network.train()
        for inputs, targets in loader:
            loss(network(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        network.eval()
        with torch.no_grad():
            right = sum(int((network(x).argmax(1) == y).sum()) for x, y in test_loader)
        accuracies.append(right / len(validation))
        seconds.append(time.perf_counter() - started)
        if accuracies[-1] >= args.accuracy:
            break
    return reached(accuracies, seconds, args.accuracy)


CONTESTANTS = {"dltrain": measure_dltrain, "loop": measure_loop}


def fit_and_evaluate(experiment: str, seed: int, device: str) -> list[float]:
    """Accuracy on the test images, seconds by the record scripts' rules, and of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dltrain", "fit", experiment, f"seed={seed}", "data.validation=0"]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--runs", folder, "--device", device], check=True, text=True, capture_output=True
        )
        whole = time.perf_counter() - started
        run = Path(done.stdout.strip())
        spent = json.loads((run / "result.json").read_text())["time"]
        command = [sys.executable, "-m", "dltrain", "eval", str(run), "--json", "--device", device]
        told = json.loads(subprocess.run(command, check=True, text=True, capture_output=True).stdout)
    return [told["accuracy"], spent["data"] + spent["compute"] + told["seconds"], whole]


def run_record(script: str, seeds: int) -> list[list[float]]:
    """The first `seeds` trainings that a record script reports after its warm-up: accuracy, seconds, whole seconds of
    the process so far."""
    path, found = Path(script).resolve(), []
    started = time.perf_counter()
    command = [sys.executable, "-u", path.name]
    with subprocess.Popen(command, cwd=path.parent, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            found += records(line, time.perf_counter() - started)
            if len(found) > seeds:
                process.terminate()
                break
    return found[1:]


def records(line: str, whole: float = 0.0) -> list[list[float]]:
    """What a line of a record script says of finished trainings."""
    return [[float(accuracy), float(seconds), whole] for accuracy, seconds in RECORD.findall(line)]


def race(args: argparse.Namespace) -> None:
    """Whole trainings on CIFAR-10, dltrain's in turn with each rival's."""
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("cifar10 wants a GPU: there is none here (--device cpu to try it out)")
    print(f"cifar10; {machine()}")
    results = {script: run_record(script, args.seeds) for script in args.rival}
    results["dltrain"] = [fit_and_evaluate(args.experiment, seed, args.device) for seed in range(args.seeds)]
    for name, runs in results.items():
        if not runs:
            print(f"{name}: it reported no training")
            continue
        accuracies, seconds, whole = zip(*runs, strict=True)
        deviation = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
        print(f"{Path(name).name:<24} accuracy {statistics.mean(accuracies):.4f} +- {deviation:.4f} of {len(runs)} "
              f"seeds, {spread(seconds)} s, whole process {whole[0]:.1f} s for the first")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goal", default="digits", choices=[*GOALS, "cifar10"])
    parser.add_argument("--root", default="../shared/data/fashion-mnist", help="folder of the four official files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--accuracy", type=float, help="instead of the goal's")
    parser.add_argument("--epochs", type=int, help="at most; the schedule's length")
    parser.add_argument("--experiment", default="experiments/resnet_cifar.yaml", help="dltrain's, for cifar10")
    parser.add_argument("--rival", action="append", default=[], help="path of a record script, for cifar10")
    parser.add_argument("--device", default="cuda", help="of cifar10; the other goals are for a CPU")
    parser.add_argument("--tiny", action="store_true", help="one seed, two epochs, any accuracy")
    parser.add_argument("--only", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    parser.add_argument("--round", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.goal == "cifar10":
        race(args)
        return
    accuracy, epochs, args.batch, args.padding, args.lr, args.model = GOALS[args.goal]
    args.accuracy, args.epochs, args.examples = args.accuracy or accuracy, args.epochs or epochs, 58_000
    if args.tiny:
        args.seeds, args.epochs, args.accuracy, args.examples = 1, 2, 0.01, 1000
    if args.only:
        print(json.dumps(CONTESTANTS[args.only](args)))
        return
    found = in_turn(list(CONTESTANTS), args.seeds)
    print(f"{args.goal} to {args.accuracy:.0%}; {machine('torchvision')}; {args.seeds} seeds")
    for name, runs in found.items():
        seconds = [run[0] for run in runs]
        best = statistics.mean(run[1] for run in runs)
        missed = sum(math.isinf(value) for value in seconds)
        line = f"{name:<10} {spread(seconds)} s" + (f", {missed} seeds did not get there" if missed else "")
        if name != "dltrain" and not missed and all(math.isfinite(run[0]) for run in found["dltrain"]):
            line += f"   {name} / dltrain = {ratio(seconds, [run[0] for run in found['dltrain']])}"
        print(f"{line}   best accuracy {best:.4f}")


if __name__ == "__main__":
    main()
