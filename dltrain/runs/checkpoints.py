"""Checkpoint files: written whole or not at all, verified before they are opened, safe to open.

A checkpoint is a `torch.save` zip of plain values (dicts, lists, numbers, text, tensors) whose zip
comment is a digest of all bytes before it: a cut or altered file is refused, and `weights_only` loading
cannot run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from dltrain.errors import RunError
from dltrain.runs.stored import StoredError, require_plain

Bytes = bytes | memoryview
Packed = list[Bytes]
"""A checkpoint's file, in parts that follow each other."""
FORMAT = 1
_PREFIX = b"dltrain blake2b "
_COMMENT = len(_PREFIX) + 64


class CheckpointError(RunError):
    """A checkpoint that cannot be used, and why."""


def save(state: dict[str, Any], *paths: Path) -> None:
    """Write `state` to each path in turn. See write."""
    packed = pack(state)
    for path in paths:
        write(packed, path)


def pack(state: dict[str, Any]) -> Packed:
    """The file of a checkpoint. It is a copy: the tensors may change afterwards."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    # The last field of a zip file is the length of its comment, zero so far.
    body: list[Bytes] = [buffer.getbuffer()[:-2], _COMMENT.to_bytes(2, "little")]
    return [*body, _PREFIX + _digest(body)]


def write(packed: Packed, path: Path) -> None:
    """Write a checkpoint's file atomically: temporary file, fsync, rename."""
    write_atomically(path, *packed)


def load(path: Path) -> dict[str, Any]:
    """The state in `path`, tensors on the CPU. Raises CheckpointError when it is damaged or foreign."""
    data = _read(path)
    _require_stored(path, data)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, down to KeyError
        reason = "it holds more than plain values" if isinstance(error, UnpicklingError) else _first_line(error)
        raise CheckpointError(f"{path} is not a checkpoint that can be opened safely: {reason}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else None
        found = str(found)[:20]
        raise CheckpointError(f"{path} has checkpoint format {found}; this version of dltrain reads format {FORMAT}")
    try:
        require_plain(state)
    except StoredError as error:
        raise CheckpointError(f"{path} is not a checkpoint that can be opened safely: {error}") from None
    return state


def _require_stored(path: Path, data: bytes) -> None:
    """Raise CheckpointError when a member of the zip is compressed, or they are larger together than the file: what
    torch inflates, or reads twice, has no bound."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except Exception as error:  # of damaged archives, zipfile raises many kinds
        raise CheckpointError(f"{path} is not a checkpoint that can be opened safely: {_first_line(error)}") from None
    packed = next((member for member in members if member.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None or sum(member.file_size for member in members) > len(data):
        what = "a member of it is compressed" if packed is not None else "its members are larger than the file"
        raise CheckpointError(f"{path} is not a checkpoint that can be opened safely: {what}")


def digest_of(path: Path) -> str:
    """The digest that a checkpoint carries: what tells one from others of its name."""
    return path.read_bytes()[-64:].decode("ascii", "replace")


def carries_digest(path: Path) -> bool:
    """Whether the file ends as ours do, whatever it holds."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _COMMENT, 0))
        return file.read(len(_PREFIX)) == _PREFIX


def is_sound(path: Path) -> bool:
    """Whether the file is there and its digest fits."""
    try:
        _read(path)
    except CheckpointError:
        return False
    return True


def all_finite(values: Any) -> bool:
    """Whether every floating-point tensor in nested dicts and lists is finite. Waits for each device once."""
    tensors: dict[torch.device, list[Tensor]] = {}

    def collect(value: Any) -> None:
        if isinstance(value, Tensor):
            if value.is_floating_point() and value.numel():
                tensors.setdefault(value.device, []).append(value)
        elif isinstance(value, (dict, list, tuple)):
            for inner in value.values() if isinstance(value, dict) else value:
                collect(inner)

    collect(values)
    for found in tensors.values():
        # A finite norm is finite numbers, and quick; an infinite one may be an overflow of its squares.
        if not torch.stack(torch._foreach_norm(found)).isfinite().all():
            return all(bool(tensor.isfinite().all()) for tensor in found)
    return True


def write_atomically(path: Path, *parts: Bytes) -> None:
    """Replace `path` by the parts, one after the other; a crash at any moment leaves the old file or the new one."""
    write_together({path: parts})


def write_together(files: Mapping[Path, Sequence[Bytes]]) -> None:
    """Replace files, each by its parts, in this order. All are written before the first is replaced: where one cannot
    be, as on a full disk, none is."""
    staged = {path.with_name(f".{path.name}.{os.getpid()}.tmp"): path for path in files}
    try:
        for temporary, path in staged.items():
            with temporary.open("wb") as file:
                file.writelines(files[path])
                file.flush()
                os.fsync(file.fileno())
        for temporary, path in staged.items():
            temporary.replace(path)
    finally:
        for temporary in staged:
            temporary.unlink(missing_ok=True)
    for folder in {path.parent for path in files}:
        with contextlib.suppress(OSError):  # not every file system can make a rename durable
            opened = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left half-written. Only for who alone writes there."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def _digest(parts: Iterable[Bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    body, comment = memoryview(data)[:-_COMMENT], data[-_COMMENT:]
    if not comment.startswith(_PREFIX):
        what = "was cut short or is not a dltrain checkpoint" if data else "is empty"
        raise CheckpointError(f"{path} {what}")
    if _digest([body]) != comment[len(_PREFIX) :]:
        raise CheckpointError(f"{path} is damaged: its bytes do not fit its digest")
    return data


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
