"""Peak memory, and seconds of start, step and checkpoint, against the size of data, batch and model.

    python benchmarks/memory.py                     # CPU
    python benchmarks/memory.py --device cuda
    python benchmarks/memory.py --alternate 100     # a step with 1x and with 16x the data, in one process
    python benchmarks/memory.py --tiny

Every case is a `dltrain fit` in a process of its own, on images of 3x32x32 that are made for it:
    data     1, 4 and 16 times as many examples; resident, and streamed from PNG files
    batch    1, 4 and 16 times as large
    model    LeNet, ResNet-20 and ResNet-18
Host memory is the largest resident set of the process, worker processes not included; device memory what torch's
allocator reached. The time of a step is the median epoch's, the first epoch left out; it must not grow with the data.
On a machine whose speed changes from one minute to the next, processes in turn cannot tell a tenth apart: with
`--alternate N`, two trainings on resident images take turns inside one process, N epochs each.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from contest import in_turn, machine, quarters, spread

TIMES = (1, 4, 16)
MODELS = {"lenet": "lenet5_modern", "resnet20": "resnet20", "resnet18": "{name: resnet18, stem: small}"}
EXPERIMENT = """
data: {data}
augmentation: [{{name: random_crop, padding: 4}}, horizontal_flip]
model: {model}
optimizer: {{name: sgd, lr: 1.0e-4}}
schedule: constant
training: {{epochs: {epochs}, batch_size: {batch}, limit_batches: {steps}, clip_norm: null}}
"""


def cases(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What is measured, by name: `examples`, `batch`, `model`, and whether images are streamed."""
    base = {"examples": args.examples, "batch": args.batch, "model": "lenet", "streaming": False}
    found: dict[str, dict[str, Any]] = {}
    for times in TIMES:
        for streaming in (False, True):
            name = f"data {times}x {'streaming' if streaming else 'resident'}"
            found[name] = {**base, "examples": args.examples * times, "streaming": streaming}
    for times in TIMES[1:]:
        found[f"batch {times}x"] = {**base, "batch": args.batch * times, "examples": args.examples * TIMES[-1]}
    for model in MODELS:
        found[f"model {model}"] = {**base, "model": model}
    return {name: case for name, case in found.items() if not args.cases or any(word in name for word in args.cases)}


def write_images(folder: Path, examples: int) -> None:
    """Folders of ten classes with PNG files of noise."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for number in range(examples // 10):
            pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / str(label) / f"{number:06d}.png", compress_level=1)


def measure(args: argparse.Namespace, examples: int, batch: int, model: str, streaming: bool) -> dict[str, float]:
    """A training of the case in this process: megabytes and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        data = f"{{name: synthetic, examples: {examples}, validation: 0}}"
        if streaming:
            write_images(Path(folder, "images"), examples)
            data = f"{{name: image_folder, root: {folder}/images, test: 0, size: 32, loader: streaming, validation: 0, "
            data += f"workers: {args.workers}}}"
        path = Path(folder, "memory.yaml")
        path.write_text(EXPERIMENT.format(data=data, model=MODELS[model], batch=batch, steps=args.steps, epochs=4))
        return fitted(path, args.device)


def fitted(path: Path, device: str) -> dict[str, float]:
    """What the training of an experiment took."""
    import time

    import torch

    from dltrain import Experiment
    from dltrain.commands.fit import fit
    from dltrain.console.display import Display

    started = time.perf_counter()
    code, run = fit(Experiment.load(path), None, device, Display(quiet=True), runs=path.parent / "runs")
    whole = time.perf_counter() - started
    if code:
        raise SystemExit(f"the training failed: {(run.path / 'log.txt').read_text()}")
    with (run.path / "metrics.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    steps = rows[0]["step"]
    seconds = [(row["seconds/data"] + row["seconds/compute"]) / steps for row in rows[1:]]
    result = run.read_json("result.json")
    scale = 1024.0 if sys.platform == "darwin" else 1.0
    return {
        "host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale * 1024 / 1e6,
        "device": torch.cuda.max_memory_allocated() / 1e6 if device.startswith("cuda") else 0.0,
        "start": whole - result["seconds"] + result["time"]["start"] + result["time"]["first_step"],
        "step": statistics.median(seconds) * 1000,
        "checkpoint": statistics.median(row["seconds/checkpoint"] for row in rows) * 1000,
        "file": run.last.stat().st_size / 1e6,
    }


def alternate(args: argparse.Namespace) -> list[list[float]]:
    """Milliseconds of a step in each epoch of trainings on resident images, 1x and 16x as many."""
    from dltrain import Experiment, build

    trainings, found = [], []
    for times in (TIMES[0], TIMES[-1]):
        data = f"{{name: synthetic, examples: {args.examples * times}, validation: 0, loader: resident}}"
        text = EXPERIMENT.format(
            data=data, model=MODELS["lenet"], batch=args.batch, steps=args.steps, epochs=args.alternate + 1
        )
        trainer = build(Experiment.parse(text), args.device)
        trainings.append((trainer, trainer.run()))
        found.append([0.0] * args.alternate)
    for number in range(args.alternate + 1):
        for (trainer, epochs), milliseconds in zip(trainings, found, strict=True):
            next(epochs)
            if number:  # the first epoch warms up
                report = trainer.history[-1]
                seconds = report["seconds/data"] + report["seconds/compute"]
                milliseconds[number - 1] = seconds / trainer.settings.steps_per_epoch * 1000
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--examples", type=int, default=2000, help="of the data at 1x")
    parser.add_argument("--batch", type=int, default=64, help="of the batch at 1x")
    parser.add_argument("--steps", type=int, default=20, help="steps an epoch, of 4 epochs")
    parser.add_argument("--workers", default="auto", help="processes that decode streamed images")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cases", nargs="+", help="only cases whose name has one of these words")
    parser.add_argument("--alternate", type=int, metavar="N", help="1x and 16x the data in one process, N epochs each")
    parser.add_argument("--tiny", action="store_true", help="a few steps of a few images")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--round", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny:
        args.examples, args.batch, args.steps, args.workers = 60, 4, 2, 0
    if args.alternate:
        small, large = alternate(args)
        print(f"{args.device}; {machine()}; {args.examples:,} and {args.examples * TIMES[-1]:,} examples, resident")
        print(f"ms a step: {spread(small)} and {spread(large)}")
        print(f"{TIMES[-1]}x / {TIMES[0]}x = {quarters(large, small)}")
        return
    known = cases(args)
    if args.only:
        print(json.dumps(measure(args, **known[args.only])))
        return
    found = in_turn(list(known), args.rounds)
    print(f"{args.device}; {machine()}; {args.examples} examples and batch {args.batch} at 1x, {args.rounds} rounds")
    print(f"{'':<20} host MB  device MB  start s  ms a step                 checkpoint ms  file MB")
    for name, rounds in found.items():
        of = {key: [measured[key] for measured in rounds] for key in rounds[0]}
        middle = {key: statistics.median(values) for key, values in of.items()}
        step = spread(of["step"])
        print(f"{name:<20} {middle['host']:>7,.0f}  {middle['device']:>9,.0f}  {middle['start']:>7.2f}  {step:<24}  "
              f"{middle['checkpoint']:>13.1f}  {middle['file']:>7.2f}")  # fmt: skip
    for kind in ("resident", "streaming"):
        small, large = (found.get(f"data {times}x {kind}") for times in (TIMES[0], TIMES[-1]))
        if small and large:
            growth = [b["step"] / a["step"] for a, b in zip(small, large, strict=True)]
            print(f"{kind}: time of a step, {TIMES[-1]}x / {TIMES[0]}x = {spread(growth)}")


if __name__ == "__main__":
    main()
