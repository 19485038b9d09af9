"""`compare`: what differs between runs, in their settings and in their results, and whether that is more than chance.

runs -> tables of the same examples, those that `eval` kept or measured now -> paired tests -> text, JSON, Markdown
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dltrain.commands.compare_forms import FORMS, Against, Compared, Form, Side, letter_of
from dltrain.commands.evaluate import measure_runs
from dltrain.commands.resuming import SHOWING, changed
from dltrain.commands.several import Member, Several, pooled_side, several_at
from dltrain.console.display import Display
from dltrain.console.streams import print_result
from dltrain.errors import RunError
from dltrain.evidence.comparing import compare, scores
from dltrain.evidence.examples import read_examples
from dltrain.evidence.paired import holm
from dltrain.experiment.experiment import Experiment
from dltrain.runs.run import Run

UNTOLD = ("name", "sweep", *SHOWING)
"""Keys that change no training: nothing is said of them."""


def compare_runs(paths: Sequence[str], split: str, device: str, form: Form, display: Display) -> Compared:
    """Compare the runs or checkpoints at `paths`, and print what is found. See `compared`.

    Raises RunError when there are less than two, and like `compared`.
    """
    if len(paths) < 2:
        raise RunError("compare takes two runs or more: dltrain compare RUN RUN ...")
    found = compared(paths, split, device, display)
    print_result(FORMS[form](found))
    return found


def compared(paths: Sequence[str], split: str, device: str, display: Display, *, partly: bool = False) -> Compared:
    """The runs or checkpoints at `paths` on `split`, each but the first against the first; or a single one.

    partly: whether the finished runs of a folder will do. Raises RunError for runs of different tasks, and like
    `measure_runs`.
    """
    sides = [
        side_of(path, letter_of(number), split, device, display, partly=partly) for number, path in enumerate(paths)
    ]
    require_one_task(sides)
    scored = {side.letter: scores(side.table, side.metrics) for side in sides}
    return Compared(split, sides, scored, _against(sides), settings_of([side.experiment for side in sides]))


# -- what is compared


def side_of(path: str, letter: str, split: str, device: str, display: Display, *, partly: bool = False) -> Side:
    """A run with its table: the one that `eval` kept of its best checkpoint, or it is measured now. A folder of
    several is one too: on validation every example of folds as it is answered out of fold, else the ensemble."""
    if (several := several_at(path)) is not None:
        members = several.finished() if partly else several.require_whole()
        return _of_several(several, members, letter, split, device, display)
    run, file = Run.open(path)
    side = _kept(run, path, letter, split) if file is None else None
    if side is not None:
        return side
    display.line(f"measuring {path} on {split}")
    measured = measure_runs([path], split, "best", device, display)[0]
    if measured.table is None:
        raise RunError(f"{path}: the {split} split has too many outputs to compare its examples")
    if (side := _kept(run, path, letter, split) if file is None else None) is not None:
        return side  # as it is read from now on
    if file is None:
        experiment = Experiment.load(run.path / "experiment.yaml")
    else:
        experiment = Experiment.parse(run.checkpoint_at(file)[1]["about"]["experiment"], str(file))
    return Side(path, letter, experiment, measured.result, measured.table, measured.digest)


def _of_several(
    several: Several, members: Sequence[Member], letter: str, split: str, device: str, display: Display
) -> Side:
    paths = [str(member.path) for member in members]
    if several.kind == "folds" and split == "validation":
        sides = [side_of(path, letter, split, device, display) for path in paths]
        return pooled_side(several, letter, members, sides)
    if several.kind == "folds" and split == "train":
        raise RunError(f"the folds in {several.path} were trained on different parts: --split validation or test")
    if len(paths) == 1:
        return replace(side_of(paths[0], letter, split, device, display), path=str(several.path))
    display.line(f"measuring {several.path} on {split}, together")
    measured = measure_runs(paths, split, "best", device, display)[-1]
    if measured.table is None:
        raise RunError(f"{several.path}: the {split} split has too many outputs to compare its examples")
    about = {"checkpoint": f"ensemble of {len(paths)}", **measured.result}
    experiment = Experiment.load(members[0].path / "experiment.yaml")
    return Side(str(several.path), letter, experiment, about, measured.table, measured.digest, len(paths))


def require_one_task(sides: Sequence[Side]) -> None:
    """Raise RunError for runs of different tasks."""
    tasks = [side.experiment.resolved_task.name for side in sides]
    if len(set(tasks)) > 1:
        listed = ", ".join(f"{side.path} {task}" for side, task in zip(sides, tasks, strict=True))
        raise RunError(f"the runs have different tasks, and no metric in common: {listed}")


def _kept(run: Run, path: str, letter: str, split: str) -> Side | None:
    """What `eval` kept of the best checkpoint as it is now; None where it kept nothing, or of an earlier one."""
    about = run.read_json(f"eval/{split}.json")
    name, digest = about.get("table"), about.get("examples_digest")
    checkpoint = run.best if run.best.exists() else run.last
    if not isinstance(name, str) or not isinstance(digest, str) or os.path.basename(name) != name:  # noqa: PTH119
        return None
    file = run.path / "eval" / name
    if not file.is_file() or not checkpoint.exists() or checkpoint.stat().st_mtime > file.stat().st_mtime:
        return None
    experiment = Experiment.load(run.path / "experiment.yaml")
    table = read_examples(file, experiment.resolved_task.outcomes())
    loss, found = about.get("loss"), float(table.losses.mean())
    belongs = isinstance(loss, (int, float)) and math.isclose(loss, found, rel_tol=1e-4, abs_tol=1e-6)
    if len(table) != about.get("examples") or not (belongs or (loss is None and not math.isfinite(found))):
        again = f"dltrain eval {shlex.quote(path)} --split {split}"
        raise RunError(f"{file} is not the table of {run.path / 'eval' / split}.json: measure again with {again}")
    return Side(path, letter, experiment, about, table, digest)


def _against(sides: Sequence[Side]) -> list[Against]:
    """Every run but the first against the first; several tests are judged together (Holm)."""
    first, *others = sides
    found = [compare(first.table, side.table, first.metrics) if not _apart(first, side) else None for side in others]
    places = [number for number, each in enumerate(found) if each is not None]
    adjusted = dict(zip(places, holm([each.p for each in found if each is not None]), strict=True))
    return [
        Against(side, each, adjusted.get(number, math.nan), _apart(first, side))
        for number, (side, each) in enumerate(zip(others, found, strict=True))
    ]


def _apart(first: Side, side: Side) -> str:
    """Why two runs were not measured on the same examples; empty where they were."""
    mark, other = (each.about.get("data_fingerprint") for each in (first, side))
    pair = f"{first.letter} and {side.letter}"
    if mark != other:
        return f"the data or the splits of {pair} are different ones ({mark} and {other}): there is no paired test"
    if first.digest != side.digest or len(first.table) != len(side.table):
        return f"{pair} were measured on other examples, or in another order: there is no paired test"
    return ""


def settings_of(experiments: Sequence[Experiment]) -> dict[str, list[Any]]:
    """The value of each experiment by dotted key, where one differs from the first."""
    found = [changed(experiments[0], experiment) for experiment in experiments]
    keys = dict.fromkeys(key for each in found for key in each)
    told = [key for key in keys if not any(key == none or key.startswith(f"{none}.") for none in UNTOLD)]
    own = {key: next(each[key][0] for each in found if key in each) for key in told}
    return {key: [each[key][1] if key in each else own[key] for each in found] for key in told}
