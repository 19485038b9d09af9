"""The record of a search: Optuna's journal in its directory. Trials are drawn here, and told how they went.

One process alone writes the journal (it holds the directory's lock). A trial is drawn once; what was drawn, and what
its runs have reached, lies in the journal, so that whoever opens it goes on where the last one stopped.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic_core import PydanticCustomError

from dltrain.errors import RunError
from dltrain.runs.run import JOURNAL
from dltrain.search import Sampler, Setting, Settings, Sweep, Told
from dltrain.search.impl.distributions import distributions
from dltrain.sweeps.journal import mend, record_of
from dltrain.sweeps.records import RunRecord, TrialRecord
from dltrain.tasks.metrics import Watched

NEW = "start a new sweep: dltrain sweep EXPERIMENT"


class Study:
    """The journal of the search in `folder`. What a killed process left half done is made good on opening."""

    def __init__(self, folder: Path, sweep: Sweep, objectives: tuple[Watched, ...], seed: int) -> None:
        self.sweep, self.objectives = sweep, objectives
        directions = [StudyDirection.MINIMIZE if each.falls else StudyDirection.MAXIMIZE for each in objectives]
        self.mended = mend(folder / JOURNAL, [direction.value for direction in directions])
        """What was damaged in the journal, if anything was."""
        self._study = _open(folder, directions)
        self.settings = Settings(sweep, seed, self._decided())
        """How each trial is drawn."""
        self.trials: dict[int, TrialRecord] = {}
        """Those that were drawn, by their place in the search, with what they have reached."""
        forgotten = self._known("forgotten")
        for trial in self._study.get_trials(deepcopy=False):
            record = record_of(trial.number, trial.user_attrs, sweep.whole, objectives)
            if record is None or trial.number in forgotten:
                continue
            self.trials[record.index] = record  # a later one is the same trial, made again
            if trial.state.is_finished() and not record.ended(sweep.repeats):  # its end is not told rightly
                self._enter_again(record)
            elif not trial.state.is_finished():
                self._tell_end(record)

    def _decided(self) -> tuple[Sampler, str]:
        """The sampler, and why it is that one where the sweep leaves it open: then it is decided once, and kept."""
        decided = self.sweep.decided()
        if decided[1]:
            if (kept := self.kept("sampler")) is None:
                self.keep("sampler", [decided[0].name, decided[1]])
            else:
                with contextlib.suppress(ValueError, PydanticCustomError):  # a damaged journal
                    name, why = kept
                    decided = cast(Sampler, Sampler.parse(name)), str(why)
        return decided

    def remember(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The facts that the search began with: these ones, when it begins now."""
        if "facts" not in self._study.user_attrs:
            self._study.set_user_attr("facts", json.dumps(facts))
        try:
            known = json.loads(self._study.user_attrs["facts"])
        except (TypeError, ValueError, RecursionError):
            known = None
        if not isinstance(known, dict):
            raise RunError(f"the journal of the sweep does not tell what it began with; {NEW}")
        return known

    def keep(self, name: str, fact: list[Any]) -> None:
        """Keep what was decided once."""
        self._study.set_user_attr(name, json.dumps(fact))

    def kept(self, name: str) -> list[Any] | None:
        """What was kept; None when nothing was."""
        with contextlib.suppress(KeyError, TypeError, ValueError, RecursionError):
            found = json.loads(self._study.user_attrs[name])
            return found if isinstance(found, list) and found else None
        return None

    @property
    def seconds(self) -> float:
        """How long the search has run, over all sessions."""
        spent = self._study.user_attrs.get("seconds", 0.0)
        return float(spent) if isinstance(spent, (int, float)) and spent >= 0 else 0.0

    def spend(self, seconds: float) -> None:
        """Note how long it has run."""
        self._study.set_user_attr("seconds", round(seconds, 3))

    def begin(self, index: int, setting: Setting) -> TrialRecord:
        """Enter a trial that was drawn."""
        self._study.sampler = _Drawn(setting.drawn)
        space = distributions(self.sweep.whole)
        trial = self._study.ask({key: space[key] for key in setting.drawn})
        trial.set_user_attr("index", index)
        trial.set_user_attr("values", json.dumps(setting.values))
        trial.set_user_attr("round", setting.round)
        record = TrialRecord(index, trial.number, dict(setting.drawn), setting.values, setting.round)
        self.trials[index] = record
        return record

    def report(self, index: int, epoch: int, cost: float) -> None:
        """Enter what a trial had reached by an epoch at which it is judged: less is better."""
        trial = self.trials[index]
        trial.costs[epoch] = cost
        self._set(trial, f"cost {epoch}", cost)
        value = cost if self.objectives[0].falls else -cost
        self._study._storage.set_trial_intermediate_value(self._id(trial), epoch, value)

    def finish(self, index: int, run: int, record: RunRecord) -> None:
        """Enter how a run stands: it has ended, or is paused by the pruner. When it was the trial's last one, so has
        the trial."""
        trial = self.trials[index]
        trial.runs[run] = record
        self._set(trial, f"run {run}", record.model_dump_json())
        self._tell_end(trial)

    def _tell_end(self, trial: TrialRecord) -> None:
        state, metrics = trial.state(self.sweep.repeats), trial.metrics
        if state == "finished" and metrics is not None:
            self._study.tell(trial.number, [metrics[each.tag] for each in self.objectives])
        elif state in ("pruned", "failed"):
            self._study.tell(trial.number, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)

    def note_fault(self, index: int, fault: str) -> None:
        """Note that the machine failed in a trial, as far as it can be written: its run is made again."""
        trial = self.trials[index]
        trial.faults.append(fault)
        with contextlib.suppress(OSError):
            self._set(trial, "faults", json.dumps(trial.faults))

    def forget_failures(self) -> list[int]:
        """Let the failed trials count no longer, so that they are made again, of the same settings; their places."""
        failed = [index for index, trial in self.trials.items() if trial.state(self.sweep.repeats) == "failed"]
        numbers = [self.trials[index].number for index in failed]
        if failed:
            self._study.set_user_attr("forgotten", sorted({*numbers, *self._known("forgotten")}))
        for index in failed:
            self._enter_again(replace(self.trials[index], runs={}, costs={}, faults=[]))
        return failed

    def _enter_again(self, before: TrialRecord) -> None:
        """Enter a trial of the same setting in the place of one that cannot be written on, with what is known of it."""
        record = self.begin(before.index, Setting(before.drawn, before.values, before.round))
        for epoch, cost in before.costs.items():
            self.report(record.index, epoch, cost)
        for run, told in before.runs.items():
            self.finish(record.index, run, told)

    def told(self) -> list[Told]:
        """The trials so far as samplers see them, by their place."""
        return [self._told(self.trials[index]) for index in sorted(self.trials)]

    def _told(self, trial: TrialRecord) -> Told:
        metrics = trial.metrics
        costs = tuple(each.cost(metrics) for each in self.objectives) if metrics is not None else None
        return Told(trial.index, trial.drawn, costs, trial.ended(self.sweep.repeats))

    def _known(self, name: str) -> list[int]:
        noted = self._study.user_attrs.get(name)
        return [number for number in noted if type(number) is int] if isinstance(noted, list) else []

    def _id(self, trial: TrialRecord) -> int:
        return self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, trial.number)

    def _set(self, trial: TrialRecord, name: str, value: Any) -> None:
        self._study._storage.set_trial_user_attr(self._id(trial), name, value)


class _Drawn(BaseSampler):
    """Hands Optuna what was drawn already."""

    def __init__(self, drawn: Mapping[str, Any]) -> None:
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


def _open(folder: Path, directions: list[StudyDirection]) -> optuna.Study:
    optuna.logging.set_verbosity(logging.ERROR)
    journal = (folder / JOURNAL).resolve()
    journal.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)  # stale: we hold the directory
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal))))
        study = optuna.create_study(storage=storage, study_name="sweep", directions=directions, load_if_exists=True)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "index" not in trial.user_attrs:  # it was killed while it was entered
                storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        if study.directions != directions:
            raise RunError(f"{journal} is the journal of a search for something else; {NEW}")
    except (OSError, RunError):
        raise
    except Exception as error:  # whatever Optuna makes of a journal that is not a sweep's
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunError(f"{journal} is not the journal of a sweep ({reason}); {NEW}") from None
    return study
