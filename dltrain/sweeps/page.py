"""`sweep.html`: what a search found, in one file that opens anywhere."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from dltrain.evidence.figures import SMALL, WIDE, duration
from dltrain.evidence.pages import render
from dltrain.runs.checkpoints import write_atomically
from dltrain.sweeps import pictures
from dltrain.sweeps.importance import importance
from dltrain.sweeps.story import Objective, SearchStory, TrialStory, identity, told

TEMPLATE = Path(__file__).parent / "templates" / "sweep.html"
PAGE = "sweep.html"
STATES = ("finished", "pruned", "failed", "paused", "running")


def write_page(folder: Path, story: SearchStory) -> Path:
    """Write the page of a search into its folder; a crash leaves the old page or the new one. Raises OSError."""
    path = folder / PAGE
    write_atomically(path, page(story).encode("utf-8", "backslashreplace"))
    return path


def page(story: SearchStory) -> str:
    """The page of a search: HTML without references to anything outside of it. The same story gives the same page."""
    drawn = [t for t in story.trials if any(o.tag in t.metrics for o in story.objectives)]
    found = [importance(story, objective) for objective in story.objectives]
    curved = [t for t in story.trials if t.curve]
    return render(
        TEMPLATE,
        story=story,
        summary=summary(story),
        tried=tried(story),
        best=[_row(story, story.trial(index)) for index in story.best],
        drawn=drawn,
        histories=[(o, *_both(pictures.history, story, o)) for o in story.objectives] if drawn else [],
        importances=[(each, pictures.importances(each) if each.shares else None) for each in found],
        coordinates=[pictures.coordinates(story, story.objectives[0], upright=upright) for upright in (True, False)],
        slices=[(o, [pictures.slices(story, o, key) for key in story.space]) for o in story.objectives]
        if drawn
        else [],
        curves=_both(pictures.curves, story) if curved else None,
        unfinished=any(t.state != "finished" for t in curved),
        thinned=max((len(t.curve) for t in curved), default=0) > pictures.THINNED,
        fronts=pictures.fronts(story) if len(story.measured) > 1 else [],
        rows=[_row(story, trial) for trial in sorted(story.trials, key=lambda trial: trial.index)],
        failures=_failures(story),
        rounds=story.rounds or [story.space],
        range_text=pictures.range_text,
        exact=identity,
    )


def _both(draw: Any, *values: Any) -> tuple[Any, Any]:
    """A figure for wide pages and one for narrow ones."""
    return draw(*values, WIDE), draw(*values, SMALL)


def summary(story: SearchStory) -> str:
    """What was found, in a sentence."""
    if not story.best:
        return "No trial has come to an end with a result yet."
    if len(story.objectives) > 1:
        names = " and ".join(objective.name for objective in story.objectives)
        count = len(story.best)
        return f"{count} {'trials are' if count > 1 else 'trial is'} beaten by no other in {names} together."
    best, objective = story.trial(story.best[0]), story.objectives[0]
    return f"Trial {best.index + 1} is the best: {objective.tag} {objective.text(best.metrics[objective.tag])}."


def tried(story: SearchStory) -> str:
    """How many settings were tried, what became of them, and how long it took."""
    counts = [(sum(trial.state == state for trial in story.trials), state) for state in STATES]
    parts = ", ".join(f"{count} {state}" for count, state in counts if count)
    total = len(story.trials)
    taken = f" in {duration(story.seconds)}" if story.seconds else ""
    return f"{total} setting{'s' if total != 1 else ''} tried{taken}" + (f": {parts}." if parts else ".")


def _row(story: SearchStory, trial: TrialStory) -> dict[str, Any]:
    """A trial as the tables show it: cells are (what is told, what it is sorted by, whether it is a number)."""

    def number(value: float | None, objective: Objective) -> tuple[str, Any, bool]:
        return ("", "", True) if value is None else (objective.text(value), value, True)

    def value(key: str) -> tuple[str, Any, bool]:
        if key not in trial.values:
            return "", "", False
        plain = trial.values[key]
        is_number = isinstance(plain, (int, float)) and not isinstance(plain, bool)
        return told(plain), plain if is_number else told(plain), is_number

    return {
        "trial": trial,
        "of": pictures.of(trial),
        "best": trial.index in story.best,
        "metrics": [number(trial.metrics.get(objective.tag), objective) for objective in story.objectives],
        "values": [value(key) for key in story.space],
    }


def _failures(story: SearchStory) -> list[tuple[str, list[TrialStory]]]:
    """The trials that failed, by their reason; the most frequent first."""

    def reason(trial: TrialStory) -> str:
        return trial.reason or "no reason was written"

    failed = sorted((trial for trial in story.trials if trial.state == "failed"), key=lambda t: (reason(t), t.index))
    groups = [(why, list(trials)) for why, trials in itertools.groupby(failed, key=reason)]
    return sorted(groups, key=lambda group: -len(group[1]))
