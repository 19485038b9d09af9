"""Networks of all families, and tables: the ONNX file answers as torch does. One runs always, the others are slow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from evaluating import invoke
from training import built

from dltrain import Experiment
from dltrain.commands.export import about_of
from dltrain.engine.predictor import Predictor, restore_predictor
from dltrain.export.checking import Comparison, compare
from dltrain.export.graph import graph_of, in_float32
from dltrain.export.onnx_file import onnx_of
from dltrain.export.session import Session
from dltrain.serving.answering import WrongInputError, answer

pytest.importorskip("onnxscript")
SLOW: list[tuple[str, int, dict[str, Any]]] = [
    ("{name: resnet20, activation: prelu, attention: squeeze_excitation}", 32, {}),
    ("densenet_40_12", 32, {}),
    ("alexnet", 96, {}),
    ("zfnet", 96, {}),
    ("nin_cifar", 32, {}),
    ("vgg11_cifar", 32, {}),
    ("googlenet", 64, {}),
    ("squeezenet1_1", 64, {}),
    ("mobilenet_v3_small", 32, {}),
    ("shufflenet_v1", 64, {}),
    ("efficientnet_b0", 32, {}),
    ("xception", 96, {}),
    ("nasnet_mobile", 64, {}),
    ("torchvision/inception_v3", 128, {}),
    ("timm/vit_tiny_patch16_224", 64, {}),
    ("{name: convnet, widths: [8], activation: dynamic_relu_b}", 32, {}),
    ("autoencoder", 32, {"task": "reconstruction"}),
    ("{name: variational_autoencoder}", 32, {"task": "reconstruction"}),
    ("mlp", 16, {"data": {"scaling": "zca_whiten"}}),
    ("lenet5_modern", 32, {"evaluation": {"views": "flip_shift"}}),
    ("lenet5_modern", 32, {"evaluation": {"views": "ten_crop"}}),
    ("lenet5_modern", 32, {"data": {"size": 28, "interpolation": "lanczos"}}),
]


def exported(experiment: Experiment) -> tuple[Predictor, Session, Comparison]:
    """Its untrained network, the file, and how they compare on the validation split."""
    state = built(experiment, 1e9).state_dict()
    predictor = in_float32(restore_predictor(state, "cpu"))
    graph = graph_of(predictor)
    session = Session(onnx_of(predictor, graph, about_of(predictor, graph.names, state, Path("x.pt"))), "x.onnx", 1)
    source = experiment.load_data().validation
    assert source is not None
    return predictor, session, compare(predictor, session.run, source)


def images(folder: Path, size: int, changes: dict[str, Any], model: str) -> Experiment:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 3, size, size), dtype=np.uint8)
    np.savez(folder / "a.npz", images=pixels, labels=np.arange(24) % 3)
    data = {"name": "arrays", "path": str(folder / "a.npz"), "validation": 0.25, **changes.get("data", {})}
    document = {**changes, "data": data, "model": yaml.safe_load(model), "training": {"batch_size": 8, "epochs": 1}}
    return Experiment.parse(yaml.safe_dump(document), "x")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "size", "changes"), SLOW, ids=[f"{model}-{size}" for model, size, _ in SLOW])
def test_a_network_answers_as_in_torch(tmp_path: Path, model: str, size: int, changes: dict[str, Any]) -> None:
    predictor, session, found = exported(images(tmp_path, size, changes, model))
    assert found.largest < 1e-5 and found.agreement in (None, 1.0)
    other = np.random.default_rng(1).integers(0, 256, (3, size + 11, 2 * size, 3), dtype=np.uint8)
    with torch.no_grad():
        wanted = graph_of(predictor)(torch.from_numpy(other))
    for got, want in zip(session.run({"images": other}).values(), wanted, strict=True):
        scale = max(1.0, float(want.abs().max()))  # the outputs of untrained networks may be large
        assert np.abs(got.astype(np.float64) - want.numpy()).max() < 1e-5 * scale


def test_rows_of_a_table_go_in_as_they_stand_in_it(tmp_path: Path) -> None:
    """Numbers with NaN where there is none, words as they are written; encoded as scikit-learn would be told to."""
    rows = [f"{n % 7 + 0.5 if n % 5 else ''},{'abc'[n % 3] if n % 4 else ''},{n},{'yes' if n % 7 > 3 else 'no'}"
            for n in range(60)]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(["size,town,age,sold", *rows]))
    (tmp_path / "t.yaml").write_text(
        f"data: {{name: table, path: {tmp_path / 't.csv'}, target: sold, missing: indicator}}\n"
        "task: binary_classification\nmodel: {name: mlp, hidden: [8]}\ntraining: {epochs: 1, batch_size: 16}\n"
    )
    fitted = invoke("fit", tmp_path / "t.yaml", "--runs", tmp_path)
    assert fitted.exit_code == 0, fitted.stderr
    result = invoke("export", tmp_path / "t/001", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["agreement"] == 1.0 and found["difference"] < 1e-6
    as_program = invoke("export", tmp_path / "t/001", "--format", "pt2", "--output", tmp_path / "t.pt2")
    assert as_program.exit_code == 0, as_program.stderr  # it has been compared
    session = Session.open(found["path"])
    assert session.about.inputs.numbers == ["size", "age"] and session.about.inputs.categories == ["town"]
    told = invoke("predict", tmp_path / "t/001", tmp_path / "t.csv", "--format", "jsonl")
    answers = [json.loads(line) for line in told.stdout.splitlines()]
    cells = [row.split(",") for row in rows]
    numbers = np.array([[float(size or "nan"), float(age)] for size, _, age, _ in cells])
    words = np.array([[town] for _, town, _, _ in cells], dtype=object)
    said = session.run({"numbers": numbers, "categories": words})
    assert [["no", "yes"][place] for place in said["class"]] == [answer["class"] for answer in answers]
    yes = [answer["probabilities"]["yes"] for answer in answers]
    assert np.abs(said["probabilities"][:, 1] - yes).max() < 1e-6
    values = [{"size": float(size) if size else None, "town": town, "age": int(age)} for size, town, age, _ in cells]
    served = answer(session, json.dumps({"rows": values}).encode(), 0)["answers"]
    assert [each["class"] for each in served] == [each["class"] for each in answers]
    for body, message in (
        (b"[", "the body must be JSON"), (b'{"rows": [{"size": 1}]}', "row 1 has no column `age`"),
        (b'{"rows": [{"size": "x", "age": 1, "town": "a"}]}', "row 1: column `size` must be a number"),
    ):  # fmt: skip
        with pytest.raises(WrongInputError, match=message):
            answer(session, body, 0)
    unseen = session.run({"numbers": numbers[:1], "categories": np.array([["z"]], dtype=object)})
    assert unseen["probabilities"][0, 1] != said["probabilities"][0, 1]
