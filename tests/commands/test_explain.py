"""`dltrain explain`: maps lie on what decides, and the page says how far that was tried."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from browsing import needs_browser, open_page
from evaluating import invoke
from PIL import Image

from dltrain import Experiment
from dltrain.commands.fit import fit
from dltrain.console.display import Display

SIDE, PATCH = 16, 4
COLOURS = {"red": (230, 30, 30), "<b>blue": (30, 30, 230)}


def picture(number: int) -> tuple[np.ndarray, int, tuple[int, int]]:
    """Grey noise with a patch whose colour is the class, the class, and where the patch lies."""
    draw = np.random.default_rng(number)
    pixels = np.repeat(draw.integers(60, 180, (SIDE, SIDE, 1)), 3, axis=2)
    top, left = draw.integers(0, SIDE - PATCH + 1, 2).tolist()
    pixels[top : top + PATCH, left : left + PATCH] = [*COLOURS.values()][number % 2]
    return pixels.astype(np.uint8), number % 2, (top, left)


def write(folder: Path, numbers: range, wrong: tuple[int, ...] = ()) -> None:
    for number in numbers:
        pixels, label, _ = picture(number)
        place = folder / [*COLOURS][label ^ (number in wrong)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:03d}.png")


def trained(folder: Path, data: dict[str, Any], model: dict[str, Any], **training: Any) -> Path:
    task = training.pop("task", None)
    document = {
        **({} if task is None else {"task": task}),
        "data": data, "model": model, "optimizer": {"name": "adamw", "lr": 0.01},
        "training": {"epochs": 8, "batch_size": 16, "precision": "float32", **training},
    }  # fmt: skip
    code, run = fit(Experiment.parse(yaml.safe_dump(document), "e"), None, "cpu", Display(), runs=folder / "runs")
    assert code == 0
    return run.path


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that knows the colours of patches; five of its test images are labelled wrongly."""
    folder = tmp_path_factory.mktemp("patches")
    write(folder / "photos/train", range(160))
    write(folder / "photos/val", range(200, 230))
    write(folder / "photos/test", range(300, 340), wrong=(301, 302, 311, 312, 320))
    trained(folder, {"name": "image_folder", "root": str(folder / "photos"), "size": SIDE},
            {"name": "convnet", "widths": [8, 16]})  # fmt: skip
    write(folder / "others", range(400, 412))
    return folder


def run_of(folder: Path) -> Path:
    return next((folder / "runs").glob("*/001"))


def explained(*arguments: Any) -> dict[str, Any]:
    done = invoke("explain", *arguments, "--device", "cpu", "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_maps_lie_on_what_decides_and_hiding_it_costs_far_more_than_chance(patches: Path, tmp_path: Path) -> None:
    found = explained(run_of(patches), patches / "others", "--output", tmp_path / "o", "--hide", 0.15)
    assert len(found["images"]) == 12 and min(found["places"]) >= 4
    drops, chance = [], []
    for image in found["images"]:
        assert image["answer"] == Path(image["name"]).parent.name, "it has learned the colours"
        drops.append(image["drop"])
        chance.append(image["random_drop_mean"])
        assert len(image["random_drops"]) == found["random_regions"] == 19
        assert image["drop"] == pytest.approx(image["value"] - image["value_when_hidden"])
        assert image["beyond_chance"] == (image["drop"] > max(image["random_drops"]))
        assert 0 < image["hidden_share"] <= 0.16
    assert np.mean(drops) > 0.25 and np.mean(drops) > 3 * np.mean(chance), (drops, chance)
    assert sum(image["beyond_chance"] for image in found["images"]) >= 9
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == sorted(
        [*(image["picture"] for image in found["images"]), "explain.html", "explain.json"]
    )
    assert json.loads((tmp_path / "o/explain.json").read_text()) == found


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "layercam"])
def test_every_method_that_knows_classes_finds_the_patch(patches: Path, method: Any) -> None:
    import torch

    from dltrain.commands.evaluate import find_checkpoint
    from dltrain.engine.explaining.maps import Mapper
    from dltrain.engine.predictor import restore_predictor
    from dltrain.runs.run import Run

    run, _ = Run.open(run_of(patches))
    predictor = restore_predictor(find_checkpoint(run, None, "best")[1], "cpu")
    pictures = [picture(number) for number in range(400, 416)]
    images = torch.stack([torch.from_numpy(pixels).permute(2, 0, 1) for pixels, _, _ in pictures])
    inputs = predictor.pipeline.evaluate(images)
    mapper = Mapper(predictor, inputs[:1], method)
    maps = mapper.maps(inputs, mapper.readings(inputs).answers)
    assert maps.shape == (16, SIDE, SIDE) and maps.dtype == np.float32 and maps.min() >= 0 and maps.max() <= 1
    hits = 0
    for map_, (_, _, (top, left)) in zip(maps, pictures, strict=True):
        row, column = np.unravel_index(map_.argmax(), map_.shape)
        hits += bool(top - 2 <= row < top + PATCH + 2 and left - 2 <= column < left + PATCH + 2)
    assert hits >= 13, "a patch with its margin covers a quarter of the image at most"


def test_the_worst_errors_are_those_of_the_table(patches: Path) -> None:
    run = run_of(patches)
    found = explained(run, "--errors", 4)
    with (run / "eval/test.csv").open(newline="") as file:
        wrong = [row for row in csv.DictReader(file) if row["target"] != row["prediction"]]
    assert len(wrong) >= 5
    shown = [(str(i["index"]), i["name"], i["truth"], i["answer"]) for i in found["images"]]
    assert shown == [(row["index"], row["path"], row["target"], row["prediction"]) for row in wrong[:4]]
    assert found["page"] == str(run / "explain/explain.html") and found["split"] == "test"
    for image, row in zip(found["images"], wrong, strict=False):
        assert image["value"] == pytest.approx(float(row[f"probability of {row['prediction']}"]), abs=1e-4)
        with Image.open(run / "explain" / image["picture"]) as overlay:
            assert overlay.format == "PNG" and min(overlay.size) == 224
    again = explained(run, "--errors", 2, "--target", "red")
    assert {image["target"] for image in again["images"]} == {"red"}
    assert len(list((run / "explain").glob("*.png"))) == 2, "those of the first call are gone"
    assert again["images"] == explained(run, "--errors", 2, "--target", "red")["images"], "chance is seeded"


def test_the_page_is_whole_and_escaped(patches: Path, tmp_path: Path) -> None:
    write(tmp_path / "<script>evil()", range(500, 503))
    done = invoke("explain", run_of(patches), tmp_path / "<script>evil()", "--output", tmp_path / "o")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len(lines) >= 6 and lines[-1] == f"page: {tmp_path / 'o/explain.html'}" and "in the mean" in lines[0]
    html = (tmp_path / "o/explain.html").read_text()
    assert "<script>evil" not in html and "&lt;script&gt;evil" in html and "<b>blue" not in html
    assert html.count("data:image/") == 6 and not re.search(r'(src|href)="(?!data:|#)', html)
    assert "the mean of the training images" in html


@needs_browser
def test_a_browser_draws_every_picture(patches: Path, tmp_path: Path) -> None:
    explained(run_of(patches), patches / "others", "--output", tmp_path / "o")
    html = (tmp_path / "o/explain.html").read_text()
    script = "[[...document.images].map((i) => i.naturalWidth), document.documentElement.scrollWidth]"
    seen = open_page(html, script, width=400)
    sizes, width = seen.answer
    assert len(sizes) == 24 and min(sizes) > 0 and width <= 500 and not seen.console and not seen.requests


def test_a_transformer_has_maps_of_its_tokens(tmp_path: Path) -> None:
    write(tmp_path / "photos/train", range(24))
    run = trained(tmp_path, {"name": "image_folder", "root": str(tmp_path / "photos"), "size": 32},
                  {"name": "timm/test_vit"}, epochs=1, limit_batches=1)  # fmt: skip
    write(tmp_path / "others", range(600, 602))
    found = explained(run, tmp_path / "others")
    assert len(found["images"]) == 2, found
    assert found["layer"].endswith("norm1")


def test_what_has_no_maps_says_why(patches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"images": np.stack([picture(n)[0] for n in range(40)]), "labels": np.arange(40) % 2}
    np.savez(tmp_path / "a.npz", **arrays)
    data = {"name": "arrays", "path": str(tmp_path / "a.npz")}
    mlp = trained(tmp_path, data, {"name": "mlp", "hidden": [8]}, epochs=1)
    run, images = run_of(patches), patches / "others"

    def refused(*arguments: Any) -> str:
        done = invoke("explain", *arguments, "--device", "cpu")
        assert done.exit_code == 2 and not done.stdout and "Traceback" not in done.stderr, done.output
        return done.stderr

    assert "keeps places of the image" in refused(mlp, images)
    coder = trained(tmp_path, data, {"name": "autoencoder", "hidden": [8], "code": 4}, epochs=1)
    assert "task `reconstruction` has none" in refused(coder, images)
    assert "there is no `green`" in refused(run, images, "--target", "green")
    assert "--errors N" in refused(run) and "--errors N" in refused(run, images, "--errors", 3)
    assert "is an exported file" in refused(tmp_path / "model.onnx", images)
    assert "there is no file" in refused(run, tmp_path / "nothing.png")
    monkeypatch.setattr("dltrain.engine.explaining.maps.find_spec", lambda name: None)
    assert "pip install 'dltrain[explain]'" in refused(run, images)


def test_numbers_and_two_classes_have_maps_too(patches: Path, tmp_path: Path) -> None:
    """Of a number, hiding moves it; the fill is that of the images where the scaling holds no mean."""
    images = np.stack([picture(n)[0] for n in range(40)])
    np.savez(tmp_path / "numbers.npz", images=images, targets=(10 * (np.arange(40) % 2)).astype(np.float32))
    np.savez(tmp_path / "two.npz", images=images, labels=np.arange(40) % 2)
    for name, task in {"numbers": "regression", "two": "binary_classification"}.items():
        data = {"name": "arrays", "path": str(tmp_path / f"{name}.npz"), "scaling": "none"}
        run = trained(tmp_path / name, data, {"name": "convnet", "widths": [4, 8]}, task=task, epochs=8)
        found = explained(run, patches / "others", "--output", tmp_path / f"{name} maps")
        assert found["hidden_by"] == "the mean colour of the first images asked about"
        for image in (image for image in found["images"] if image["value"] is not None):
            change = image["value"] - image["value_when_hidden"]
            assert image["drop"] == pytest.approx(abs(change) if task == "regression" else change)
            assert (image["answer"] is None) == (task == "regression")
        assert any(image["value"] is not None for image in found["images"])
        worst = explained(run, "--errors", 3, "--split", "train")
        assert worst["split"] == "train" and len(worst["images"]) <= 3


def test_an_unreadable_file_is_named_and_the_others_are_explained(patches: Path, tmp_path: Path) -> None:
    write(tmp_path / "some", range(700, 702))
    (tmp_path / "some/red/broken.png").write_bytes(b"no picture")
    done = invoke("explain", run_of(patches), tmp_path / "some", "--output", tmp_path / "o", "--json")
    assert done.exit_code == 1 and "broken.png" in done.stderr
    assert len(json.loads(done.stdout)["images"]) == 2
