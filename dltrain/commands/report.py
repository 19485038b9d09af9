"""`report`: one HTML file of what runs did and what the first of them answers.

runs -> tables of examples, those that `eval` kept or measured now; epochs; data; plan; environment -> the page
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltrain.commands.compare import compared, side_of
from dltrain.commands.compare_forms import Compared, Side, setting
from dltrain.commands.compare_seeds import compared_groups, is_group, sentences
from dltrain.commands.report_examples import Opened, augmented, faces_of, first_line, opened, samples
from dltrain.commands.several import BASE, Several, each_run, over, several_at
from dltrain.console.display import Display
from dltrain.console.streams import print_result
from dltrain.errors import DltrainError
from dltrain.evidence.comparing import Score, scores
from dltrain.evidence.examples import find_table
from dltrain.evidence.intervals import Interval
from dltrain.evidence.report.curves import SHARE, Training, shares_of
from dltrain.evidence.report.page import Result, Story, page
from dltrain.experiment.experiment import Experiment
from dltrain.planning import text
from dltrain.planning.plan import plan
from dltrain.runs.checkpoints import write_atomically
from dltrain.runs.recorders.csv import read_table
from dltrain.runs.run import Run, unwritable

PAGE = "report.html"
SPLITS = ("validation", "test", "train")
"""In the order in which they are chosen: the test split is not looked into unless it is asked for."""


def report_runs(paths: Sequence[str], split: str | None, output: Path | None, device: str, display: Display) -> Path:
    """Write the page of the runs or checkpoints at `paths`, and print its path. A folder of several seeds or folds is
    one result: what its runs answer together or, of folds on validation, out of fold.

    split: what the answers are measured on; None: validation, where there is one. output: the file; None: `report.html`
    in the first run or folder. Raises RunError like `compared`, and where the file cannot be written.
    """
    first = opened(each_run(paths[:1])[0])
    found = compared(paths, split or _usual_split(first), device, display, partly=True)
    target = output or (first.run.path if several_at(paths[0]) is None else Path(paths[0])) / PAGE
    story = _story(first, found, device, display)
    try:
        write_atomically(target, page(story).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise unwritable(error, target) from None
    print_result(str(target))
    return target


def _usual_split(first: Opened) -> str:
    """The first one that there is."""
    splits = first.splits
    if splits is None:
        kept = [name for name in SPLITS if find_table(first.run.path / "eval" / name) is not None]
        return kept[0] if kept else SPLITS[0]
    return next(name for name in SPLITS if getattr(splits, name) is not None)


def _story(first: Opened, found: Compared, device: str, display: Display) -> Story:
    side, missing = found.sides[0], [first.missing] if first.missing else []
    several = several_at(side.path)
    in_turn = several is not None and _is_out_of_fold(several, found.split)
    members = [first, *(opened(path) for path in each_run([side.path])[1:])] if several is not None else [first]
    faces = faces_of(members, side, found.split, device, missing, in_turn=in_turn)
    results, trainings = list[Result](), list[Training]()
    for each in found.sides:
        own, runs = _results(each, found, device, display, missing)
        results, trainings = [*results, *own], [*trainings, *runs]
    pairs, sketch = augmented(first, missing), _plan(first.experiment, missing)
    about = first.run.read_json("environment.json")
    experiment = several.experiment if several is not None else first.experiment
    return Story(
        title=f"{experiment.name}: {side.path}", split=found.split, where=_where(side, found.split),
        words=side.words, metrics=side.metrics, trainings=trainings, results=results, faces=faces,
        remarks=_remarks(found.sides), comparisons=_comparisons(found, device, display),
        sides=[each.letter for each in found.sides],
        settings={key: [*map(setting, values)] for key, values in found.settings.items()},
        augmented=pairs, samples=samples(first, device) if faces.redone is not None else [],
        plan=sketch, experiment=experiment.dump(), environment=_environment(about),
        decisions=[(name, setting(each.get("value")), str(each.get("reason", "")))
                   for name, each in about.get("decisions", {}).items()],
        repeat=_repeat(first, several, found), exact=_is_exact(experiment, about), missing=missing,
    )  # fmt: skip


def _is_out_of_fold(several: Several, split: str) -> bool:
    return several.kind == "folds" and split == "validation"


def _where(side: Side, split: str) -> str:
    """Which examples a side answers, and how."""
    several = several_at(side.path)
    if several is None:
        return f"of the {split} split"
    if _is_out_of_fold(several, split):
        return "out of fold, each answered by the run that was not trained on it"
    return f"of the {split} split, answered by the runs together"


def _results(
    side: Side, found: Compared, device: str, display: Display, missing: list[str]
) -> tuple[list[Result], list[Training]]:
    """What a side reaches and how its runs went; of a folder also the mean over its runs, and what each reaches."""
    several, many = several_at(side.path), len(found.sides) > 1
    letter = side.letter if many else ""
    if several is None:
        name = letter or "the run"
        return [Result(name, side.path, found.scores[side.letter])], [_training(side, name, letter)]
    members = several.finished()
    if len(members) < several.count:
        missing.append(f"{side.path}: {len(members)} of {several.count} {several.kind} are finished.")
    sides = [side_of(str(member.path), side.letter, found.split, device, display) for member in members]
    names = [f"{letter} {member.name}".strip() for member in members]
    how = "out of fold" if _is_out_of_fold(several, found.split) else "together"
    told = over([each.about for each in sides], side.metrics)
    mean = {name: Score(each["mean"], Interval(each["low"], each["high"]), "student") for name, each in told.items()}
    return [
        Result(f"{letter} {how}".strip(), side.path, found.scores[side.letter]),
        Result(f"{letter} mean over {len(members)} {several.kind}".strip(), "", mean),
        *(Result(name, each.path, scores(each.table, side.metrics)) for name, each in zip(names, sides, strict=True)),
    ], [_training(each, name, letter) for name, each in zip(names, sides, strict=True)]


def _remarks(sides: Sequence[Side]) -> list[str]:
    """What there is to know of means over runs."""
    kinds = [several.kind for side in sides if (several := several_at(side.path)) is not None]
    told = ["The interval of a mean is over runs (Student's); all others are over examples."] if kinds else []
    if "folds" in kinds:
        told.append("The training parts of folds overlap: an interval over folds is too narrow for new data.")
    return told


def _comparisons(found: Compared, device: str, display: Display) -> list[str]:
    """What is decided between the sides, a sentence each: of folders of seeds over their seeds, as `compare` does."""
    paths = [side.path for side in found.sides]
    if len(paths) > 1 and all(map(is_group, paths)):
        return sentences(compared_groups(paths, found.split, device, display))
    return [f"{each.sentence(found.sides[0])}." for each in found.against]


def _training(side: Side, name: str, group: str) -> Training:
    run = Run.open(side.path)[0]
    result = run.read_json("result.json")
    try:
        rows = read_table(run.path)
    except OSError:  # a checkpoint may lie anywhere
        rows = []
    seconds, best = result.get("seconds"), result.get("best_epoch")
    return Training(
        name, rows, shares_of(result), seconds if isinstance(seconds, (int, float)) else None,
        best if isinstance(best, int) else None, side.experiment.training.smoothing or SHARE, group,
    )  # fmt: skip


def _plan(experiment: Experiment, missing: list[str]) -> str:
    try:
        return text.render(plan(experiment, "cpu"), 100)
    except DltrainError as error:
        missing.append(f"The plan is not shown: {first_line(error)}")
        return ""


def _environment(about: dict[str, Any]) -> dict[str, str]:
    """environment.json by name, without the decisions."""
    command = about.get("command")
    found = {
        "began": about.get("started"), "command": shlex.join(map(str, command)) if isinstance(command, list) else None,
        "Python": about.get("python"), "platform": about.get("platform"), **about.get("packages", {}),
        "git commit": about.get("git_commit"), "seed": about.get("seed"), "data": about.get("data_fingerprint"),
        "plug-ins": ", ".join(about.get("plugins") or {}) or None,
    }  # fmt: skip
    return {name: str(value) for name, value in found.items() if value is not None}


def _is_exact(experiment: Experiment, about: dict[str, Any]) -> bool:
    device = about.get("decisions", {}).get("device", {}).get("value")
    return experiment.training.deterministic or not str(device).startswith("cuda")


def _repeat(first: Opened, several: Several | None, found: Compared) -> list[str]:
    paths = [shlex.quote(side.path) for side in found.sides]
    fit = f"dltrain fit {shlex.quote(str(first.run.path / 'experiment.yaml'))}"
    if several is not None:
        fit = f"dltrain fit {shlex.quote(str(several.path / BASE))} --{several.kind} {several.count}"
    return [
        fit,
        f"dltrain eval {paths[0]} --split {found.split}",
        f"dltrain report {' '.join(paths)} --split {found.split}",
    ]
