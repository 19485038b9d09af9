"""`fit --seeds N` and `fit --folds N`: several trainings of one experiment, one after another, as one result.

experiment -> members, each trained or continued as by `fit` alone -> measured on validation -> summary.json
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltrain.commands.evaluate import measure_runs
from dltrain.commands.fit import Plugins, fit, resume
from dltrain.commands.resuming import require_may_change
from dltrain.commands.several import (
    ABOUT,
    BASE,
    OUT_OF_FOLD,
    SUMMARY,
    Kind,
    Member,
    Several,
    out_of_fold,
    over,
    over_in_words,
    pooled_metrics,
)
from dltrain.commands.showing import require_libraries
from dltrain.console.display import Display
from dltrain.data.types import Splits
from dltrain.engine.torch_threads import TORCH_THREADS, forget_last_training
from dltrain.evidence.intervals import LEVEL
from dltrain.experiment.experiment import Experiment
from dltrain.runs.interrupts import Signals
from dltrain.runs.run import Run, next_free, unwritable


def fit_several(
    experiment: Experiment, kind: Kind, count: int, device: str, display: Display, *, runs: Path = Path("runs"),
    plugins: Plugins | None = None,
) -> tuple[int, Path]:  # fmt: skip
    """Train an experiment with `count` seeds (its own and the next ones), or on every one of `count` folds, in a new
    folder; the exit code and the folder.

    Raises ConfigError before anything is created when the data does not fit the experiment or cannot be divided so,
    RunError when the machine does not.
    """
    require_libraries(experiment)
    several = Several(runs / experiment.name, kind, count, device)
    trained = [experiment.override_all(member.values) for member in several.members(experiment)]
    loaded = Loaded()
    loaded.splits_of(trained[0])  # a mistake of the data comes before there is a folder
    folder = next_free(runs / experiment.name, f"{kind}-")
    several = Several(folder, kind, count, device)
    try:
        Run(folder).write(BASE, experiment.dump().encode())
        Run(folder).write_json(ABOUT, {"kind": kind, "count": count, "device": device})
    except OSError as error:
        raise unwritable(error, folder) from None
    return _train_all(several, experiment, loaded, None, display, plugins, ()), folder


def resume_several(
    several: Several, device: str | None, display: Display, *, plugins: Plugins | None = None,
    overrides: Sequence[str] = (),
) -> tuple[int, Path]:  # fmt: skip
    """Go on with those that are not finished; with overrides, such as a longer training, with all.

    Raises RunError and ConfigError like `resume`.
    """
    require_may_change(overrides, several.path / BASE)
    experiment = Experiment.load(several.path / BASE, overrides)
    if overrides:
        try:
            Run(several.path).write(BASE, experiment.dump().encode())
        except OSError as error:
            raise unwritable(error, several.path) from None
    return _train_all(several, experiment, Loaded(), device, display, plugins, overrides), several.path


class Loaded:
    """The data, read once for all trainings that have the same. None can read its test part."""

    def __init__(self) -> None:
        self._data: Any = None
        self._splits: Splits | None = None

    def splits_of(self, experiment: Experiment) -> Splits:
        """The splits of an experiment. Raises ConfigError when the data is missing or unfit."""
        if self._splits is None or self._data != experiment.data:
            self._data, self._splits = experiment.data, experiment.load_data().sealed()
        return self._splits


def _train_all(
    several: Several, experiment: Experiment, loaded: Loaded, device: str | None, display: Display,
    plugins: Plugins | None, overrides: Sequence[str],
) -> int:  # fmt: skip
    """Train what is left, and write the summary when all have come to an end; the exit code."""
    threads, members, failed = TORCH_THREADS.default, several.members(experiment), list[Member]()
    go_on = f"to go on: dltrain resume {shlex.quote(str(several.path))}"
    with Signals() as signals:
        for place, member in enumerate(members, start=1):
            if member.is_finished and not overrides:
                continue
            if signals.received is not None:  # between two trainings
                display.error(f"interrupted; {go_on}")
                return 128 + signals.received
            display.line(f"{member.name}, {place} of {several.count} {several.kind}")
            forget_last_training(threads)
            own = experiment.override_all(member.values)
            code, run = train_one(own, member.path, loaded, device or several.device, plugins, overrides)
            if code >= 128:
                display.line(f"{sum(each.is_finished for each in members)} of {several.count} are finished; {go_on}")
                return code
            if code:
                failed.append(member)
                if run.failure is not None and run.failure.of_machine:
                    display.line(f"the others would fail alike; {go_on}")
                    return code
    forget_last_training(threads)
    for member in failed:
        display.warning(f"{member.path} failed, and is not in the summary")
    done = [member for member in members if member.is_finished]
    if done:
        summarise(several, done, experiment, device or several.device, display)
    return 1 if failed else 0


def train_one(
    experiment: Experiment, path: Path, loaded: Loaded, device: str, plugins: Plugins | None,
    overrides: Sequence[str] = (),
) -> tuple[int, Run]:  # fmt: skip
    """One training in the directory `path`, from its beginning or its last checkpoint: the code and the run, as `fit`
    and `resume` give them."""
    splits = loaded.splits_of(experiment)
    if not (path / "experiment.yaml").is_file():
        return fit(experiment, path, device, Display(), plugins=plugins, splits=splits)
    own = None if device == "auto" else device
    return resume(str(path), own, Display(), plugins=plugins, overrides=overrides, splits=splits)


def summarise(
    several: Several, members: Sequence[Member], experiment: Experiment, device: str, display: Display
) -> dict[str, Any]:
    """Measure every run's best checkpoint on its validation split, or where there is none on its training split, write
    summary.json and, of folds, the table of all examples; and say what is found."""
    metrics = experiment.resolved_task.ranking()
    first = experiment.override_all(members[0].values)
    split = "validation" if first.load_data().validation is not None else "train"
    measured = [measure_runs([str(member.path)], split, "best", device, display)[0] for member in members]
    results = [each.result for each in measured]
    told = over(results, metrics)
    content: dict[str, Any] = {
        "kind": several.kind, "count": several.count, "split": split, "level": LEVEL, "metrics": told,
        "runs": [
            {"run": member.name, "seed": member.values.get("seed", experiment.seed), "step": result["step"],
             "examples": result["examples"], **{name: result[name] for name in told}}
            for member, result in zip(members, results, strict=True)
        ],
    }  # fmt: skip
    display.line(over_in_words(several.kind, len(members), told, metrics))
    folder = Run(several.path)
    try:
        table = out_of_fold(members, measured) if several.kind == "folds" else None
        if table is not None:
            ending, encoded, notes = table.encoded()
            for note in notes:
                display.tell(note)
            folder.write(f"{OUT_OF_FOLD}{ending}", encoded)
            values = pooled_metrics(table)
            content["out_of_fold"] = {"table": f"{OUT_OF_FOLD}{ending}", "examples": len(table), **values}
            texts = [metric.text(values[metric.name]) for metric in metrics if metric.name in values]
            display.line(f"out of fold, {len(table):,} examples: {', '.join(texts)}")
        folder.write_json(SUMMARY, content)
    except OSError as error:
        raise unwritable(error, several.path) from None
    return content
