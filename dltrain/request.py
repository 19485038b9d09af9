"""A command's outcome -> the exit code of the process, and a wrong request -> a message instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

import typer

from dltrain.streams import OutputError, say

P = ParamSpec("P")


def request(command: Callable[P, int | None]) -> Callable[P, None]:
    """A command of the command line, from a function that returns its exit code, or None for 0."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        from dltrain.config.diagnostics import ConfigError, shortened

        try:
            code = command(*args, **kwargs)
            sys.stdout.flush()
        except ConfigError as error:
            fail(str(error))
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of our results, such as `head`, has had enough
            raise typer.Exit(0) from None
        except OutputError as error:
            say(f"error: {error}")
            raise typer.Exit(1) from None
        except Exception as error:
            if type(error).__name__ != "RunError":
                raise
            fail(shortened(f"error: {error}"), 1 if getattr(error, "fault", None) == "full disk" else 2)
        raise typer.Exit(code or 0)

    return wrapped


def fail(message: str, code: int = 2) -> NoReturn:
    """End the command as a wrong request, or with another exit code."""
    say(message)
    raise typer.Exit(code)
