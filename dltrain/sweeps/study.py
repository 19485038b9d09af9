"""The record of a sweep: Optuna's journal in the sweep's directory. Trials are drawn here and told how they went.

One process alone writes the journal (it holds the directory's lock). The settings of the k-th trial are a
function of (seed, k), so an interrupted sweep goes on with the trials that it would have made.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from dltrain.data.random import derive_seed
from dltrain.errors import RunError
from dltrain.runs.run import JOURNAL
from dltrain.search import Range, Sweep
from dltrain.sweeps.journal import mend, outcome_of
from dltrain.tasks.metrics import Watched

NEW = "start a new sweep: dltrain sweep EXPERIMENT"
REDRAWS = 100
"""Draws of one trial that may give a setting of an earlier one, before it is chosen among those that are left."""


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

    def __init__(self, folder: Path, sweep: Sweep, ranks: Watched, seed: int) -> None:
        """ranks: the metric that the sweep is for."""
        self.sweep, self.ranks, self.seed = sweep, ranks, seed
        direction = StudyDirection.MINIMIZE if ranks.falls else StudyDirection.MAXIMIZE
        self.mended = mend(folder / JOURNAL, direction.value)
        """What was damaged in the journal, if anything was."""
        self._study = _open(folder, direction)
        self._settings = settings(sweep, seed)
        self._drawn: list[dict[str, Any]] = []

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
        while len(self._drawn) <= index:
            self._drawn.append(next(self._settings))
        drawn = self._drawn[index]
        self._study.sampler = _Drawn(drawn)
        trial = self._study.ask(distributions(self.sweep))
        values = values_of(self.sweep, drawn)
        trial.set_user_attr("index", index)
        trial.set_user_attr("values", json.dumps(values))
        return trial, values

    def finish(self, trial: Trial, outcome: Outcome) -> None:
        """Record how a trial ended. A trial without this record is made again."""
        record = {"metrics": outcome.metrics, "reason": outcome.reason, "seconds": outcome.seconds}
        trial.set_user_attr("outcome", json.dumps(record))
        if outcome.metrics is not None:
            self._study.tell(trial, outcome.metrics[self.ranks.tag])
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
            told = outcome_of(trial.user_attrs, self.sweep.space, self.ranks.tag)
            if trial.state.is_finished() and told is not None and trial.number not in again:
                found[told["index"]] = Outcome(**told)
        return [found[index] for index in sorted(found)]


def settings(sweep: Sweep, seed: int) -> Iterator[dict[str, Any]]:
    """What is drawn for trial 0, 1, 2, ... of a sweep, by key; it ends when a finite space has no setting left.

    Every key is drawn independently at random (Bergstra & Bengio 2012), and a setting that an earlier trial has is
    drawn again. So trial k is a function of (seed, k), whatever the number of trials. Another way to search is
    another function here.
    """
    space, seen = distributions(sweep), set[str]()
    study, trial = optuna.create_study(), create_trial(value=0.0)  # the sampler asks for them, and looks at neither
    for index in range(sys.maxsize if (size := sweep.size()) is None else size):
        for redraw in range(REDRAWS):
            sampler = RandomSampler(seed=derive_seed(seed, index, f"sweep {redraw}" if redraw else "sweep"))
            drawn = {key: sampler.sample_independent(study, trial, key, of) for key, of in space.items()}
            if _identity(sweep, drawn) not in seen:
                break
        else:
            if size is not None:
                drawn = _one_of_the_others(
                    sweep, seen, size, random.Random(derive_seed(seed, index, "sweep, the rest"))
                )
        seen.add(_identity(sweep, drawn))
        yield drawn


def _one_of_the_others(sweep: Sweep, seen: set[str], size: int, chance: random.Random) -> dict[str, Any]:
    """A setting of a finite space that is not among those `seen`, each as likely as the others."""
    drawable = [r.values() if r.choices is None else range(len(r.choices)) for r in sweep.space.values()]
    every = (dict(zip(sweep.space, drawn, strict=True)) for drawn in product(*drawable))
    new = (drawn for drawn in every if _identity(sweep, drawn) not in seen)
    return next(islice(new, chance.randrange(size - len(seen)), None))


def _identity(sweep: Sweep, drawn: dict[str, Any]) -> str:
    return json.dumps(values_of(sweep, drawn), sort_keys=True)


class _Drawn(BaseSampler):
    """Hands Optuna what was drawn already."""

    def __init__(self, drawn: dict[str, Any]) -> None:
        self.drawn = drawn

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.drawn[param_name]


def distributions(sweep: Sweep) -> dict[str, BaseDistribution]:
    """The space as Optuna's distributions."""
    return {key: distribution(range_) for key, range_ in sweep.space.items()}


def distribution(range_: Range) -> BaseDistribution:
    """A range as Optuna's distribution. Choices are drawn by their place in the list: they may be anything."""
    if range_.choices is not None:
        return CategoricalDistribution(range(len(range_.choices)))
    low, high = range_.bounds()
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=range_.log, step=int(range_.step or 1))
    return FloatDistribution(low, high, log=range_.log, step=range_.step)


def values_of(sweep: Sweep, drawn: dict[str, Any]) -> dict[str, Any]:
    """What was drawn, as the experiment's values."""
    return {
        key: range_.value(drawn[key]) if range_.choices is None else range_.choices[drawn[key]]
        for key, range_ in sweep.space.items()
    }


def _open(folder: Path, direction: StudyDirection) -> optuna.Study:
    optuna.logging.set_verbosity(logging.ERROR)
    journal = (folder / JOURNAL).resolve()
    journal.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)  # stale: we hold the directory
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
