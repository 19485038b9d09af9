"""What is printed ends no training and steers no terminal: closed, broken and odd standard streams."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forking import Zygote
from training import SLOW, result, write_experiment, write_folder

from dltrain.runs import checkpoints

TWO_EPOCHS = "data: digits\nmodel: {name: mlp, hidden: [16]}\ntraining: {epochs: 2, batch_size: 256}\n"


def command(
    *arguments: object, folder: Path, close: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """`dltrain ARGUMENTS` by a shell that redirects its output as `close` says."""
    shell = ["sh", "-c", f'exec "$@" {close}', "sh", sys.executable, "-m", "dltrain", *map(str, arguments)]
    return subprocess.run(
        shell, cwd=folder, capture_output=True, timeout=120, env={**os.environ, **environment}, check=False
    )


CLOSED = "import os, sys; os.close({0}); sys.{1} = None"
FULL = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), {0})"


@pytest.mark.parametrize(
    ("setup", "code"),
    [
        (CLOSED.format(1, "stdout"), 0), pytest.param(CLOSED.format(2, "stderr"), 0, marks=pytest.mark.slow),
        pytest.param(FULL.format(2), 0, marks=pytest.mark.slow), (FULL.format(1), 1),
        ("import os, sys; os.closerange(0, 3); sys.stdin = sys.stdout = sys.stderr = None", 0),
    ],
    ids=["stdout closed", "stderr closed", "stderr full", "stdout full", "all closed"],
)  # fmt: skip
def test_a_stream_that_cannot_be_written_ends_no_training(
    setup: str, code: int, zygote: Zygote, tmp_path: Path
) -> None:
    """With a closed stdout, the next file to be opened must not become the standard output."""
    (tmp_path / "e.yaml").write_text(TWO_EPOCHS)
    done = zygote.capture("fit", "e.yaml", cwd=tmp_path, setup=setup)
    assert done.code == code
    assert_trained(tmp_path)
    assert "Traceback" not in done.stderr
    if code:
        assert done.stderr.endswith("error: the results cannot be written: no space left on device\n")


def assert_trained(folder: Path) -> None:
    run = folder / "runs" / "e" / "001"
    assert result(run)["state"] == "finished"
    assert checkpoints.load(run / "checkpoints" / "last.pt")["step"] == 12


@pytest.mark.slow  # it imports torch; the tests above close the streams of one that has
def test_an_interpreter_that_starts_without_streams_trains(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(TWO_EPOCHS)
    assert command("fit", "e.yaml", folder=tmp_path, close="<&- >&- 2>&-").returncode == 0
    assert_trained(tmp_path)


@pytest.mark.parametrize("streams", ["messages", "results", "both"])
def test_a_reader_that_goes_away_ends_no_training(streams: str, zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    """`dltrain fit ... 2>&1 | head`, and a terminal that is closed under a training."""
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    numbers = {"messages": [2], "results": [1], "both": [1, 2]}[streams]
    setup = f"import os\nr, w = os.pipe(); os.close(r)\nfor n in {numbers}: os.dup2(w, n)"
    assert zygote.run("fit", experiment, "--runs", tmp_path / "runs", output=tmp_path / "output", setup=setup) == 0
    assert result(tmp_path / "runs" / "tiny" / "001")["state"] == "finished"
    assert "Traceback" not in (tmp_path / "output").read_text()


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_goes_away(ignored: bool, zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    """It sends SIGHUP, and then cannot be written. ignored: as by `nohup`: then the training goes on."""
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    setup = SLOW.format(0.02) + "\nimport signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)" * ignored
    terminal, name = pty.openpty()
    child = zygote.start(
        "fit", experiment, "--runs", tmp_path / "runs", output=tmp_path / "output", setup=setup, tty=os.ttyname(name)
    )
    written = b""
    while b"epoch 1" not in written:
        written += os.read(terminal, 1000)
    os.close(name)
    os.close(terminal)
    assert child.wait(60) == (0 if ignored else 129)
    told = result(tmp_path / "runs" / "tiny" / "001")
    assert (told["state"], told["why"]) == (("finished", None) if ignored else ("interrupted", "SIGHUP"))
    assert checkpoints.load(tmp_path / "runs" / "tiny" / "001" / "checkpoints" / "last.pt")["step"] == told["step"]


@pytest.mark.parametrize("arguments", [("list", "models"), pytest.param(("schema",), marks=pytest.mark.slow)])
def test_a_reader_of_results_that_has_enough_is_no_error(arguments: tuple[str, ...], tmp_path: Path) -> None:
    whole = [sys.executable, "-m", "dltrain", *arguments]
    with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


ENCODED = """
import sys
sys.stdout = open(1, "w", encoding="{0}", closefd=False)
sys.stderr = open(2, "w", encoding="{0}", closefd=False)
"""


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_characters_that_the_terminal_lacks_are_replaced(encoding: str, zygote: Zygote, tmp_path: Path) -> None:
    (tmp_path / "日本 é.yaml").write_text(TWO_EPOCHS)
    how: dict[str, Any] = {"cwd": tmp_path, "setup": ENCODED.format(encoding)}
    e = {"ascii": b"\\xe9"}.get(encoding, b"\xe9")
    expected = (b"\\u65e5\\u672c " + e + b".yaml: ok\n", b"")
    done = zygote.capture("check", "日本 é.yaml", **how)
    assert (done.code, done.stdout_bytes, done.stderr_bytes) == (0, *expected)
    if encoding == "ascii":  # an interpreter that is told so
        cold = command("check", "日本 é.yaml", folder=tmp_path, PYTHONIOENCODING=encoding, PYTHONUTF8="1")
        assert (cold.returncode, cold.stdout, cold.stderr) == (0, *expected)
    wrong = zygote.capture("check", "日本 é.yaml", "model=ж", **how)
    assert wrong.code == 2 and b"unknown model `\\u0436`" in wrong.stderr_bytes
    plan = zygote.capture("plan", "日本 é.yaml", **how)
    assert plan.code == 0 and plan.stderr == ""
    curve = plan.stdout_bytes.decode(encoding)
    assert "0.1 |##" in curve and "  0 +---" in curve


def test_a_name_that_is_not_utf8_is_found_again_from_the_output(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.yaml"
    Path(os.fsdecode(path)).write_text("name: cafe\n" + TWO_EPOCHS)
    done = command("check", os.fsdecode(b"caf\xe9.yaml"), folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"caf\xe9.yaml: ok\n")


def test_the_version(tmp_path: Path) -> None:
    from importlib.metadata import version

    done = command("--version", folder=tmp_path)
    assert (done.returncode, done.stdout.decode()) == (0, f"dltrain {version('dltrain')}\n")


ESCAPE = "\x1b[31mred\x07\x9b2J"


def on_a_terminal(zygote: Zygote, *arguments: object, folder: Path) -> str:
    """What `dltrain ARGUMENTS` writes to a terminal that is its stdout and stderr."""
    terminal, name = pty.openpty()
    setup = "import os; os.environ['TERM'] = 'dumb'"
    child = zygote.start(*arguments, output=folder / "output", cwd=folder, setup=setup, tty=os.ttyname(name))
    written, ended = b"", False
    while not ended:
        ended = zygote.ask(wait=child.pid, seconds=0.02) is not None
        while select.select([terminal], [], [], 0)[0]:
            written += os.read(terminal, 4096)
    os.close(name)
    os.close(terminal)
    return written.decode()


def test_names_do_not_steer_the_terminal(zygote: Zygote, tmp_path: Path) -> None:
    """In results and messages of ours, of the library that reads the command line, and of plug-ins."""
    (tmp_path / f"{ESCAPE}.yaml").write_text("name: red\n" + TWO_EPOCHS)
    (tmp_path / "wrong.yaml").write_text(json.dumps({"data": "digits", "model": ESCAPE}))
    (tmp_path / "parts.py").write_text(f"raise ValueError({ESCAPE!r})")
    (tmp_path / "e.yaml").write_text(TWO_EPOCHS)
    for arguments in (
        ["check", f"{ESCAPE}.yaml"],
        ["check", "wrong.yaml"],
        ["check", f"{ESCAPE}.yml"],
        ["eval", ESCAPE],
        ["list", "models", "mlp", ESCAPE],
        [ESCAPE],
        ["list", ESCAPE],
        ["check", "e.yaml", "--plugin", "parts.py"],
        ["check", "e.yaml", f"model={ESCAPE}"],
    ):
        shown = on_a_terminal(zygote, *arguments, folder=tmp_path)
        assert "red" in shown, arguments
        assert "\x1b" not in shown and "\x07" not in shown and "\x9b" not in shown, arguments
    assert "\\x1b[31mred\\x07\\x9b2J.yaml: ok" in on_a_terminal(zygote, "check", f"{ESCAPE}.yaml", folder=tmp_path)
    assert command("check", f"{ESCAPE}.yaml", folder=tmp_path).stdout.decode() == f"{ESCAPE}.yaml: ok\n"  # to programs


def test_every_command_on_a_terminal_without_unicode(zygote: Zygote, tmp_path: Path) -> None:
    """Names of classes, files and experiments that it cannot show are shown by number."""
    folder = write_folder(tmp_path / "写真")
    (folder / "bright").rename(folder / "犬")
    small = ["training.epochs=1", "data.size=8", "training.batch_size=8"]
    space = "sweep={trials: 1, space: {optimizer.lr: {low: 0.01, high: 0.1}}}"
    commands: list[list[str]] = [
        ["init", "写真", "--no-pretrained", "--output", "п.yaml"],
        ["check", "п.yaml"],
        ["plan", "п.yaml", *small],
        ["fit", "п.yaml", *small],
        ["eval", "runs/п/001"],
        ["predict", "runs/п/001", "写真"],
        ["predict", "runs/п/001", "写真", "--format", "jsonl"],
        ["sweep", "п.yaml", *small, space],
    ]
    for number, arguments in enumerate(commands):
        output = tmp_path / f"{number}"
        code = zygote.start(*arguments, output=output, cwd=tmp_path, setup=ENCODED.format("latin-1")).wait()
        text = output.read_bytes().decode("latin-1")
        assert (code, "Traceback" in text) == (0, False), text
        shown = "\\u72ac" if arguments[0] in ("eval", "predict") else "\\u043f"
        assert shown in text and all(c.isascii() or c in "éü" for c in text), text


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX systems alone")
def test_files_whose_names_are_not_utf8(zygote: Zygote, tmp_path: Path) -> None:
    """An experiment that has a `name` trains whatever its file and the runs folder are called."""
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / name).write_text("name: cafe\n" + TWO_EPOCHS)
    arguments = ("fit", name, "--runs", f"{name}-runs")
    assert zygote.run(*arguments, output=tmp_path / "output", cwd=tmp_path) == 0, (tmp_path / "output").read_text()
    run = tmp_path / f"{name}-runs" / "cafe" / "001"
    assert result(run)["state"] == "finished"
    assert name in json.loads((run / "environment.json").read_text("utf-8"))["command"]
    write_folder(tmp_path / f"{name}-photos")
    code = zygote.run("init", f"{name}-photos", output=tmp_path / "init", cwd=tmp_path)
    assert (code, "is not UTF-8" in (tmp_path / "init").read_text()) == (2, True)
