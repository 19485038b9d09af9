"""The benchmarks run: their numbers are for people, and fail no test."""

from __future__ import annotations

import subprocess
import sys

from conftest import REPOSITORY


def test_throughput_runs() -> None:
    command = [sys.executable, "benchmarks/throughput.py", "--tiny", "--contestants", "compute", "dltrain"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "dltrain / compute = " in done.stdout
