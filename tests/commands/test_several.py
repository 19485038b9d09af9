"""`dltrain fit --seeds` and `--folds`: several trainings in one folder, as one result."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers import interrupted, table_of
from evaluating import invoke, measured
from scipy import stats
from training import assert_same_state, table

from dltrain import Experiment
from dltrain.evidence.examples import read_examples
from dltrain.runs import checkpoints

TEXT = """
data: {data}
model: {{name: mlp, hidden: [8], dropout: 0.2}}
optimizer: {{lr: 0.1}}
training: {{epochs: 2, batch_size: 32, checkpoint_every: 1.0e-9}}
seed: 3
{more}
"""


def write(folder: Path, name: str, target: str = "target: kind", more: str = "") -> Path:
    """An experiment on the table `rows.csv` in a folder."""
    file = folder / f"{name}.yaml"
    file.write_text(TEXT.format(data=table_of(folder, target), more=more))
    return file


def fit(file: Path, *arguments: Any) -> Path:
    """Train in a new folder of runs beside the file."""
    done = invoke("fit", file, "--runs", file.parent, "--device", "cpu", *arguments)
    assert done.exit_code == 0, done.output
    return Path(done.stdout.strip())


def assert_same_run(left: Path, right: Path) -> None:
    """The same state and history, bit for bit; apart from `about`, which tells how much memory was free."""
    for which in ("last.pt", "best.pt"):
        one, other = (checkpoints.load(run / "checkpoints" / which) for run in (left, right))
        del one["about"], other["about"]
        assert_same_state(one, other, which)
    assert table(left) == table(right)


def summary(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`seeds/seeds-001` and `folds/folds-001`, of three runs each."""
    folder = tmp_path_factory.mktemp("several")
    assert fit(write(folder, "seeds"), "--seeds", 3) == folder / "seeds/seeds-001"
    assert fit(write(folder, "folds"), "--folds", 3) == folder / "folds/folds-001"
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_runs_are_those_of_separate_trainings(folder: Path) -> None:
    assert_same_run(folder / "seeds/seeds-001/seed-5", fit(folder / "seeds.yaml", "seed=5"))
    fold = folder / "folds/folds-001/fold-2"
    assert_same_run(fold, fit(fold / "experiment.yaml", "name=again"))
    assert_same_run(fold, fit(folder / "folds.yaml", "data.fold={number: 2, of: 3}", "name=again"))


def test_the_summary_is_that_of_the_runs(folder: Path) -> None:
    for kind in ("seeds", "folds"):
        whole = folder / kind / f"{kind}-001"
        told = summary(whole)
        assert (told["kind"], told["count"], told["split"]) == (kind, 3, "validation")
        for metric in ("accuracy", "loss"):
            names = [run["run"] for run in told["runs"]]
            values = [measured(whole / name, "--split", "validation")[metric] for name in names]
            assert [run[metric] for run in told["runs"]] == pytest.approx(values, rel=1e-9)
            low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
            expected = {"mean": np.mean(values), "deviation": np.std(values, ddof=1), "low": low, "high": high}
            assert told["metrics"][metric] == pytest.approx(expected, rel=1e-9)
    assert [run["seed"] for run in summary(folder / "seeds/seeds-001")["runs"]] == [3, 4, 5]


def test_the_table_has_every_example_once_as_its_own_fold_answers(folder: Path) -> None:
    whole = folder / "folds/folds-001"
    told, pooled = summary(whole)["out_of_fold"], rows(whole / "out-of-fold.csv")
    splits = [Experiment.load(whole / f"fold-{n}/experiment.yaml").load_data() for n in (1, 2, 3)]
    held = [key for each in splits if each.validation is not None for key in each.validation.keys()]  # noqa: SIM118
    undivided = Experiment.load(folder / "folds.yaml", ["data.validation=0"]).load_data()
    assert sorted(held) == sorted(undivided.train.keys()), "no example of the test part is among them"
    assert len(pooled) == told["examples"] == len(held)
    right = [row["target"] == row["prediction"] for row in pooled]
    assert told["accuracy"] == pytest.approx(np.mean(right)) and told["loss"] == pytest.approx(
        np.mean([float(row["loss"]) for row in pooled]), rel=1e-6
    )
    for name in ("fold-1", "fold-3"):
        own = rows(whole / name / "eval/validation.csv")
        of_fold = [row for row in pooled if row["fold"] == name]
        assert [row["row"] for row in of_fold] == [row["row"] for row in own]
        assert [row["loss"] for row in of_fold] == [row["loss"] for row in own]
    experiment = Experiment.load(whole / "base.yaml")
    read = read_examples(whole / "out-of-fold.csv", experiment.resolved_task.outcomes())
    assert len(read) == len(held) and np.array_equal(read.index, np.arange(len(held)))


def test_eval_and_predict_ask_all_runs(folder: Path) -> None:
    for kind, names in (("seeds", ("seed-3", "seed-4", "seed-5")), ("folds", ("fold-1", "fold-2", "fold-3"))):
        whole = folder / kind / f"{kind}-001"
        paths = [whole / name for name in names]
        told, ensemble = measured(whole), measured(*paths)
        assert (told["accuracy"], told["loss"]) == (ensemble["accuracy"], ensemble["loss"])
        values = [measured(path)["loss"] for path in paths]
        assert told["mean"]["loss"]["mean"] == pytest.approx(np.mean(values), rel=1e-9)
        assert json.loads((whole / "eval/test.json").read_text())["loss"] == told["loss"]
        asked = invoke("predict", whole, folder / "rows.csv")
        others = [part for path in paths[1:] for part in ("--with", path)]
        assert asked.stdout and asked.stdout == invoke("predict", paths[0], folder / "rows.csv", *others).stdout
    whole = folder / "folds/folds-001"
    told = measured(whole, "--split", "validation")
    assert told["accuracy"] == summary(whole)["out_of_fold"]["accuracy"] and len(told["members"]) == 3
    assert "out of fold, " in invoke("eval", whole, "--split", "validation").stdout
    done = invoke("eval", whole, "--split", "train")
    assert done.exit_code == 2 and "trained on different parts" in done.stderr


def test_compare_pairs_seeds_and_pools_folds(folder: Path) -> None:
    slow = fit(write(folder, "slow"), "--seeds", 3, "optimizer.lr=0.0001")
    told = json.loads(invoke("compare", folder / "seeds/seeds-001", slow, "--json").stdout)
    assert told["comparisons"][0]["seeds"] == [3, 4, 5] and told["settings"] == {"optimizer.lr": [0.1, 0.0001]}
    slow = fit(folder / "slow.yaml", "--folds", 3, "optimizer.lr=0.0001")
    told = json.loads(invoke("compare", folder / "folds/folds-001", slow, "--json").stdout)
    assert told["settings"] == {"optimizer.lr": [0.1, 0.0001]} and told["comparisons"][0]["paired"]
    first, second = (rows(path / "out-of-fold.csv") for path in (folder / "folds/folds-001", slow))
    wrong = [{row["row"] for row in side if row["target"] != row["prediction"]} for side in (first, second)]
    exact = stats.binomtest(len(wrong[0] - wrong[1]), len(wrong[0] ^ wrong[1]))
    assert told["comparisons"][0]["p"] == pytest.approx(exact.pvalue, rel=1e-9)
    text = invoke("compare", folder / "folds/folds-001", slow).stdout
    assert "best of each of 3 folds" in text and "single trainings" not in text
    assert "A folder is what its trainings answer together" in text
    told = json.loads(invoke("compare", folder / "folds/folds-001", slow, "--split", "test", "--json").stdout)
    assert [side["checkpoint"] for side in told["runs"]] == ["ensemble of 3"] * 2 and told["comparisons"][0]["paired"]


def test_a_killed_and_a_parked_folder_go_on(folder: Path, tmp_path: Path) -> None:
    whole = folder / "seeds/seeds-001"
    killed = tmp_path / "seeds-001"
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "seed-5")  # never begun
    (killed / "summary.json").unlink()
    for file in (killed / "seed-4/checkpoints").iterdir():
        file.unlink()  # killed before its first checkpoint
    result = json.loads((killed / "seed-4/result.json").read_text())
    (killed / "seed-4/result.json").write_text(json.dumps(result | {"state": "running"}))
    before = (killed / "seed-3/checkpoints/last.pt").stat().st_mtime_ns

    from dltrain.commands import fit_several

    with interrupted(fit_several, "fit"):
        done = invoke("resume", killed, "--device", "cpu")
    assert done.exit_code == 130, done.output
    assert f"2 of 3 are finished; to go on: dltrain resume {killed}" in done.stderr
    assert not (killed / "summary.json").exists()
    done = invoke("fit", killed)
    assert done.exit_code == 0 and done.stdout.strip() == str(killed), done.output
    assert (killed / "seed-3/checkpoints/last.pt").stat().st_mtime_ns == before, "what is finished stays"
    for seed in (4, 5):
        assert_same_run(killed / f"seed-{seed}", whole / f"seed-{seed}")
    assert summary(killed)["metrics"] == summary(whole)["metrics"]


def test_a_folder_can_be_made_longer(folder: Path, tmp_path: Path) -> None:
    longer = tmp_path / "seeds-001"
    shutil.copytree(folder / "seeds/seeds-001", longer)
    done = invoke("resume", longer, "training.epochs=3")
    assert done.exit_code == 0, done.output
    assert [len(rows(longer / f"seed-{seed}/metrics.csv")) for seed in (3, 4, 5)] == [3, 3, 3]
    done = invoke("resume", longer, "optimizer.lr=1")
    assert done.exit_code == 2 and "`optimizer.lr` cannot change when a run is continued" in done.stderr


def test_wrong_requests_are_said_before_there_is_a_folder(folder: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--seeds", 2, "--folds", 2), "--seeds or --folds, not both"),
        (("--seeds", 2, "--profile"), "without --devices and --profile"),
        (("--folds", 100), "one of 100 folds would have no example of class `ant`"),
        (("data.fold={number: 4, of: 3}",), "`number: 4` is none of 3 folds, which count from 1"),
    ):
        done = invoke("fit", folder / "folds.yaml", "--runs", tmp_path, *arguments)
        assert done.exit_code == 2 and message in done.stderr, done.output
    assert not list(tmp_path.iterdir())
    broken = tmp_path / "seeds-001"
    broken.mkdir()
    (broken / "several.json").write_text('{"kind": "years"}')
    done = invoke("eval", broken)
    assert done.exit_code == 2 and "does not hold what dltrain writes there" in done.stderr


def test_numbers_are_pooled_and_have_no_ensemble_over_folds(folder: Path) -> None:
    whole = fit(write(folder, "sizes", "target: size"), "--folds", 2)
    pooled = rows(whole / "out-of-fold.csv")
    apart = [float(row["target"]) - float(row["prediction"]) for row in pooled]
    assert summary(whole)["out_of_fold"]["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(apart))), rel=1e-5)
    done = invoke("eval", whole, "--json")
    assert done.exit_code == 0 and "units of its own" in done.stderr, done.output
    told = json.loads(done.stdout)
    values = [measured(whole / name)["rmse"] for name in ("fold-1", "fold-2")]
    assert [each["rmse"] for each in told["members"]] == values and "rmse" not in told
    assert told["mean"]["rmse"]["mean"] == pytest.approx(np.mean(values), rel=1e-9)
