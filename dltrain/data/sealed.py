"""What a search has instead of the test split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sealed:
    """Examples of which nothing but their number is known: a test split during a search. Whatever else is asked of them
    raises RuntimeError."""

    count: int

    def __len__(self) -> int:
        return self.count

    def unlike(self, layout: Any) -> list[str]:
        """Nothing that could be told without a look at them."""
        return []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself asks for, such as to copy it
            raise AttributeError(name)
        raise RuntimeError(f"a search asked the test split for `{name}`: it takes no part in it")
