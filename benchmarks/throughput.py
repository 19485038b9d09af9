"""Images per second of a training epoch on CIFAR-10: dltrain fit, against its own compute and against its peers.

    python benchmarks/throughput.py --root data                 # ratios with their spread
    python benchmarks/throughput.py --root data --model resnet20 --steps 40
    python benchmarks/throughput.py --root data --alternate 100 # compute, dltrain and the loop in one process
    python benchmarks/throughput.py --tiny                      # a few steps of synthetic images, to try it out

Contestants, each in a process of its own, in turn, several rounds:
    compute    forward, backward and step on one random batch, of what dltrain trains (its memory format, compiled
               where dltrain compiles): the ceiling
    dltrain    `dltrain fit` with random crop and flip, its own epoch report
    loop       a hand-written PyTorch loop with DataLoader (2 workers) and torchvision transforms
    lightning  PyTorch Lightning's Trainer.fit around the same DataLoader and transforms
    fastai     fastai's Learner.fit around DataLoaders of the same data set and transforms
    timm       timm's create_loader and create_optimizer_v2 in the loop of its train.py, with the same transforms
A rival that is not installed is left out. The first epoch of each is left out: it holds start-up costs.

On a machine whose speed changes from one minute to the next, processes in turn cannot tell 2 % apart. With
`--alternate N`, the network alone computes 16 steps, dltrain trains 16 and the loop trains 16, N times, inside one
process.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from contest import in_turn, installed, machine, quarters, ratio, spread

EXPERIMENT = """
name: throughput
data: {{name: {data}, {source}, validation: 0, scaling: standardize}}
augmentation:
  - {{name: random_crop, padding: 4}}
  - horizontal_flip
model: {model}
optimizer: {{name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 5.0e-4}}
schedule: constant
training:
  {{epochs: {epochs}, batch_size: {batch}, limit_batches: {limit}, precision: {precision}, threads: {threads},
   clip_norm: null}}
"""
MODELS = {"lenet": "lenet5_modern", "resnet20": "resnet20", "resnet18": "{name: resnet18, stem: small}"}
BLOCK = 16
"""Steps that alternate."""
AHEAD = 6
"""Batches of the loop that are not timed: its two workers got them ready, two each, while another contestant ran."""
FILLING = 0.5
"""Seconds that the loop's workers get to fill their queues, so that they rest while another contestant runs."""
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Enough(Exception):
    """All rounds are done."""


def experiment_text(args: argparse.Namespace) -> str:
    """The ordinary experiment that `dltrain fit` gets."""
    source = f"root: {args.root}" if args.data == "cifar10" else f"examples: {args.examples}"
    limit = args.steps or "null"
    return EXPERIMENT.format(
        data=args.data, source=source, model=MODELS[args.model], epochs=args.epochs, batch=args.batch, limit=limit,
        precision=args.precision, threads=args.threads,
    )  # fmt: skip


def network_and_optimizer(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The network of the experiment, built by dltrain, so that all contestants train the same one."""
    import torch

    from dltrain.data.types import ImageShape
    from dltrain.experiment.experiment import Experiment
    from dltrain.optim.impl.groups import parameter_groups
    from dltrain.tasks.outputs import Logits

    experiment = Experiment.parse(experiment_text(args))
    network = experiment.model.make(ImageShape(3, 32, 32), Logits(10))
    network.to(args.device)
    optimizer = experiment.optimizer.build(parameter_groups(network, experiment.optimizer), torch.device(args.device))
    return network, optimizer, torch.nn.functional.cross_entropy


def only_computing(args: argparse.Namespace, parts: Any) -> Callable[[], None]:
    """A step on one random batch, of what dltrain trains."""
    import torch

    channels_last = next(p for p in parts.model.parameters() if p.ndim == 4).is_contiguous(
        memory_format=torch.channels_last
    )
    inputs = torch.randn(args.batch, 3, 32, 32, device=parts.device)
    if channels_last:
        inputs = inputs.to(memory_format=torch.channels_last)
    targets = torch.randint(10, (args.batch,), device=parts.device)

    def step() -> None:
        with parts.autocast():
            outputs = parts.forward(inputs)
        torch.nn.functional.cross_entropy(outputs, targets).backward()
        parts.optimizer.step()
        parts.optimizer.zero_grad()

    return step


def measure_compute(args: argparse.Namespace) -> list[float]:
    from dltrain import Experiment, build

    parts = build(Experiment.parse(experiment_text(args)), args.device).parts
    compute = only_computing(args, parts)
    steps = args.steps or -(-50_000 // args.batch)
    speeds = []
    parts.model.train()
    for _ in range(args.epochs):
        wait_for(args.device)
        started = time.perf_counter()
        for _ in range(steps):
            compute()
        wait_for(args.device)
        speeds.append(steps * args.batch / (time.perf_counter() - started))
    return speeds


def alternate(args: argparse.Namespace) -> dict[str, list[float]]:
    """Images per second of BLOCK steps each, of a training, of its network alone and of the loop, in turn."""
    from dltrain import Experiment, build

    trainer = build(Experiment.parse(experiment_text(args)), args.device)
    compute = only_computing(args, trainer.parts)
    loop = endless_loop(args)
    seconds: dict[str, list[float]] = {"compute": [], "dltrain": [], "loop": []}

    def watch(batches: Iterator[Any]) -> Iterator[Any]:
        """Between two blocks of the training's steps, the others run."""
        orders = itertools.cycle([("compute", "dltrain", "loop"), ("dltrain", "compute", "loop")])
        for number, order in enumerate(itertools.islice(orders, args.alternate + 1)):
            for name in order:
                if name == "loop":
                    for _ in range(AHEAD):
                        next(loop)
                wait_for(args.device)
                started = time.perf_counter()
                for _ in range(BLOCK):
                    if name == "compute":
                        compute()
                    elif name == "loop":
                        next(loop)
                    else:
                        yield next(batches)
                wait_for(args.device)
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - started)
            time.sleep(FILLING)
        raise Enough

    with suppress(Enough):
        for _ in trainer.run(watch):
            pass
    return {name: [BLOCK * args.batch / value for value in values] for name, values in seconds.items()}


def wait_for(device: str) -> None:
    """Let a GPU finish, for an honest clock."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def half(device: str) -> Any:
    """bfloat16 on a GPU, as dltrain chooses there."""
    import torch

    return torch.autocast("cuda", torch.bfloat16) if device.startswith("cuda") else nullcontext()


def measure_dltrain(args: argparse.Namespace) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "throughput.yaml")
        path.write_text(experiment_text(args))
        command = [sys.executable, "-m", "dltrain", "fit", str(path), "--runs", folder, "--device", args.device]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with Path(folder, "throughput", "001", "metrics.csv").open() as file:
            return [float(row["throughput/images_per_second"]) for row in csv.DictReader(file)]


def images(args: argparse.Namespace) -> Any:
    """torchvision's data set with its usual transforms."""
    from torchvision import datasets
    from torchvision import transforms as T

    transform = T.Compose([T.RandomCrop(32, 4), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)])
    if args.data == "cifar10":
        return datasets.CIFAR10(args.root, train=True, transform=transform)
    return datasets.FakeData(args.examples, (3, 32, 32), 10, transform)


def data_loader(args: argparse.Namespace) -> Any:
    """The usual DataLoader, with two workers."""
    from torch.utils.data import DataLoader

    return DataLoader(
        images(args), args.batch, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True,
        pin_memory=args.device.startswith("cuda"),
    )  # fmt: skip


def measure_loop(args: argparse.Namespace) -> list[float]:
    network, optimizer, loss = network_and_optimizer(args)
    return looped(args, data_loader(args), network, optimizer, loss)


def looped(args: argparse.Namespace, loader: Any, network: Any, optimizer: Any, loss: Any) -> list[float]:
    """Images per second of each epoch of the loop that everybody writes."""
    speeds = []
    network.train()
    for _ in range(args.epochs):
        started, steps = time.perf_counter(), 0
        for batch in loader:
            loop_step(args, batch, network, optimizer, loss)
            steps += 1
            if steps == args.steps:
                break
        wait_for(args.device)
        speeds.append(steps * args.batch / (time.perf_counter() - started))
    return speeds


def loop_step(args: argparse.Namespace, batch: Any, network: Any, optimizer: Any, loss: Any) -> None:
    inputs, targets = (part.to(args.device, non_blocking=True) for part in batch)
    with half(args.device):
        outputs = network(inputs)
    loss(outputs, targets).backward()
    optimizer.step()
    optimizer.zero_grad()


def endless_loop(args: argparse.Namespace) -> Iterator[None]:
    """A step of the loop each time."""
    network, optimizer, loss = network_and_optimizer(args)
    loader = data_loader(args)
    network.train()
    while True:
        for batch in loader:
            loop_step(args, batch, network, optimizer, loss)
            yield


def measure_timm(args: argparse.Namespace) -> list[float]:
    from timm.data import create_loader
    from timm.optim import create_optimizer_v2

    network, _, loss = network_and_optimizer(args)
    optimizer = create_optimizer_v2(network, opt="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4)
    dataset = images(args)
    transform = dataset.transform
    loader = create_loader(
        dataset, (3, 32, 32), args.batch, is_training=True, use_prefetcher=False, num_workers=2, mean=MEAN, std=STD
    )
    loader.dataset.transform = transform  # timm's own would crop and resize at random
    return looped(args, loader, network, optimizer, loss)


def measure_fastai(args: argparse.Namespace) -> list[float]:
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import SGD
    from torch.utils.data import Subset

    network, _, loss = network_and_optimizer(args)
    speeds: list[float] = []

    class Clock(Callback):  # type: ignore[misc]
        def before_train(self) -> None:
            self.started, self.steps = time.perf_counter(), 0

        def after_batch(self) -> None:
            self.steps += self.training

        def after_train(self) -> None:
            wait_for(args.device)
            speeds.append(self.steps * args.batch / (time.perf_counter() - self.started))

    dataset = images(args)
    if args.steps:
        dataset = Subset(dataset, range(min(args.steps * args.batch, len(dataset))))
    few = Subset(dataset, range(args.batch))
    data = DataLoaders.from_dsets(dataset, few, bs=args.batch, num_workers=2, drop_last=True, device=args.device)
    learner = Learner(data, network, loss_func=loss, opt_func=SGD, cbs=[Clock()])
    if args.device.startswith("cuda"):
        learner.to_bf16()
    with learner.no_logging():
        learner.fit(args.epochs, 0.05)
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
    on_gpu = args.device.startswith("cuda")
    trainer = lightning.Trainer(
        max_epochs=args.epochs, accelerator="gpu" if on_gpu else "cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_train_batches=args.steps or 1.0, precision="bf16-mixed" if on_gpu else "32-true",
    )  # fmt: skip
    trainer.fit(module, data_loader(args))
    return module.speeds


CONTESTANTS = {
    "compute": measure_compute, "dltrain": measure_dltrain, "loop": measure_loop, "lightning": measure_lightning,
    "fastai": measure_fastai, "timm": measure_timm,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder that holds cifar-10-batches-py")
    parser.add_argument("--model", default="lenet", choices=list(MODELS))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2, help="the first one is left out")
    parser.add_argument("--steps", type=int, default=None, help="steps an epoch; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--precision", default="auto", help="dltrain's and compute's; auto, float32, ...")
    parser.add_argument("--threads", default="auto", help="dltrain's `training.threads`; auto, probe or a number")
    parser.add_argument("--alternate", type=int, metavar="N", help="compute, dltrain and loop in one process, N times")
    parser.add_argument("--tiny", action="store_true", help="synthetic images and a few steps")
    parser.add_argument("--only", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    parser.add_argument("--round", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.data, args.examples = "cifar10", 0
    if args.tiny:
        args.data, args.examples, args.batch, args.steps, args.rounds = "synthetic", 400, 32, 4, 1
    if args.only:
        print(json.dumps(CONTESTANTS[args.only](args)))
        return
    if args.alternate:
        args.epochs, args.steps = 10_000, None  # it does not get there
        speeds = alternate(args)
        print(f"{args.model}, batch {args.batch}, {args.data}, {args.device}; {machine()}, {args.alternate} rounds")
        for name, values in speeds.items():
            print(f"{name:<10} {spread(values, ',.0f')} images/s")
        for name in ("compute", "loop"):
            print(f"dltrain / {name} = {quarters(speeds['dltrain'], speeds[name])}")
        return
    names = installed(args.contestants, {"lightning": "lightning", "fastai": "fastai", "timm": "timm"})
    speeds = {name: [speed for run in runs for speed in run[1:]] for name, runs in in_turn(names, args.rounds).items()}
    print(f"{args.model}, batch {args.batch}, {args.data}, {args.device}; {machine('lightning', 'fastai', 'timm')}, "
          f"{args.rounds} rounds")  # fmt: skip
    for name, values in speeds.items():
        line = f"{name:<10} {spread(values, ',.0f')} images/s"
        if name != "dltrain" and "dltrain" in speeds:
            line += f"   dltrain / {name} = {ratio(speeds['dltrain'], values)}"
        print(line)


if __name__ == "__main__":
    main()
