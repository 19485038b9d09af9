"""`dltrain export`: a file that answers as the run does, and every reason why there is none."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluating import invoke, measured
from PIL import Image, ImageOps
from scipy.stats import binomtest

from dltrain.export import checking
from dltrain.export.onnx_file import HIGHEST_OPSET

CLASSES = ["blau", "grün", "rot"]


def rows(*arguments: Any) -> list[dict[str, Any]]:
    result = invoke("predict", *arguments, "--format", "jsonl")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_any_program_gets_the_answers_of_predict_from_raw_pixels(photo_run: Path, exported: Path) -> None:
    """Pillow and onnxruntime, and nothing of dltrain."""
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape) for value in session.get_inputs()] == [
        ("images", ["batch", "height", "width", 3])
    ]
    texts = session.get_modelmeta().custom_metadata_map
    assert json.loads(texts["classes"]) == CLASSES
    assert texts["dltrain.experiment"].startswith("name: photos")
    files = [path for path in sorted((photo_run.parent.parent / "data").rglob("*.*")) if int(path.stem) % 8 != 5]
    for answer in rows(photo_run, *files):
        image = np.asarray(ImageOps.exif_transpose(Image.open(answer["path"])).convert("RGB"))
        found, best = session.run(["probabilities", "class"], {"images": image[None]})
        assert answer["class"] == CLASSES[best[0]]
        assert list(answer["probabilities"].values()) == pytest.approx(found[0].tolist(), abs=2e-6)


def test_a_batch_of_one_size_goes_through_at_once(exported: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (5, 33, 47, 3), dtype=np.uint8)
    together = session.run(["outputs"], {"images": images})[0]
    alone = [session.run(["outputs"], {"images": image[None]})[0][0] for image in images]
    assert np.abs(together - np.stack(alone)).max() < 1e-5


def test_the_file_answers_where_there_is_no_torch(exported: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from dltrain.export.session import Session\n"
        f"session = Session.open({str(exported)!r})\n"
        "found = session.run({'images': np.zeros((2, 50, 40, 3), np.uint8)})\n"
        "print(session.about.names, session.about.inputs.height, *found, found['probabilities'].shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"{CLASSES} 24 probabilities class outputs (2, 3)", done.stderr


def test_export_json_has_the_proof(photo_run: Path, exported: Path) -> None:
    found = json.loads((exported.parent / "export.json").read_text())
    assert found["split"] == "validation" and found["agreement"] == 1.0
    assert 0 < found["difference"] < 1e-5
    assert 1 <= found["read_smaller_by_eval"] <= 6
    of_run, of_file = found["metrics"]["run"], found["metrics"]["file"]
    as_eval = measured(photo_run, "--split", "validation")
    assert found["examples"] == as_eval["examples"]
    assert of_run["accuracy"] == as_eval["accuracy"]
    assert of_run["loss"] == pytest.approx(as_eval["loss"], rel=1e-5)
    assert of_file["loss"] == pytest.approx(as_eval["loss"], rel=2e-2)
    right = round(of_file["accuracy"] * found["examples"])
    low, high = binomtest(right, found["examples"]).proportion_ci(method="wilson")
    assert of_file["accuracy_interval"] == pytest.approx([low, high])
    assert found["bytes"]["file"] == exported.stat().st_size
    assert all(value > 0 for value in found["latency_ms"].values())


@pytest.mark.slow
def test_the_metrics_of_a_run_in_fewer_bits_are_those_of_eval(photo_run: Path, tmp_path: Path) -> None:
    """The file is that of the same weights in float32, and how often `eval` agrees with it is told."""
    experiment, short = photo_run.parent.parent / "photos.yaml", ["training.epochs=1", "training.precision=bfloat16"]
    assert invoke("fit", experiment, "--runs", tmp_path, *short).exit_code == 0
    run = tmp_path / "photos" / "001"
    result = invoke("export", run, "--json")
    assert result.exit_code == 0, result.stderr
    found, as_eval = json.loads(result.stdout), measured(run, "--split", "validation")
    assert found["agreement"] == 1.0 and found["difference"] < 1e-5
    of_run, of_file = found["metrics"]["run"], found["metrics"]["file"]
    assert (of_run["accuracy"], of_run["loss"]) == (as_eval["accuracy"], pytest.approx(as_eval["loss"], rel=1e-9))
    assert of_file["loss"] != of_run["loss"]
    with (run / "eval" / "validation.csv").open(newline="") as file:
        by_eval = {row["path"]: row["prediction"] for row in csv.DictReader(file)}
    by_file = {row["path"]: row["class"] for row in rows(run / "export" / "model.onnx", *by_eval)}
    same = sum(by_eval[path] == by_file[path] for path in by_eval)
    assert found["agreement_with_eval"] == pytest.approx(same / len(by_eval))


def test_a_file_that_answers_otherwise_is_not_written(photo_run: Path, exported: Path, tmp_path: Path) -> None:
    result = invoke("export", photo_run, "--output", tmp_path / "new" / "m.onnx", "--tolerance", 0)
    assert result.exit_code == 1
    assert "differ by up to" in result.stderr and "nothing was written" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_classes_that_do_not_agree_are_told() -> None:
    found = checking.Comparison(examples=2000, largest=1e-6, agreeing=1990)
    assert not found.passes(1e-3)
    assert "agree on 99.50% of 2,000 examples, and 99.9% is needed" in found.told(1e-3)
    found.agreeing = 1998
    assert found.passes(1e-3) and not found.passes(1e-7)
    found.largest = float("nan")
    assert not found.passes(1e-3) and "nan" in found.told(1e-3)


def test_the_interval_is_that_of_wilson() -> None:
    """81 of 263: Newcombe 1998, table I."""
    assert checking.wilson(81, 263) == pytest.approx([0.2553, 0.3662], abs=5e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--opset", 9], f"opset 9 is too old: files are written with 18 to {HIGHEST_OPSET}"),
        (["--opset", 99], "opset 99 is too new"),
        (["--output", "model.pt"], "the file model.pt must end in .onnx"),
        (["model.name=mlp"], "a checkpoint brings its own settings, all but `data`"),
        (["--views", "flip", "--views-share", "0.5"], "what is seen of an image depends on the others in its batch"),
        (["data.root=nowhere"], "dltrain export RUN data.root=PLACE"),
    ],
)
def test_wrong_requests(photo_run: Path, arguments: list[Any], message: str) -> None:
    result = invoke("export", photo_run, *arguments)
    assert result.exit_code == 2, result.stderr
    assert message in result.stderr


def test_the_error_without_the_libraries_names_the_extra(photo_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dltrain.export.onnx_file.find_spec", lambda name: None if name == "onnxscript" else name)
    result = invoke("export", photo_run)
    assert result.exit_code == 2
    assert "ONNX files need onnxscript: pip install 'dltrain[export]'" in result.stderr


@pytest.mark.slow
def test_a_network_without_a_form_says_which_operation(photo_run: Path, exported: Path, tmp_path: Path) -> None:
    experiment = photo_run.parent.parent / "photos.yaml"
    changes = ["model.activation=rrelu", "training.epochs=1", "training.average=null"]
    fitted = invoke("fit", experiment, "--runs", tmp_path, *changes)
    assert fitted.exit_code == 0, fitted.stderr
    result = invoke("export", tmp_path / "photos" / "001")
    assert result.exit_code == 2
    assert "model `convnet` cannot be exported to ONNX: its operation `aten.rrelu" in result.stderr
    assert "in layer `2` (RReLU) has no form there" in result.stderr
    assert "another `model.activation` or `model.norm` may do without it" in result.stderr
    assert not (tmp_path / "photos" / "001" / "export").exists()


def test_a_disk_that_is_full_leaves_what_was_there(
    photo_run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of the files does not fit any more: neither is written, and an earlier export stays whole."""
    place = tmp_path / "m.onnx"
    assert invoke("export", photo_run, "--output", place).exit_code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    opened = Path.open

    def full(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name.startswith(".m.onnx"):
            raise OSError(28, "No space left on device")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    result = invoke("export", photo_run, "--output", place, "--checkpoint", "last")
    assert result.exit_code == 1 and "cannot write to" in result.stderr, result.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("form", ["pt2", "safetensors"])
def test_files_for_other_programs_are_told_from_runs(photo_run: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"model.{form}"
    file.write_bytes(b"x")
    for command in ("predict", "eval"):
        result = invoke(command, file, *([tmp_path] if command == "predict" else []))
        assert result.exit_code == 2, result.stderr
        assert f"{file} is not a run: of exported files, .onnx ones are asked; give the run" in result.stderr
