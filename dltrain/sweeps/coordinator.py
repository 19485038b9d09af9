"""The loop of a search: free workers are given what comes next, and what they answer is judged and entered.

    agenda -> leg -> workers -> event -> verdict (go on, or park) and record -> agenda ...

One coordinator alone writes the journal. Whatever happens to it or to a worker, the journal and the runs' checkpoints
tell what is left to do.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dltrain.commands.failures import judge as judge_failure
from dltrain.runs.interrupts import Signals
from dltrain.runs.reports import Row, best_epoch
from dltrain.runs.run import Failure
from dltrain.sweeps.agenda import Agenda, New, Place
from dltrain.sweeps.board import Board, Standing
from dltrain.sweeps.packing import Packer
from dltrain.sweeps.ranking import Ranking, plain, run_folder
from dltrain.sweeps.records import RunRecord, TrialRecord
from dltrain.sweeps.study import Study
from dltrain.sweeps.trial import Began, Ended, Events, Leg, Reached, finite
from dltrain.sweeps.workers import Lost, Workers

KEPT = 10
"""Trials in the table on screen, which are also those that keep their checkpoints."""
MOST_ALIKE = 3
"""Failures of one kind in a row after which a search stops: what they have in common is not the setting."""
MOST_LOST = 3
"""Times that a run may lose its process without getting on, before it has failed."""
DOUBTFUL = ("memory", "lost process", "device")
"""Faults of the machine that a setting may bring about: when one meets the same trial again, the trial has failed."""
WAIT = 0.2
"""Seconds until the coordinator looks at its signals again."""


@dataclass
class Running:
    """A leg that a worker trains."""

    leg: Leg
    rows: list[Row] = field(default_factory=list)
    parameters: int = 0
    parked: bool = False
    """By the judge of trials: it promises too little."""
    ended: bool = False

    @property
    def place(self) -> Place:
        """The trial and the run."""
        return self.leg.trial, self.leg.run


class Coordinator:
    """Makes the trials of one search."""

    def __init__(
        self, study: Study, agenda: Agenda, packer: Packer, workers: Workers, ranking: Ranking, board: Board,
        path: Path, seed: int,
    ) -> None:  # fmt: skip
        self.study, self.agenda, self.packer, self.workers = study, agenda, packer, workers
        self.ranking, self.board, self.path, self.seed = ranking, board, path, seed
        self.sweep, self.judge = study.sweep, agenda.judge
        self.ranks = next(each for each in study.objectives if each.tag.startswith("validation/"))
        """The metric whose best epoch counts."""
        self.busy: dict[int, list[Running]] = {}
        """What each worker trains: one leg, or several together."""
        self.failures: list[Failure] = []
        """The last ones in a row."""
        self._told: set[str] = set()
        self._losses: Counter[tuple[Place, int]] = Counter()
        self._began, self._spent = time.monotonic(), study.seconds
        self._code = 0
        """Above 0, nothing more is begun."""

    def run(self) -> int:
        """Make what is missing. Returns the exit code."""
        with Signals() as signals:
            try:
                while self._deal() or self.busy:
                    for slot, event in self.workers.events(WAIT):
                        self._take(slot, event)
                    if signals.received is not None and self._code < 128:
                        self._code = 128 + signals.received
                        self.workers.stop()
                if signals.received is not None:
                    self._code = 128 + signals.received
            except KeyboardInterrupt:  # a second signal, where nothing could be saved
                self._code = 130
            finally:
                self.workers.drop()  # nothing, unless this ends by an error or a second signal
                self.board.stop()
                self._spend()
        return self._code

    def _deal(self) -> bool:
        """Give each free worker what comes next; whether one got something."""
        dealt = False
        for slot in range(self.workers.slots):
            if slot in self.busy or self._code or self.out_of_time:
                continue
            legs = self.packer.pack(self._next_leg)
            if not legs:
                break
            self.busy[slot] = [Running(leg) for leg in legs]
            self.workers.begin(slot, legs)
            dealt = True
        return dealt

    def _next_leg(self, besides: Sequence[Leg]) -> Leg | None:
        """What comes next, besides these legs and what is trained already."""
        busy = {running.place for together in self.busy.values() for running in together}
        found = self.agenda.next(busy | {(leg.trial, leg.run) for leg in besides})
        if isinstance(found, New):
            if found.setting.round > max((trial.round for trial in self.study.trials.values()), default=0):
                ranges = self.study.settings.ranges(found.setting.round, self.study.told())
                self.board.round(found.setting.round, ranges)
                self.ranking.write_round(found.setting.round, ranges)
            self.study.begin(found.index, found.setting)
            found = found.index, 0
        return None if found is None else self._leg(*found)

    def _leg(self, index: int, run: int) -> Leg:
        trial = self.study.trials[index]
        folder = run_folder(self.path, index, run, self.sweep.repeats)
        values = trial.values | ({"seed": self.seed + run} if run else {})
        return Leg(index, run, folder, values, plain(trial.values), self.sweep.epochs)

    # -- what workers answer

    def _take(self, slot: int, events: Events | Lost) -> None:
        together = self.busy[slot]
        if isinstance(events, Lost):
            del self.busy[slot]
            for running in together:
                if not running.ended:
                    self._write(running, partial(self._lost, running, events.why))
            return
        park = [False] * len(together)
        for place, (running, event) in enumerate(zip(together, events, strict=True)):
            if isinstance(event, Ended):
                running.ended = True
                self._write(running, partial(self._end, running, event))
            elif event is not None:
                park[place] = self._goes_on(running, event)
        self.board.show(self._standing)
        if all(running.ended for running in together):
            del self.busy[slot]
        else:
            self.workers.go_on(slot, park)

    def _write(self, running: Running, write: Callable[[], None]) -> None:
        """Enter something; a disk that is full stops the search."""
        try:
            write()
        except OSError as error:
            self._stop(running, judge_failure(error, self.path))

    def _goes_on(self, running: Running, event: Began | Reached) -> bool:
        """Whether a leg that trains is parked here."""
        again = isinstance(event, Began)
        if isinstance(event, Began):
            running.rows, running.parameters = list(event.rows), event.parameters
            if event.note is not None and event.note not in self._told:
                self._told.add(event.note)
                self.board.warning(event.note)
        else:
            running.rows.append(event.row)
        self._write(running, partial(self._judge, running, again=again))
        return running.parked or self.out_of_time or self._code > 0

    def _judge(self, running: Running, *, again: bool) -> None:
        """Park a leg that promises too little. again: it has only begun, and its rows are those of an earlier leg."""
        if self.judge is None or running.leg.run or not running.rows:
            return
        trial = self.study.trials[running.leg.trial]
        for count in range(1, len(running.rows) + 1) if again else (len(running.rows),):
            epoch = int(running.rows[count - 1]["epoch"])
            if self.judge.asks(trial.index, epoch) and epoch not in trial.costs:
                self.study.report(trial.index, epoch, self._cost(running.rows[:count]))
        epoch = int(running.rows[-1]["epoch"])
        promoted = again and 0 in trial.runs  # it was paused there, and goes on
        if self.judge.asks(trial.index, epoch) and not promoted:
            costs = {index: each.costs for index, each in self.study.trials.items()}
            running.parked = not self.judge.goes_on(trial.index, epoch, costs)

    def _cost(self, rows: list[Row]) -> float:
        """The best value of the epochs, less is better; infinity where there is none."""
        found = [cost for cost in map(self.ranks.cost, rows) if math.isfinite(cost)]
        return min(found, default=math.inf)

    def _end(self, running: Running, event: Ended) -> None:
        """Enter how a leg has ended."""
        if event.code >= 128:  # it was asked to stop, by us or by somebody else
            return None if self._code else self._lost(running, "its process was asked to end")
        failure = event.failure
        if failure is not None and failure.of_machine and self._stops(failure, running.leg.trial):
            self.study.note_fault(running.leg.trial, failure.kind)
            return self._stop(running, failure)
        if failure is None and not event.finished and not running.parked:  # its time is over
            return None
        return self._enter(running, self._record(running, event), failure)

    def _record(self, running: Running, event: Ended) -> RunRecord:
        before = self.study.trials[running.leg.trial].runs.get(running.leg.run)
        seconds = round(event.seconds + (before.seconds if before is not None else 0.0), 3)
        epochs = int(running.rows[-1]["epoch"]) if running.rows else 0
        why = event.failure.why if event.failure is not None else None
        if why is None:
            best = best_epoch(running.rows, self.ranks)
            row = {} if best is None else finite(running.rows[best])
            metrics = {**row, "parameters": float(running.parameters), "seconds": seconds}
            missing = [each.tag for each in self.study.objectives if each.tag not in metrics]
            if not missing:
                resumes = self.sweep.pruner is not None and self.sweep.pruner.resumes
                state: Any = "finished" if event.finished else "paused" if resumes else "pruned"
                return RunRecord(state=state, epochs=epochs, metrics=metrics, reason=None, seconds=seconds)
            why = f"{missing[0]} is not a number"
        return RunRecord(state="failed", epochs=epochs, metrics=None, reason=why, seconds=seconds)

    def _enter(self, running: Running, record: RunRecord, failure: Failure | None) -> None:
        index, run = running.place
        self.study.finish(index, run, record)
        self._spend()
        order = self.ranking.write(self.study.trials.values())
        self._forget_losers(order)
        trial = self.study.trials[index]
        if trial.state(self.sweep.repeats) != "running":
            self.board.trial(self._standing, trial, best=order[0].index == index)
        if record.state == "failed":
            self.failures.append(failure or Failure("not a number", record.reason or ""))
        else:
            self.failures.clear()
        if (reason := self._why_stop()) is not None and self._code == 0:
            self._code = 1
            self.board.error(reason)
            self.workers.stop()

    def _forget_losers(self, order: list[TrialRecord]) -> None:
        """Take away the checkpoints of trials that are at their end, and not among the best."""
        for trial in order[KEPT:]:
            if trial.ended(self.sweep.repeats):
                for run in trial.runs:
                    folder = run_folder(self.path, trial.index, run, self.sweep.repeats)
                    shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    # -- faults

    def _lost(self, running: Running, why: str) -> None:
        """A run that lost its process goes on in another one, unless it never gets on."""
        self._losses[running.place, len(running.rows)] += 1
        if self._losses[running.place, len(running.rows)] < MOST_LOST:
            return None if self._code else self.board.warning(f"trial {running.leg.trial + 1}: {why}; it goes on")
        why = f"{why}, {MOST_LOST} times without getting on: its memory may not suffice"
        record = self._record(running, Ended(1, 0.0, False, Failure("lost process", why)))
        return self._enter(running, record, Failure("lost process", why))

    def _stops(self, failure: Failure, index: int) -> bool:
        """Whether a fault of the machine stops the search; what may be the setting's doing does so once in a trial."""
        return failure.kind not in DOUBTFUL or failure.kind not in self.study.trials[index].faults

    def _stop(self, running: Running, failure: Failure) -> None:
        again = "the setting is not to blame: the trial is made again"
        if failure.kind in DOUBTFUL:
            again += ", and counts as failed if it happens again"
        if self._code == 0:
            self.board.error(
                f"trial {running.leg.trial + 1} was stopped: {failure.why}\n{again}; {self.board.how_to_go_on}"
            )
            self._code = 1
            self.workers.stop()

    def _why_stop(self) -> str | None:
        """Why the search stops after the last failures in a row; None when it goes on."""
        kinds = {failure.kind for failure in self.failures[-MOST_ALIKE:]}
        if len(self.failures) < MOST_ALIKE or len(kinds) > 1 or not self.agenda.left:
            return None
        diverged = kinds == {"not a number"}
        succeeded = any(trial.metrics is not None for trial in self.study.trials.values())
        if diverged and succeeded:  # a wide range has such settings: they are found out one by one
            return None
        advice = "narrow the search, such as the upper end of the learning rate" if diverged else "mend its cause"
        return (
            f"{MOST_ALIKE} trials in a row have failed alike: {self.failures[-1].why}\n{advice}, in a new sweep if the "
            f"experiment must change\nto make them again: {self.board.command('sweep', self.path, '--retry-failed')}\n"
            f"to go on with the others: {self.board.command('sweep', self.path)}"
        )

    @property
    def _standing(self) -> Standing:
        trained = [running for together in self.busy.values() for running in together if not running.ended]
        rows = [(*running.place, running.rows[-1] if running.rows else {}) for running in trained]
        return Standing(self.study.trials, rows, self.agenda.left, self.workers.slots, self.seconds)

    # -- time

    @property
    def seconds(self) -> float:
        """How long the search has run, over all sessions."""
        return self._spent + time.monotonic() - self._began

    @property
    def out_of_time(self) -> bool:
        """Whether its time is over."""
        return self.seconds >= self.sweep.seconds

    def _spend(self) -> None:
        if self.sweep.time is not None:
            self.study.spend(self.seconds)
