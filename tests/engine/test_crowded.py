"""Threads beside other processes: said when a training would wait for cores, and only then."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

from dltrain.data.loading import resources
from dltrain.data.loading.resources import crowded

CORES = resources.usable_cores()
pytestmark = pytest.mark.skipif(not os.path.exists("/proc/loadavg"), reason="only Linux says how many compute")  # noqa: PTH110


def test_processes_that_compute_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(CORES)]
    try:
        time.sleep(1.0)
        line = crowded(max(CORES, 2))
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert line is not None
    found = re.match(r"(\d+) other processes or threads compute", line)
    assert found and int(found[1]) >= CORES - 1
    assert "training.threads=1 may be" in line


def test_nothing_is_said_of_one_thread_or_against_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "usable_cores", lambda: 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert crowded(2) is None
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert crowded(1) is None
