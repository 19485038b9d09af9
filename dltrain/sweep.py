"""`sweep`: search hyperparameters on the validation split. Optuna draws the settings and keeps the record.

    runs/<experiment>/sweep-NNN/
      experiment.yaml   journal.log   ranking.csv   best.yaml   trials/<NNN>/ (a run each)

This process alone writes the journal. The settings of the k-th trial are a function of (seed, k), so an
interrupted sweep goes on with the trials that it would have made.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from dltrain.checkpoints import write_atomically
from dltrain.config import ConfigError
from dltrain.console import Display
from dltrain.data.base import mix
from dltrain.experiment import Experiment
from dltrain.fit import fit, resume
from dltrain.runs import Run, RunError, next_free
from dltrain.trainer import best_epoch
from dltrain.training import Range, Sweep

JOURNAL = "journal.log"


@dataclass(frozen=True)
class Outcome:
    """One trial: its place in the sweep, its settings, and how it went."""

    index: int
    values: dict[str, Any]
    score: float | None
    epoch: int | None
    run: str | None
    reason: str | None


def run_sweep(experiment: Experiment, folder: Path, device: str, display: Display) -> tuple[int, Path | None]:
    """Make every trial that is still missing; the exit code, and the path of best.yaml.

    folder: an earlier sweep's directory, or where a new one is made.
    Raises RunError when another process runs this sweep.
    """
    assert experiment.sweep is not None
    path = folder if (folder / "experiment.yaml").is_file() else next_free(folder, "sweep-")
    lock = FileLock(path / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{path} is being run by another process") from None
    try:
        write_atomically(path / "experiment.yaml", experiment.dump().encode())
        study = _open_study(path, experiment.sweep)
        display.line(f"{experiment.name}: {experiment.sweep.trials} trials -> {path}", "bold")
        code = _make_trials(study, experiment, experiment.sweep, path, device, display)
        best = _report(study, experiment, experiment.sweep, path, display)
        if code >= 128:
            display.error(f"interrupted; to go on: dltrain sweep {path}")
        return code or (0 if best is not None else 1), best
    finally:
        lock.release()


def _open_study(path: Path, sweep: Sweep) -> optuna.Study:
    """The study in the directory's journal. What a killed process left half done is made good first."""
    optuna.logging.set_verbosity(logging.WARNING)
    journal = (path / JOURNAL).resolve()
    (path / f"{JOURNAL}.lock").unlink(missing_ok=True)  # stale: we hold the directory
    _cut_torn_line(journal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        backend = JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal)))
        storage = JournalStorage(backend)
    direction = StudyDirection.MINIMIZE if sweep.metric.endswith("loss") else StudyDirection.MAXIMIZE
    study = optuna.create_study(storage=storage, study_name="sweep", direction=direction, load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # no reason is set: it will be made again
    return study


def _cut_torn_line(journal: Path) -> None:
    """Drop a last line that was only half written: it would spoil the next one."""
    if not journal.exists():
        return
    data = journal.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(journal, data.rfind(b"\n") + 1)


def _make_trials(
    study: optuna.Study, experiment: Experiment, sweep: Sweep, path: Path, device: str, display: Display
) -> int:
    distributions = {key: distribution(values) for key, values in sweep.space.items()}
    done = {outcome.index for outcome in outcomes(study)}
    for index in range(sweep.trials):
        if index in done:
            continue
        study.sampler = optuna.samplers.RandomSampler(seed=mix(experiment.seed, index, "sweep"))
        trial = study.ask(distributions)
        values = {key: value_of(sweep.space[key], trial.params[key]) for key in sweep.space}
        trial.set_user_attr("index", index)
        trial.set_user_attr("values", json.dumps(values))
        outcome, code = _try(experiment, sweep, index, values, path / "trials", device)
        if code >= 128:
            study.tell(trial, state=TrialState.FAIL)
            return code
        trial.set_user_attr("run", outcome.run)
        trial.set_user_attr("epoch", outcome.epoch)
        if outcome.score is None:
            trial.set_user_attr("reason", outcome.reason)
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, outcome.score)
        settings = "  ".join(f"{key}={_short(value)}" for key, value in values.items())
        score = f"{sweep.metric} {outcome.score:.4f}" if outcome.score is not None else f"failed: {outcome.reason}"
        display.line(f"trial {index + 1}/{sweep.trials}  {settings}  {score}")
        _write_ranking(study, sweep, path)
    return 0


def _try(
    experiment: Experiment, sweep: Sweep, index: int, values: dict[str, Any], folder: Path, device: str
) -> tuple[Outcome, int]:
    """Train one setting; a run of it that was interrupted is continued."""
    quiet = Display(quiet=True)
    run: Run | None = None
    reason: str | None = None
    code = 1
    try:
        path = folder / f"{index + 1:03d}"
        if (path / "experiment.yaml").is_file():
            code, run = resume(str(path), None, quiet)
        else:
            code, run = fit(trial_experiment(experiment, sweep, values), path, device, quiet)
    except ConfigError as error:
        reason = error.diagnostics[0].message
    except RunError as error:
        reason = str(error)
    if run is None:
        return Outcome(index, values, None, None, None, reason), code
    result = run.read_json("result.json")
    history = [row for row in (result.get("best"), result.get("last")) if row is not None]
    best = best_epoch(history, sweep.metric)
    row = history[best] if best is not None else {}
    finished = code == 0 and sweep.metric in row
    reason = None if finished else result.get("why") or f"no {sweep.metric} was measured"
    score = row[sweep.metric] if finished else None
    epoch = int(row["epoch"]) if finished else None
    return Outcome(index, values, score, epoch, str(run.path), reason), code


def trial_experiment(experiment: Experiment, sweep: Sweep, values: dict[str, Any]) -> Experiment:
    """The experiment of one setting: shortened to the sweep's epochs, and without its `sweep` section."""
    length = {} if sweep.epochs is None else {"training.epochs": sweep.epochs}
    return experiment.without_sweep().override_all({**length, **values})


def _report(study: optuna.Study, experiment: Experiment, sweep: Sweep, path: Path, display: Display) -> Path | None:
    ranked = _write_ranking(study, sweep, path)
    if not ranked or ranked[0].score is None:
        display.line("no trial has succeeded")
        return None
    best = ranked[0]
    target = path / "best.yaml"
    write_atomically(target, experiment.without_sweep().override_all(best.values).dump().encode())
    for rank, outcome in enumerate(ranked[:10], 1):
        settings = "  ".join(f"{key}={_short(value)}" for key, value in outcome.values.items())
        score = "failed" if outcome.score is None else f"{outcome.score:.4f}"
        display.line(f"{rank:>3}  {score:>8}  {settings}  {outcome.run or ''}")
    display.line(f"to train the best setting fully: dltrain fit {target}")
    return target


def outcomes(study: optuna.Study) -> list[Outcome]:
    """The trials that came to an end, by their place in the sweep; interrupted ones are not among them."""
    found: dict[int, Outcome] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)):
        if trial.state == TrialState.COMPLETE or "reason" in trial.user_attrs:
            outcome = _outcome(trial)
            found[outcome.index] = outcome
    return [found[index] for index in sorted(found)]


def _outcome(trial: FrozenTrial) -> Outcome:
    note = trial.user_attrs
    return Outcome(note["index"], json.loads(note["values"]), trial.value, note.get("epoch"), note.get("run"),
                   note.get("reason"))  # fmt: skip


def _write_ranking(study: optuna.Study, sweep: Sweep, path: Path) -> list[Outcome]:
    """ranking.csv: the best first, failed trials last with their reason."""
    sign = 1 if sweep.metric.endswith("loss") else -1
    ranked = sorted(outcomes(study), key=lambda o: (o.score is None, sign * (o.score or 0.0), o.index))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "trial", sweep.metric, "epoch", *sweep.space, "run", "reason"])
    for rank, outcome in enumerate(ranked, 1):
        values = [outcome.values.get(key) for key in sweep.space]
        writer.writerow([rank, outcome.index + 1, outcome.score, outcome.epoch, *values, outcome.run, outcome.reason])
    write_atomically(path / "ranking.csv", text.getvalue().encode())
    return ranked


def distribution(values: Range) -> BaseDistribution:
    """A range as Optuna's distribution. Choices are drawn by their place in the list: they may be anything."""
    if values.choices is not None:
        return CategoricalDistribution(range(len(values.choices)))
    assert values.low is not None and values.high is not None
    if values.is_integer and (values.step is None or isinstance(values.step, int)):
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    step = None if values.step is None else float(values.step)
    return FloatDistribution(float(values.low), float(values.high), log=values.log, step=step)


def value_of(values: Range, drawn: Any) -> Any:
    """What was drawn, as the experiment's value."""
    return values.choices[drawn] if values.choices is not None else drawn


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
