"""A pretrained file that cannot be had becomes a message that says where to put it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from dltrain.config import ConfigError, Diagnostic

_NETWORK = {"httpx", "httpcore", "huggingface_hub", "requests", "urllib3"}
"""Libraries whose errors mean that a download failed."""


@contextmanager
def downloading(label: str, file: str, folder: str) -> Iterator[None]:
    """Raises ConfigError for a failed download of the pretrained weights of `label`."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in _NETWORK:
            raise
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        notes = (
            f"without a network, put the file `{file}` into {folder}",
            "or start from random weights: set `model.pretrained: false`",
            f"the download said: {reason}",
        )
        raise ConfigError([Diagnostic(f"cannot download the pretrained weights of `{label}`", notes=notes)]) from error


def require_host(url: str) -> None:
    """Raises OSError at once when the host of `url` is unknown here, where a client would retry for a minute."""
    if not getproxies():  # a proxy resolves names itself
        socket.getaddrinfo(urlsplit(url).hostname, None)
