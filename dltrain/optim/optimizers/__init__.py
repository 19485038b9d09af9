"""Optimizers, each in a file of its name. Importing this imports all files of the folder: a new one is an entry.

Left out of torch's: Rprop (full batches only, and it ignores the learning rate after its first step), ASGD (its average
is never used; the average `swa` is), SparseAdam (sparse gradients only).
"""

from dltrain.config.folders import import_modules

SHOWN_FIRST = (
    "sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam", "adafactor", "library",
    "muon", "lion", "lars", "lamb", "novograd", "sm3", "schedule_free_sgd", "schedule_free_adamw",
)  # fmt: skip
"""The order in which `dltrain list` shows them; the others follow by name."""

import_modules(__name__, __path__, SHOWN_FIRST)
