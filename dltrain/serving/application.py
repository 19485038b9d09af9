"""The routes of a server, as a Starlette application; every limit is kept here.

POST /predict -> body, within its limits -> a free worker -> answer        GET /  /health  /metrics
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dltrain.export.session import Session
from dltrain.serving.answering import WrongInputError, answer
from dltrain.serving.metrics import Metrics

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src blob:"
"""The page loads nothing from elsewhere."""


@dataclass(frozen=True)
class Limits:
    """max_bytes: of a body. max_pixels: of an image. seconds: until a body is there, and an answer. waiting: requests
    that are held at a time; more are told to come again. workers: that answer at a time."""

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    seconds: float = 30.0
    waiting: int = 64
    workers: int = 2


def _error(message: str, status: int, headers: dict[str, str]) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


class Last(Response):
    """The last answer on a connection. What the client still sends is thrown away for some seconds: were the connection
    closed at once, it would learn of that, and not of the answer."""

    def __init__(self, message: str, status: int, headers: dict[str, str], seconds: float) -> None:
        said = _error(message, status, {**headers, "Connection": "close"})
        super().__init__(said.body, status, dict(said.headers))
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_all_of(receive), self._seconds)
        await send({"type": "http.response.body", "body": b""})


async def _all_of(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


class Server:
    """An exported file behind HTTP."""

    def __init__(self, session: Session, limits: Limits) -> None:
        self.session, self.limits, self.metrics = session, limits, Metrics()
        self._pool = ThreadPoolExecutor(limits.workers, "answer")
        page = resources.files("dltrain.serving").joinpath("page.html").read_text("utf-8")
        self._page = page if session.about.inputs.kind == "images" else ""

    def application(self) -> Starlette:
        """What an ASGI server runs."""
        return Starlette(routes=[
            Route("/predict", self.predict, methods=["POST"]), Route("/health", self.health),
            Route("/metrics", self.measured), Route("/", self.page),
        ])  # fmt: skip

    def close(self) -> None:
        """Wait for the workers."""
        self._pool.shutdown()

    async def predict(self, request: Request) -> Response:
        """The answer to a body, or why there is none: 4xx for what the client did, 503 where others are before it."""
        if self.metrics.answering >= self.limits.waiting:
            return self._refused(503, f"{self.limits.waiting} requests are being answered: come again", close=True)
        self.metrics.answering += 1
        started = time.perf_counter()
        try:
            return await self._answered(request, started)
        finally:
            self.metrics.answering -= 1

    async def _answered(self, request: Request, started: float) -> Response:
        limits = self.limits
        try:
            body = await asyncio.wait_for(self._body(request), limits.seconds)
        except asyncio.TimeoutError:
            return self._refused(408, f"the body was not there within {limits.seconds:g} seconds", close=True)
        except WrongInputError as error:
            return self._refused(error.status, str(error), close=error.status == 413)
        except ClientDisconnect:
            self.metrics.requests[499] += 1
            return Response(status_code=499)
        if not body:
            return self._refused(400, "the body is empty: send the bytes of an image file, or JSON with rows")
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._pool, answer, self.session, body, limits.max_pixels)
        try:
            said = await asyncio.wait_for(work, limits.seconds)
        except asyncio.TimeoutError:
            return self._refused(503, f"there was no answer within {limits.seconds:g} seconds: come again")
        except WrongInputError as error:
            return self._refused(error.status, str(error))
        except ValueError:  # of a shape that the network does not take
            return self._refused(422, "the network does not take this input")
        self.metrics.took(time.perf_counter() - started)
        self.metrics.requests[200] += 1
        return JSONResponse(said)

    async def _body(self, request: Request) -> bytes:
        """Raises WrongInputError for one that is too large, as soon as that is known."""
        most = self.limits.max_bytes
        declared = request.headers.get("content-length", "0")
        parts, size = [], int(declared) if declared.isdecimal() else 0
        if size <= most:
            size = 0
            async for part in request.stream():
                size += len(part)
                if size > most:
                    break
                parts.append(part)
        if size > most:
            raise WrongInputError(f"the body is larger than {most:,} bytes", 413)
        return b"".join(parts)

    def _refused(self, status: int, message: str, *, close: bool = False) -> Response:
        """close: whether what the client still sends is not read."""
        self.metrics.requests[status] += 1
        headers = {"Retry-After": "1"} if status == 503 else {}
        return Last(message, status, headers, self.limits.seconds) if close else _error(message, status, headers)

    async def health(self, request: Request) -> Response:
        """That it answers, and what is served."""
        about = self.session.about
        return JSONResponse({
            "status": "ok", "file": self.session.path.name, "task": about.task, "names": about.names,
            "inputs": about.inputs.kind, "columns": [*about.inputs.numbers, *about.inputs.categories],
            "checkpoint": about.checkpoint, "step": about.step, "fingerprint": about.fingerprint,
            "temperature": (about.calibration or {}).get("temperature"),
        })  # fmt: skip

    async def measured(self, request: Request) -> Response:
        """For Prometheus."""
        return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def page(self, request: Request) -> Response:
        """A page to drop images on."""
        if not self._page:
            return PlainTextResponse('POST /predict with {"rows": [{"COLUMN": VALUE, ...}]}; GET /health for columns\n')
        return HTMLResponse(self._page, headers={"Content-Security-Policy": POLICY})
