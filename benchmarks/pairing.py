"""How much fewer trainings decide whether a change helps, when both sides share seed, order, crops and starts.

    python benchmarks/pairing.py --problems digits fashion --root FOLDER --pairs 20 --output rows.jsonl
    python benchmarks/pairing.py --tiny

FOLDER holds Fashion-MNIST's files. A pair is the same experiment without and with a change, both with one seed. The
figure is the variance of the difference within pairs, as a share of the variance of a difference between trainings with
different seeds (the sum of the variances of both sides): 0.1 means that a tenth of the trainings tells as much. `per
layer`: the weights of each layer are drawn from its name and the seed, so that a change of one layer leaves the starts
of the others alone; these are trained last, and left out by --one-stream. A row that is in the output file already is
not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from defaults import subset

from dltrain import Experiment, build
from dltrain.data.random import derive_seed
from dltrain.data.types import Splits

BASE = """
augmentation: [{{name: random_crop, padding: 1}}]
model: {{name: convnet, widths: {widths}}}
optimizer: {{name: sgd, lr: 0.1, momentum: 0.9}}
training: {{epochs: {epochs}, batch_size: 64, threads: 1}}
recorders: []
"""
CHANGES: dict[str, dict[str, Any]] = {
    "label smoothing 0.1": {"loss.label_smoothing": 0.1},
    "gelu": {"model.activation": "gelu"},
    "lr 0.05": {"optimizer.lr": 0.05},
    "no crop": {"augmentation": []},
    "adamw": {"optimizer": {"name": "adamw"}},
    "group norm": {"model.norm": {"name": "group_norm", "groups": 4}},
    "wider last layer": {"model.widths": [8, 24]},
}
WIDTHS = [8, 16]


def experiment(problem: str, root: Path, folder: Path, *, tiny: bool) -> Experiment:
    """What both sides of a pair begin with."""
    epochs = 1 if tiny else 6 if problem == "digits" else 3
    data = "{name: digits, validation: 0.35}"
    if problem == "fashion":
        data = subset("fashion_mnist", root, folder, 2000)
    return Experiment.parse(f"data: {data}\n" + BASE.format(widths=WIDTHS, epochs=epochs), problem)


def trained(experiment: Experiment, splits: Splits, *, per_layer: bool) -> dict[str, float]:
    """The validation accuracy and loss after the last epoch. per_layer: whether each layer's start is its own draw."""
    trainer = build(experiment, device="cpu", splits=splits)
    if per_layer:
        for name, module in trainer.parts.model.named_modules():
            if hasattr(module, "reset_parameters"):
                torch.manual_seed(derive_seed(experiment.seed, 0, f"start of {name}"))
                module.reset_parameters()
    for _ in trainer.run():
        pass
    row = trainer.history[-1]
    trainer.close()
    return {name: row[f"validation/{name}"] for name in ("accuracy", "loss")}


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=["digits", "fashion"], default=["digits"])
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--one-stream", action="store_true", help="leave out starts that are drawn per layer")
    parser.add_argument("--output", type=Path, help="file of results, which later calls continue")
    parser.add_argument("--tiny", action="store_true", help="as little as shows that this script works")
    given = parser.parse_args()
    pairs, changes = (2, dict(list(CHANGES.items())[:1])) if given.tiny else (given.pairs, CHANGES)
    starts = (False,) if given.one_stream else (False, True)
    known: dict[tuple[Any, ...], dict[str, float]] = {}
    if given.output is not None and given.output.exists():
        for line in given.output.read_text().splitlines():
            row = json.loads(line)
            known[tuple(row["key"])] = row["result"]
    with tempfile.TemporaryDirectory() as folder:
        for problem in given.problems:
            base = experiment(problem, given.root, Path(folder), tiny=given.tiny)
            splits = base.load_data()
            for per_layer in starts:
                for seed in range(pairs):
                    for change in ("", *changes):
                        key = (problem, change, seed, per_layer)
                        if key not in known:
                            side = base.override_all({"seed": seed, **changes.get(change, {})})
                            known[key] = trained(side, splits, per_layer=per_layer)
                            if given.output is not None:
                                with given.output.open("a") as file:
                                    file.write(json.dumps({"key": key, "result": known[key]}) + "\n")
            show(problem, known, list(changes), pairs, starts)


def show(
    problem: str, known: dict[tuple[Any, ...], dict[str, float]], changes: list[str], pairs: int, starts: Sequence[bool]
) -> None:
    """A line for each change: the share of the variance that is left in pairs, of accuracy and loss, by start."""
    print(f"{problem}, {pairs} pairs: variance of a difference in pairs, as a share of that of unpaired trainings")
    head = ["accuracy", "loss", "accuracy, per layer", "loss, per layer"][: 2 * len(starts)]
    print(f"{'change':<22}{'difference':>12}" + "".join(f"{name:>21}" for name in head))
    for change in changes:
        shares, difference = [], 0.0
        for per_layer in starts:
            for metric in ("accuracy", "loss"):
                sides = [
                    [known[problem, side, seed, per_layer][metric] for seed in range(pairs)] for side in ("", change)
                ]
                differences = [b - a for a, b in zip(*sides, strict=True)]
                unpaired = sum(map(statistics.variance, sides))
                shares.append(statistics.variance(differences) / unpaired if unpaired else 0.0)
                if metric == "accuracy" and not per_layer:
                    difference = statistics.fmean(differences)
        print(f"{change:<22}{difference:>+12.4f}" + "".join(f"{share:>21.2f}" for share in shares))


if __name__ == "__main__":
    main()
