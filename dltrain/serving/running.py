"""A server on a port, until it is asked to end: what is being answered is answered first."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dltrain.errors import RequestError
from dltrain.serving.application import Server

GRACE = 10
"""Seconds that answers have left once the server is asked to end."""
CONNECTIONS = 1000
"""At a time; more are told to come again."""


def bound(host: str, port: int) -> socket.socket:
    """A socket there. Raises RequestError when the port is in use, or not for us."""
    try:
        return socket.create_server((host, port), backlog=CONNECTIONS)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)
        reason = getattr(error, "strerror", None) or str(error)
        if number is not None and number in errno.errorcode:  # the error's own text has the address once more
            reason = os.strerror(number)
        raise RequestError(f"cannot listen on {host}:{port}: {reason.lower()}; choose another --port") from None


def run(server: Server, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve on a socket until SIGTERM or SIGINT. ready: called when it answers."""
    config = uvicorn.Config(
        server.application(), http=_protocol(server.limits.seconds), ws="none", lifespan="off", log_level="error",
        access_log=False, server_header=False, timeout_keep_alive=30, timeout_graceful_shutdown=GRACE,
        limit_concurrency=CONNECTIONS,
    )  # fmt: skip
    uvicorn_server = uvicorn.Server(config)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, setattr, uvicorn_server, "should_exit", True)
        ready()
        await uvicorn_server._serve([listening])  # `serve` would send itself the signal again when it has ended

    asyncio.run(serve())
    server.close()


def _protocol(seconds: float) -> type[H11Protocol]:
    class Impatient(H11Protocol):
        """Closes a connection whose next request is not there in time, or that goes on sending what nobody reads: a
        client that stalls holds nothing for long."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._deadline = self.loop.call_later(seconds, self._give_up)

        def on_response_complete(self) -> None:
            self._deadline.cancel()
            self._deadline = self.loop.call_later(seconds, self._give_up)
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._deadline.cancel()
            super().connection_lost(exc)

        def _give_up(self) -> None:
            answering = self.cycle is not None and not self.cycle.response_complete
            if not answering and not self.transport.is_closing():
                self.transport.close()

    return Impatient
