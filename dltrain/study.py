"""The record of a sweep: Optuna's journal in the sweep's directory. Trials are drawn here and told how they went.

One process alone writes the journal (it holds the directory's lock). The settings of the k-th trial are a
function of (seed, k), so an interrupted sweep goes on with the trials that it would have made.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from dltrain.data.base import mix
from dltrain.journal import mend, outcome_of
from dltrain.runs import RunError
from dltrain.training import Range, Sweep

JOURNAL = "journal.log"
NEW = "start a new sweep: dltrain sweep EXPERIMENT"
DIGITS = 6
"""Significant digits of drawn numbers: enough for any hyperparameter, and readable in best.yaml."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. index: its place in the sweep, from 0. metrics: those of its best epoch, or None
    when it failed, and `reason` then says why."""

    index: int
    values: dict[str, Any]
    metrics: dict[str, float] | None
    reason: str | None
    seconds: float


class Study:
    """The journal of the sweep in `folder`. What a killed process left half done is made good on opening."""

    def __init__(self, folder: Path, sweep: Sweep, seed: int) -> None:
        self.sweep, self.seed = sweep, seed
        self.mended = mend(folder / JOURNAL, 1 if sweep.metric.endswith("loss") else 2)
        """What was damaged in the journal, if anything was."""
        self._study = _open(folder, sweep)

    def remember(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The facts that the sweep began with: these ones, when it begins now."""
        if "facts" not in self._study.user_attrs:
            self._study.set_user_attr("facts", json.dumps(facts))
        try:
            known = json.loads(self._study.user_attrs["facts"])
        except (TypeError, ValueError, RecursionError):
            known = None
        if not isinstance(known, dict):
            raise RunError(f"the journal of the sweep does not tell what it began with; {NEW}")
        return known

    def start(self, index: int) -> tuple[Trial, dict[str, Any]]:
        """Draw trial `index`; the trial, and the value of each key of the space."""
        trial = draw(self._study, self.sweep, self.seed, index)
        values = {key: value_of(range_, trial.params[key]) for key, range_ in self.sweep.space.items()}
        trial.set_user_attr("index", index)
        trial.set_user_attr("values", json.dumps(values))
        return trial, values

    def finish(self, trial: Trial, outcome: Outcome) -> None:
        """Record how a trial ended. A trial without this record is made again."""
        record = {"metrics": outcome.metrics, "reason": outcome.reason, "seconds": outcome.seconds}
        trial.set_user_attr("outcome", json.dumps(record))
        if outcome.metrics is not None:
            self._study.tell(trial, outcome.metrics[self.sweep.metric])
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def set_aside(self, trial: Trial, fault: str) -> None:
        """Note that the machine failed in a trial, as far as it can write: it has no outcome, and is made again."""
        with contextlib.suppress(OSError):
            trial.set_user_attr("fault", fault)

    def faults(self, index: int) -> list[str]:
        """The machine's faults in the trials that were set aside at this place of the sweep."""
        again = self._made_again()
        notes = [t.user_attrs for t in self._study.get_trials(deepcopy=False) if t.number not in again]
        return [note["fault"] for note in notes if note.get("index") == index and "fault" in note]

    @property
    def succeeded(self) -> bool:
        """Whether a trial has."""
        return any(outcome.metrics is not None for outcome in self.outcomes())

    def forget_failures(self) -> list[int]:
        """Let the failed trials count no longer, so that they are made again; their places in the sweep."""
        failed = [outcome.index for outcome in self.outcomes() if outcome.metrics is None]
        if failed:
            trials = self._study.get_trials(deepcopy=False)
            again = {trial.number for trial in trials if trial.user_attrs.get("index") in failed}
            self._study.set_user_attr("again", sorted(again | self._made_again()))
        return failed

    def _made_again(self) -> set[int]:
        """The numbers of the trials that count no longer."""
        noted = self._study.user_attrs.get("again")
        return {number for number in noted if isinstance(number, int)} if isinstance(noted, list) else set()

    def outcomes(self) -> list[Outcome]:
        """The trials that came to an end, by their place in the sweep; interrupted ones are not among them."""
        found, again = {}, self._made_again()
        for trial in self._study.get_trials(deepcopy=False):
            told = outcome_of(trial.user_attrs, self.sweep.space, self.sweep.metric)
            if trial.state.is_finished() and told is not None and trial.number not in again:
                found[told["index"]] = Outcome(**told)
        return [found[index] for index in sorted(found)]


def draw(study: optuna.Study, sweep: Sweep, seed: int, index: int) -> Trial:
    """Trial `index` of a sweep, a function of (seed, index): every key independently at random (Bergstra &
    Bengio 2012). Another way to search is another sampler here, which may look at the study's trials."""
    study.sampler = RandomSampler(seed=mix(seed, index, "sweep"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # `high` is no multiple of `step`: the last one below it is
        return study.ask({key: distribution(range_) for key, range_ in sweep.space.items()})


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
    """What was drawn, as the experiment's value: numbers are rounded to 6 digits, within the range."""
    if values.choices is not None:
        return values.choices[drawn]
    if isinstance(drawn, int):
        return drawn
    assert values.low is not None and values.high is not None
    return min(max(float(f"{drawn:.{DIGITS}g}"), float(values.low)), float(values.high))


def _open(folder: Path, sweep: Sweep) -> optuna.Study:
    optuna.logging.set_verbosity(logging.ERROR)
    journal = (folder / JOURNAL).resolve()
    journal.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)  # stale: we hold the directory
    direction = StudyDirection.MINIMIZE if sweep.metric.endswith("loss") else StudyDirection.MAXIMIZE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal))))
        study = optuna.create_study(storage=storage, study_name="sweep", direction=direction, load_if_exists=True)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    except OSError:
        raise
    except Exception as error:  # whatever Optuna makes of a journal that is not a sweep's
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunError(f"{journal} is not the journal of a sweep ({reason}); {NEW}") from None
    return study
