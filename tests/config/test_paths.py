"""Paths with `~` and variables, wherever one is written; and what a run's own experiment keeps of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from training import write_arrays, write_folder
from typer.testing import CliRunner, Result

from dltrain import ConfigError, Experiment
from dltrain.cli import app
from dltrain.runs.run import next_free


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with photos and arrays; the working directory is another, empty one."""
    path = tmp_path / "home"
    write_folder(path / "photos")
    write_arrays(path / "a.npz")
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.setenv("DATA", str(path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return path


@pytest.mark.parametrize("before", ["~", "$DATA", "${DATA}"])
def test_paths_of_an_experiment(before: str, home: Path) -> None:
    data = f"{{name: image_folder, root: '{before}/photos', cache: '{before}/packs'}}"
    text = f"data: {data}\nmodel: mlp\ninitialize_from: {before}/x.pt\n"
    Path("e.yaml").write_text(text)
    Path("child.yaml").write_text(f"extends: {Path.cwd()}/e.yaml\nseed: 1\n")
    overrides = [f"data.root={before}/photos", f"data.cache={before}/packs", f"initialize_from={before}/x.pt"]
    for experiment in (
        Experiment.parse(text),
        Experiment.parse("data: {name: image_folder, root: x}\nmodel: mlp", "e", overrides),
        Experiment.load("child.yaml"),
    ):
        values = experiment.model_dump()
        assert values["data"]["root"] == f"{home}/photos"
        assert values["data"]["cache"] == f"{home}/packs"
        assert values["initialize_from"] == f"{home}/x.pt"
        assert Experiment.parse(experiment.dump()) == experiment
    arrays = Experiment.parse(f"data: {{name: arrays, path: '{before}/a.npz'}}\nmodel: mlp").data
    assert len(arrays.load().train) > 0
    assert not list(Path().glob("*~*"))


def test_extends_takes_a_path_of_the_home_folder(home: Path) -> None:
    (home / "base.yaml").write_text("data: digits\nmodel: mlp\nseed: 7\n")
    for path in ("~/base.yaml", "$DATA/base.yaml"):
        Path("child.yaml").write_text(f"extends: {path}\n")
        assert Experiment.load("child.yaml").seed == 7


def test_a_variable_that_is_not_set_is_an_error_where_it_stands(home: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Experiment.parse("data: {name: image_folder, root: $NOWHERE/x}\nmodel: mlp", "e.yaml")
    assert "`$NOWHERE/x`: `$NOWHERE` is not set in the environment\n  --> e.yaml:1:34" in str(caught.value)
    Path("child.yaml").write_text("extends: ${NOWHERE}.yaml\n")
    with pytest.raises(ConfigError, match="is not set in the environment"):
        Experiment.load("child.yaml")
    result = invoke("check", "$NOWHERE/e.yaml")
    assert result.exit_code == 2 and "is not set in the environment" in result.stderr


@pytest.mark.parametrize("name", ["~", "$x", "a$DATA"])
def test_a_folder_that_is_called_so_is_meant(name: str) -> None:
    Path(name).mkdir()
    experiment = Experiment.parse(f'data: {{name: image_folder, root: "{name}"}}\nmodel: mlp')
    assert experiment.model_dump()["data"]["root"] == name


def test_paths_of_the_command_line(home: Path) -> None:
    (home / "e.yaml").write_text("data: {name: arrays, path: $DATA/a.npz}\nmodel: {name: mlp, hidden: [8]}\n"
                                 "training: {epochs: 1, batch_size: 64}\n")  # fmt: skip
    for path in ("~/e.yaml", "$DATA/e.yaml"):
        assert invoke("check", path).stdout == f"{home}/e.yaml: ok\n"
    result = invoke("fit", "~/e.yaml", "--runs", "$DATA/runs", "--device", "cpu")
    assert (result.exit_code, result.stdout) == (0, f"{home}/runs/e/001\n")
    assert f"path: {home}/a.npz" in (home / "runs/e/001/experiment.yaml").read_text()
    assert invoke("eval", "~/runs/e/001", "$DATA/runs/e/001", "--device", "cpu").exit_code == 0
    assert invoke("resume", "~/runs/e/001").exit_code == 0
    assert invoke("init", "~/photos", "--no-pretrained", "-o", "~/photos.yaml").stdout == f"{home}/photos.yaml\n"
    assert list(Path().iterdir()) == []


def test_runs_are_numbered_after_numbers_alone(tmp_path: Path) -> None:
    for name in ("001²", "٣", "002", "1_0", "latest"):
        (tmp_path / "x" / name).mkdir(parents=True)
    assert next_free(tmp_path / "x").name == "003"
