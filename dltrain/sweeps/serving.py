"""What the process of a worker does: it answers one word after another, until nobody is there to say one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection, wait
from pathlib import Path

from filelock import FileLock

from dltrain.sweeps.trial import Setup, Worker


def serve(pipe: Connection, setup: Setup, lock: str) -> None:
    """Do what the words that come through the pipe ask of a `Worker`, and send back its events. lock: held as long as
    this process lives."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C is for the coordinator, which then asks this process to stop
    _end_with_parent()
    Path(lock).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        from dltrain.experiment.plugins import load

        for plugin in setup.plugins:
            load(Path(plugin))
        worker = Worker(setup, setup.experiment())
        try:
            while True:
                word, what = pipe.recv()
                pipe.send(worker.begin(what) if word == "begin" else worker.go_on(what))
        except (EOFError, OSError):  # the coordinator is gone
            return


def _end_with_parent() -> None:
    """Ask this process to end after the step that it is in, when its coordinator is gone."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
