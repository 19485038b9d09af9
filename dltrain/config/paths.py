"""Paths as people write them: `~` is the home folder, `$NAME` and `${NAME}` are variables of the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)


def expanded(text: str) -> str:
    """`text` with the home folder for a `~` at its beginning, and with the values of variables.

    A file or folder that is called so as it stands is meant itself. Raises ValueError when a variable is not set.
    """
    if not text.startswith("~") and "$" not in text:
        return text
    try:
        if Path(text).exists():
            return text
    except (OSError, ValueError):  # a name that no file can have: whoever opens it says so
        pass

    def value(found: re.Match[str]) -> str:
        name = found[1].strip("{}")
        if name not in os.environ:
            raise ValueError(f"`{text}`: `${name}` is not set in the environment")
        return os.environ[name]

    return os.path.expanduser(_VARIABLE.sub(value, text))  # noqa: PTH111 - of text, which may be empty


PathText = Annotated[str, AfterValidator(expanded)]
"""The path of a file or folder. A run keeps what it became, so that the run can be repeated from anywhere."""
