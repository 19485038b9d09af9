"""`serve`: answers over HTTP from an exported file. Imports no torch."""

from __future__ import annotations

import os
from importlib.util import find_spec

from dltrain.console.streams import say
from dltrain.errors import RequestError, RunError
from dltrain.export.session import Session

NEEDED = ("onnxruntime", "starlette", "uvicorn")


def serve_file(
    path: str, host: str, port: int, *, max_bytes: int, max_pixels: int, seconds: float, workers: int | None
) -> None:
    """Serve the exported file at `path` until the process is asked to end. port 0: one that is free.

    Raises RequestError when a library is not installed or the port is in use, RunError for a file that is no export of
    ours, or of images that no file holds.
    """
    if absent := [name for name in NEEDED if find_spec(name) is None]:
        raise RequestError(f"`serve` needs {', '.join(absent)}: pip install 'dltrain[serve]'")
    session = Session.open(path, threads=1)
    inputs = session.about.inputs
    if inputs.kind == "images" and inputs.channels not in (1, 3):
        raise RunError(f"the file takes images of {inputs.channels} channels, and image files are grey (1) or RGB (3)")
    from dltrain.serving.application import Limits, Server
    from dltrain.serving.running import bound, run

    limits = Limits(max_bytes, max_pixels, seconds, workers=workers or os.cpu_count() or 1)
    listening = bound(host, port)
    where = f"http://{host}:{listening.getsockname()[1]}"
    run(Server(session, limits), listening, lambda: say(f"serving {path} on {where}, until Ctrl-C"))
    say("stopped: all that was asked is answered")
