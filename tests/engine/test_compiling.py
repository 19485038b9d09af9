"""The network as the trainer calls it: compiled, or replayed as a CUDA graph where there can be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training import write_experiment

from dltrain import Experiment, build
from dltrain.config import ConfigError
from dltrain.engine.compiling import Replayed, callable_of
from dltrain.engine.decisions import Decision, decide
from dltrain.experiment.training import Training
from dltrain.planning.plan import plan

COMPILED, GRAPH = {"compile": Decision(True, "")}, {"compile": Decision(True, ""), "graph": Decision(True, "")}


def test_what_a_replay_puts_out_is_kept_when_the_next_overwrites_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    memory = torch.zeros(2, 3)

    def compiled(model: torch.nn.Module, **how: Any) -> Any:
        asked.append(how)
        return lambda images: memory.copy_(model(images))

    monkeypatch.setattr(torch, "compile", compiled)
    forward = callable_of(torch.nn.Linear(4, 3), GRAPH)
    with torch.no_grad():
        first = forward(torch.ones(2, 4))
        kept = first.clone()
        forward(torch.zeros(2, 4))
    assert isinstance(forward, Replayed) and torch.equal(first, kept)
    callable_of(torch.nn.Linear(4, 3), COMPILED)
    assert asked == [{"dynamic": False, "mode": "reduce-overhead"}, {"dynamic": False}]
    network = torch.nn.Linear(4, 3)
    assert callable_of(network, {"compile": Decision(False, "")}) is network


@pytest.mark.parametrize(
    ("device", "graph", "compiled", "expected"),
    [
        ("cuda", True, True, True),
        ("cuda", True, False, False),
        ("cuda", "auto", True, False),
        ("cpu", True, True, False),
        ("cpu", "auto", True, False),
    ],
)
def test_when_there_is_a_graph(
    device: str, graph: Any, compiled: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dltrain.engine.decisions.device_name", str)
    monkeypatch.setattr("dltrain.engine.decisions._missing_to_compile", lambda _: None)
    training = Training(graph=graph, compile=compiled, precision="float32")
    decided = decide(training, torch.device(device), nn.Linear(1, 1), 10**6, 10**4)
    assert decided["graph"].value is expected


@pytest.mark.parametrize(
    ("model", "training", "units", "expected", "reason"),
    [
        ("resnet20", "{}", True, "bfloat16", "the CPU has bfloat16 units"),
        ("resnext29_8x64d", "{}", True, "bfloat16", "the CPU has bfloat16 units"),  # grouped, but not one map a group
        ("resnet20", "{}", False, "float32", "the CPU has no bfloat16 units"),
        ("mobilenet_v2", "{}", True, "float32", "depthwise convolutions are slower in bfloat16 on CPUs"),
        ("{name: resnet20, activation: frelu}", "{}", True, "float32", "depthwise"),
        ("lenet5", "{batch_size: 128}", True, "bfloat16", "the CPU has bfloat16 units"),
        ("lenet5", "{batch_size: 32}", True, "float32",
         "a step is too small to gain from the CPU's bfloat16 units: 2.1e+07 of 6e+07 multiply-adds"),
        ("lenet5", "{batch_size: 128, accumulate: 4}", True, "float32", "a step is too small"),
    ],
)  # fmt: skip
def test_a_cpu_computes_in_bfloat16_where_that_is_faster(
    model: str, training: str, units: bool, expected: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": units}, raising=False)
    text = f"data: {{name: synthetic, shape: [3, 32, 32]}}\nmodel: {model}\ntraining: {training}"
    experiment = Experiment.parse(text)
    precision = plan(experiment, "cpu")["decisions"]["precision"]
    assert precision["value"] == expected and precision["reason"].startswith(reason)


def test_a_line_search_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    text = "data: {name: synthetic, shape: [3, 32, 32]}\nmodel: resnet20\noptimizer: lbfgs"
    experiment = Experiment.parse(text + "\ntraining: {clip_norm: null}")
    precision = plan(experiment, "cpu")["decisions"]["precision"]
    assert precision["value"] == "float32" and "compares losses" in precision["reason"]


@pytest.mark.parametrize(
    "change", [{"training.accumulate": 2}, {"optimizer.sam": {"rho": 0.05}, "training.accumulate": 1}]
)
def test_a_graph_of_several_passes_is_an_error_at_its_key(change: dict[str, Any], tmp_path: Path) -> None:
    path = write_experiment(tmp_path, {"data.name": "digits", "training.graph": True, **change})
    with pytest.raises(ConfigError, match="a CUDA graph holds the gradients of one pass"):
        Experiment.load(path)


def test_where_there_can_be_none_it_is_said() -> None:
    text = "data: synthetic\nmodel: {name: convnet, widths: [4, 4]}\ntraining: {graph: true, steps: 1, batch_size: 8}"
    trainer = build(Experiment.parse(text), "cpu")
    assert "warning: no CUDA graph: cpu has none" in map(str, trainer.notes)
    trainer.close()


@pytest.mark.gpu
def test_a_graph_computes_what_the_network_computes() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 4)
    )
    network.cuda()
    forward = callable_of(network, GRAPH)
    for _ in range(5):
        images = torch.randn(16, 3, 8, 8, device="cuda")
        torch.testing.assert_close(forward(images), network(images), rtol=1e-3, atol=1e-3)
        forward(images).sum().backward()
