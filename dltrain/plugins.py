"""Plug-ins: Python files, named on the command line, that add entries by subclassing a kind."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path


class PluginError(Exception):
    """A plug-in file that cannot be imported."""


def load(path: Path) -> str:
    """Import the file at `path`; its sha256. Its classes are entries as soon as they are defined."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PluginError(f"cannot read plug-in {path}: {error.strerror}") from None
    name = f"dltrain_plugin_{digest[:12]}"
    if name in sys.modules:
        return digest
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"plug-in {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic and inspect look the module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise PluginError(f"plug-in {path} failed at {where.filename}:{where.lineno}: {error}") from None
    return digest
