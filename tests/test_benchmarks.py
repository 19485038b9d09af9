"""The benchmarks run: their numbers are for people, and fail no test."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY
from forking import Zygote
from PIL import Image

sys.path.insert(0, str(REPOSITORY / "benchmarks"))


Run = Callable[..., str]


@pytest.fixture
def run(zygote: Zygote) -> Run:
    """What a script prints when it is run with options. The processes that it starts are forks of a warm one, too."""

    def of(script: str, *options: str) -> str:
        path = f"benchmarks/{script}.py"
        program = "import forking, runpy, subprocess, sys\nsys.path.insert(0, 'benchmarks')\n"
        program += f"subprocess.run = forking.run_python\nsys.argv = {[path, *options]}\n"
        program += "runpy.run_path(sys.argv[0], run_name='__main__')\nsys.exit()"
        done = zygote.capture(cwd=REPOSITORY, setup=program)
        assert done.code == 0, done.stderr
        return done.stdout

    return of


def test_throughput_runs(run: Run) -> None:
    assert "dltrain / compute = " in run("throughput", "--tiny", "--contestants", "compute", "dltrain")


def test_stacked_runs(run: Run) -> None:
    rows = [line for line in run("stacked", "--tiny").splitlines() if line.startswith(("| 1 |", "| 2 |"))]
    assert len(rows) == 2 and all(row.count("|") == 6 for row in rows)


@pytest.mark.slow
def test_throughput_alternates(run: Run) -> None:
    text = run("throughput", "--tiny", "--alternate", "3")
    assert "dltrain / compute = " in text and "dltrain / loop = " in text


def test_folder_runs(run: Run) -> None:
    text = run("folder", "--tiny", "--size", "32", "--contestants", "cached", "loop", "decode")
    assert "cached / loop = " in text and "32 pixels" in text


@pytest.mark.slow
def test_folder_alternates(run: Run) -> None:
    assert "streaming / loop = " in run("folder", "--tiny", "--size", "32", "--alternate", "2")


def test_jpeg_fractions_runs(run: Run, tmp_path: Path) -> None:
    Image.radial_gradient("L").resize((200, 260)).save(tmp_path / "a.jpg")
    lines = run("jpeg_fractions", str(tmp_path), "--sizes", "32", "40").splitlines()
    assert lines[0].startswith("32 pixels, 1 photos: mean 0.") and lines[1] == "40 pixels: no photo is large enough"
    assert run("jpeg_fractions", str(tmp_path), "--sizes", "40", "--enlarge").startswith("40 pixels, 1 photos: mean 0.")


def test_startup_runs(run: Run) -> None:
    text = run("startup", "--tiny", "--cold", "--contestants", "help", "fit")
    assert text.startswith("cold; ") and [line.split()[0] for line in text.splitlines()[1:]] == ["help", "fit"]


@pytest.mark.slow
def test_memory_runs(run: Run) -> None:
    text = run("memory", "--tiny", "--cases", "data 1x streaming", "data 16x streaming")
    assert "streaming: time of a step, 16x / 1x = " in text


@pytest.mark.slow
def test_memory_alternates(run: Run) -> None:
    text = run("memory", "--tiny", "--alternate", "2")
    assert re.search(r"16x / 1x = \d+\.\d+ \(half of them", text)


def test_time_to_accuracy_runs(run: Run) -> None:
    assert "loop / dltrain = " in run("time_to_accuracy", "--tiny")


def test_the_race_needs_a_gpu() -> None:
    import torch
    from time_to_accuracy import race

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="wants a GPU"):
        race(Namespace(device="cuda"))


def test_a_record_script_is_read_until_it_has_reported_enough(tmp_path: Path) -> None:
    from time_to_accuracy import run_record

    script = tmp_path / "record.py"
    rows = ["|  warmup  |   eval  |     0.11  |   0.10  |       0.1000  |       46.1402  |"]
    rows += ["|          |      7  |     0.98  |   0.93  |               |        1.9000  |"]
    rows += [f"Mean: 2 s|  {i} |   eval  |     0.9866  |   0.9317  |       0.94{i}0  |  2.{i}  |" for i in range(9)]
    script.write_text("".join(f"print({row!r})\n" for row in rows) + "import time\ntime.sleep(60)\n")
    found = run_record(str(script), 3)
    assert [pair[:2] for pair in found] == [[0.94, 2.0], [0.941, 2.1], [0.942, 2.2]]


def test_a_rival_that_is_not_installed_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    from contest import installed

    assert installed(["dltrain", "torch", "other"], {"torch": "torch", "other": "no_such_rival"}) == [
        "dltrain",
        "torch",
    ]
    assert "other" in capsys.readouterr().out


def test_copies_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import copies
    from photos import write_photos

    write_photos(tmp_path, ["a"], 3)
    monkeypatch.setattr("sys.argv", ["copies.py", str(tmp_path)])
    copies.main()
    out = capsys.readouterr().out
    assert "JPEG of quality 50: 3 of 3 found, 1.000" in out and "0 pairs of 3 are taken for copies" in out


def test_defaults_tells_what_a_first_training_reaches(run: Run) -> None:
    text = run("defaults", "--tiny")
    assert "| digits | softmax_regression | 0." in text


@pytest.mark.slow
def test_busy_trains_beside_a_neighbour(run: Run) -> None:
    text = run("busy", "--tiny")
    assert re.search(r"digits +busy +probing +[\d,]+ ", text)


def test_the_overhead_of_a_search_is_told(run: Run) -> None:
    text = run("search", "overhead", "--tiny")
    assert re.search(r"digits, mlp, 1 epoch of 10 steps: \d+ .* besides them -?\d+ ", text)


@pytest.mark.slow
def test_searches_are_compared(run: Run) -> None:
    text = run("search", "quality", "--tiny")
    assert "  random: 17% " in text and "  optuna, by hand, halving: 17% " in text
    assert "1 jobs: " in run("search", "jobs", "--tiny")


def test_pairing_tells_what_variance_is_left(run: Run) -> None:
    assert re.search(r"label smoothing 0.1 +[+-]\d\.\d+ +\d+\.\d+ +\d+\.\d+ ", run("pairing", "--tiny"))


@pytest.mark.slow
def test_pairing_can_leave_starts_per_layer_out(run: Run) -> None:
    text = run("pairing", "--tiny", "--one-stream")
    assert re.search(r"label smoothing 0.1 +[+-]\d\.\d+ +\d+\.\d+ +\d+\.\d+$", text, re.MULTILINE)


def test_conformal_tells_how_often_sets_hold_the_true_class(run: Run) -> None:
    text = run("conformal", "--tiny")
    for where in ("training file", "test file"):
        assert re.search(rf"^{where} +best epoch, temperature +\d+\.\d+ \+- \d", text, re.MULTILINE)


@pytest.mark.slow
def test_watching_tells_what_a_look_costs(run: Run) -> None:
    text = run("watching", "--tiny")
    assert re.search(r"resnet20 +a look / a step = -?\d+\.\d+ \(", text)


@pytest.mark.slow
def test_exports_compares_files_with_their_runs(run: Run) -> None:
    text = run("exports", "--tiny")
    assert "| convnet, widths: [4], 24 pixels | 0." in text and "| 4 of 4 | 4 of 4 |" in text
    assert re.search(r"autoencoder, code: 4, 16 pixels .* [01] of 255, answers \d", text)
    assert re.search(r"table.csv .* 40 of 40 \| 40 of 40", text)


@pytest.mark.slow
def test_serving_counts_answers(run: Run, exported: Path, photo_run: Path) -> None:
    photos = photo_run.parent.parent / "data"
    text = run("serving", str(exported), str(photos), "--requests", "40", "--clients", "4", "--seconds", "5",
               "--bodies", "2")  # fmt: skip
    assert "40 requests of 4 clients: 0 wrong, 0 lost" in text and "x bomb: 413" in text
    assert "2 bodies of 20 MB at once: 2 x 422" in text and "SIGTERM: exit code 0" in text
