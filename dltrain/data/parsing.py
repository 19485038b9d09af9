"""Files that others wrote: whatever a parsing library makes of them becomes an error that names the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.loading.resources import free_main_memory, size

LONGEST = 200
"""Letters of a library's message that are shown."""


@contextmanager
def parsing(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Turn every exception in the block into a ConfigError: `path` is damaged or is not `kind`.

    Parsers of damaged files raise whatever comes to their mind; a list of kinds would never be complete.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:LONGEST] or type(error).__name__
        raise ConfigError([Diagnostic(f"{path} is damaged or is not {kind}: {reason}")]) from None


def require_memory(path: str | os.PathLike[str], what: str, need: int) -> None:
    """Raise ConfigError when what a file says that it holds is larger than the memory that is free."""
    free = free_main_memory()
    if need > free:
        raise ConfigError([Diagnostic(f"{path}: {what} takes {size(need)}, and {size(free)} of memory are free")])
