"""What a person sees while a training runs: a live line on a terminal, plain lines elsewhere.

Everything goes to stderr; results go to stdout and are printed by the commands themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from dltrain.console.streams import printable, styled
from dltrain.errors import Note

if TYPE_CHECKING:
    from dltrain.runs.reports import EpochReport, Progress
    from dltrain.tasks.metrics import Metric

NARROW, WIDE = 80, 106
"""Columns from which on the live line has room for the pace, and for a bar."""
PLAIN_SECONDS = 60.0


class Display:
    """Messages, epochs and progress. `log` receives every lasting line as plain text.

    quiet: everything goes to the log alone.
    """

    seconds = 0.25
    """How often it wants to be told how far a training is."""

    def __init__(self, log: Callable[[str], None] | None = None, *, quiet: bool = False) -> None:
        self.console = Console(file=styled(), highlight=False, soft_wrap=True)
        self.log, self.quiet = log, quiet
        self._live: Any = None
        self._last_line = time.monotonic()

    def line(self, text: str, style: str = "") -> None:
        """A lasting line. `text` may hold names of files and classes: what could steer a terminal becomes escapes."""
        text = printable(text, "\n")
        if not self.quiet:
            self.console.print(Text(text, style=style))
        if self.log is not None:
            self.log(text)

    def note(self, text: str) -> None:
        """A lasting line of lesser weight."""
        self.line(text, "dim")

    def tell(self, note: Note) -> None:
        """A note as its level asks for."""
        if note.level == "warning":
            self.warning(note.text)
        else:
            self.line(note.text)

    def warning(self, text: str) -> None:
        """Something that the user should look at."""
        self.line(f"warning: {text}", "yellow")

    def error(self, text: str) -> None:
        """Why the command ends here."""
        self.stop()
        self.line(text, "bold red" if "\n" not in text else "")

    def settings(self, values: dict[str, Any]) -> None:
        """What a run will do, a line each, before it starts."""
        width = max(map(len, values), default=0)
        for name, value in values.items():
            self.note(f"  {name:<{width}}  {value}")

    def waiting(self, text: str) -> None:
        """Say on the live line what takes a while."""
        self._draw(text)

    def progress(self, event: Progress, metrics: Sequence[Metric], example: str = "image") -> None:
        """Redraw the live line; where there is none, a plain line a minute. metrics: that it shows. example: what one
        is called."""
        size = event.steps_per_epoch
        done = event.step - (event.epoch - 1) * size
        size = min(size, event.total_steps - (event.epoch - 1) * size)
        name = f"epoch {event.epoch}/{-(-event.total_steps // event.steps_per_epoch)} {done / size:4.0%}"
        parts = ["  ".join(_texts(event.metrics, metrics)), _eta(event)]
        if self.console.width >= NARROW or not self.is_live:
            parts.insert(1, f"{event.examples_per_second:,.0f} {example}s/s")
        if self.is_live:
            self._draw(name, "  ".join(parts), done / size)
        elif (now := time.monotonic()) - self._last_line > PLAIN_SECONDS:
            self._last_line = now
            self.line("  ".join([name, *parts]))

    def epoch(self, event: EpochReport, metrics: Sequence[Metric], example: str = "image") -> None:
        """The line of a finished epoch. metrics: that it shows of each split. example: as for `progress`."""
        m = event.metrics
        epochs = event.epoch if event.step == event.total_steps else -(-event.total_steps * event.epoch // event.step)
        parts = [f"epoch {event.epoch:>{len(str(epochs))}}/{epochs}"]
        measured = {split: _texts(m, metrics, f"{split}/") for split in ("train", "validation")}
        parts += [" ".join([split, *texts]) for split, texts in measured.items() if texts]
        parts.append(f"lr {m['lr']:.3g}")
        parts.append(f"{m['throughput/images_per_second']:,.0f} {example}s/s")
        self.line("  ".join(parts) + ("  *" if event.is_best and measured["validation"] else ""))
        self._last_line = time.monotonic()

    def board(self, lines: Sequence[str]) -> None:
        """Redraw several lines below all others, where there is a terminal."""
        if not self.is_live:
            return
        from rich.live import Live

        text = Text("\n".join(printable(line) for line in lines), no_wrap=True, overflow="ellipsis")
        if self._live is None:
            self._live = Live(text, console=self.console, transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(text, refresh=True)

    def stop(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def is_live(self) -> bool:
        """Whether there is a terminal on which lines can be drawn again."""
        return self.console.is_terminal and not self.console.is_dumb_terminal and not self.quiet

    def _draw(self, name: str, measures: str = "", share: float = 0.0) -> None:
        if not self.is_live:
            return
        if self._live is None:
            self._live = _live(self.console)
            self._live.start()
        task = self._live.task_ids[0]
        self._live.update(task, description=name, measures=measures, completed=share, refresh=True)


class Errors(Display):
    """Says only why the command ends: for a process that trains together with one that says the rest."""

    def line(self, text: str, style: str = "") -> None:
        pass

    def error(self, text: str) -> None:
        self.console.print(Text(printable(text, "\n")))

    def _draw(self, name: str, measures: str = "", share: float = 0.0) -> None:
        pass


def _texts(values: Mapping[str, float], metrics: Sequence[Metric], prefix: str = "") -> list[str]:
    """The metrics that are among the values, each with its name."""
    return [m.brief_text(values[prefix + m.name]) for m in metrics if prefix + m.name in values]


def _eta(event: Progress) -> str:
    """How long the rest takes at this epoch's pace, evaluations aside."""
    done = event.step - (event.epoch - 1) * event.steps_per_epoch
    seconds = int((event.total_steps - event.step) * event.seconds / max(done, 1))
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d} left"


def _live(console: Console) -> Any:
    """A line that is drawn when it is told to: no thread, which would take turns with the training."""
    from rich.progress import BarColumn, Progress, TextColumn

    columns: list[Any] = [TextColumn("{task.description}"), TextColumn("{task.fields[measures]}")]
    if console.width >= WIDE:
        columns.insert(1, BarColumn(bar_width=24))
    live = Progress(*columns, console=console, transient=True, auto_refresh=False)
    live.add_task("", measures="", total=1.0)
    return live
