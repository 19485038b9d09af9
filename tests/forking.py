"""A warm interpreter that forks a process per `dltrain` command: importing torch takes seconds, a fork milliseconds.

The children are ordinary single-threaded processes of their own, to be watched, signalled and killed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import multiprocessing.forkserver
import multiprocessing.util
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.testing

WARM = (
    "dltrain.cli", "dltrain.commands.fit", "dltrain.data.arrays", "dltrain.data.augmentation.impl.color",
    "dltrain.data.augmentation.impl.mixing", "dltrain.data.augmentation.impl.policies", "dltrain.data.copies.copies",
    "dltrain.data.loading.streaming", "dltrain.data.splitting", "dltrain.layers.impl.dropout",
    "dltrain.models.impl.changes", "dltrain.models.impl.simple", "dltrain.optim.impl.averages", "encodings.cp437",
    "encodings.utf_8_sig", "numpy.ma", "pydantic.type_adapter", "scipy.optimize", "scipy.stats",
    "tensorboard.plugins.hparams.summary_v2", "torch._dynamo", "torch.utils.flop_counter",
    "torch.utils.serialization", "torch.utils.tensorboard.summary", "typer._adapters", "typer._click.decorators",
)  # fmt: skip


def build_commands_once() -> None:
    """Keep what typer makes of an app for each call anew, which takes longer than many a command does."""
    typer.main.get_command = typer.testing._get_command = functools.cache(typer.main.get_command)


def leave_syncs_out() -> None:
    """No test pulls the plug, and a kill takes back nothing that is written: do not wait for the disk."""
    os.fsync = lambda file: None


def leave_modules_out() -> None:
    """A sweep looks for garbage in all that has been imported, once, which takes longer than many a tiny one does."""
    gc.unfreeze = lambda: None


def fork_servers() -> None:
    """Let the servers from which this process forks its workers be forks of it: they need not import torch anew."""
    start = multiprocessing.util.spawnv_passfds

    def started(path: Any, command: list[str], passed: list[int]) -> int:
        if "multiprocessing.forkserver" not in command[-1]:
            return int(start(path, command, passed))
        sys.stdout.flush(), sys.stderr.flush()
        if pid := os.fork():
            return pid
        code = 1
        try:  # all that starting another program would do
            for low, high in zip((2, *sorted(passed)), (*sorted(passed), 2**16)):
                os.closerange(low + 1, high)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)
            multiprocessing.forkserver._forkserver.__init__()  # type: ignore[misc]
            code = run_program("-c", command[-1])
        except BaseException:
            traceback.print_exc()
        os._exit(code)

    multiprocessing.util.spawnv_passfds = started


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


@dataclass
class Done:
    """What a command that has ended has written."""

    code: int
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        return self.stdout_bytes.decode()

    @property
    def stderr(self) -> str:
        return self.stderr_bytes.decode()


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

    def start(
        self,
        *arguments: object,
        output: Path,
        errors: Path | None = None,
        cwd: Path | None = None,
        setup: str = "",
        tty: str = "",
    ) -> Child:
        """Run `dltrain ARGUMENTS`.

        errors: receives stderr, which otherwise goes to `output` too. setup: Python code to run in the process first;
        it may end it. tty: its terminal, if any.
        """
        for path in (output, errors):
            if path is not None:
                path.write_bytes(b"")
        words = [str(argument) for argument in arguments]
        streams = [tty or str(output), tty or str(errors or output)]
        pid = self.ask(argv=words, streams=streams, cwd=str(cwd) if cwd else None, setup=setup)
        assert isinstance(pid, int)
        return Child(self, pid, output)

    def run(self, *arguments: object, output: Path, cwd: Path | None = None, setup: str = "") -> int:
        """Run `dltrain ARGUMENTS` to its end; its exit code."""
        return self.start(*arguments, output=output, cwd=cwd, setup=setup).wait()

    def capture(self, *arguments: object, cwd: Path | None = None, setup: str = "") -> Done:
        """Run `dltrain ARGUMENTS` to its end, and keep its output."""
        with tempfile.TemporaryDirectory() as folder:
            output, errors = Path(folder, "stdout"), Path(folder, "stderr")
            code = self.start(*arguments, output=output, errors=errors, cwd=cwd, setup=setup).wait()
            return Done(code, output.read_bytes(), errors.read_bytes())

    def close(self) -> None:
        """End the interpreter."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)


class Forked:
    """What `subprocess.Popen` gives for `python FILE ...`, `python -m MODULE ...` or `python -c CODE ...`, in a fork of
    this process: for programs that start others like them, when they are run by a Zygote."""

    def __init__(
        self, args: Sequence[str], *, env: dict[str, str] | None = None, stdout: Any = None, stderr: Any = None,
        start_new_session: bool = False,
    ) -> None:  # fmt: skip
        self.returncode: int | None = None
        sys.stdout.flush(), sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            return
        if start_new_session:
            os.setsid()
        for number, file in ((1, stdout), (2, stderr)):
            if file is not None:
                os.dup2(file.fileno(), number)
        if env is not None:
            os.environ.clear(), os.environ.update(env)
        code = 1
        try:
            code = run_program(*args[1:])
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The same, at its end. Raises subprocess.TimeoutExpired, as Popen does."""
        end = time.monotonic() + (1e9 if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.002)
        return code


def run_python(command: Sequence[str], *, env: dict[str, str] | None = None, **_: object) -> Any:
    """What `subprocess.run` gives with the output of such a program captured."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        code = Forked(command, env=env, stdout=output, stderr=errors).wait()
        output.seek(0), errors.seek(0)
        return subprocess.CompletedProcess(command, code, output.read().decode(), errors.read().decode())


def run_program(first: str, *rest: str) -> int:
    """Run what follows `python` in a command line; its exit code."""
    if first == "-u":  # which the streams, that are flushed at the end, do without
        return run_program(*rest)
    try:
        if first == "-c":
            sys.argv = [first, *rest[1:]]
            exec(rest[0], {"__name__": "__main__"})
        elif first == "-m":
            sys.argv = list(rest)
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [first, *rest]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


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
    import PIL.Image

    for name in WARM:
        importlib.import_module(name)
    PIL.Image.preinit()
    leave_syncs_out()
    leave_modules_out()
    fork_servers()
    build_commands_once()
    typer.main.get_command(importlib.import_module("dltrain.cli").app)
    gc.collect()
    gc.freeze()  # or each child would look through, and so copy, all objects of the libraries

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


def _command(argv: list[str], streams: list[str], cwd: str | None, setup: str) -> int:
    from dltrain.__main__ import main

    os.setsid()
    for number, name in enumerate((os.devnull, *streams)):
        source = os.open(name, os.O_RDWR | os.O_APPEND)
        os.dup2(source, number)
        os.close(source)
    if cwd is not None:
        os.chdir(cwd)
    sys.argv = ["dltrain", *argv]
    try:
        exec(setup, {"__name__": "__main__"})
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    code = _serve() or 0
    # All that an interpreter does at its end, but for clearing its modules, which would take four times as long as a
    # small command does.
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
