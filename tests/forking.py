"""A warm interpreter that forks a process per `dltrain` command: importing torch takes seconds, a fork milliseconds.

The children are ordinary single-threaded processes of their own, to be watched, signalled and killed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

WARM = (
    "PIL.Image", "dltrain.cli", "dltrain.commands.fit", "dltrain.data.arrays", "dltrain.data.augmentation.impl.color",
    "dltrain.data.augmentation.impl.mixing", "dltrain.data.augmentation.impl.policies",
    "dltrain.data.loading.streaming", "dltrain.models.impl.simple", "dltrain.optim.impl.averages",
    "tensorboard.plugins.hparams.summary_v2", "torch._dynamo", "torch.utils.flop_counter",
    "torch.utils.tensorboard.summary",
)  # fmt: skip


@dataclass
class Child:
    """A running command. `output` receives its stdout and stderr."""

    zygote: Zygote
    pid: int
    output: Path

    def wait(self, seconds: float = 120.0) -> int:
        """The exit code, or minus the signal that ended it."""
        status = self.zygote.ask(wait=self.pid, seconds=seconds)
        assert status is not None, f"still running after {seconds} s:\n{self.text}"
        return os.waitstatus_to_exitcode(int(status))

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; nothing when the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        """Until the output holds `text`."""
        until(lambda: text in self.text, seconds, lambda: f"no {text!r} in:\n{self.text}")

    @property
    def text(self) -> str:
        """What it has written so far."""
        return self.output.read_text(errors="replace")


class Zygote:
    """The warm interpreter. `start` runs a command in a fork of it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: object) -> object:
        """Send one request, return its answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *arguments: object, output: Path, cwd: Path | None = None, setup: str = "", tty: str = "") -> Child:
        """Run `dltrain ARGUMENTS`. setup: Python code to run in the process first. tty: its terminal, if any."""
        output.touch()
        words = [str(argument) for argument in arguments]
        pid = self.ask(argv=words, output=str(output), cwd=str(cwd) if cwd else None, setup=setup, tty=tty)
        assert isinstance(pid, int)
        return Child(self, pid, output)

    def run(self, *arguments: object, output: Path, cwd: Path | None = None, setup: str = "") -> int:
        """Run `dltrain ARGUMENTS` to its end; its exit code."""
        return self.start(*arguments, output=output, cwd=cwd, setup=setup).wait()

    def close(self) -> None:
        """End the interpreter."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


def until(ready: object, seconds: float, message: object) -> None:
    """Poll until `ready()`; fail with `message()` after some seconds."""
    end = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < end, message()  # type: ignore[operator]
        time.sleep(0.005)


def processes_of_group(group: int) -> list[int]:
    """The processes that a command left behind."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[2] == str(group):
                found.append(int(path.parent.name))
    return found


def _serve() -> int | None:
    """Answer requests; in a child, return its exit code."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup pytest` ignores
    for name in WARM:
        importlib.import_module(name)

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer: object = _await(request["wait"], request["seconds"])
        else:
            sys.stdout.flush()
            answer = os.fork()
            if answer == 0:
                return _command(**request)
        print(json.dumps(answer), flush=True)
    return None


def _await(pid: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.002)
    return None


def _command(argv: list[str], output: str, cwd: str | None, setup: str, tty: str) -> int:
    from dltrain.__main__ import main

    os.setsid()
    target = os.open(tty or output, os.O_RDWR | (0 if tty else os.O_APPEND))
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, nothing), (1, target), (2, target)):
        os.dup2(source, number)
    if cwd is not None:
        os.chdir(cwd)
    exec(setup, {})
    sys.argv = ["dltrain", *argv]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(_serve())
