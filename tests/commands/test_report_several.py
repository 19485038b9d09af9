"""`dltrain report` of folders of seeds and folds: one result of all runs, whose examples are those of all."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import needs_browser, open_page
from evaluating import invoke, measured
from reporting import assert_cells_hold, pictures, reported, rows_of, section, write_noise
from training import write_arrays


def line(html: str, name: str) -> list[str]:
    """The numbers of a line of the results: each metric and its interval."""
    found = re.search(
        rf"<td>{re.escape(name)}</td>\n?<td[^>]*>[^<]*</td>(.*?)</tr>", section(html, "results"), re.DOTALL
    )
    assert found is not None, name
    return re.findall(r"<td[^>]*>([^<]*)</td>", found[1])


def curves(html: str, figure: str) -> list[str]:
    """What the curves of a figure are called."""
    found = re.search(rf"<svg[^>]*><title>{figure}</title>.*?</svg>", html, re.DOTALL)
    assert found is not None
    return [each.partition(":")[0] for each in re.findall(r"<title>([^<]*)</title>", found[0])[1:]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reported")
    write_noise(folder)
    return folder


def fit(base: Path, *arguments: Any) -> Path:
    """Train for a moment, in a folder of runs beside the file."""
    done = invoke("fit", base / "noise.yaml", "--runs", base, "--device", "cpu", "training.epochs=3", *arguments)
    assert done.exit_code == 0, done.output
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def seeds(base: Path) -> Path:
    return fit(base, "--seeds", 3)


@pytest.fixture(scope="module")
def folds(base: Path) -> Path:
    return fit(base, "--folds", 3)


@pytest.fixture(scope="module")
def of_folds(folds: Path) -> str:
    return reported(folds)


def test_seeds_are_told_alone_together_and_by_their_mean(seeds: Path) -> None:
    html, summary = reported(seeds), json.loads((seeds / "summary.json").read_text())
    together = measured(seeds, "--split", "validation")
    for column, name in ((0, "accuracy"), (2, "loss")):
        told = summary["metrics"][name]
        ends = f"{told['low']:.4f} to {told['high']:.4f}"
        assert line(html, "mean over 3 seeds")[column : column + 2] == [f"{told['mean']:.4f}", ends]
        assert line(html, "together")[column] == f"{together[name]:.4f}"
        assert [line(html, run["run"])[column] for run in summary["runs"]] == [
            f"{run[name]:.4f}" for run in summary["runs"]
        ]
    examples = together["examples"]
    right = f"Right on {round(together['accuracy'] * examples)} of {examples} images of the validation split"
    assert f"{right}, answered by the runs together" in html
    assert "The interval of a mean is over runs (Student" in html and "training parts of folds" not in html
    names = [f"seed-{seed} {split}" for seed in (0, 1, 2) for split in ("validation", "train")]
    assert curves(html, "loss by epoch") == names
    assert f"dltrain fit {seeds}/base.yaml --seeds 3" in html


def test_folds_are_told_by_what_each_run_was_not_trained_on(folds: Path, of_folds: str) -> None:
    rows = rows_of(folds / "out-of-fold.csv")
    right = sum(row["target"] == row["prediction"] for row in rows)
    told = f"Right on {right} of {len(rows)} images out of fold, each answered by the run that was not trained on it"
    assert told in of_folds and "The training parts of folds overlap" in of_folds
    assert line(of_folds, "out of fold")[0] == f"{right / len(rows):.4f}"
    alone = [float(line(of_folds, f"fold-{number}")[0]) for number in (1, 2, 3)]
    assert float(line(of_folds, "mean over 3 folds")[0]) == pytest.approx(np.mean(alone), abs=1e-4)
    assert "<title>accuracy by fold</title>" in of_folds
    assert_cells_hold(of_folds, rows)


def test_on_test_the_folds_answer_together(folds: Path) -> None:
    html, told = reported(folds, "--split", "test"), measured(folds, "--split", "test")
    assert line(html, "together")[2] == f"{told['loss']:.4f}"
    assert line(html, "fold-2")[2] == f"{measured(folds / 'fold-2', '--split', 'test')['loss']:.4f}"


def test_two_settings_are_compared_over_their_seeds(base: Path, seeds: Path) -> None:
    other = fit(base, "--seeds", 3, "optimizer.lr=0.0001")
    html = reported(seeds, other)
    told = json.loads(invoke("compare", seeds, other, "--json").stdout)["comparisons"][0]["sentence"]
    assert "paired t test" in told and told[1:] in html.replace("&#43;", "+")
    assert "<td>optimizer.lr</td><td>0.1</td><td>0.0001</td>" in html
    assert {"A seed-0 train", "B seed-2 validation"} <= set(curves(html, "loss by epoch"))
    assert line(html, "B mean over 3 seeds") and line(html, "A together")


def test_what_is_finished_is_told_of_a_parked_folder(seeds: Path, tmp_path: Path) -> None:
    parked = tmp_path / "seeds-001"
    shutil.copytree(seeds, parked)
    shutil.rmtree(parked / "seed-2")
    html = reported(parked)
    assert "2 of 3 seeds are finished." in html and line(html, "mean over 2 seeds")
    shutil.rmtree(parked / "seed-1")
    assert line(reported(parked), "mean over 1 seeds")[1] == "-", "of one value nothing is known"


def test_folds_of_an_autoencoder_show_what_their_own_network_makes(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "pictures.npz", examples=40)
    (tmp_path / "auto.yaml").write_text(
        f"data: {{name: arrays, path: {arrays}, scaling: none, test: 0.0}}\n"
        "model: {name: autoencoder, hidden: [], code: 4}\nloss: mse\ntraining: {epochs: 4, batch_size: 10}\n"
    )
    done = invoke("fit", tmp_path / "auto.yaml", "--folds", 2, "--runs", tmp_path, "--device", "cpu")
    assert done.exit_code == 0, done.output
    folder = Path(done.stdout.strip())

    def pairs(path: Path) -> set[tuple[bytes, ...]]:
        shown = pictures(section(reported(path), "answers"))
        return set(zip(shown[::2], shown[1::2], strict=True))

    alone = pairs(folder / "fold-1") | pairs(folder / "fold-2")
    assert len(alone) == 40, "each page shows all of its examples"
    assert len(pairs(folder)) == 24 and pairs(folder) < alone


@needs_browser
@pytest.mark.parametrize("width", [1400, 500])
def test_nothing_runs_over_the_edge(of_folds: str, width: int) -> None:
    seen = open_page(of_folds, "document.documentElement.scrollWidth", width)
    assert (seen.console, seen.requests) == ([], []) and seen.answer <= width
