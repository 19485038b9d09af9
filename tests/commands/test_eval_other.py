"""`dltrain eval RUN data.root=...`: other data than the training's is measured whole, and kept apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluating import invoke, measured
from photos import write_photos


def text(data: str) -> str:
    return f"data: {data}\nmodel: {{name: mlp, hidden: [8]}}\ntraining: {{epochs: 1, batch_size: 8}}\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ and a run on them, in runs/e/001."""
    folder = tmp_path_factory.mktemp("trained")
    write_photos(folder / "photos", ["ant", "bee", "cat"], 10)
    (folder / "e.yaml").write_text(text(f"{{name: image_folder, root: {folder / 'photos'}, size: 16}}"))
    result = invoke("fit", folder / "e.yaml", "--runs", folder / "runs")
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def run(trained: Path) -> Path:
    return trained / "runs/e/001"


@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_class_folders_are_measured_whole(run: Path, tmp_path: Path, split: str) -> None:
    write_photos(tmp_path / "new", ["ant", "bee", "cat"], 2, start=500)
    own = measured(run, "--split", split)
    recorded = (run / f"eval/{split}.json").read_bytes()
    found = measured(run, f"data.root={tmp_path / 'new'}", "--split", split)
    assert found["examples"] == 6 and [row["support"] for row in found["per_class"]] == [2, 2, 2]
    assert found["data"]["place"] == str(tmp_path / "new") and found["data_fingerprint"] != own["data_fingerprint"]
    assert (run / f"eval/{split}.json").read_bytes() == recorded
    others = [json.loads(file.read_text()) for file in (run / "eval").glob("*.json")]
    assert any(found.items() <= other.items() for other in others)


def test_what_is_measured_is_said(run: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "new", ["ant", "bee", "cat"], 2, start=500)
    result = invoke("eval", run, f"data.root={tmp_path / 'new'}")
    assert f"6 images, all that is labelled in {tmp_path / 'new'}" in result.stderr
    assert "warning: this is not the data of the training" in result.stderr


def test_the_split_of_the_asked_name_is_taken(run: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "test", ["ant", "bee", "cat"], 3, start=500)
    assert measured(run, f"data.root={tmp_path}")["examples"] == 9  # test/ alone is enough
    write_photos(tmp_path / "valid", ["ant", "bee", "cat"], 2, start=600)
    write_photos(tmp_path / "train", ["ant", "bee", "cat"], 4, start=700)
    assert measured(run, f"data.root={tmp_path}")["examples"] == 9
    assert measured(run, f"data.root={tmp_path}", "--split", "validation")["examples"] == 6
    found = measured(run, f"data.root={tmp_path}", "--split", "train")
    assert found["examples"] == 12 and found["data"]["measured"] == "its train split"
    shutil.rmtree(tmp_path / "test")
    assert measured(run, f"data.root={tmp_path}")["examples"] == 18  # train and valid: all that there is


def test_classes_are_matched_by_name(run: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "photos/cat", tmp_path / "new/cat")
    found = measured(run, f"data.root={tmp_path / 'new'}")
    assert [row["support"] for row in found["per_class"]] == [0, 0, 10]
    matrix = np.array(measured(run, f"data.root={shutil.copytree(trained / 'photos', tmp_path / 'all')}")["per_class"])
    assert len(matrix) == 3
    write_photos(tmp_path / "new", ["dog"], 2)
    result = invoke("eval", run, f"data.root={tmp_path / 'new'}")
    assert result.exit_code == 2 and "not trained on these classes of the data: `dog`" in result.stderr


def test_the_order_of_classes_does_not_matter(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (80, 6, 6), dtype=np.uint8), np.arange(80) % 2
    images[labels == 1] //= 2
    np.savez(tmp_path / "a.npz", images=images, labels=labels, classes=np.array(["light", "dark"]))
    np.savez(tmp_path / "b.npz", images=images, labels=1 - labels, classes=np.array(["dark", "light"]))
    (tmp_path / "e.yaml").write_text(text(f"{{name: arrays, path: {tmp_path / 'a.npz'}}}"))
    assert invoke("fit", tmp_path / "e.yaml", "--runs", tmp_path / "runs").exit_code == 0
    found = measured(tmp_path / "runs/e/001", f"data.path={tmp_path / 'b.npz'}")
    assert found["examples"] == 80 and [row["class"] for row in found["per_class"]] == ["light", "dark"]
    whole = measured(tmp_path / "runs/e/001", f"data.path={tmp_path / 'a.npz'}")
    assert whole["examples"] == 16 and "data" not in whole
    assert found["accuracy"] == 1 == whole["accuracy"]


def test_moved_data_has_the_splits_of_the_training(run: Path, trained: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(trained / "photos", tmp_path / "moved")
    result = invoke("eval", run, f"data.root={moved}", "--json")
    assert json.loads(result.stdout) | {"seconds": 0} == measured(run) | {"seconds": 0}
    assert "not the data of the training" not in result.stderr


def test_changed_data_of_the_same_place_is_divided_and_spoken_of(trained: Path, tmp_path: Path) -> None:
    photos = shutil.copytree(trained / "photos", tmp_path / "photos")
    (tmp_path / "e.yaml").write_text(text(f"{{name: image_folder, root: {photos}, size: 16}}"))
    assert invoke("fit", tmp_path / "e.yaml", "--runs", tmp_path / "runs").exit_code == 0
    write_photos(photos, ["ant", "bee", "cat"], 5, start=300)
    result = invoke("eval", tmp_path / "runs/e/001", "--json")
    assert "warning: this is not the data of the training" in result.stderr
    assert json.loads(result.stdout)["examples"] == 9
    result = invoke("resume", tmp_path / "runs/e/001")
    assert result.exit_code != 0 or "nothing" in result.stderr


def records(run: Path) -> dict[str, tuple[str, str, float]]:
    """Checkpoint, views and loss of each file in eval/."""
    found = {path.stem: json.loads(path.read_text()) for path in (run / "eval").glob("*.json")}
    return {name: (each["checkpoint"], each["views"], each["loss"]) for name, each in found.items()}


def test_each_thing_that_is_measured_has_a_file_of_its_own(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained / "runs/e/001", tmp_path / "001"))
    shutil.rmtree(run / "eval", ignore_errors=True)
    assert invoke("fit", trained / "e.yaml", "seed=1", "--runs", tmp_path).exit_code == 0
    other = tmp_path / "e/001/checkpoints/best.pt"
    foreign = Path(shutil.copy(other, run / "checkpoints/mine.pt"))
    best = measured(run)
    last = measured(run, "--checkpoint", "last")
    flipped = measured(run, "--views", "flip")
    strange = measured(foreign)
    assert best["loss"] != strange["loss"]
    found = records(run)
    named = next(name for name in found if name.startswith("test-mine-"))
    assert found == {
        "test": ("best.pt", "center_crop", best["loss"]), "test-last": ("last.pt", "center_crop", last["loss"]),
        "test-flip": ("best.pt", "flip", flipped["loss"]), named: ("mine.pt", "center_crop", strange["loss"]),
    }  # fmt: skip
    shutil.copy(other, run / "checkpoints/best.pt")  # in the place of the run's own
    measured(run)
    after = records(run)
    assert {name: after[name] for name in found} == found and len(after) == 5
    shutil.copy(run / "checkpoints/last.pt", run / "checkpoints/mine.pt")  # another one of the same name
    measured(foreign)
    assert {name: records(run)[name] for name in after} == after and len(records(run)) == 6


def test_a_record_says_what_was_measured(run: Path, trained: Path) -> None:
    found = measured(run, "--split", "validation")
    recorded = json.loads((run / "eval/validation.json").read_text())
    assert found.items() <= recorded.items()
    assert recorded["data"] == {
        "name": "image_folder", "place": str(trained / "photos"), "measured": "its validation split",
    }  # fmt: skip
    assert recorded["checkpoint_path"] == str(run / "checkpoints/best.pt") and recorded["step"] > 0
    environment = json.loads((run / "environment.json").read_text())
    assert recorded["data_fingerprint"] == environment["data_fingerprint"]


def test_another_division_of_the_data_is_other_data(run: Path) -> None:
    own = measured(run, "--split", "validation")
    before = (run / "eval/validation.json").read_bytes()
    assert measured(run, "data.validation=0.5", "--split", "validation")["examples"] > own["examples"]
    assert (run / "eval/validation.json").read_bytes() == before
