"""What was changed in a network: the evidence that a key of the experiment had its effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Change:
    """What one key changed: `what` was put in, at which `places` (names of modules), and `notes` on the rest."""

    key: str
    what: str
    places: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = f"{len(self.places)} place{'s' if len(self.places) != 1 else ''}"
        return "; ".join((f"{self.key}: {self.what} in {count}", *self.notes))


@dataclass
class Adaptation:
    """All that was changed in a network after it was built as published."""

    changes: list[Change] = field(default_factory=list)

    def lines(self) -> list[str]:
        """A line for each key."""
        return [str(change) for change in self.changes]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, by key."""
        return {
            change.key: {
                "what": change.what, "count": len(change.places), "places": list(change.places),
                "notes": list(change.notes),
            }
            for change in self.changes
        }  # fmt: skip
