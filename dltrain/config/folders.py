"""Catalogues that are complete because every module of a folder is imported."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence


def import_modules(package: str, folder: Iterable[str], first: Sequence[str] = ()) -> None:
    """Import every module of a package, given its `__name__` and `__path__`; not the packages in it, such as `impl`.

    A catalogue has its entries in the order of the imports: the modules in `first`, then the others by name.
    """
    found = sorted(module.name for module in pkgutil.iter_modules(folder) if not module.ispkg)
    for name in [*first, *(name for name in found if name not in first)]:
        importlib.import_module(f"{package}.{name}")
