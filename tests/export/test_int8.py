"""`export --int8` and `--precisions`: 8 bits where the paired test finds no loss, and nothing where it finds one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluating import invoke, measured

from dltrain.engine.predictor import restore_predictor
from dltrain.evidence.paired import share_bound
from dltrain.export import onnx_file
from dltrain.export.onnx_file import onnx_of
from dltrain.export.quantized import CALIBRATION, SCOPES, UnquantizableError, chosen, quantize
from dltrain.runs.checkpoints import load, save

pytest.importorskip("onnxscript")

MLP = "data: digits\nmodel: {name: mlp, hidden: [192, 192]}\ntraining: {epochs: 3}\n"


def fitted(folder: Path, text: str) -> Path:
    (folder / "x.yaml").write_text(text)
    result = invoke("fit", folder / "x.yaml", "--runs", folder)
    assert result.exit_code == 0, result.stderr
    return folder / "x" / "001"


@pytest.fixture(scope="module", autouse=True)
def once(onnx_once: None) -> None:
    """The networks of this file are exported again and again."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(tmp_path_factory.mktemp("int8"), MLP)


@pytest.fixture(scope="module")
def int8(digits: Path) -> Path:
    """Its file in 8 bits; that in 32 lies beside."""
    for arguments in ([], ["--int8", "--precisions"]):
        result = invoke("export", digits, *arguments)
        assert result.exit_code == 0, result.stderr
    return digits / "export" / "int8" / "model.onnx"


def test_a_perceptron_keeps_its_accuracy_in_less_than_two_fifths(digits: Path, int8: Path) -> None:
    whole = digits / "export" / "model.onnx"
    assert int8.stat().st_size < 0.4 * whole.stat().st_size
    proof = json.loads((int8.parent / "export.json").read_text())
    assert proof["precision"] == {"run": "float32", "file": "int8"} and proof["tolerance"] == 0.02
    assert proof["bytes"]["file"] == int8.stat().st_size and 0 < proof["difference"] < 0.2
    found = proof["int8"]
    assert found["accepted"] and found["layers"] == 3
    assert found["weights"] == 64 * 192 + 192 * 192 + 192 * 10
    assert found["of_weights"] == found["weights"] + 192 + 192 + 10
    assert found["calibration"] == {"split": "train", "examples": CALIBRATION, "seed": 0}
    loss = found["loss"]
    bound = share_bound(loss["first_alone"], loss["second_alone"], proof["examples"])
    assert loss["bound"] == bound <= 0.02
    as_eval = measured(int8, "--split", "validation")
    assert as_eval["accuracy"] == proof["metrics"]["file"]["accuracy"]
    assert as_eval["accuracy"] == pytest.approx(proof["metrics"]["run"]["accuracy"], abs=0.02)


def test_each_precision_is_measured(digits: Path, int8: Path) -> None:
    rows = json.loads((int8.parent / "export.json").read_text())["precisions"]
    named = {(row["precision"], row["runtime"]): row for row in rows}
    assert [*named] == [
        ("float32", "onnxruntime"), ("float32", "torch"), ("bfloat16", "torch"), ("float16", "torch"),
        ("int8", "onnxruntime"),
    ]  # fmt: skip
    as_eval = measured(digits, "--split", "validation")
    for row in rows:
        low, high = row["accuracy_interval"]
        assert low < row["accuracy"] < high and row["latency_ms"] > 0
        assert row["accuracy"] == pytest.approx(as_eval["accuracy"], abs=0.03)
        assert ("loss_of" in row) == (row is not rows[0])
    assert named["float32", "torch"]["loss"] == pytest.approx(as_eval["loss"], rel=1e-5)
    differences = [abs(row["loss"] - as_eval["loss"]) for row in rows[1:4]]
    assert differences[0] < differences[2] < differences[1]  # bfloat16 has the fewest digits
    assert named["bfloat16", "torch"]["bytes"] * 2 == named["float32", "torch"]["bytes"]


def test_the_table_is_printed_without_int8_too(digits: Path, tmp_path: Path) -> None:
    result = invoke("export", digits, "--precisions", "--output", tmp_path / "m.onnx")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[-5:]] == ["float32", "float32", "bfloat16", "float16", "int8"]
    assert "below" in lines[-7] and lines[-6].startswith("precision")
    assert json.loads((tmp_path / "export.json").read_text())["precision"]["file"] == "float32"


def test_weights_have_a_scale_each_channel_and_preprocessing_stays_in_float(int8: Path) -> None:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(int8).graph
    fixed = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    weights = {name: values for name, values in fixed.items() if values.dtype == np.int8 and values.ndim == 2}
    assert sorted(values.size for values in weights.values()) == [1920, 64 * 192, 192 * 192]
    for values in weights.values():
        assert np.abs(values.astype(int)).max() <= 64  # 7 bits: sums overflow on no processor
    scales = [fixed[node.input[1]] for node in graph.node
              if node.op_type == "DequantizeLinear" and node.input[0] in weights]  # fmt: skip
    assert sorted(scale.shape for scale in scales) == [(10,), (192,), (192,)]
    first = next(place for place, node in enumerate(graph.node) if node.op_type == "QuantizeLinear")
    assert {"MatMul", "Div", "Floor"} <= {node.op_type for node in graph.node[:first]}
    assert all(node.op_type != "MatMul" for node in graph.node[first:])
    outputs = next(node for node in graph.node if "outputs" in node.output)
    assert outputs.op_type == "Gemm"  # not rounded to 256 values
    assert all(not node.metadata_props for node in graph.node)


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(
    digits: Path, int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "onnx_of", onnx_of)
    result = invoke("export", digits, "--int8", "--output", tmp_path / "again.onnx")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "again.onnx").read_bytes() == int8.read_bytes()


@pytest.mark.slow
def test_a_network_that_8_bits_break_is_refused(digits: Path, tmp_path: Path) -> None:
    """A weight that is huge, of a pixel that never changes, and the bias takes it back: in float32 all is as before,
    in 8 bits nothing is left of the other weights."""
    run = tmp_path / "digits" / "001"
    shutil.copytree(digits, run, ignore=shutil.ignore_patterns("export"))
    state = load(run / "checkpoints" / "best.pt")
    weights, before = state["model"], measured(digits, "--split", "validation")
    first = next(name for name, values in weights.items() if values.shape == (192, 64))
    bias = first.replace("weight", "bias")
    predictor = restore_predictor(state, "cpu")
    black = float(predictor.pipeline.evaluate(predictor.preprocessing.shape.example(1) * 0).flatten()[0])
    weights[first][:, 0] += 1000.0
    weights[bias] -= 1000.0 * black
    save({key: value for key, value in state.items() if key != "format"}, run / "checkpoints" / "best.pt")
    assert measured(run, "--split", "validation")["accuracy"] == pytest.approx(before["accuracy"], abs=0.01)
    result = invoke("export", run, "--int8")
    assert result.exit_code == 1, result.stderr
    assert "in 8 bits, accuracy: a loss of" in result.stderr and "beyond --tolerance 2.00%" in result.stderr
    assert "exact McNemar test" in result.stderr and "nothing was written" in result.stderr
    assert not (run / "export").exists()
    table = invoke("export", run, "--precisions", "--json")
    assert table.exit_code == 0, table.stderr
    found = json.loads(table.stdout)
    assert not found["int8"]["accepted"] and found["int8"]["loss"]["p"] < 1e-6


def test_too_few_examples_are_no_proof(photo_run: Path, tmp_path: Path) -> None:
    result = invoke("export", photo_run, "--int8", "--output", tmp_path / "new" / "m.onnx")
    assert result.exit_code == 1, result.stderr
    assert "more validation examples could tell, or a larger --tolerance" in result.stderr
    assert list(tmp_path.iterdir()) == []
    result = invoke("export", photo_run, "--int8", "--output", tmp_path / "m.onnx", "--tolerance", 0.5)
    assert result.exit_code == 0, result.stderr
    answers = invoke("predict", tmp_path / "m.onnx", photo_run.parent.parent / "data")
    assert answers.exit_code == 0 and answers.stdout.count("\n") == 49, answers.stderr


def test_numbers_lose_a_share_of_their_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    size, town = rng.normal(size=240), rng.integers(0, 3, 240)
    price = 3 * size + town + rng.normal(0, 0.3, 240)
    lines = [f"{a:.4f},{'abc'[b]},{c:.4f}" for a, b, c in zip(size, town, price, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["size,town,price", *lines]))
    run = fitted(
        tmp_path,
        f"data: {{name: table, path: {tmp_path / 't.csv'}, target: price, validation: 0.3}}\ntask: regression\n"
        "model: {name: mlp, hidden: [32]}\ntraining: {epochs: 20, batch_size: 32}\n",
    )
    result = invoke("export", run, "--int8", "--tolerance", 0.1, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    loss = found["int8"]["loss"]
    assert (loss["metric"], loss["scale"], loss["method"]) == ("rmse", "relative", "paired bootstrap")
    before, after = (found["metrics"][name]["rmse"] for name in ("run", "file"))
    assert loss["value"] == pytest.approx(after / before - 1, abs=1e-4) and loss["value"] <= loss["bound"] <= 0.1
    refused = invoke("export", run, "--int8", "--tolerance", 0, "--output", tmp_path / "m.onnx")
    assert refused.exit_code == (0 if loss["bound"] <= 0 else 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--int8", "--format", "pt2"], "--int8 is of ONNX, and the format is pt2"),
        (["--precisions", "--format", "safetensors"], "--precisions is of ONNX, and the format is safetensors"),
    ],
)
def test_wrong_requests_of_few_bits(digits: Path, arguments: list[str], message: str) -> None:
    result = invoke("export", digits, *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_what_has_no_layer_of_weights_is_told(
    digits: Path, int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the marks of its nodes and the names of its weights, no layer is known for one of the network's."""
    import onnx

    model = onnx.load(digits / "export" / "model.onnx")
    for node in model.graph.node:
        kept = [each for each in node.metadata_props if each.key != SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.input[:] = [name.replace("network.", "other.") for name in node.input]
    for each in model.graph.initializer:
        each.name = each.name.replace("network.", "other.")
    with pytest.raises(UnquantizableError, match="no convolution or linear layer has fixed float32 weights"):
        quantize(model.SerializeToString(), [])
    monkeypatch.setattr("dltrain.export.quantized.WEIGHTED", {"LSTM": 1})
    result = invoke("export", digits, "--int8", "--output", tmp_path / "m.onnx")
    assert result.exit_code == 2, result.stderr
    assert "model `mlp` has no int8: nothing of it can be computed in 8 bits" in result.stderr
    assert list(tmp_path.iterdir()) == []
    noted = invoke("export", digits, "--precisions", "--output", tmp_path / "m.onnx")
    assert noted.exit_code == 0 and "model `mlp` has no int8" in noted.stderr


def test_calibration_has_the_shares_of_all() -> None:
    targets = np.repeat([2, 0, 1], [600, 300, 100])[np.random.default_rng(0).permutation(1000)]
    places = chosen(targets, 100, 7)
    assert np.bincount(targets[places]).tolist() == [30, 10, 60]
    assert np.array_equal(places, chosen(targets, 100, 7)) and (np.diff(places) > 0).all()
    assert not np.array_equal(places, chosen(targets, 100, 8))
    assert chosen(targets[:50], 100, 7).tolist() == [*range(50)]
    values = np.random.default_rng(1).normal(size=(1000, 1))
    assert np.quantile(values[chosen(values, 50, 0)], [0.1, 0.9]) == pytest.approx(
        np.quantile(values, [0.1, 0.9]), abs=0.1
    )
