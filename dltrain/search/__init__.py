"""What a search tries: ranges of values, how settings are drawn from them, and which trials are ended early."""

from dltrain.search.space import Range
from dltrain.search.sweep import Sweep

__all__ = ["Range", "Sweep"]
