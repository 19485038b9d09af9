"""`compare` of folders: several seeds of each setting, and whether the settings differ by more than their seeds do.

folders of runs -> a result a seed -> differences of the runs with the same seed -> text, JSON, Markdown
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dltrain.commands.compare import require_one_task, settings_of, side_of
from dltrain.commands.compare_forms import Form, Side, difference, ends, letter_of, line, number, setting
from dltrain.commands.several import several_at
from dltrain.console.display import Display
from dltrain.console.streams import print_result
from dltrain.errors import RunError
from dltrain.evidence.comparing import shown
from dltrain.evidence.intervals import LEVEL, Interval, of_mean
from dltrain.evidence.paired import Difference, holm, paired_t, sign_flip
from dltrain.runs.names import JOURNAL
from dltrain.tasks.impl.tables import aligned
from dltrain.tasks.metrics import Metric

SEED = "seed"
FEWEST = 2
"""Seeds of each side from which a difference can be more than chance."""


@dataclass(frozen=True)
class Group:
    """A folder with runs of one setting. runs: by their seeds."""

    path: str
    letter: str
    runs: Mapping[int, Side]

    @property
    def any_run(self) -> Side:
        """One of them."""
        return next(iter(self.runs.values()))

    def values(self, metric: str, seeds: Sequence[int]) -> list[float]:
        """What `eval` measured of the runs with these seeds."""
        found = [self.runs[seed].about.get(metric) for seed in seeds]
        return [float(value) if isinstance(value, (int, float)) else math.nan for value in found]


@dataclass(frozen=True)
class PairedSeeds:
    """A group against the first one. seeds: those that both have. p: of the metric that ranks, adjusted; sign_flip:
    the same of that metric without any assumption of a distribution. why: there is no comparison, if so."""

    group: Group
    seeds: Sequence[int]
    differences: Mapping[str, Difference]
    p: float
    sign_flip: float
    why: str

    def verdict(self, metric: Metric) -> str:
        """What is decided of the group, by the metric that ranks."""
        gain = self.differences[metric.name].value * (-1 if metric.direction == "min" else 1)
        if not self.p < 1 - LEVEL or not gain:  # never true of not-a-number
            return "undecided"
        return "better" if gain > 0 else "worse"

    def sentence(self, metric: Metric) -> str:
        """The same in words."""
        if self.why:
            return self.why
        verdict = self.verdict(metric)
        decided = verdict if verdict == "undecided" else f"{self.group.letter} is {verdict}"
        what = f"{metric.name} differs by {difference(self.differences[metric.name], metric)}"
        return f"over {len(self.seeds)} seeds {what}: {decided} ({shown(self.p)}, paired t test)"


@dataclass(frozen=True)
class SeedsCompared:
    """Groups, each but the first against the first. metrics: first the one that ranks."""

    split: str
    groups: Sequence[Group]
    metrics: Sequence[Metric]
    against: Sequence[PairedSeeds]
    settings: Mapping[str, Sequence[Any]]


def is_group(path: str) -> bool:
    """Whether a path is a folder of runs with different seeds, and neither a run, nor a sweep, nor one of folds."""
    folder, several = Path(path), several_at(path)
    if several is not None and several.kind == "folds":
        return False
    if not folder.is_dir() or (folder / "experiment.yaml").exists() or (folder / JOURNAL).exists():
        return False
    return any(folder.glob("*/experiment.yaml"))


def compare_groups(paths: Sequence[str], split: str, device: str, form: Form, display: Display) -> SeedsCompared:
    """Compare folders of runs, each with the first, on `split`, and print what is found. See `compared_groups`.

    Raises RunError when there are less than two, and like it.
    """
    if len(paths) < 2:
        raise RunError("compare takes two folders of runs or more: dltrain compare FOLDER FOLDER ...")
    found = compared_groups(paths, split, device, display)
    print_result(FORMS[form](found))
    return found


def compared_groups(paths: Sequence[str], split: str, device: str, display: Display) -> SeedsCompared:
    """The folders of runs at `paths` on `split`, each but the first against the first.

    Raises RunError when the runs of one differ by more than their seed, for different tasks, and like `measure_runs`.
    """
    groups = [_group(path, letter_of(place), split, device, display) for place, path in enumerate(paths)]
    require_one_task([group.any_run for group in groups])
    metrics = groups[0].any_run.metrics
    settings = settings_of([group.any_run.experiment for group in groups])
    settings.pop(SEED, None)
    return SeedsCompared(split, groups, metrics, _against(groups, metrics), settings)


def _group(path: str, letter: str, split: str, device: str, display: Display) -> Group:
    folders = sorted(file.parent for file in Path(path).glob("*/experiment.yaml"))
    sides = [side_of(str(folder), letter, split, device, display) for folder in folders if is_run(folder)]
    if not sides:
        raise RunError(f"{path} holds sweeps and no runs")
    for side in sides:
        differing = settings_of([sides[0].experiment, side.experiment])
        if others := [key for key in differing if key != SEED]:
            what = f"the runs in {path} differ in `{others[0]}`, such as {sides[0].path} and {side.path}"
            raise RunError(f"{what}\ncompare them one by one, or keep each setting in a folder")
    runs = {side.experiment.seed: side for side in sides}  # of equal seeds, which give equal weights, the last one
    return Group(path, letter, dict(sorted(runs.items())))


def is_run(folder: Path) -> bool:
    """Whether a folder with an experiment is that of a run, and no sweep's."""
    return not (folder / JOURNAL).exists()


def _against(groups: Sequence[Group], metrics: Sequence[Metric]) -> list[PairedSeeds]:
    """Every group but the first against the first, by the seeds that both have; several are judged together (Holm)."""
    first, *others = groups
    found = []
    for group in others:
        seeds = [seed for seed in first.runs if seed in group.runs]
        pair = f"{first.letter} and {group.letter}"
        marks = {side.about.get("data_fingerprint") for each in (first, group) for side in each.runs.values()}
        why = ""
        if len(seeds) < FEWEST:
            why = f"{pair} have too few seeds in common for a paired test: {len(seeds)}"
        elif len(marks) > 1:
            why = f"the data or the splits of {pair} are different ones: there is no paired test"
        differences, flipped = {}, math.nan
        if not why:
            pairs = {each.name: (first.values(each.name, seeds), group.values(each.name, seeds)) for each in metrics}
            differences = {name: paired_t(one, other) for name, (one, other) in pairs.items()}
            one, other = pairs[metrics[0].name]
            flipped = sign_flip(np.subtract(other, one).tolist())
        found.append(PairedSeeds(group, seeds, differences, math.nan, flipped, why))
    tested = [each for each in found if not each.why]
    adjusted = iter(holm([each.differences[metrics[0].name].p for each in tested]))
    return [
        each if each.why else PairedSeeds(
            each.group, each.seeds, each.differences, next(adjusted), each.sign_flip, each.why
        ) for each in found
    ]  # fmt: skip


# -- how it is told


def _mean(group: Group, metric: str) -> tuple[float, float, Interval]:
    """Mean, standard deviation and interval over the seeds of a group."""
    values = group.values(metric, list(group.runs))
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan, of_mean(values)


def as_json(found: SeedsCompared) -> str:
    """One object."""
    ranks = found.metrics[0]
    groups = []
    for group in found.groups:
        told = {metric.name: _mean(group, metric.name) for metric in found.metrics}
        groups.append({
            "path": group.path, "seeds": list(group.runs), "runs": [side.path for side in group.runs.values()],
            "metrics": {name: {"mean": number(mean), "deviation": number(spread), **ends(interval)}
                        for name, (mean, spread, interval) in told.items()},
        })  # fmt: skip
    comparisons: list[dict[str, Any]] = []
    for each in found.against:
        names = {"first": found.groups[0].path, "second": each.group.path, "paired": not each.why}
        comparisons.append({**names, "why": each.why} if each.why else {
            **names, "metric": ranks.name, "seeds": each.seeds, "p": number(each.differences[ranks.name].p),
            "p_adjusted": number(each.p), "p_sign_flip": number(each.sign_flip), "verdict": each.verdict(ranks),
            "sentence": each.sentence(ranks),
            "differences": {name: {"value": number(one.value), **ends(one.interval), "p": number(one.p)}
                            for name, one in each.differences.items()},
        })  # fmt: skip
    whole = {"split": found.split, "groups": groups, "settings": found.settings, "comparisons": comparisons}
    return json.dumps(whole, ensure_ascii=False)


def _mean_text(group: Group, metric: Metric) -> str:
    mean, _, interval = _mean(group, metric.name)
    low, high = (f"{value:{metric.format}}" for value in (interval.low, interval.high))
    return f"{mean:{metric.format}} ({low} to {high})"


def as_text(found: SeedsCompared) -> str:
    """Lines for a terminal."""
    letters = [group.letter for group in found.groups]
    lines = [f"{each.letter}  {each.path}, seeds {', '.join(map(str, each.runs))}" for each in found.groups]
    rows = [[key, *map(setting, values)] for key, values in found.settings.items()]
    told = aligned(["what differs", *letters], rows, widest=60) if rows else ["nothing differs in their settings"]
    cells = [
        [f"{g.letter} on {found.split}", *(_mean_text(g, metric) for metric in found.metrics)] for g in found.groups
    ]
    for each in found.against:
        if not each.why:
            changes = [difference(each.differences[metric.name], metric) for metric in found.metrics]
            cells.append([f"{each.group.letter} - {letters[0]}, {len(each.seeds)} pairs", *changes])
    table = aligned(["means over seeds, 95 %", *(metric.name for metric in found.metrics)], cells)
    return "\n".join([*lines, "", *told, "", *table, "", *sentences(found)])


def as_markdown(found: SeedsCompared) -> str:
    """A table, a row a folder, and what is decided below it."""
    ranks = found.metrics[0]
    titles = ["runs", "seeds", *(metric.name for metric in found.metrics), f"difference in {ranks.name}", "test"]
    lines = [line(titles), line(["---"] * len(titles))]
    against = {each.group.letter: each for each in found.against if not each.why}
    for group in found.groups:
        cells = [f"`{group.path}`", str(len(group.runs)), *(_mean_text(group, metric) for metric in found.metrics)]
        if group.letter in against:
            each = against[group.letter]
            cells += [difference(each.differences[ranks.name], ranks), shown(each.p)]
        lines.append(line([*cells, *[""] * (len(titles) - len(cells))]))
    names = ", ".join(f"{group.letter} `{group.path}`" for group in found.groups)
    return "\n".join(
        [*lines, "", f"{names}; {found.split} split, means over seeds with 95 % intervals.", *sentences(found)]
    )


def sentences(found: SeedsCompared) -> list[str]:
    """What is decided, one of each comparison."""
    told = [each.sentence(found.metrics[0]) for each in found.against]
    adjusted = sum(not each.why for each in found.against)
    note = [f"p is adjusted for {adjusted} comparisons (Holm)."] if adjusted > 1 else []
    return [*(f"{text[0].upper()}{text[1:]}." for text in told), *note]


FORMS: dict[Form, Callable[[SeedsCompared], str]] = {"text": as_text, "json": as_json, "markdown": as_markdown}
