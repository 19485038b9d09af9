"""`dltrain` and `python -m dltrain`."""

import contextlib
import os
import signal


def main() -> None:
    """Run the command line. Until a command says otherwise, Ctrl-C ends the process at once: numpy and torch turn a
    KeyboardInterrupt that meets them while they are being imported into other errors."""
    signal.signal(signal.SIGINT, _end)
    from dltrain.console.streams import guard

    guard()
    from dltrain.cli import app

    app()


def _end(number: int, _: object) -> None:
    with contextlib.suppress(OSError):  # nobody may be there to read it
        os.write(2, b"interrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
