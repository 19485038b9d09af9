"""The other formats: `pt2`, which torch runs by itself, and weights that timm and torchvision read by themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluating import invoke
from PIL import Image

import dltrain


def exported(run: Path, form: str) -> Path:
    result = invoke("export", run, "--format", form)
    assert result.exit_code == 0, result.stderr
    proof = json.loads((run / "export" / "export.json").read_text())
    assert proof["format"] == form and proof["agreement"] == 1.0 and proof["difference"] < 1e-5
    return run / "export" / f"model.{form}"


def fitted(photo_run: Path, folder: Path, model: str) -> Path:
    experiment = photo_run.parent.parent / "photos.yaml"
    short = ["training.epochs=1", "training.average=null", "data.size=64", "training.precision=float32"]
    result = invoke("fit", experiment, "--runs", folder, *short, f"model={model}")
    assert result.exit_code == 0, result.stderr
    return folder / "photos" / "001"


@pytest.fixture(scope="module")
def images(photo_run: Path) -> list[np.ndarray]:
    files = sorted((photo_run.parent.parent / "data").rglob("*.png"))[:6]
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


@pytest.mark.slow  # a Python of its own imports torch
def test_torch_alone_runs_the_program(photo_run: Path, images: list[np.ndarray], tmp_path: Path) -> None:
    file = exported(photo_run, "pt2")
    np.savez(tmp_path / "images.npz", *images)
    program = (
        "import sys; sys.modules['dltrain'] = None\n"
        "import json, numpy, torch\n"
        "texts = {'classes': '', 'dltrain': ''}\n"
        f"module = torch.export.load({str(file)!r}, extra_files=texts).module()\n"
        f"images = numpy.load({str(tmp_path / 'images.npz')!r})\n"
        "names = json.loads(texts['dltrain'])['outputs']\n"
        "said = [dict(zip(names, module(torch.from_numpy(images[name][None])))) for name in images.files]\n"
        "print(json.dumps([json.loads(texts['classes']), [each['probabilities'][0].tolist() for each in said]]))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    classes, probabilities = json.loads(done.stdout)
    assert classes == ["blau", "grün", "rot"]
    assert np.abs(np.array(probabilities) - dltrain.load(photo_run).predict(images).probabilities).max() < 2e-6


def test_timm_alone_builds_the_network(photo_run: Path, images: list[np.ndarray], tmp_path: Path) -> None:
    import timm

    run = fitted(photo_run, tmp_path, "timm/test_resnet")
    file = exported(run, "safetensors")
    config = json.loads((file.parent / "config.json").read_text())
    assert config["library"] == "timm"
    assert config["label_names"] == ["blau", "grün", "rot"] and config["pretrained_cfg"]["input_size"] == [3, 64, 64]
    network = timm.create_model(f"local-dir:{file.parent}", pretrained=True).eval()
    own = dltrain.load(run)
    inputs = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(network(inputs), own.module(inputs), atol=1e-5)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))
    with torch.no_grad():
        by_timm = torch.stack([network(transform(Image.fromarray(image))[None])[0] for image in images]).softmax(1)
    assert np.abs(by_timm.numpy() - own.predict(images).probabilities).max() < 0.01


@pytest.mark.parametrize(
    ("model", "told"),
    [("timm/test_vit", {"in_chans": 3, "img_size": [64, 64]}),
     pytest.param("torchvision/vit_b_32", {"image_size": 64}, marks=pytest.mark.slow),
     pytest.param("torchvision/googlenet", {"aux_logits": False, "init_weights": True, "transform_input": False},
                  marks=pytest.mark.slow)],
)  # fmt: skip
def test_networks_that_must_be_told_more_are(photo_run: Path, tmp_path: Path, model: str, told: dict[str, Any]) -> None:
    """Those that are made for one size, when it is another one, and those with auxiliary heads."""
    run = fitted(photo_run, tmp_path, model)
    config = json.loads((exported(run, "safetensors").parent / "config.json").read_text())
    assert (config["library"], config["model_args"]) == (model.partition("/")[0], told), config.get("why")
    if config["library"] == "torchvision":
        assert "".join(f", {name}={value!r}" for name, value in told.items()) in config["load"]


def test_torchvision_reads_the_weights(photo_run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from torchvision.models import get_model

    run = fitted(photo_run, tmp_path, "{name: shufflenet_v2_x0_5, stem: large}")
    file = exported(run, "safetensors")
    config = json.loads((file.parent / "config.json").read_text())
    assert config["load"] == 'get_model("shufflenet_v2_x0_5", num_classes=3).load_state_dict(load_file("FILE"))'
    network = get_model(config["architecture"], num_classes=config["num_classes"]).eval()
    network.load_state_dict(load_file(file))
    inputs = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(network(inputs), dltrain.load(run).module(inputs), atol=1e-5)


@pytest.mark.slow
def test_what_no_other_library_builds_is_told(photo_run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    result = invoke("export", photo_run, "--format", "safetensors", "--output", tmp_path / "w.safetensors")
    assert result.exit_code == 0, result.stderr
    assert "no other library builds this network: `convnet` is one of dltrain's own" in result.stderr
    tensors = load_file(tmp_path / "w.safetensors")
    wanted = dltrain.load(photo_run).module.state_dict()
    assert tensors.keys() == wanted.keys() and all(torch.equal(tensors[name], wanted[name]) for name in wanted)
    run = fitted(photo_run, tmp_path, "{name: shufflenet_v2_x0_5, stem: small}")
    result = invoke("export", run, "--format", "safetensors")
    assert result.exit_code == 0, result.stderr
    assert "torchvision's `shufflenet_v2_x0_5` computes something else with the same weights" in result.stderr
    assert json.loads((run / "export/config.json").read_text())["library"] == "dltrain"


def test_an_opset_is_of_onnx(photo_run: Path) -> None:
    result = invoke("export", photo_run, "--format", "pt2", "--opset", 18)
    assert result.exit_code == 2 and "--opset is of ONNX, and the format is pt2" in result.stderr
