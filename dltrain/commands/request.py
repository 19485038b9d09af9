"""What all commands share: a command's outcome -> the exit code of the process, a wrong request -> a message instead of
a traceback, and what comes before the command itself: plug-ins, the device, several processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import NoReturn, ParamSpec

import typer

from dltrain.console.streams import say
from dltrain.errors import DltrainError

P = ParamSpec("P")


def request(command: Callable[P, int | None]) -> Callable[P, None]:
    """A command of the command line, from a function that returns its exit code, or None for 0."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
            sys.stdout.flush()
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of our results, such as `head`, has had enough
            raise typer.Exit(0) from None
        except DltrainError as error:
            fail(error.report(), error.exit_code)
        raise typer.Exit(code or 0)

    return wrapped


def fail(message: str, code: int = 2) -> NoReturn:
    """End the command as a wrong request, or with another exit code."""
    say(message)
    raise typer.Exit(code)


def load_plugins(files: list[Path] | None) -> dict[str, str]:
    """Import the given Python files; path -> sha256. Plugins come from the command line alone, never from data."""
    if not files:
        return {}
    from dltrain.experiment.plugins import load

    return {str(file): load(file) for file in files}


def launched(devices: int | None, max_restarts: int, device: str) -> int | None:
    """The exit code of this command done by several processes; None when it is for this process to do."""
    if devices is None or devices == 1:
        return None
    from dltrain.engine.decisions import count_devices
    from dltrain.engine.distributed import is_started_together, launch

    if is_started_together():
        return None
    if ":" in device:
        fail(f"error: --devices {devices} takes the first {devices} GPUs: write --device cuda, not {device}")
    if (there := count_devices(device)) is not None and there < devices:
        fail(f"error: --devices {devices}: this machine has {there} GPUs")
    return launch(sys.argv[1:], devices, max_restarts)


def existing_device(name: str) -> str:
    """`name`, after making sure that the device is there."""
    from dltrain.engine.decisions import pick_device

    try:
        pick_device(name)
    except ValueError as error:
        fail(f"error: {error}")
    return name
