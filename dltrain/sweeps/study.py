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
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic_core import PydanticCustomError

from dltrain.errors import RunError
from dltrain.runs.run import JOURNAL
from dltrain.search import Sampler, Setting, Settings, Sweep, Told
from dltrain.search.impl.distributions import distributions
from dltrain.sweeps.journal import mend, outcome_of, values_of
from dltrain.tasks.metrics import Watched

NEW = "start a new sweep: dltrain sweep EXPERIMENT"


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
        self._settings = Settings(sweep, seed, self._decided(sweep))

    def _decided(self, sweep: Sweep) -> tuple[Sampler, str]:
        """The sampler, and why it is that one where the sweep leaves it open: then it is decided once, and kept."""
        decided = sweep.decided()
        if decided[1]:
            if "sampler" not in self._study.user_attrs:
                self._study.set_user_attr("sampler", json.dumps([decided[0].name, decided[1]]))
            with contextlib.suppress(TypeError, ValueError, RecursionError, PydanticCustomError):  # a damaged journal
                name, why = json.loads(self._study.user_attrs["sampler"])
                decided = cast(Sampler, Sampler.parse(name)), str(why)
        return decided

    @property
    def decision(self) -> str:
        """Which sampler it is and why, where the sweep left it open; else nothing."""
        settings = self._settings
        return f"sampler: {settings.sampler.name} ({settings.why})" if settings.why else ""

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
        """Draw trial `index`; the trial, and the value of each key that takes part in it."""
        setting = self._begun(index) or self._settings.draw(index, self._told())
        assert setting is not None
        self._study.sampler = _Drawn(setting.drawn)
        of = distributions(self.sweep.whole)
        trial = self._study.ask({key: of[key] for key in setting.drawn})
        values = setting.values
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

    def _begun(self, index: int) -> Setting | None:
        """The setting that a trial was begun with, where drawing it again could give another one."""
        if self._settings.settled:
            return None
        for trial in reversed(self._study.get_trials(deepcopy=False)):
            values = values_of(trial.user_attrs, self.sweep.whole)
            if values is not None and trial.user_attrs.get("index") == index:
                return self._settings.recorded(index, values)
        return None

    def _told(self) -> list[Told]:
        """The trials that came to an end, as samplers are told of them."""
        drawn, cost = self.sweep.whole.drawn, self.ranks.cost
        return [
            Told(one.index, drawn(one.values), None if one.metrics is None else (cost(one.metrics),), True)
            for one in self.outcomes()
        ]

    def outcomes(self) -> list[Outcome]:
        """The trials that came to an end, by their place in the sweep; interrupted ones are not among them."""
        found, again = {}, self._made_again()
        for trial in self._study.get_trials(deepcopy=False):
            told = outcome_of(trial.user_attrs, self.sweep.whole, self.ranks.tag)
            if trial.state.is_finished() and told is not None and trial.number not in again:
                found[told["index"]] = Outcome(**told)
        return [found[index] for index in sorted(found)]


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
