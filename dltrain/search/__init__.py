"""What a search tries: ranges of values, how settings are drawn from them, and which trials are ended early."""

from dltrain.search.conditions import Condition, Space
from dltrain.search.samplers import Sampler
from dltrain.search.settings import Settings
from dltrain.search.space import Range
from dltrain.search.sweep import Sweep
from dltrain.search.trials import Setting, Told

__all__ = ["Condition", "Range", "Sampler", "Setting", "Settings", "Space", "Sweep", "Told"]
