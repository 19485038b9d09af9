"""`find lr`: a range test becomes a curve in the terminal, a picture, plain values, and the line to paste."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dltrain.console.display import Display
from dltrain.engine.learning_rates import RULE, Found, Tried, range_test, require_rate, usual_range
from dltrain.errors import RequestError
from dltrain.evidence.figures import Numbers, Point, Series, chart
from dltrain.evidence.pages import standalone
from dltrain.experiment.experiment import Experiment
from dltrain.planning.text import BLOCKS
from dltrain.runs.run import Run, unwritable

FOLDER = Path("find-lr")
"""Where pictures go, when nobody says."""
ROWS, WIDEST = 10, 100
ROOM = 1.15
"""How much of what lies above the loss at the start is shown, where it diverges."""


@dataclass(frozen=True)
class Range:
    """From which learning rate to which, in how many steps; None: as usual for the optimizer."""

    low: float | None
    high: float | None
    steps: int


def find_lr(
    path: Path, overrides: Sequence[str], device: str, asked: Range, output: Path | None, display: Display, *,
    plugins: dict[str, str], width: int, as_json: bool,
) -> tuple[str, bool]:  # fmt: skip
    """The result as text, and whether there is a suggestion.

    path: an experiment, or a run, whose last checkpoint is gone on from in memory. output: the picture, an SVG file.
    Raises ConfigError for an experiment that has no learning rate to find, and RunError for a run without a checkpoint
    or a picture that cannot be written.
    """
    experiment, state = _opened(path, overrides)
    require_rate(experiment)
    usual = usual_range(experiment)
    low, high = (own or default for own, default in zip((asked.low, asked.high), usual, strict=True))
    if low >= high:
        raise RequestError(f"--from must be below --to, not {low:g} and {high:g}")
    result: Found | None = None
    for event in range_test(experiment, device, low, high, asked.steps, state=state, plugins=plugins):
        if isinstance(event, Found):
            result = event
        else:
            display.waiting(f"learning rate {event.lr:.2e}: loss {event.smoothed:.4g}")
    display.stop()
    assert result is not None
    picture = output or FOLDER / f"{experiment.name}.svg"
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(standalone(drawn(result, experiment.name)), encoding="utf-8")
    except OSError as error:
        raise unwritable(error, picture) from None
    there = result.suggestion is not None
    if as_json:
        return json.dumps(to_dict(result, experiment.name, picture), indent=2), there
    return "\n".join([*curve(result, min(width, WIDEST)), *told(result, experiment, picture)]), there


def _opened(path: Path, overrides: Sequence[str]) -> tuple[Experiment, dict[str, Any] | None]:
    """The experiment, and the state that its training has come to, if a run is asked."""
    if not path.is_dir() and path.suffix != ".pt":
        return Experiment.load(path, overrides), None
    run, file = Run.open(path)
    _, state = run.checkpoint_at(file) if file is not None else run.checkpoint("last")
    return Experiment.load(run.path / "experiment.yaml", overrides), state


def to_dict(result: Found, name: str, picture: Path) -> dict[str, Any]:
    """The result as plain values."""
    suggestion = result.suggestion
    return {
        "experiment": name, "suggestion": suggestion, "rule": RULE,
        "override": None if suggestion is None else override(suggestion),
        "least": result.least, "ended": result.ended, "picture": str(picture),
        "steps": [asdict(each) for each in result.tried],
    }  # fmt: skip


def override(suggestion: float) -> str:
    """The line to paste."""
    return f"optimizer.lr={suggestion:g}"


def told(result: Found, experiment: Experiment, picture: Path) -> Iterator[str]:
    """What it comes to, in words; the last line is the one to paste."""
    yield f"{len(result.tried)} steps; it ended {result.ended}. picture: {picture}"
    if result.suggestion is None or result.least is None:
        yield "the loss hardly falls at any of these learning rates: try more steps (--steps) or others (--from, --to)"
        return
    now = experiment.optimizer.lr
    yield f"suggestion: {RULE} ({result.least:.2g}); the experiment has {now:g}"
    if any(group.lr is not None for group in experiment.optimizer.groups):
        yield "groups with an `lr` of their own moved in proportion: scale theirs alike"
    yield override(result.suggestion)


def curve(result: Found, width: int) -> Iterator[str]:
    """The smoothed loss over the learning rate as filled columns, with a mark under the suggestion."""
    tried = result.tried
    if len(tried) < 2:
        return
    low, high = _bounds(tried)
    labels = f"{high:.3g}", f"{low:.3g}"
    side = max(map(len, labels))
    columns = max(width - side - 2, 10)
    shown = [tried[round(column * (len(tried) - 1) / (columns - 1))] for column in range(columns)]
    full = [max(round((min(each.smoothed, high) - low) / (high - low) * ROWS * 8), 1) for each in shown]
    for row in reversed(range(ROWS)):
        label = labels[0] if row == ROWS - 1 else labels[1] if row == 0 else ""
        yield f"{label:>{side}} │" + "".join(BLOCKS[min(max(height - 8 * row, 0), 8)] for height in full)
    yield " " * side + " └" + "─" * columns
    ends = f"{tried[0].lr:.1e}", f"{tried[-1].lr:.1e}"
    yield " " * (side + 2) + ends[0] + ends[1].rjust(columns - len(ends[0]))
    if (suggestion := result.suggestion) is not None:
        at = min(range(columns), key=lambda column: abs(shown[column].lr / suggestion - 1))
        words = f"^ {suggestion:g}"
        yield " " * (side + 2 + min(at, columns - len(words))) + words


def _bounds(tried: Sequence[Tried]) -> tuple[float, float]:
    """The losses between which the curve is shown."""
    low, start = min(each.smoothed for each in tried), max(each.smoothed for each in tried[: max(len(tried) // 10, 3)])
    high = min(max(each.smoothed for each in tried), start + (ROOM - 1) * max(start - low, 1e-12))
    return (low, high) if high > low else (low, low + max(abs(low), 1e-12))


def drawn(result: Found, name: str) -> Any:
    """The picture: losses as points, smoothed as a line, and the suggestion."""
    tried = [each for each in result.tried if each.loss == each.loss]
    low, high = _bounds(tried) if tried else (0.0, 1.0)
    x = Numbers.of("learning rate", [each.lr for each in tried], log=True)
    room = 0.08 * (high - low)
    y = Numbers("training loss", min([low, *(each.loss for each in tried)]) - room, high + room)
    inside = [each for each in tried if each.loss <= y.high]
    series = [
        Series("of each step", [Point(each.lr, each.loss) for each in inside], "s5", "circle"),
        Series("smoothed", [Point(each.lr, min(each.smoothed, y.high)) for each in tried], "s0", None, "straight"),
    ]
    if (suggestion := result.suggestion) is not None:
        ends = [Point(suggestion, y.low), Point(suggestion, y.high)]
        series.append(Series(f"suggested: {suggestion:g}", ends, "s1", None, "straight", dashed=True))
    words = f"The training loss of {name} while the learning rate grows from step to step."
    return chart(f"Learning rates of {name}", words, x, y, series)
