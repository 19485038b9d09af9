"""Weights alone, as safetensors, and a config.json by which timm or torchvision build the network themselves."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import nn

from dltrain.data.loading.scaling import Scaling
from dltrain.data.types import Canvas, ImageShape
from dltrain.engine.predictor import Predictor
from dltrain.export.about import About
from dltrain.export.checking import Answers, Runner
from dltrain.export.formats import Format
from dltrain.export.graph import OUTPUTS, Graph
from dltrain.export.raw import Raw, placed
from dltrain.tasks.impl.objectives import answer_of

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""Names that timm looks for in a folder."""


class Weights(Format):
    """A `.safetensors` file, beside its config.json."""

    suffix = ".safetensors"

    def require(self) -> None:
        """safetensors comes with timm."""

    def content(self, predictor: Predictor, graph: Graph, about: About) -> dict[str, bytes]:
        tensors = {name: tensor.detach().clone().contiguous() for name, tensor in predictor.model.state_dict().items()}
        weights = write_tensors(tensors, metadata={"format": "pt", **about.to_texts()})
        config = config_of(predictor)
        network, why = built_by_library(config, weights, predictor)
        if network is None:
            config |= {"library": "dltrain", "why": why, "load": ""}
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        return {self.suffix: weights, CONFIG: text.encode()}

    def runner(self, content: dict[str, bytes], predictor: Predictor, about: About) -> Runner:
        config = json.loads(content[CONFIG])
        network, _ = built_by_library(config, content[self.suffix], predictor)
        if network is None:
            network = copy.deepcopy(predictor.model)
            network.load_state_dict(read_tensors(content[self.suffix]))
        restored = replace(predictor, model=network)

        def run(raw: Raw) -> Answers:
            inputs = placed(raw, predictor.layout)
            outputs = answer_of(restored.outputs(inputs))
            said = restored.task.said(outputs, restored.inputs(inputs))
            return {name: values.numpy() for name, values in {**said, OUTPUTS: outputs}.items()}

        return run

    def notes(self, content: dict[str, bytes]) -> list[str]:
        config = json.loads(content[CONFIG])
        calibrated = "temperature" in config
        notes = [f"divide the logits by {config['temperature']:.6g}, the temperature"] if calibrated else []
        if config["library"] == "dltrain":
            return [f"no other library builds this network: {config['why']}", *notes]
        return [f"{config['library']} alone builds the network and reads these weights: {config['load']}", *notes]


def config_of(predictor: Predictor) -> dict[str, Any]:
    """What builds the network elsewhere, and what its inputs are; as timm reads it."""
    experiment, preprocessing = predictor.experiment, predictor.preprocessing
    library, _, full = getattr(experiment.model, "library_name", str)().partition("/")
    names = list(predictor.target.names)
    config: dict[str, Any] = {"library": library or "dltrain", "architecture": full.partition(".")[0]}
    config |= {"num_classes": experiment.resolved_task.output(predictor.target).count, "label_names": names}
    shape, layout = preprocessing.shape, preprocessing.evaluation
    if isinstance(shape, ImageShape) and isinstance(layout, Canvas):
        scaling: Scaling = preprocessing.scaling
        size = [shape.channels, shape.height, shape.width]
        inputs: dict[str, Any] = {"input_size": size, "interpolation": layout.interpolation, "crop_pct": layout.crop}
        if scaling.whitening is None and scaling.features is None:
            inputs |= {name: [each / 255 for each in getattr(scaling, name)] for name in ("mean", "std")}
        config["pretrained_cfg"] = {**inputs, "num_classes": config["num_classes"], "label_names": names}
        config["model_args"] = _arguments(library, config["architecture"], shape)
    if predictor.calibration is not None:  # weights alone: who reads them divides logits by it
        config["temperature"] = predictor.calibration.temperature
    told = "".join(f", {name}={value!r}" for name, value in config.get("model_args", {}).items())
    config["load"] = _LOAD.get(library, "").format(**config, told=told)
    return config


def _arguments(library: str, architecture: str, shape: ImageShape) -> dict[str, Any]:
    """What its library must be told for the network, beside the number of classes."""
    if library == "timm":
        from dltrain.models.impl.from_timm import arguments_for as of_timm

        return of_timm(architecture, shape)
    if library == "torchvision":
        from dltrain.models.impl.from_torchvision import arguments_for as of_torchvision

        return of_torchvision(architecture, shape)
    return {}


def built_by_library(config: dict[str, Any], weights: bytes, predictor: Predictor) -> tuple[nn.Module | None, str]:
    """The network as its library alone makes it of the files, where it answers as the trained one does; else None, and
    why."""
    build = _BUILD.get(config["library"])
    if build is None:
        return None, config.get("why", f"`{predictor.experiment.model.name}` is one of dltrain's own")
    with torch.random.fork_rng(devices=[]):  # it draws weights, which are then replaced
        try:
            network = build(config, weights).eval()
            generator = torch.Generator().manual_seed(0)
            images = torch.rand(predictor.preprocessing.shape.example(2).shape, generator=generator)
            with torch.no_grad():
                own, other = answer_of(predictor.model(images)), network(images)
        except Exception as error:  # of weights or images that do not fit, libraries raise many kinds
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            return None, f"{config['library']}'s `{config['architecture']}` differs from it: {lines[-1][:200]}"
    if own.shape != other.shape or not torch.allclose(own, other, rtol=1e-4, atol=1e-5):
        return None, f"{config['library']}'s `{config['architecture']}` computes something else with the same weights"
    return network, ""


def _by_timm(config: dict[str, Any], weights: bytes) -> nn.Module:
    import timm

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_text(json.dumps(config))
        (Path(folder) / WEIGHTS).write_bytes(weights)
        network: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
        return network


def _by_torchvision(config: dict[str, Any], weights: bytes) -> nn.Module:
    from torchvision.models import get_model

    network: nn.Module = get_model(
        config["architecture"], weights=None, num_classes=config["num_classes"], **config["model_args"]
    )
    network.load_state_dict(read_tensors(weights))
    return network


_BUILD: dict[str, Callable[[dict[str, Any], bytes], nn.Module]] = {"timm": _by_timm, "torchvision": _by_torchvision}
_LOAD = {
    "timm": 'timm.create_model("local-dir:FOLDER", pretrained=True)',
    "torchvision": 'get_model("{architecture}", num_classes={num_classes}{told}).load_state_dict(load_file("FILE"))',
}
"""How a program gets the network: FOLDER holds both files, and the weights are called model.safetensors there."""
