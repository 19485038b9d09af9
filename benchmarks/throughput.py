"""Images per second of a training epoch on CIFAR-10: dltrain fit, against its own compute and against its peers.

    python benchmarks/throughput.py --root data                 # ratios with their spread
    python benchmarks/throughput.py --tiny                      # a few steps of synthetic images, to try it out

Contestants, each in a process of its own, in turn, several rounds:
    compute    forward, backward and step of the same network on one random batch: the ceiling
    dltrain    `dltrain fit` with random crop and flip, its own epoch report
    loop       a hand-written PyTorch loop with DataLoader (2 workers) and torchvision transforms
    lightning  PyTorch Lightning's Trainer.fit around the same DataLoader and transforms
The first epoch of each is left out: it holds start-up costs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EXPERIMENT = """
name: throughput
data: {{name: {data}, {source}, validation: 0, scaling: standardize}}
augmentation:
  - {{name: random_crop, padding: 4}}
  - horizontal_flip
model: {model}
optimizer: {{name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 5.0e-4}}
schedule: constant
training: {{epochs: {epochs}, batch_size: {batch}, limit_batches: {limit}, average: null}}
"""
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def experiment_text(args: argparse.Namespace) -> str:
    """The ordinary experiment that `dltrain fit` gets."""
    source = f"root: {args.root}" if args.data == "cifar10" else f"examples: {args.examples}"
    limit = args.steps or "null"
    return EXPERIMENT.format(
        data=args.data, source=source, model=args.model, epochs=args.epochs, batch=args.batch, limit=limit
    )


def network_and_optimizer(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The network of the experiment, built by dltrain, so that all contestants train the same one."""
    import torch

    from dltrain.data.base import ImageShape
    from dltrain.experiment import Experiment
    from dltrain.optim.groups import parameter_groups

    experiment = Experiment.parse(experiment_text(args))
    network = experiment.model.build(ImageShape(3, 32, 32), 10)
    optimizer = experiment.optimizer.build(parameter_groups(network, experiment.optimizer), torch.device("cpu"))
    return network, optimizer, torch.nn.functional.cross_entropy


def measure_compute(args: argparse.Namespace) -> list[float]:
    import torch

    network, optimizer, loss = network_and_optimizer(args)
    inputs, targets = torch.randn(args.batch, 3, 32, 32), torch.randint(10, (args.batch,))
    steps = args.steps or -(-50_000 // args.batch)
    speeds = []
    for _ in range(args.epochs):
        started = time.perf_counter()
        for _ in range(steps):
            loss(network(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        speeds.append(steps * args.batch / (time.perf_counter() - started))
    return speeds


def measure_dltrain(args: argparse.Namespace) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "throughput.yaml")
        path.write_text(experiment_text(args))
        command = [sys.executable, "-m", "dltrain", "fit", str(path), "--runs", folder, "--device", "cpu"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with Path(folder, "throughput", "001", "metrics.csv").open() as file:
            return [float(row["throughput/images_per_second"]) for row in csv.DictReader(file)]


def data_loader(args: argparse.Namespace) -> Any:
    """The usual DataLoader: torchvision's data set and transforms, two workers."""
    from torch.utils.data import DataLoader
    from torchvision import datasets
    from torchvision import transforms as T

    transform = T.Compose([T.RandomCrop(32, 4), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)])
    if args.data == "cifar10":
        dataset: Any = datasets.CIFAR10(args.root, train=True, transform=transform)
    else:
        dataset = datasets.FakeData(args.examples, (3, 32, 32), 10, transform)
    return DataLoader(dataset, args.batch, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True)


def measure_loop(args: argparse.Namespace) -> list[float]:
    network, optimizer, loss = network_and_optimizer(args)
    loader, speeds = data_loader(args), []
    for _ in range(args.epochs):
        started, steps = time.perf_counter(), 0
        for inputs, targets in loader:
            loss(network(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
            if steps == args.steps:
                break
        speeds.append(steps * args.batch / (time.perf_counter() - started))
    return speeds


def measure_lightning(args: argparse.Namespace) -> list[float]:
    import lightning

    network, optimizer, loss = network_and_optimizer(args)

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network, self.started, self.speeds = network, 0.0, []

        def training_step(self, batch: Any, _: int) -> Any:
            inputs, targets = batch
            return loss(self.network(inputs), targets)

        def configure_optimizers(self) -> Any:
            return optimizer

        def on_train_epoch_start(self) -> None:
            self.started = time.perf_counter()

        def on_train_epoch_end(self) -> None:
            steps = self.trainer.num_training_batches
            self.speeds.append(steps * args.batch / (time.perf_counter() - self.started))

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=args.epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_train_batches=args.steps or 1.0,
    )  # fmt: skip
    trainer.fit(module, data_loader(args))
    return module.speeds


CONTESTANTS = {
    "compute": measure_compute, "dltrain": measure_dltrain, "loop": measure_loop, "lightning": measure_lightning,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder that holds cifar-10-batches-py")
    parser.add_argument("--model", default="lenet5_modern")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2, help="the first one is left out")
    parser.add_argument("--steps", type=int, default=None, help="steps an epoch; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--tiny", action="store_true", help="synthetic images and a few steps")
    parser.add_argument("--only", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.data, args.examples = "cifar10", 0
    if args.tiny:
        args.data, args.examples, args.batch, args.steps, args.rounds = "synthetic", 400, 32, 4, 1
    if args.only:
        print(json.dumps(CONTESTANTS[args.only](args)))
        return
    speeds: dict[str, list[float]] = {name: [] for name in args.contestants}
    for _ in range(args.rounds):
        for name in args.contestants:
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--only", name], capture_output=True, text=True, check=False,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr}")
            speeds[name] += json.loads(done.stdout.strip().splitlines()[-1])[1:]
    report(args, speeds)


def report(args: argparse.Namespace, speeds: dict[str, list[float]]) -> None:
    """Median images/s of each, and dltrain's ratio to each in the same round, with the smallest and largest."""
    import torch

    print(f"{args.model}, batch {args.batch}, {args.data}; {os.cpu_count()} cores, {platform.machine()}, "
          f"torch {torch.__version__}, {args.rounds} rounds")  # fmt: skip
    for name, values in speeds.items():
        line = f"{name:<10} {statistics.median(values):>9,.0f} images/s ({min(values):,.0f} to {max(values):,.0f})"
        if name != "dltrain" and "dltrain" in speeds:
            ratios = [ours / theirs for ours, theirs in zip(speeds["dltrain"], values, strict=True)]
            line += f"   dltrain / {name} = {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line)


if __name__ == "__main__":
    main()
