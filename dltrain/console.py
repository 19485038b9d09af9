"""What a person sees while a training runs: a live line on a terminal, plain lines elsewhere.

Everything goes to stderr; results go to stdout and are printed by the commands themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from dltrain.reports import EpochReport, Progress


class Display:
    """Messages, epochs and progress. `log` receives every lasting line as plain text.

    quiet: show the live line alone; the rest goes to the log.
    """

    def __init__(self, log: Callable[[str], None] | None = None, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.log, self.quiet = log, quiet
        self._live: Any = None

    def line(self, text: str, style: str = "") -> None:
        """A lasting line."""
        if not self.quiet:
            self.console.print(Text(text, style=style))
        if self.log is not None:
            self.log(text)

    def note(self, text: str) -> None:
        """A lasting line of lesser weight."""
        self.line(text, "dim")

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

    def progress(self, event: Progress) -> None:
        """Redraw the live line; nothing where the output is not a terminal."""
        if not self.console.is_terminal:
            return
        if self._live is None:
            self._live = _live(self.console)
            self._live.start()
        done = event.step - (event.epoch - 1) * event.steps_per_epoch
        size = event.steps_per_epoch
        self._live.update(
            self._live.task_ids[0], total=min(size, event.total_steps - (event.epoch - 1) * size), completed=done,
            description=f"epoch {event.epoch}/{-(-event.total_steps // size)}",
            measures=f"loss {event.loss:.4f}  accuracy {event.accuracy:.2%}  {event.images_per_second:,.0f} images/s",
            eta=_eta(event),
        )  # fmt: skip

    def epoch(self, event: EpochReport) -> None:
        """The line of a finished epoch."""
        m = event.metrics
        total = len(str(event.total_steps))
        parts = [f"epoch {event.epoch:>3}  step {event.step:>{total}}/{event.total_steps}"]
        for split in ("train", "validation"):
            if f"{split}/loss" in m:
                parts.append(f"{split} loss {m[f'{split}/loss']:.4f} accuracy {m[f'{split}/accuracy']:.2%}")
        parts.append(f"lr {m['lr']:.3g}")
        parts.append(f"{m['throughput/images_per_second']:,.0f} images/s")
        self.line("  ".join(parts) + ("  *" if event.is_best and "validation/loss" in m else ""))

    def stop(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _eta(event: Progress) -> str:
    if not event.images_per_second:
        return ""
    done = event.step - (event.epoch - 1) * event.steps_per_epoch
    per_step = event.seconds / max(done, 1)
    seconds = int((event.total_steps - event.step) * per_step)
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"{hours}:{minutes:02d}:{seconds % 60:02d} left"


def _live(console: Console) -> Any:
    from rich.progress import BarColumn, Progress, TextColumn

    live = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[measures]}"),
        TextColumn("{task.fields[eta]}"), console=console, transient=True, redirect_stdout=False,
        redirect_stderr=False,
    )  # fmt: skip
    live.add_task("", measures="", eta="", total=1)
    return live


def stdout(text: str) -> None:
    """A result, on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
