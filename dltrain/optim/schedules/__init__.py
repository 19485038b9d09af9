"""Learning-rate schedules, each in a file of its name: pure functions of the step, so there is nothing to save and
nothing to fall out of step. Importing this imports all files of the folder: a new one is an entry."""

from dltrain.config.folders import import_modules

SHOWN_FIRST = (
    "constant", "step", "multi_step", "exponential", "cosine", "linear", "polynomial", "one_cycle", "cosine_restarts",
    "inverse_sqrt", "wsd",
)  # fmt: skip
"""The order in which `dltrain list` shows them; the others follow by name."""

import_modules(__name__, __path__, SHOWN_FIRST)
