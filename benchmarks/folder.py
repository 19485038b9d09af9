"""Images per second from a folder of JPEG files to augmented batches: random resized crop and flip, no network.

    python benchmarks/folder.py --root photos --size 96 224     # root/train/<class>/*.jpg, or root/<class>/*.jpg
    python benchmarks/folder.py --tiny                          # a few generated files, to try it out

Contestants, each in a process of its own, in turn, several rounds:
    cached     dltrain with `data.cache: true`: its first epoch makes the cache, the others read it
    streaming  dltrain without: files are decoded in every epoch
    loop       DataLoader (2 workers) over ImageFolder with torchvision's v2 transforms, as its documentation has them
    timm       timm's create_loader (2 workers) with its default transforms for training, of the same two kinds
    decode     what decoding the files costs alone, with Pillow in one thread: images/s

On a machine whose speed changes from one minute to the next, `--alternate N` times 12 batches of `streaming` and 12 of
`loop`, N times, inside one process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from contest import in_turn, installed, machine, quarters, ratio, spread

BLOCK, AHEAD = 12, 5
"""Batches that are timed together, and those before them that may have been decoded earlier: two by each worker."""
EXPERIMENT = """
data: {{name: image_folder, root: {root}, size: {size}, validation: 0, test: 0.0, loader: streaming, cache: {cache}}}
augmentation: [random_resized_crop, horizontal_flip]
model: convnet
training: {{batch_size: {batch}, epochs: {epochs}, clip_norm: null}}
"""


Batches = Iterator[int]
"""Gives how many images a batch has, when it is on the device."""


def dltrain_batches(args: argparse.Namespace, cache: str) -> tuple[Batches, float]:
    """What `fit` does before the network: its loader and its pipeline, built from an ordinary experiment. And the
    seconds that making the cache took."""
    from dltrain import Experiment, build
    from dltrain.commands.pack import pack
    from dltrain.console.display import Display

    text = EXPERIMENT.format(root=args.root, size=args.size[0], cache=cache, batch=args.batch, epochs=args.epochs)
    experiment = Experiment.parse(text)
    started = time.perf_counter()
    if cache != "false":
        pack(experiment, Display(quiet=True))
    made = time.perf_counter() - started
    trainer = build(experiment, args.device)

    def batches() -> Batches:
        for step, batch in enumerate(trainer.parts.train.batches(0)):
            yield len(trainer.parts.pipeline.train(batch, step)[0])

    return closing_after(batches(), trainer), made


def closing_after(batches: Batches, trainer: Any) -> Batches:
    try:
        yield from batches
    finally:
        trainer.close()


def loop_batches(args: argparse.Namespace) -> Batches:
    import torch
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2

    transform = v2.Compose([
        v2.PILToTensor(), v2.RandomResizedCrop(args.size[0], antialias=True), v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    return on_device(args, DataLoader(
        all_epochs(args, transform), args.batch, shuffle=True, num_workers=2, drop_last=True,
        pin_memory=args.device.startswith("cuda"),
    ))  # fmt: skip


def timm_batches(args: argparse.Namespace) -> Batches:
    from timm.data import create_loader

    size = args.size[0]
    loader = create_loader(
        all_epochs(args), (3, size, size), args.batch, is_training=True, use_prefetcher=False, num_workers=2,
        persistent_workers=False, color_jitter=None,
    )  # fmt: skip
    for part in loader.dataset.datasets:  # it gives its transform to the outer data set
        part.transform = loader.dataset.transform
    return on_device(args, loader)


def on_device(args: argparse.Namespace, loader: Any) -> Batches:
    for images, _ in loader:
        yield len(images.to(args.device, non_blocking=True))


def all_epochs(args: argparse.Namespace, transform: Any = None) -> Any:
    """All epochs in one data set: between two, a DataLoader would pause, which matters where there are few images."""
    from torch.utils.data import ConcatDataset

    return ConcatDataset([image_folder(args, transform)] * args.epochs)


def image_folder(args: argparse.Namespace, transform: Any = None) -> Any:
    from torchvision.datasets import ImageFolder

    split = Path(args.root, "train")
    return ImageFolder(split if split.is_dir() else args.root, transform)


def epochs_of(args: argparse.Namespace, batches: Batches, spent: float = 0.0) -> list[float]:
    """Images per second of each epoch; of the first one with the start of the workers, and what was spent before."""
    speeds, steps = [], len(image_folder(args)) // args.batch
    started = time.perf_counter() - spent
    for _ in range(args.epochs):
        count = sum(islice(batches, steps))
        wait_for(args.device)
        speeds.append(count / (time.perf_counter() - started))
        started = time.perf_counter()
    return speeds


def measure_cached(args: argparse.Namespace) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        return epochs_of(args, *dltrain_batches(args, folder))


def measure_streaming(args: argparse.Namespace) -> list[float]:
    return epochs_of(args, *dltrain_batches(args, "false"))


def measure_loop(args: argparse.Namespace) -> list[float]:
    return epochs_of(args, loop_batches(args))


def measure_timm(args: argparse.Namespace) -> list[float]:
    return epochs_of(args, timm_batches(args))


def measure_decode(args: argparse.Namespace) -> list[float]:
    from dltrain.data.images.decoding import decode

    paths = [path for path, _ in image_folder(args).samples]
    speeds = []
    for _ in range(args.epochs):
        started = time.perf_counter()
        for path in islice(paths, 500):
            decode(path, 3)
        speeds.append(len(paths[:500]) / (time.perf_counter() - started))
    return speeds


def alternate(args: argparse.Namespace) -> dict[str, list[float]]:
    """Images per second of BLOCK batches each, of a stream and of the loop, in turn."""
    args.epochs = 1 + 2 * args.alternate * (BLOCK + AHEAD) * args.batch // len(image_folder(args))
    streams = {"streaming": dltrain_batches(args, "false")[0], "loop": loop_batches(args)}
    speeds: dict[str, list[float]] = {name: [] for name in streams}
    for number in range(args.alternate):
        for name in sorted(streams, reverse=number % 2 == 1):
            for _ in islice(streams[name], AHEAD):  # the first ones were decoded while the other one ran
                pass
            started = time.perf_counter()
            count = sum(islice(streams[name], BLOCK))
            wait_for(args.device)
            speeds[name].append(count / (time.perf_counter() - started))
    return speeds


def wait_for(device: str) -> None:
    """Let a GPU finish, for an honest clock."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


CONTESTANTS = {
    "cached": measure_cached,
    "streaming": measure_streaming,
    "loop": measure_loop,
    "timm": measure_timm,
    "decode": measure_decode,
}
NEEDS = {"timm": "timm"}


def generate(folder: Path, count: int) -> None:
    """JPEG files of mixed sizes in two classes."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(count):
        height, width = (int(side) for side in random.integers(100, 300, 2))
        pixels = random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        path = folder / "train" / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((width, height)).save(path)


def compete(args: argparse.Namespace, size: int) -> None:
    """Let all run at one size, and print their speeds and ratios."""
    names = installed(args.contestants, NEEDS)
    found = in_turn(names, args.rounds, ["--size", str(size), "--root", args.root])
    print(f"\n{size} pixels, images/s of the first epoch (cached: and of making the cache), of the later ones")
    for name, rounds in found.items():
        later = [statistics.harmonic_mean(speeds[1:]) for speeds in rounds]
        print(f"{name:<12} {spread([speeds[0] for speeds in rounds], ',.0f'):>30}  {spread(later, ',.0f'):>30}")
    for mine in ("cached", "streaming"):
        for rival in ("loop", "timm"):
            if mine in found and rival in found:
                first, later = (
                    ratio(*([statistics.harmonic_mean(s[part]) for s in found[name]] for name in (mine, rival)))
                    for part in (slice(0, 1), slice(1, None))
                )
                print(f"{mine} / {rival} = {first} in the first epoch, {later} later")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="the folder of images")
    parser.add_argument("--size", type=int, nargs="+", default=[96, 224], help="side of the augmented images in pixels")
    parser.add_argument("--device", default="cpu", help="where the batches go: cpu or cuda")
    parser.add_argument("--batch", type=int, default=64, help="images in a batch")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each contestant in each round")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contestant runs")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), help="who runs")
    parser.add_argument("--alternate", type=int, metavar="N", help="streaming and loop in one process, N times")
    parser.add_argument("--tiny", action="store_true", help="a few generated images, one round")
    parser.add_argument("--only", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--round", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny:
        args.size, args.epochs, args.rounds, args.batch = args.size[:1], 2, 1, 8
    if args.only:
        print(json.dumps(CONTESTANTS[args.only](args)))
        return
    print(machine("dltrain", "torchvision", "timm", "pillow"))
    with tempfile.TemporaryDirectory() as folder:
        if args.tiny:
            generate(Path(folder), 24)
            args.root = folder
        elif args.root is None:
            parser.error("--root is needed: a folder of images")
        for size in args.size:
            if args.alternate:
                args.size = [size]
                print(f"\n{size} pixels, images/s of {BLOCK} batches of {args.batch}, {args.alternate} times")
                speeds = alternate(args)
                for name, values in speeds.items():
                    print(f"{name:<12} {spread(values, ',.0f'):>30}")
                print(f"streaming / loop = {quarters(speeds['streaming'], speeds['loop'])}")
            else:
                compete(args, size)


if __name__ == "__main__":
    main()
