"""Checkpoint files: written whole or not at all, verified before they are opened, safe to open.

A checkpoint is a `torch.save` zip of plain values (dicts, lists, numbers, text, tensors) whose zip
comment is a digest of all bytes before it: a cut or altered file is refused, and `weights_only` loading
cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

import torch

FORMAT = 1
_PREFIX = b"dltrain blake2b "
_COMMENT = len(_PREFIX) + 64


class CheckpointError(Exception):
    """A checkpoint that cannot be used, and why."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` atomically: temporary file, fsync, rename."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_atomically(path, _with_digest(buffer.getbuffer()))


def load(path: Path) -> dict[str, Any]:
    """The state in `path`, tensors on the CPU. Raises CheckpointError when it is damaged or foreign."""
    data = _read(path)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, down to KeyError
        raise CheckpointError(f"{path} is not a checkpoint that can be opened safely: {_first_line(error)}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else None
        raise CheckpointError(f"{path} has checkpoint format {found}; this version of dltrain reads format {FORMAT}")
    return state


def is_sound(path: Path) -> bool:
    """Whether the file is there and its digest fits."""
    try:
        _read(path)
    except CheckpointError:
        return False
    return True


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Replace `path` by `data`; a crash at any moment leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def copy_atomically(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, without writing it twice where the disk can link."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # no hard links on this file system
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def _with_digest(zipped: memoryview) -> bytes:
    # The last field of a zip file is the length of its comment, zero so far.
    body = bytes(zipped[:-2]) + _COMMENT.to_bytes(2, "little")
    return body + _PREFIX + hashlib.blake2b(body, digest_size=32).hexdigest().encode()


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    body, comment = data[:-_COMMENT], data[-_COMMENT:]
    if not comment.startswith(_PREFIX):
        what = "was cut short or is not a dltrain checkpoint" if data else "is empty"
        raise CheckpointError(f"{path} {what}")
    if hashlib.blake2b(body, digest_size=32).hexdigest().encode() != comment[len(_PREFIX) :]:
        raise CheckpointError(f"{path} is damaged: its bytes do not fit its digest")
    return data


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
