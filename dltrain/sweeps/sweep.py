"""`sweep`: search hyperparameters on the validation split.

    runs/<experiment>/sweep-NNN/
      experiment.yaml   journal.log   ranking.csv   best.yaml   trials/<NNN>/ (a run each)

A trial is an ordinary run, shortened; one that was interrupted is resumed. The directory is therefore all
that a sweep needs to go on.
"""

from __future__ import annotations

import contextlib
import csv
import gc
import io
import json
import math
import shutil
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from dltrain.commands.failures import judge
from dltrain.commands.fit import Hyperparameters, fit, resume
from dltrain.commands.resuming import PLACES, SHOWING
from dltrain.commands.showing import require_libraries, require_sampler
from dltrain.config import ConfigError
from dltrain.console.display import Display
from dltrain.engine.torch_threads import TORCH_THREADS
from dltrain.errors import RunError
from dltrain.experiment.experiment import Experiment
from dltrain.runs.checkpoints import is_sound, write_atomically
from dltrain.runs.interrupts import Signals
from dltrain.runs.reports import best_epoch
from dltrain.runs.run import JOURNAL, Failure, Run, next_free, unwritable
from dltrain.search import Sweep
from dltrain.sweeps.study import Outcome, Study

SHOWN = 10
"""Trials in the table on screen, which are also those that keep their checkpoints."""
MOST_ALIKE = 3
"""Failures of one kind in a row after which a sweep stops: what they have in common is not the setting."""
DOUBTFUL = ("memory", "lost process", "device")
"""Faults of the machine that a setting may bring about: when one meets the same trial again, the trial has failed."""


def is_sweep(folder: Path) -> bool:
    """Whether `folder` is the directory of a sweep."""
    return (folder / JOURNAL).is_file() and (folder / "experiment.yaml").is_file()


def run_sweep(
    experiment: Experiment, folder: Path, device: str, display: Display, plugins: dict[str, str] | None = None,
    *, retry_failed: bool = False,
) -> tuple[int, Path | None]:  # fmt: skip
    """Make every trial that is still missing; the exit code, and the path of best.yaml.

    folder: an earlier sweep's directory, or where a new one is made. plugins: path -> sha256. retry_failed: whether
    the trials that failed are made again, from their beginning.
    Raises ConfigError when the data is unfit, or the earlier sweep searched something else, and RunError
    when another process runs it or its directory cannot be written.
    """
    assert experiment.sweep is not None
    require_libraries(experiment)
    require_sampler(experiment, experiment.sweep)
    splits = experiment.load_data()  # before anything is created: unfit data would fail every trial
    for note in splits.remarks:
        display.tell(note)
    facts = {"data": splits.fingerprint, **_searched(experiment)}
    path = folder if is_sweep(folder) else next_free(folder, "sweep-")
    lock = FileLock(path / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{path} is being run by another process") from None
    except OSError as error:
        raise unwritable(error, path) from None
    try:
        assert experiment.sweep.metric is not None  # a checked experiment names it
        ranks = experiment.resolved_task.watched(experiment.sweep.metric)
        study = Study(path, experiment.sweep, ranks, experiment.seed)
        if study.mended is not None:
            display.warning(study.mended)
        _refuse_changes(experiment, study.remember(facts), facts, path)
        write_atomically(path / "experiment.yaml", experiment.dump().encode())
        examples = len(splits.train)
        del splits
        search = Search(experiment, experiment.sweep, study, path, examples, device, display, plugins or {})
        return search.run(retry_failed=retry_failed)
    except OSError as error:
        raise unwritable(error, path) from None
    finally:
        lock.release()


def _searched(experiment: Experiment) -> dict[str, Any]:
    """All that a trial depends on, by dotted key: the experiment without the number of trials and what is shown."""
    flat: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else name)
        else:
            flat[key] = value

    walk(experiment.model_dump(mode="json", exclude={"sweep": {"trials"}}), "")
    return {key: value for key, value in flat.items() if key not in SHOWING}


def _refuse_changes(experiment: Experiment, before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    absent = object()
    for key in {**before, **now}:
        was, is_ = before.get(key, absent), now.get(key, absent)
        if was == is_ or key in PLACES:  # the fingerprint says whether data that has moved is the same
            continue
        if was is absent and is_ is None:  # the sweep is older than the key
            continue
        if key == "data":
            message = f"the data has changed since the sweep began ({was} -> {is_})"
        else:
            values = ["not set" if value is absent else json.dumps(value) for value in (was, is_)]
            message = f"the trials of {path} were made with `{key}` {values[0]}; it cannot be {values[1]} now"
        what = "only `sweep.trials`, and where the data lies, can change"
        note = f"{what}; for anything else start a new sweep: dltrain sweep EXPERIMENT"
        raise experiment.error(key, message, note)


class Search:
    """The trials of one sweep, in order. examples: of the training split."""

    def __init__(
        self, experiment: Experiment, sweep: Sweep, study: Study, path: Path, examples: int, device: str,
        display: Display, plugins: dict[str, str],
    ) -> None:  # fmt: skip
        self.experiment, self.sweep, self.study, self.path = experiment, sweep, study, path
        self.examples, self.device, self.display, self.plugins = examples, device, display, plugins
        self.threads = TORCH_THREADS.default
        self.trials = min(sweep.trials, sweep.size() or sweep.trials)

    def run(self, *, retry_failed: bool = False) -> tuple[int, Path | None]:
        """Make the missing trials and report; the exit code, and the path of best.yaml."""
        if retry_failed:
            for index in self.study.forget_failures():
                shutil.rmtree(self.folder(index), ignore_errors=True)
        ranked = self.rank()
        missing = sorted(set(range(self.trials)) - {outcome.index for outcome in ranked})
        made = f", {len(ranked)} of them made" if ranked else ""
        self.display.line(f"{self.experiment.name}: {self.trials} trials{made} -> {self.path}", "bold")
        if note := self.sweep.exhausted():
            self.display.warning(note)
        if self.study.decision:
            self.display.line(self.study.decision)
        code, failures = 0, list[Failure]()
        with Signals() as signals:
            for place, index in enumerate(missing, 1):
                try:
                    code, failure = self.make(index, len(missing) - place)
                except KeyboardInterrupt:  # a second signal, where nothing could be saved
                    code, failure = 130, None
                if signals.received is not None:
                    code = 128 + signals.received
                if code:
                    break
                failures = [*failures, failure] if failure is not None else []
                if reason := self._why_stop(failures, len(missing) - place):
                    self.display.error(reason)
                    return 1, None
        if code >= 128:
            self.display.error(f"interrupted; {self._how_to_go_on}")
        return self.report() if not code else (code, None)

    def make(self, index: int, left: int) -> tuple[int, Failure | None]:
        """Make one trial and record it; 0 and why the setting failed, if it did, or the exit code of an interruption or
        of a fault of the machine."""
        trial, values = self.study.start(index)
        _forget_last_trial(self.threads)
        started = time.perf_counter()
        try:
            code, metrics, failure = self.train(index, values)
            if code >= 128:
                return code, None
            if failure is not None and failure.of_machine and self._stops(failure, index):
                self.study.set_aside(trial, failure.kind)
                self._say_machine_failed(failure, index)
                return 1, None
            seconds = round(time.perf_counter() - started, 3)
            outcome = Outcome(index, values, metrics, failure.why if failure is not None else None, seconds)
            self.study.finish(trial, outcome)
            ranked = self.rank()
        except OSError as error:  # where the sweep itself writes
            self._say_machine_failed(judge(error, self.path), index)
            return 1, None
        for loser in ranked[SHOWN:]:
            shutil.rmtree(self.folder(loser.index) / "checkpoints", ignore_errors=True)
        width = len(str(self.trials))
        parts = [f"trial {index + 1:>{width}}/{self.trials}", *(f"{k}={_short(v)}" for k, v in values.items())]
        if metrics is None:
            parts.append(f"failed: {outcome.reason}")
        else:
            parts.append(self.study.ranks.text(metrics))
        seconds = sum(o.seconds for o in ranked) / len(ranked)
        parts.append(f"{outcome.seconds:.1f} s" + (f", about {_duration(seconds * left)} left" if left else ""))
        self.display.line("  ".join(parts) + ("  *" if metrics is not None and ranked[0].index == index else ""))
        return 0, failure

    def train(self, index: int, values: dict[str, Any]) -> tuple[int, dict[str, float] | None, Failure | None]:
        """Train one setting: the exit code, and the metrics of its best epoch or why it has none."""
        folder, quiet, row = self.folder(index), Display(quiet=True), _plain(values)
        begun = (folder / "experiment.yaml").is_file()
        if begun and (last := Run(folder).last).exists() and not is_sound(last):  # by a fault of the disk
            shutil.rmtree(folder)
            begun = False
        try:
            if begun:
                device = None if self.device == "auto" else self.device
                values = self.experiment.model_dump(mode="json")["data"]
                where = [f"{key}={json.dumps(values[key[5:]])}" for key in PLACES if key[5:] in values]
                options: dict[str, Any] = {"hyperparameters": row, "overrides": where}
                code, run = resume(str(folder), device, quiet, plugins=self.plugins, **options)
            else:
                trial = self.shortened(self.experiment.without_sweep().override_all(values))
                code, run = fit(trial, folder, self.device, quiet, plugins=self.plugins, hyperparameters=row)
        except Exception as error:  # whatever a setting brings about, the others can still be tried
            failure = judge(error, folder)
            if begun and isinstance(error, RunError):  # it could be trained before
                failure = replace(failure, of_machine=True)
            if not isinstance(error, (ConfigError, RunError)):
                with contextlib.suppress(OSError):
                    folder.mkdir(parents=True, exist_ok=True)
                Run(folder).log(traceback.format_exc())
            return 1, None, failure
        if code:
            return code, None, run.failure
        history = run.checkpoint("last")[1]["history"]
        ranks = self.study.ranks
        best = best_epoch(history, ranks)
        if best is None or not math.isfinite(ranks.cost(history[best])):
            return 1, None, Failure("not a number", f"{ranks.tag} is not a number")
        return 0, {key: value for key, value in history[best].items() if math.isfinite(value)}, None

    def _stops(self, failure: Failure, index: int) -> bool:
        """Whether a fault of the machine stops the sweep; what may be the setting's doing does so once in a trial."""
        return failure.kind not in DOUBTFUL or failure.kind not in self.study.faults(index)

    def _say_machine_failed(self, failure: Failure, index: int) -> None:
        again = "the setting is not to blame: the trial is made again"
        if failure.kind in DOUBTFUL:
            again += ", and counts as failed if it happens again"
        self.display.error(f"trial {index + 1} was stopped: {failure.why}\n{again}; {self._how_to_go_on}")

    def _why_stop(self, failures: list[Failure], left: int) -> str | None:
        """Why the sweep stops after these failures in a row, the last ones made; None when it goes on."""
        kinds = {failure.kind for failure in failures[-MOST_ALIKE:]}
        if len(failures) < MOST_ALIKE or len(kinds) > 1 or not left:
            return None
        diverged = kinds == {"not a number"}
        if diverged and self.study.succeeded:  # a wide range has such settings: they are found out one by one
            return None
        advice = "narrow the search, such as the upper end of the learning rate" if diverged else "mend its cause"
        return (
            f"{MOST_ALIKE} trials in a row have failed alike: {failures[-1].why}\n{advice}, in a new sweep if the "
            f"experiment must change\nto make them again: dltrain sweep {self.path} --retry-failed\n"
            f"to go on with the others: dltrain sweep {self.path}"
        )

    @property
    def _how_to_go_on(self) -> str:
        return f"to go on: dltrain sweep {self.path}"

    def shortened(self, experiment: Experiment) -> Experiment:
        """`experiment` with the length of a trial, its schedule compressed."""
        if self.sweep.epochs is None:
            return experiment
        training = experiment.training
        if training.steps is None:
            return experiment.override("training.epochs", self.sweep.epochs)
        per_epoch = min(-(-self.examples // training.batch_of(self.examples)), training.limit_batches or sys.maxsize)
        return experiment.override("training.steps", max(round(self.sweep.epochs * per_epoch), 1))

    def folder(self, index: int) -> Path:
        """The run directory of a trial."""
        return self.path / "trials" / f"{index + 1:03d}"

    def rank(self) -> list[Outcome]:
        """The trials so far, the best first (among equal ones the metric's tie-break decides), failed ones last. Writes
        ranking.csv and best.yaml."""
        ranks, task = self.study.ranks, self.experiment.resolved_task

        def order(outcome: Outcome) -> tuple[bool, tuple[float, float], int]:
            metrics = outcome.metrics
            return metrics is None, ranks.order(metrics) if metrics is not None else (0.0, 0.0), outcome.index

        ranked = sorted(self.study.outcomes(), key=order)
        measured = [f"validation/{metric.name}" for metric in task.ranking()]
        columns = list(dict.fromkeys((ranks.tag, *measured, "epoch")))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["rank", "trial", *columns, *self.sweep.space, "seconds", "run", "reason"])
        for rank, outcome in enumerate(ranked, 1):
            scores = [(outcome.metrics or {}).get(column) for column in columns]
            values = [_text(outcome.values[key]) if key in outcome.values else "" for key in self.sweep.space]
            run = self.folder(outcome.index).relative_to(self.path)
            writer.writerow(
                [rank, outcome.index + 1, *scores, *values, outcome.seconds, run.as_posix(), outcome.reason]
            )
        write_atomically(self.path / "ranking.csv", text.getvalue().encode("utf-8", "backslashreplace"))
        if ranked and (best := ranked[0]).metrics is not None:
            about = f"# The best of {len(ranked)} trials, number {best.index + 1}: {ranks.text(best.metrics)}\n"
            whole = self.experiment.without_sweep().override_all(best.values).dump()
            write_atomically(self.path / "best.yaml", (about + whole).encode())
        return ranked

    def report(self) -> tuple[int, Path | None]:
        """Show the table of the best trials; the exit code, and the path of best.yaml."""
        ranked = self.rank()
        good = [outcome for outcome in ranked if outcome.metrics is not None]
        if failed := ranked[len(good) :]:
            self.display.warning(f"{len(failed)} of {len(ranked)} trials failed, such as: {failed[0].reason}")
        if not good:
            self.display.error("no trial has succeeded")
            return 1, None
        ranks = self.study.ranks
        rows = [["rank", "trial", ranks.tag, *self.sweep.space]]
        for rank, outcome in enumerate(good[:SHOWN], 1):
            score = (outcome.metrics or {})[ranks.tag]
            values = [_short(outcome.values[key]) if key in outcome.values else "-" for key in self.sweep.space]
            rows.append([str(rank), str(outcome.index + 1), f"{score:{ranks.metric.format}}", *values])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            self.display.line("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
        target = self.path / "best.yaml"
        self.display.line(f"to train the best setting fully: dltrain fit {target}")
        return 0, target


def _forget_last_trial(threads: int) -> None:
    """A trial must not depend on those made before it in the same process. threads: those that torch began with."""
    gc.collect()
    torch.set_num_threads(threads)  # one that was continued may have had another number
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # its limit of recompilations counts over all networks of a process
    torch.cuda.empty_cache()  # the loader is chosen by the memory that is free


def _plain(values: dict[str, Any]) -> Hyperparameters:
    """What recorders show of a trial."""
    return {key: v if isinstance(v, (str, int, float)) else _text(v) for key, v in values.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else _text(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
