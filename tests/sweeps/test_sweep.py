"""`dltrain sweep`: the trials it draws, what interrupts it, what it records."""

from __future__ import annotations

import json
import shutil
import signal
import time
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from forking import Zygote, until
from rationing import some
from sweeping import ranking, save_images, sweep, write_experiment
from typer.testing import CliRunner, Result

import dltrain.sweeps.coordinator as coordinator_module
import dltrain.sweeps.trial as trial_module
from dltrain.cli import app
from dltrain.experiment.experiment import Experiment
from dltrain.runs.recording import Recordings
from dltrain.runs.run import JOURNAL, Run
from dltrain.search import Range, Settings, Sweep
from dltrain.sweeps.ranking import Ranking
from dltrain.sweeps.study import Study


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    return write_experiment(tmp_path)


def tried(folder: Path) -> list[dict[str, str]]:
    return sorted(ranking(folder), key=lambda row: int(row["trial"]))


# -- drawing


def draws(count: int, seed: int = 0, **space: dict[str, Any]) -> dict[str, list[Any]]:
    settings = Settings(Sweep(space={key: Range(**value) for key, value in space.items()}), seed)
    trials = [found.values for found in takewhile(bool, map(settings.draw, range(count)))]
    return {key: [trial[key] for trial in trials] for key in space}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_log_range_visits_every_decade_equally_often() -> None:
    from scipy.stats import chisquare, kstest

    values = np.array(draws(2000, x={"low": 1e-5, "high": 1e-1, "log": True})["x"])
    counts = np.histogram(np.log10(values), bins=[-5, -4, -3, -2, -1])[0]
    assert counts.sum() == 2000
    assert chisquare(counts).pvalue > 0.01
    assert kstest((np.log10(values) + 5) / 4, "uniform").pvalue > 0.01


def test_each_kind_of_range() -> None:
    found = draws(
        300,
        uniform={"low": 0.1, "high": 0.3}, integer={"low": 2, "high": 5},
        integer_step={"low": 1, "high": 10, "step": 4}, integer_log={"low": 1, "high": 1000, "log": True},
        step={"low": 0.0, "high": 0.5, "step": 0.2},
        choice={"choices": ["a", {"name": "b", "x": 1}, [1, 2], None, True]},
    )  # fmt: skip
    assert all(0.1 <= value <= 0.3 for value in found["uniform"]) and len(set(found["uniform"])) > 290
    assert abs(np.mean(found["uniform"]) - 0.2) < 0.01
    assert set(found["integer"]) == {2, 3, 4, 5} and all(type(v) is int for v in found["integer"])
    assert set(found["integer_step"]) == {1, 5, 9}
    assert 60 < sum(value <= 10 for value in found["integer_log"]) < 150
    assert set(found["step"]) == {0.0, 0.2, 0.4}
    assert {json.dumps(v) for v in found["choice"]} == {'"a"', '{"name": "b", "x": 1}', "[1, 2]", "null", "true"}
    assert min(found["choice"].count(value) for value in found["choice"]) > 35


def test_a_trial_is_a_function_of_seed_and_index() -> None:
    space = {"x": {"low": 0.0, "high": 1.0}, "y": {"low": 1, "high": 100}}
    assert draws(5, **space) == {key: values[:5] for key, values in draws(9, **space).items()}
    assert draws(5, **space) != draws(5, seed=1, **space)


def test_no_setting_is_drawn_twice_and_a_finite_space_ends() -> None:
    space: dict[str, dict[str, Any]] = {"x": {"low": 1, "high": 30, "log": True}, "y": {"choices": [0.1, {"a": 1}]}}
    space["z"] = {"low": 0.0, "high": 0.5, "step": 0.2}
    found = draws(10_000, **space)
    assert len(found["x"]) == 30 * 2 * 3
    assert len({json.dumps(setting) for setting in zip(*found.values(), strict=True)}) == 180
    assert draws(7, **space) == {key: values[:7] for key, values in found.items()}


@pytest.mark.slow
def test_a_setting_that_is_hardly_ever_drawn_is_found_among_those_left() -> None:
    found = draws(900, x={"low": 1, "high": 500, "log": True})["x"]
    assert sorted(found) == list(range(1, 501))


def test_steps_give_the_numbers_as_they_are_written() -> None:
    found = draws(9, x={"low": 1e6, "high": 1000002.0, "step": 0.5})["x"]
    assert sorted(found) == [1000000, 1000000.5, 1000001, 1000001.5, 1000002]
    assert sorted(draws(9, x={"low": 0.1, "high": 0.45, "step": 0.1})["x"]) == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    "space",
    [
        {"low": 16, "high": 64, "step": 100}, {"choices": [3]}, {"choices": [0, 5, 0]}, {"low": 1.0, "high": 1.0000001},
        {"choices": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]}, {"low": 0.1, "high": 0.2, "step": 0.2},
    ],
)  # fmt: skip
def test_what_cannot_vary_is_refused(space: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Range(**space)


@pytest.mark.parametrize("step", [0, -1, 0.0])
def test_a_step_is_above_zero(step: float) -> None:
    with pytest.raises(ValueError):
        Range(low=0, high=4, step=step)


# -- a sweep from start to end


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What a sweep of four trials printed."""
    folder = tmp_path_factory.mktemp("whole")
    result = sweep(write_experiment(folder), "--runs", folder)
    assert result.exit_code == 0
    return result


@pytest.fixture(scope="module")
def whole(shown: Result) -> Path:
    """Its folder, which lies below that of its file."""
    return Path(shown.stdout.splitlines()[0]).parent


@pytest.fixture(scope="module")
def uninterrupted(whole: Path) -> list[dict[str, str]]:
    return ranking(whole)


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "sweep"))


def test_a_sweep_ranks_its_trials_and_writes_the_best(whole: Path, shown: Result) -> None:
    result, folder, yaml = shown, whole, whole.parents[1] / "tiny.yaml"
    assert result.stdout.splitlines() == [str(folder / "best.yaml")]
    rows = ranking(folder)
    scores = [float(row["validation/accuracy"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert sorted(int(row["trial"]) for row in rows) == [1, 2, 3, 4]
    for row in rows:
        run = Run.open(folder / row["run"])[0]
        resolved = Experiment.load(run.path / "experiment.yaml")
        assert resolved.optimizer.lr == float(row["optimizer.lr"])
        assert resolved.training.epochs == 2
        assert resolved.schedule.warmup is not None
        assert resolved.schedule.warmup.epochs == 0.5  # compressed as the training is
        assert max(e["validation/accuracy"] for e in run.checkpoint("last")[1]["history"]) == pytest.approx(
            float(row["validation/accuracy"])
        )
        assert not (run.path / "eval").exists()
    best = Experiment.load(folder / "best.yaml")
    trained = Experiment.load(yaml).without_sweep()
    assert best == trained.override_all({key: float(rows[0][key]) for key in ("optimizer.lr", "model.dropout")})
    assert best.training.epochs == 8
    assert CliRunner().invoke(app, ["check", str(folder / "best.yaml")]).exit_code == 0


def test_what_is_shown_of_a_sweep(shown: Result) -> None:
    lines = shown.stderr.splitlines()
    assert lines[0].startswith("tiny: 4 trials -> ")
    assert all(line.startswith(f"trial {k}/4  optimizer.lr=") for k, line in enumerate(lines[1:5], 1))
    assert "left" in lines[1] and "left" not in lines[4]
    assert lines[5].split() == ["rank", "trial", "validation/accuracy", "optimizer.lr", "model.dropout"]
    assert lines[-1].startswith("to train the best setting fully: dltrain fit ")
    assert lines[-2].startswith("what was found, in pictures: ") and len(lines) == 12


def test_the_test_split_takes_no_part(yaml: Path, tmp_path: Path, uninterrupted: list[dict[str, str]]) -> None:
    save_images(tmp_path / "images.npz", test_seed=7)
    sweep(yaml, "--runs", tmp_path)
    assert ranking(tmp_path / "tiny/sweep-001") == uninterrupted


def test_the_seed_decides_the_trials(yaml: Path, tmp_path: Path, uninterrupted: list[dict[str, str]]) -> None:
    """That one seed gives one sweep is what the tests of interrupted ones rest on."""
    sweep(yaml, "seed=1", "sweep.trials=2", "--runs", tmp_path)
    rates = {row["optimizer.lr"] for row in ranking(tmp_path / "tiny/sweep-001")}
    assert len(rates) == 2 and rates.isdisjoint(row["optimizer.lr"] for row in uninterrupted)


def test_a_loss_ranks_from_below(yaml: Path, tmp_path: Path) -> None:
    sweep(yaml, "sweep.metric=validation/loss", "sweep.epochs=1", "--runs", tmp_path)
    losses = [float(row["validation/loss"]) for row in ranking(tmp_path / "tiny/sweep-001")]
    assert losses == sorted(losses) and len(losses) == 4


def test_training_in_steps_is_shortened_with_its_schedule(yaml: Path, tmp_path: Path) -> None:
    overrides = ["training.steps=60", "schedule={name: multi_step, steps: [30, 45]}", "sweep.trials=1"]
    sweep(yaml, *overrides, "--runs", tmp_path)
    trial = Experiment.load(tmp_path / "tiny/sweep-001/trials/001/experiment.yaml")
    assert trial.training.steps == 10  # 72 examples in batches of 16: 5 steps an epoch
    assert trial.schedule.model_dump()["steps"] == [5, 8]
    assert Experiment.load(tmp_path / "tiny/sweep-001/best.yaml").training.steps == 60


def test_tensorboard_shows_the_searched_keys_of_every_trial(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    for row in ranking(whole)[:2]:
        events = EventAccumulator(str(whole / row["run"]))
        events.Reload()
        content = events.PluginTagToContent("hparams")
        start = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info
        shown = {key: value.number_value for key, value in start.hparams.items()}
        assert shown == {key: float(row[key]) for key in ("optimizer.lr", "model.dropout")}
        experiment = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
        assert "validation/accuracy" in [info.name.tag for info in experiment.metric_infos]
        assert "validation/accuracy" in events.Tags()["scalars"]


def test_checkpoints_are_kept_of_the_best_trials(yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_module, "KEPT", 2)
    sweep(yaml, "sweep.trials=3", "sweep.epochs=1", "--runs", tmp_path)
    folder = tmp_path / "tiny/sweep-001"
    assert [(folder / row["run"] / "checkpoints").exists() for row in ranking(folder)] == [True, True, False]


def test_a_space_of_two_settings_is_trained_twice_and_no_more(yaml: Path, tmp_path: Path) -> None:
    text = yaml.read_text()
    yaml.write_text(text[: text.index("  space")] + "  space: {optimizer.lr: {choices: [0.1, 0.2]}}\n")
    result = sweep(yaml, "--runs", tmp_path)
    folder = tmp_path / "tiny/sweep-001"
    assert sorted(row["optimizer.lr"] for row in ranking(folder)) == ["0.1", "0.2"]
    assert "the space has 2 settings: each is trained once" in result.stderr
    assert sweep(folder).exit_code == 0
    assert len(ranking(folder)) == 2


@pytest.mark.parametrize(
    "space",
    [
        "optimizer.lr: {low: 0.1, high: 0.9}, optimizer: {choices: [adam, adamw]}",
        "model.hidden: {choices: [[8], [4]]}", "training.steps: {low: 3, high: 6}",
    ],
)  # fmt: skip
def test_what_is_reported_was_trained(yaml: Path, tmp_path: Path, space: str) -> None:
    text = yaml.read_text()
    text = text[: text.index("sweep:")].replace(", dropout: 0.2", "").replace(", momentum: 0.9", "")
    text = text.replace("schedule: {name: cosine, warmup: {epochs: 2}}", "schedule: constant")
    yaml.write_text(f"{text}sweep: {{trials: 2, space: {{{space}}}}}\n")
    result = sweep(yaml, "training.epochs=1.0", "--runs", tmp_path)
    assert result.exit_code == 0, result.stderr
    folder = tmp_path / "tiny/sweep-001"
    for row in ranking(folder):
        trained = Experiment.load(folder / row["run"] / "experiment.yaml").model_dump()
        for key in (key for key in row if key.split(".")[0] in ("optimizer", "model", "training")):
            first, *rest = key.split(".")
            value = trained[first][rest[0] if rest else "name"]
            assert row[key] == (value if isinstance(value, str) else json.dumps(value))


# -- failures


def test_a_failing_trial_is_recorded_and_the_sweep_goes_on(
    yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = trial_module.fit_by_epochs

    def breaking(experiment: Experiment, *args: Any, **options: Any) -> Any:
        if experiment.seed == 5:
            raise ValueError("out of luck")
        return fit(experiment, *args, **options)

    monkeypatch.setattr(trial_module, "fit_by_epochs", breaking)
    text = yaml.read_text()
    yaml.write_text(text[: text.index("  trials")] + "  trials: 12\n  epochs: 1\n  space:\n"
                    "    optimizer.lr: {choices: [0.1, 1.0e+30]}\n    training.batch_size: {choices: [16, 500]}\n"
                    "    seed: {choices: [0, 1, 5]}\n")  # fmt: skip
    result = sweep(yaml, "--runs", tmp_path)
    while "in a row have failed alike" in result.stderr:  # and what is left is made all the same
        result = sweep(tmp_path / "tiny/sweep-001")
    assert result.exit_code == 0
    rows = ranking(tmp_path / "tiny/sweep-001")
    assert len(rows) == 12
    expected = {
        ("0.1", "16", "0"): "",
        ("1e+30", "16", "0"): "the loss became infinite or not a number in step",
        ("0.1", "500", "0"): "a batch of 500 is larger than the training split of 72 examples",
        ("1e+30", "16", "5"): "ValueError: out of luck",
    }
    for setting, reason in expected.items():
        found = [r["reason"] for r in rows if (r["optimizer.lr"], r["training.batch_size"], r["seed"]) == setting]
        assert found and all(text.startswith(reason) and bool(text) == bool(reason) for text in found)
    failed = [row["reason"] != "" for row in rows]
    assert failed == sorted(failed)  # at the end of the table
    assert "trials failed, such as: " in result.stderr


def test_no_success_is_exit_code_1(yaml: Path, tmp_path: Path) -> None:
    result = sweep(yaml, "sweep.trials=2", "optimizer.momentum=0.0", "training.batch_size=100", "--runs", tmp_path)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "no trial has succeeded" in result.stderr
    assert not (tmp_path / "tiny/sweep-001/best.yaml").exists()


def test_unfit_data_is_said_before_anything_is_made(yaml: Path, tmp_path: Path) -> None:
    result = sweep(yaml, f"data.path={tmp_path / 'absent.npz'}", "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert "absent.npz" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_requests_that_are_no_sweep(yaml: Path, tmp_path: Path) -> None:
    text = yaml.read_text()
    (tmp_path / "plain.yaml").write_text(text[: text.index("sweep:")])
    result = sweep(tmp_path / "plain.yaml")
    assert result.exit_code == 2 and "has no `sweep` section" in result.stderr
    CliRunner().invoke(app, ["fit", str(yaml), "training.epochs=1", "--runs", str(tmp_path)])
    result = sweep(tmp_path / "tiny/001")
    assert result.exit_code == 2 and "is not a sweep's directory" in result.stderr
    assert not (tmp_path / "tiny/001" / JOURNAL).exists()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("data.validation", "trials are compared on the same validation split"),
        ("training.epochs", "`sweep.epochs` is the length of every trial"),
    ],
)
def test_keys_that_would_make_trials_incomparable(yaml: Path, tmp_path: Path, key: str, message: str) -> None:
    text = yaml.read_text()
    yaml.write_text(text[: text.index("  space:")] + f"  space:\n    {key}: {{choices: [0.2, 0.3]}}\n")
    result = sweep(yaml, "--runs", tmp_path)
    assert result.exit_code == 2 and message in result.stderr


# -- going on


def test_more_trials_continue_the_same_sequence(
    yaml: Path, tmp_path: Path, uninterrupted: list[dict[str, str]]
) -> None:
    folder = tmp_path / "tiny/sweep-001"
    sweep(yaml, "sweep.trials=2", "--runs", tmp_path)
    assert len(ranking(folder)) == 2
    assert sweep(folder, "sweep.trials=4").exit_code == 0
    assert ranking(folder) == uninterrupted
    assert sweep(folder).exit_code == 0  # nothing is left to do
    assert ranking(folder) == uninterrupted


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sweep.space.optimizer.lr.high=0.5", "`sweep.space.optimizer.lr.high` 1.0; it cannot be 0.5 now"),
        ("sweep.epochs=3", "`sweep.epochs` 2.0; it cannot be 3.0 now"),
        ("optimizer.momentum=0.8", "`optimizer.momentum` 0.9; it cannot be 0.8 now"),
        ("seed=1", "`seed` 0; it cannot be 1 now"),
    ],
)
def test_a_continued_sweep_cannot_change(copied: Path, override: str, message: str) -> None:
    folder = copied
    before = (folder / "experiment.yaml").read_text()
    key, _, value = override.partition("=")
    if key.startswith("sweep.space"):  # the key of the space holds dots itself: write it as a person would
        (folder / "experiment.yaml").write_text(before.replace("high: 1.0", f"high: {value}"))
        result = sweep(folder)
    else:
        result = sweep(folder, override)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "only `sweep.trials` and `sweep.time`, and where the data lies, can change" in result.stderr


def test_changed_data_stops_a_continued_sweep(yaml: Path, tmp_path: Path) -> None:
    sweep(yaml, "sweep.trials=1", "--runs", tmp_path)
    save_images(tmp_path / "images.npz", test_seed=3)
    result = sweep(tmp_path / "tiny/sweep-001", "sweep.trials=2")
    assert result.exit_code == 2 and "the data has changed since the sweep began" in result.stderr


class Killed(BaseException):
    """The process ends here: nothing catches it."""


@pytest.mark.parametrize(
    "point",
    some(["Run.create", "Study.begin", "Run.write_held", "Recordings.epoch", "Study.finish", "Ranking.write"], 2),
)
def test_a_killed_sweep_goes_on_as_if_nothing_had_happened(
    yaml: Path, tmp_path: Path, uninterrupted: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    owner = {"Study": Study, "Run": Run, "Recordings": Recordings, "Ranking": Ranking}[point.split(".")[0]]
    name = point.split(".")[1]
    original, calls = getattr(owner, name), []

    def dying(*args: Any, **options: Any) -> Any:
        calls.append(name)
        done = original(*args, **options)
        if len(calls) == 3:
            raise Killed
        return done

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            sweep(yaml, "--runs", tmp_path)
    folder = tmp_path / "tiny/sweep-001"
    with (folder / JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 8, "trial')  # torn
    (folder / f"{JOURNAL}.lock").touch()  # stale
    assert sweep(folder).exit_code == 0
    assert ranking(folder) == uninterrupted


@pytest.mark.parametrize("point", some(["Recordings.epoch", "Run.create", "Study.finish"], 3))
def test_interrupted_at_any_point(
    yaml: Path, tmp_path: Path, uninterrupted: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """A signal is not lost, whether it comes before, within or after the training of a trial."""
    owner, name = {"Study": Study, "Run": Run, "Recordings": Recordings}[point.split(".")[0]], point.split(".")[1]
    original, calls = getattr(owner, name), []

    def pressing(*args: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, pressing)
        result = sweep(yaml, "--runs", tmp_path)
    folder = tmp_path / "tiny/sweep-001"
    assert result.exit_code == 130
    assert f"interrupted; to go on: dltrain sweep {folder}" in result.stderr
    assert result.stdout == ""
    assert len(ranking(folder)) <= 2
    assert sweep(folder).exit_code == 0
    assert ranking(folder) == uninterrupted


def test_a_second_signal(yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(trial_module, "fit_by_epochs", interrupted)
    result = sweep(yaml, "--runs", tmp_path)
    assert result.exit_code == 130 and "to go on: dltrain sweep" in result.stderr


def test_sigkill_at_any_moment(yaml: Path, zygote: Zygote, tmp_path: Path, uninterrupted: list[dict[str, str]]) -> None:
    folder = tmp_path / "tiny/sweep-001"
    command = ["sweep", yaml, "--runs", tmp_path]
    for trial, delay in (("001", 0.02), ("003", 0.1)):
        child = zygote.start(*command, output=tmp_path / "output")
        until((folder / "trials" / trial).exists, 120, lambda child=child: child.text)
        time.sleep(delay)
        child.kill()
        assert child.wait() in (-signal.SIGKILL, 0)
        command[1:] = [folder]
    assert sweep(folder).exit_code == 0
    assert ranking(folder) == uninterrupted


def test_one_process_at_a_time(copied: Path) -> None:
    from filelock import FileLock

    with FileLock(copied / ".lock"):
        result = sweep(copied, "sweep.trials=5")
    assert result.exit_code == 2 and "is being run by another process" in result.stderr
