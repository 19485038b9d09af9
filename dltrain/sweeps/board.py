"""What a person sees of a search: a line for each trial that has ended, and on a terminal a table of what goes on."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltrain.console.display import Display
from dltrain.runs.reports import Row
from dltrain.search import Range
from dltrain.sweeps.pictures import range_text
from dltrain.sweeps.ranking import Ranking, value_text
from dltrain.sweeps.records import TrialRecord

SHOWN = 10
"""Trials in the table at the end."""


@dataclass(frozen=True)
class Standing:
    """How a search stands. running: trial, run, and the row of its last epoch. left: trials that are not at their end.
    slots: trials at once. seconds: that the search has run."""

    trials: Mapping[int, TrialRecord]
    running: Sequence[tuple[int, int, Row]]
    left: int
    slots: int
    seconds: float


class Board:
    """Shows one search. most: trials that there will be; None where time decides. plugins: that its commands name."""

    def __init__(
        self, display: Display, ranking: Ranking, path: Path, most: int | None, plugins: Iterable[str] = ()
    ) -> None:
        self.display, self.ranking, self.path, self.most = display, ranking, path, most
        self._plugins = [word for plugin in plugins for word in ("--plugin", plugin)]
        self._sweep = ranking.sweep
        self._next = 0.0

    def begin(self, name: str, made: int) -> None:
        """Before the first trial. made: in earlier sessions."""
        count = f"{self.most} trials" if self.most is not None else f"trials for {self._sweep.time}"
        self.display.line(f"{name}: {count}{f', {made} of them made' if made else ''} -> {self.path}", "bold")

    def trial(self, search: Standing, trial: TrialRecord, *, best: bool) -> None:
        """A trial has ended, or is paused."""
        width = len(str(self.most or 1))
        of = f"/{self.most}" if self.most is not None else ""
        parts = [f"trial {trial.index + 1:>{width}}{of}", *(f"{k}={short(v)}" for k, v in trial.values.items())]
        state = trial.state(self._sweep.repeats)
        if state == "failed":
            parts.append(f"failed: {trial.reason}")
        else:
            parts.append(self.ranking.text(trial))
            if state != "finished":
                parts.append(f"{state} after {trial.epochs} epoch{'s' if trial.epochs != 1 else ''}")
        left = self._left(search)
        parts.append(f"{trial.seconds:.1f} s" + (f", about {left} left" if left else ""))
        self.display.line("  ".join(parts) + ("  *" if state == "finished" and best else ""))

    def round(self, number: int, ranges: Mapping[str, Range]) -> None:
        """A round begins, from 0, with narrower ranges."""
        told = [f"{key}: {range_text(range_)}" for key, range_ in ranges.items()]
        self.display.line(f"round {number + 1}: {'; '.join(told)}")

    def show(self, search: Standing) -> None:
        """Redraw the table of what goes on, where there is a terminal, as often as an eye can follow."""
        if not self.display.is_live or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.display.seconds
        states = [trial.state(self._sweep.repeats) for trial in search.trials.values()]
        shown = [state for state in ("finished", "paused", "pruned", "failed") if state in states]
        counts = [f"{states.count(state)} {state}" for state in shown]
        left = self._left(search)
        lines = ["  ".join([*counts, f"{len(search.running)} running", *([f"about {left} left"] if left else [])])]
        told = [trial for trial in search.trials.values() if trial.metrics is not None]
        if told:
            best = min(told, key=lambda trial: self.ranking.objectives[0].order(trial.metrics or {}))
            lines.append(f"best: trial {best.index + 1}  {self.ranking.text(best)}")
        for index, run, row in search.running:
            values = "  ".join(f"{key}={short(value)}" for key, value in search.trials[index].values.items())
            reached = "  ".join(each.text(row) for each in self.ranking.objectives if each.tag in row)
            seed = f" seed {run + 1}" if self._sweep.repeats > 1 else ""
            lines.append(f"trial {index + 1}{seed}  epoch {int(row.get('epoch', 0))}  {reached}  {values}")
        self.display.board(lines)

    def stop(self) -> None:
        """Take the table away."""
        self.display.stop()

    def warning(self, text: str) -> None:
        """Something that the user should look at."""
        self.display.warning(text)

    def error(self, text: str) -> None:
        """Why the search ends here."""
        self.display.error(text)

    @property
    def how_to_go_on(self) -> str:
        """The command."""
        return f"to go on: {self.command('sweep', self.path)}"

    def command(self, *words: object) -> str:
        """A command that does something with the search, with its plug-ins."""
        return shlex.join(["dltrain", *map(str, words), *self._plugins])

    def _left(self, search: Standing) -> str:
        """How long the rest takes; "" where that is not known."""
        if self.most is None:
            return duration(max(self._sweep.seconds - search.seconds, 0.0))
        ended = [trial.seconds for trial in search.trials.values() if trial.ended(self._sweep.repeats)]
        if not ended or not search.left:
            return ""
        return duration(sum(ended) / len(ended) * search.left / search.slots)

    def table(self, order: list[TrialRecord]) -> Path | None:
        """The best trials, at the end; the path of best.yaml, None when no trial has succeeded."""
        good = [trial for trial in order if trial.metrics is not None]
        if failed := order[len(good) :]:
            self.display.warning(f"{len(failed)} of {len(order)} trials failed, such as: {failed[0].reason}")
        if not good:
            late = self._sweep.time is not None and not failed
            why = f"no trial has ended in that time; with more of it: {self.command('sweep', self.path)} sweep.time=..."
            self.display.error(why if late else "no trial has succeeded")
            return None
        objectives, keys = self.ranking.objectives, list(self._sweep.space)
        rows = [["rank", "trial", *(each.tag for each in objectives), *keys]]
        for rank, trial in enumerate(good[:SHOWN], 1):
            scores = [f"{(trial.metrics or {})[each.tag]:{each.metric.format}}" for each in objectives]
            values = [short(trial.values[key]) if key in trial.values else "-" for key in keys]
            rows.append([str(rank), str(trial.index + 1), *scores, *values])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            self.display.line("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
        target = self.path / "best.yaml"
        self.display.line(f"what was found, in pictures: {self.path / 'sweep.html'}")
        self.display.line(f"to train the best setting fully: {self.command('fit', target)}")
        return target


def short(value: Any) -> str:
    """A value as a line shows it."""
    text = f"{value:.3g}" if isinstance(value, float) else value_text(value)
    return text if len(text) <= 40 else text[:37] + "..."


def duration(seconds: float) -> str:
    """A time in its largest unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
