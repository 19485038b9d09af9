"""What a search may do besides trying settings: end trials early, repeat them, weigh several metrics, keep to a time,
train many as one program, finish the best. And what it must not: look at test data."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rationing import some
from sweeping import ranking, sweep, write_experiment

from dltrain.experiment.experiment import Experiment
from dltrain.runs import checkpoints
from dltrain.runs.recording import Recordings

RESULTS = ("trial", "state", "validation/accuracy", "validation/loss", "epochs", "optimizer.lr", "model.dropout")


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    return write_experiment(tmp_path)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "ranking.csv").open() as file:
        return list(csv.DictReader(file))


def results(folder: Path) -> list[dict[str, str]]:
    return [{key: row[key] for key in RESULTS} for row in rows(folder)]


# -- ending trials early

HALVING = ("sweep.trials=7", "sweep.epochs=4", "sweep.pruner={name: successive_halving, factor: 2}")


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("halved")
    result = sweep(write_experiment(folder), *HALVING, "--runs", folder)
    assert result.exit_code == 0, result.stderr
    return folder / "tiny/sweep-001"


def test_halving_trains_the_better_ones_longer(halved: Path) -> None:
    found = rows(halved)
    assert found[0]["state"] == "finished" and "paused" in {row["state"] for row in found[1:]}
    assert {int(row["epochs"]) for row in found} == {1, 2, 4}
    assert sum(int(row["epochs"]) >= 2 for row in found) >= 3  # half of seven
    assert sum(int(row["epochs"]) for row in found) < 7 * 4


def test_a_pause_changes_nothing_in_a_training(halved: Path, yaml: Path, tmp_path: Path) -> None:
    best = rows(halved)[0]
    trial = halved / "trials" / f"{int(best['trial']):03d}"
    whole = Experiment.load(trial / "experiment.yaml")
    from dltrain.commands.fit import fit
    from dltrain.console.display import Display

    assert fit(whole, tmp_path / "whole", "auto", Display(quiet=True))[0] == 0
    one, other = (checkpoints.load(run / "checkpoints/last.pt") for run in (trial, tmp_path / "whole"))
    assert all(np.array_equal(one["model"][name], other["model"][name]) for name in other["model"])


@pytest.mark.parametrize("point", some(["Study.report", "Recordings.epoch", "Study.finish"], 2))
def test_a_pruned_search_that_was_killed_ends_as_one_that_was_not(
    halved: Path, yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    from dltrain.sweeps.study import Study

    class Killed(BaseException):
        pass

    owner, name = {"Study": Study, "Recordings": Recordings}[point.split(".")[0]], point.split(".")[1]
    original, calls = getattr(owner, name), []

    def dying(*args: Any, **options: Any) -> Any:
        calls.append(name)
        done = original(*args, **options)
        if len(calls) == 5:
            raise Killed
        return done

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            sweep(yaml, *HALVING, "--runs", tmp_path)
    assert sweep(tmp_path / "tiny/sweep-001").exit_code == 0
    assert results(tmp_path / "tiny/sweep-001") == results(halved)


def test_the_median_rule_ends_trials_for_good(yaml: Path, tmp_path: Path) -> None:
    pruner = "sweep.pruner={name: median, startup_trials: 2}"
    result = sweep(yaml, "sweep.trials=7", "sweep.epochs=4", pruner, "--runs", tmp_path)
    states = [row["state"] for row in rows(tmp_path / "tiny/sweep-001")]
    assert result.exit_code == 0 and "pruned" in states and states == sorted(states)  # finished ones first
    assert "pruned after 1 epoch" in result.stderr


# -- repeats and several metrics


def test_settings_are_ranked_by_the_mean_over_seeds(yaml: Path, tmp_path: Path) -> None:
    from scipy import stats

    assert sweep(yaml, "sweep.trials=2", "sweep.repeats=3", "seed=4", "--runs", tmp_path).exit_code == 0
    folder = tmp_path / "tiny/sweep-001"
    for row in rows(folder):
        runs = [folder / row["run"] / f"seed-{number}" for number in (1, 2, 3)]
        assert [Experiment.load(run / "experiment.yaml").seed for run in runs] == [4, 5, 6]
        found = [json.loads((run / "result.json").read_text())["best"]["validation/accuracy"] for run in runs]
        assert float(row["validation/accuracy"]) == pytest.approx(np.mean(found), abs=1e-12)
        assert float(row["validation/accuracy deviation"]) == pytest.approx(np.std(found, ddof=1), abs=1e-12)
        low, high = stats.t.interval(0.95, 2, np.mean(found), stats.sem(found)) if np.std(found) else (0.0, 0.0)
        assert float(row["validation/accuracy interval"]) == pytest.approx((high - low) / 2, abs=1e-12)


def test_a_front_holds_what_no_other_trial_beats(yaml: Path, tmp_path: Path) -> None:
    text = yaml.read_text()
    space = "  space: {model.hidden: {choices: [[2], [4], [16], [64]]}, optimizer.lr: {low: 0.01, high: 1.0}}\n"
    yaml.write_text(text[: text.index("  space:")] + space)
    metric = "sweep.metric=[validation/loss, parameters]"
    result = sweep(yaml, metric, "sweep.trials=8", "sweep.epochs=1", "--runs", tmp_path)
    assert result.exit_code == 0, result.stderr
    folder = tmp_path / "tiny/sweep-001"
    found = [
        (float(r["validation/loss"]), float(r["parameters"]), int(r["front"]), int(r["trial"])) for r in rows(folder)
    ]
    for loss, size, front, _ in found:
        beaten = any(o <= loss and s <= size and (o, s) != (loss, size) for o, s, _, _ in found)
        assert (front == 1) is not beaten
    assert sorted(file.name for file in (folder / "front").iterdir()) == sorted(
        f"{t:03d}.yaml" for *_, f, t in found if f == 1
    )
    assert Experiment.load(folder / "front" / f"{found[0][3]:03d}.yaml").training.epochs == 8


# -- many as one program


def test_trials_that_are_trained_together_are_those_that_are_trained_alone(yaml: Path, tmp_path: Path) -> None:
    text = yaml.read_text()
    space = "  space: {optimizer.lr: {low: 0.01, high: 1.0}, model.hidden: {choices: [[8], [16]]}}\n"
    yaml.write_text(text[: text.index("  space:")] + space)
    for vectorize in (1, 4):
        result = sweep(yaml, f"sweep.vectorize={vectorize}", "sweep.trials=4", "--runs", tmp_path)
        assert result.exit_code == 0, result.stderr
    alone, together = (sorted(rows(tmp_path / f"tiny/sweep-00{k}"), key=lambda r: int(r["trial"])) for k in (1, 2))
    for one, other in zip(alone, together, strict=True):
        assert one["optimizer.lr"] == other["optimizer.lr"] and one["model.hidden"] == other["model.hidden"]
        assert float(one["validation/loss"]) == pytest.approx(float(other["validation/loss"]), rel=1e-4)
    for row in together:  # an ordinary run each
        folder = tmp_path / "tiny/sweep-002" / row["run"]
        assert {"experiment.yaml", "metrics.csv", "result.json", "environment.json"} <= {
            p.name for p in folder.iterdir()
        }


def test_a_search_in_which_no_two_trials_are_alike_says_so(yaml: Path, tmp_path: Path) -> None:
    text = yaml.read_text()
    yaml.write_text(text[: text.index("  space:")] + "  space: {model.hidden: {choices: [[8], [16]]}}\n")
    result = sweep(yaml, "sweep.vectorize=4", "sweep.trials=2", "--runs", tmp_path)
    assert result.exit_code == 0, result.stderr
    words = " ".join(result.stderr.split())
    assert "`sweep.vectorize: 4` trains nothing together: they differ in `model.hidden`: " in words


def test_a_trial_that_diverges_leaves_those_beside_it(yaml: Path, tmp_path: Path) -> None:
    text = yaml.read_text()
    space = "  space: {optimizer.lr: {choices: [0.1, 1.0e+30, 0.2, 0.3]}}\n"
    yaml.write_text(text[: text.index("  space:")] + space)
    result = sweep(yaml, "sweep.vectorize=4", "training.clip_norm=null", "--runs", tmp_path)
    assert result.exit_code == 0, result.stderr
    states = {row["optimizer.lr"]: row["state"] for row in rows(tmp_path / "tiny/sweep-001")}
    assert states == {"0.1": "finished", "0.2": "finished", "0.3": "finished", "1e+30": "failed"}


# -- a time, an end, and test data


def test_when_the_time_is_over_what_trains_is_parked(
    yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on by a second whenever it is looked at."""
    from dltrain.sweeps import coordinator

    class Clock:
        monotonic = itertools.count().__next__

    monkeypatch.setattr(coordinator, "time", Clock)
    folder = tmp_path / "tiny/sweep-001"
    short = sweep(yaml, "sweep.trials=null", "sweep.time=3", "--runs", tmp_path)
    assert short.exit_code == 1 and "no trial has ended in that time" in short.stderr
    assert (folder / "trials/001/checkpoints/last.pt").exists() and not ranking(folder)
    longer = sweep(folder, "sweep.time=40")
    assert longer.exit_code == 0, longer.stderr
    made = len(ranking(folder))
    assert made > 1
    assert sweep(folder).exit_code == 0 and len(ranking(folder)) == made  # its time is over


def test_json_tells_the_ranking(yaml: Path, tmp_path: Path) -> None:
    result = sweep(yaml, "sweep.trials=2", "sweep.epochs=1", "--json", "--runs", tmp_path)
    told, folder = json.loads(result.stdout), tmp_path / "tiny/sweep-001"
    assert told["path"] == str(folder) and told["best"] == str(folder / "best.yaml")
    assert [row["rank"] for row in told["ranking"]] == [1, 2]
    for row, text in zip(told["ranking"], rows(folder), strict=True):
        assert (
            row["optimizer.lr"] == float(text["optimizer.lr"]) and row["state"] == "finished" and row["reason"] is None
        )


def test_the_best_are_finished_and_measured_once(yaml: Path, tmp_path: Path) -> None:
    result = sweep(yaml, "sweep.trials=3", "--finish", "2", "--runs", tmp_path)
    assert result.exit_code == 0, result.stderr
    folder = tmp_path / "tiny/sweep-001"
    best = [f"{int(row['trial']):03d}" for row in rows(folder)[:2]]
    assert sorted(p.name for p in (folder / "finish").iterdir()) == sorted(best)
    assert "the best 2 of 3 settings, trained at full length" in result.stderr
    for name in best:
        assert Experiment.load(folder / "finish" / name / "experiment.yaml").training.epochs == 8
        before = (folder / "finish" / name / "eval/test.json").read_text()
        assert json.loads(before)["split"] == "test"
    assert sweep(folder, "--finish", "2").exit_code == 0
    assert (folder / "finish" / name / "eval/test.json").read_text() == before


def test_no_trial_can_read_the_test_split(yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that asks its data for anything of the test split but its size, fails."""
    from dltrain.sweeps import trial as trial_module

    seen, fit = [], trial_module.fit_by_epochs

    def looking(*args: Any, **options: Any) -> Any:
        test = options["splits"].test
        seen.append(len(test))
        for look in ("targets", "keys", "contents", "load", "names"):
            with pytest.raises(RuntimeError, match="takes no part"):
                getattr(test, look)
        return fit(*args, **options)

    monkeypatch.setattr(trial_module, "fit_by_epochs", looking)
    assert sweep(yaml, "sweep.trials=2", "--runs", tmp_path).exit_code == 0
    assert seen == [30, 30]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sweep.metric=[parameters]", "a search needs a metric of the validation split"),
        ("sweep.metric=[validation/loss, validation/loss]", "names `validation/loss` twice"),
        ("sweep.time=soon", "must be like 2h"),
        ("sweep={repeats: 2, space: {seed: {choices: [1, 2]}}}", "`seed` cannot be searched"),
        ("sweep.pruner={name: median, factor: 3}", "unknown option `factor` for pruner `median`"),
    ],
)
def test_requests_that_make_no_search(yaml: Path, tmp_path: Path, override: str, message: str) -> None:
    result = sweep(yaml, override, "--runs", tmp_path / "runs")
    assert result.exit_code == 2 and message in result.stderr
    assert not (tmp_path / "runs").exists()


def test_more_jobs_than_memory_allows(yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = sweep(yaml, "--jobs", "100000", "--runs", tmp_path / "runs")
    assert result.exit_code == 2 and "of memory are free; --jobs" in result.stderr
    assert not (tmp_path / "runs").exists()
