"""What a server counts of itself, in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of the histogram of seconds."""


@dataclass
class Metrics:
    """Requests by status, how long answers took, and how many are being answered. Of one event loop: not locked."""

    requests: Counter[int] = field(default_factory=Counter)
    answering: int = 0
    _buckets: list[int] = field(default_factory=lambda: [0] * len(BOUNDS))
    _seconds: float = 0.0
    _count: int = 0

    def took(self, seconds: float) -> None:
        """Count an answer."""
        self._count += 1
        self._seconds += seconds
        for place, bound in enumerate(BOUNDS):
            self._buckets[place] += seconds <= bound

    def text(self) -> str:
        """All of it."""
        lines = ["# TYPE dltrain_requests_total counter"]
        lines += [f'dltrain_requests_total{{status="{code}"}} {count}' for code, count in sorted(self.requests.items())]
        lines += ["# TYPE dltrain_answering gauge", f"dltrain_answering {self.answering}"]
        lines.append("# TYPE dltrain_answer_seconds histogram")
        lines += [
            f'dltrain_answer_seconds_bucket{{le="{bound}"}} {count}'
            for bound, count in zip((*BOUNDS, "+Inf"), (*self._buckets, self._count), strict=True)
        ]
        lines += [f"dltrain_answer_seconds_sum {self._seconds:.6f}", f"dltrain_answer_seconds_count {self._count}"]
        return "\n".join(lines) + "\n"
