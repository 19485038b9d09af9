"""Plug-ins: Python files, named on the command line, that add entries by subclassing a kind."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path

from dltrain.config import ConfigError, Diagnostic, Span
from dltrain.config.section import kinds


def load(path: Path) -> str:
    """Import the file at `path`; its sha256. Its classes are entries as soon as they are defined.

    Raises ConfigError when it cannot be imported or adds nothing.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise _failure(path, f"cannot read the plug-in: {error.strerror}") from None
    digest = hashlib.sha256(source).hexdigest()
    name = f"dltrain_plugin_{digest[:12]}"
    if name in sys.modules:
        return digest
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _failure(path, "a plug-in is a Python file, called *.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic and inspect look the module up by name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _failure(path, f"the plug-in failed: {type(error).__name__}: {error}", _line(path, error)) from None
    if not any(entry.__module__ == name for kind in kinds().values() for entry in kind.catalogue):
        note = 'an entry is a class such as `class Mine(Loss)` with a field `name: Literal["mine"] = "mine"`'
        raise _failure(path, "the plug-in adds no entry", note=note)
    return digest


def _line(path: Path, error: BaseException) -> int | None:
    """The line of the plug-in where it failed."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return frames[-1] if frames else None


def _failure(path: Path, message: str, line: int | None = None, note: str = "") -> ConfigError:
    where = Span(str(path))
    if line is not None:
        text = path.read_text("utf-8", errors="replace").splitlines()[line - 1]
        where = Span(str(path), line, len(text) - len(text.lstrip()) + 1, max(len(text.strip()), 1), text)
    return ConfigError([Diagnostic(message, where, notes=(note,))], str(path))
