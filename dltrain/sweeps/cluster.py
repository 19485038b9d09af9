"""The workers of a search on several machines, by Ray. Needs the extra `cluster`.

A worker is a Ray actor, which does what a worker of this machine does. The folder that the search was started in must
stand at the same path on every machine, such as a network share: runs are written there, and resumed from there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dltrain.errors import RequestError, RunError
from dltrain.runs.run import JOURNAL
from dltrain.sweeps.trial import Events, Leg, Setup, Worker
from dltrain.sweeps.workers import Lost


class Cluster:
    """Actors of a Ray cluster. ray: see `connected`. jobs: how many; None for one on each GPU, or on each core where
    there is none."""

    def __init__(self, ray: Any, setup: Setup, folder: Path, jobs: int | None) -> None:
        self._ray = ray
        total = self._ray.cluster_resources()
        cores, gpus = int(total.get("CPU", 1)), int(total.get("GPU", 0))
        self.slots = jobs or gpus or cores
        share: dict[str, Any] = {"num_cpus": min(1.0, cores / self.slots)}
        if gpus:
            share["num_gpus"] = gpus / self.slots if self.slots > gpus else 1
            setup = replace(setup, device="cuda" if setup.device == "auto" else setup.device)
        elif setup.device == "auto":
            setup = replace(setup, device="cpu")
        self._setup = replace(setup, threads=max(cores // self.slots, 1))
        self._actor = self._ray.remote(max_restarts=0, max_task_retries=0, **share)(Remote)
        self._folder = folder.resolve()
        self._running: dict[int, Any] = {}
        self._asked: dict[Any, int] = {}

    def begin(self, slot: int, legs: Sequence[Leg]) -> None:
        """See Workers."""
        if slot not in self._running:
            self._running[slot] = self._actor.remote(self._setup, os.getcwd(), str(self._folder))  # noqa: PTH109
        self._asked[self._running[slot].begin.remote(list(legs))] = slot

    def go_on(self, slot: int, park: list[bool]) -> None:
        """See Workers."""
        self._asked[self._running[slot].go_on.remote(park)] = slot

    def events(self, seconds: float) -> list[tuple[int, Events | Lost]]:
        """See Workers. Raises RunError when a machine does not have the folder."""
        if not self._asked:
            return []
        ready, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=seconds)
        found: list[tuple[int, Events | Lost]] = []
        for answer in ready:
            slot = self._asked.pop(answer)
            try:
                found.append((slot, self._ray.get(answer)))
            except self._ray.exceptions.RayTaskError as error:
                raise RunError(str(error.cause) if isinstance(error.cause, RunError) else str(error)) from None
            except self._ray.exceptions.RayError as error:
                self._running.pop(slot, None)
                found.append((slot, Lost(f"Ray lost its process ({type(error).__name__})")))
        return found

    def stop(self) -> None:
        """Nothing: a leg is parked at the end of its epoch, when the coordinator says so."""

    def drop(self) -> None:
        """See Workers."""
        for slot in set(self._asked.values()):
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(self._running.pop(slot))
        self._asked.clear()

    def close(self) -> None:
        """See Workers."""
        for actor in self._running.values():
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)
        self._running.clear()
        self._ray.shutdown()


class Remote:
    """A worker, in the process of an actor."""

    def __init__(self, setup: Setup, place: str, folder: str) -> None:
        if not (Path(place).is_dir() and (Path(folder) / JOURNAL).is_file()):
            raise RunError(f"{socket.gethostname()} does not have {folder}: every machine must see it at the same path")
        os.chdir(place)
        from dltrain.experiment.plugins import load

        for plugin in setup.plugins:
            load(Path(plugin))
        self._worker = Worker(setup, setup.experiment())

    def begin(self, legs: Sequence[Leg]) -> Events:
        """See Worker."""
        return self._worker.begin(legs)

    def go_on(self, park: list[bool]) -> Events:
        """See Worker."""
        return self._worker.go_on(park)


def connected(address: str) -> Any:
    """Ray, connected to a cluster. address: auto is the one that runs on this machine, else one of it alone is started.

    Raises RequestError when Ray is not installed or no cluster is there.
    """
    try:
        import ray
    except ImportError:
        raise RequestError("--cluster needs the library Ray: pip install 'dltrain[cluster]'") from None
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    try:
        if address != "auto":
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
            return ray
        try:
            ray.init("auto", logging_level=logging.ERROR, log_to_driver=False)
        except ConnectionError:
            ray.init(**quiet)
    except Exception as error:  # whatever Ray makes of an address
        raise RequestError(f"--cluster {address}: {' '.join(str(error).split())[:300]}") from None
    return ray
