"""How often sets of classes with a stated coverage hold the true class, where validation has also chosen the epoch.

    python benchmarks/conformal.py --root FOLDER --repetitions 40 --output rows.jsonl
    python benchmarks/conformal.py --tiny

FOLDER holds Fashion-MNIST's files. Each repetition draws 8,000 images of its training file to train with (a quarter of
them validates) and 10,000 others to try the sets on; its own test file is tried too. Sets are those of `predict
--abstain`, by the validation split, which has chosen the best epoch and, where it says so, the temperature. By the
theory examples like those of validation are covered in ceil((n + 1)(1 - alpha)) / (n + 1) of all cases, over many
repetitions. `fresh`: sets by 2,000 images that nothing else was chosen with, for comparison. A repetition that is in
the output file already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from defaults import fashion

import dltrain
from dltrain import Experiment
from dltrain.commands.calibrate import calibrate_runs
from dltrain.commands.fit import fit
from dltrain.console.display import Display
from dltrain.engine.calibrating import ConformalSets

ALPHAS = (Fraction(1, 10), Fraction(1, 20), Fraction(1, 100))
WAYS = {"fresh": "best", "last epoch": "last", "best epoch": "best", "best epoch, temperature": "calibrated"}
"""Which network answers, by what its sets rest on."""
TRAINED, VALIDATING, TRIED = 8_000, 0.25, 5_000
EXPERIMENT = """
data: {{name: arrays, path: {path}, test: 0.0, validation: {validating}, copies: allow}}
model: {{name: mlp, hidden: [64]}}
optimizer: {{name: adam, lr: 0.003}}
schedule: constant
training: {{epochs: {epochs}, batch_size: 64, threads: 1, precision: float32}}
seed: {seed}
recorders: []
"""


def images(root: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) uint8 and targets (N,) of one of the two files."""
    raw = fashion(root, part)
    return raw.data.numpy(), raw.targets.numpy()


def true(model: Any, pixels: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The probability of the true class of each example (N,). pixels: (N, 28, 28)."""
    found = model.predict(pixels[..., None], batch_size=500).probabilities
    return np.asarray(found[np.arange(len(targets)), targets], dtype=np.float64)


def covered(calibration: np.ndarray, asked: np.ndarray) -> dict[str, float]:
    """The share of true classes that are in the sets, by alpha."""
    least = {str(float(alpha)): ConformalSets.of(calibration, alpha).least for alpha in ALPHAS}
    return {alpha: float((asked >= bound).mean()) for alpha, bound in least.items()}


def repetition(seed: int, pool: Any, test: Any, folder: Path, *, tiny: bool) -> dict[str, Any]:
    """Coverage by where it is tried, by way and by alpha; and the epoch that was chosen."""
    pixels, targets = pool
    counts = (1_000, 200, 400) if tiny else (TRAINED, round(TRAINED * VALIDATING), TRIED)
    order = np.random.default_rng(seed).permutation(len(targets))
    own, fresh, tried = np.split(order[: sum(counts)], np.cumsum(counts)[:2])
    path = folder / f"{seed}.npz"
    np.savez(path, images=pixels[own], labels=targets[own], classes=np.array([str(i) for i in range(10)]))
    text = EXPERIMENT.format(path=path, validating=VALIDATING, epochs=1 if tiny else 10, seed=seed)
    experiment = Experiment.parse(text, "conformal")
    _, run = fit(experiment, folder / f"run-{seed}", "cpu", Display())
    validation: Any = experiment.load_data().validation
    held = validation.images[:, 0], validation.targets
    models = {"last": dltrain.load(run.last, device="cpu"), "best": dltrain.load(run.path, device="cpu")}
    calibrate_runs([str(run.path)], "best", "cpu", Display())
    models["calibrated"] = dltrain.load(run.path, device="cpu")
    asked = {"held": held, "fresh": (pixels[fresh], targets[fresh]), "training file": (pixels[tried], targets[tried]),
             "test file": test}  # fmt: skip
    said = {(name, part): true(model, *examples) for name, model in models.items() for part, examples in asked.items()}
    found: dict[str, Any] = {"best_epoch": run.read_json("result.json").get("best_epoch")}
    for where in ("training file", "test file"):
        found[where] = {
            way: covered(said[name, "fresh" if way == "fresh" else "held"], said[name, where])
            for way, name in WAYS.items()
        }
    path.unlink()
    return found


def main() -> None:
    """Try what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--output", type=Path, help="file of results, which later calls continue")
    parser.add_argument("--tiny", action="store_true", help="as little as shows that this script works")
    given = parser.parse_args()
    if given.tiny:
        draw = np.random.default_rng(0)
        pool, test = (_drawn(draw, count) for count in (1_600, 300))
    else:
        pool, test = (images(given.root, part) for part in ("train", "t10k"))
    rows: dict[int, dict[str, Any]] = {}
    if given.output is not None and given.output.exists():
        rows = {row["seed"]: row for row in map(json.loads, given.output.read_text().splitlines())}
    seeds = range(2 if given.tiny else given.repetitions)
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            if seed not in rows:
                rows[seed] = {"seed": seed, **repetition(seed, pool, test, Path(folder), tiny=given.tiny)}
                if given.output is not None:
                    with given.output.open("a") as file:
                        file.write(json.dumps(rows[seed]) + "\n")
    count = 200 if given.tiny else round(TRAINED * VALIDATING)
    show([rows[seed] for seed in seeds], count)


def _drawn(draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes at ten places, in noise; a quarter of the targets is wrong."""
    targets = draw.integers(0, 10, count)
    pixels = draw.integers(0, 200, (count, 28, 28), dtype=np.uint8)
    for row, target in enumerate(targets):
        pixels[row, 2 * target : 2 * target + 8] //= 2
    targets[::4] = draw.integers(0, 10, len(targets[::4]))
    return pixels, targets


def show(rows: list[dict[str, Any]], count: int) -> None:
    """A line for each place and way: mean coverage, with its standard error over repetitions."""
    stated = [math.ceil((count + 1) * (1 - alpha)) / (count + 1) for alpha in ALPHAS]
    print(f"{len(rows)} repetitions, {count} validation images: mean coverage and its standard error, in percent")
    print(f"{'tried on':<15}{'sets by':<26}" + "".join(f"{f'alpha {float(alpha):g}':>16}" for alpha in ALPHAS))
    print(f"{'':<15}{'by the theory':<26}" + "".join(f"{100 * share:>16.2f}" for share in stated))
    for where in ("training file", "test file"):
        for way in WAYS:
            cells = []
            for alpha in ALPHAS:
                values = [100 * row[where][way][str(float(alpha))] for row in rows]
                cells.append(f"{statistics.fmean(values):.2f} +- {statistics.stdev(values) / len(values) ** 0.5:.2f}")
            print(f"{where:<15}{way:<26}" + "".join(f"{cell:>16}" for cell in cells))
    print("epochs that were chosen:", " ".join(str(row["best_epoch"]) for row in rows))


if __name__ == "__main__":
    main()
