"""Write the table of pytorch_optimizer's optimizers into the package. Run after upgrading the library.

Each is tried: it must build, lower a loss and continue exactly from a safe checkpoint. Those that do not, or that
need more than gradients, are listed under `left_out` with the reason.
"""

import inspect
import io
import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pytorch_optimizer.optimizer import OPTIMIZERS
from torch import Tensor, nn

TABLE = Path(__file__).parent.parent / "dltrain" / "optim" / "pytorch_optimizer.json"
SET_BY_US = ("self", "params", "lr", "weight_decay", "foreach", "maximize", "kwargs", "fused", "capturable")
NEEDS = {
    "lbfgs": "a closure", "adalomo": "the model", "lomo": "the model", "adammini": "the model",
    "demo": "several processes", "distributedmuon": "several processes", "ranger21": "the number of steps",
    "alig": "the loss", "bsam": "a closure", "adahessian": "second derivatives", "sophiah": "second derivatives",
    "schedulefreeadamw": "to be told when weights are evaluated", "schedulefreesgd":
    "to be told when weights are evaluated", "schedulefreeradam": "to be told when weights are evaluated",
    "splus": "to be told when weights are evaluated", "muonclip": "the model",
    "magma": "an optimizer to wrap, and it cannot be told what to do after loading",
    "sara": "trained weights: it changes only the smallest of them",
    "lamb": "a warning: it corrects no bias and bounds the weights' norm, unlike the paper",
}  # fmt: skip


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(64, 1, 4, 4)
    y = (x.sum((1, 2, 3)) > 0).long()
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)), x, y


def train(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, steps: int, first: int) -> float:
    for step in range(first, first + steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return float(nn.functional.cross_entropy(model(x), y).detach())


def groups(name: str, model: nn.Module) -> list[dict[str, Any]]:
    decay = [p for p in model.parameters() if p.ndim > 1]
    found = [{"params": decay}, {"params": [p for p in model.parameters() if p.ndim == 1]}]
    if "weight_decay" in inspect.signature(OPTIMIZERS[name].__init__).parameters:
        found[0]["weight_decay"], found[1]["weight_decay"] = 1e-4, 0.0
    return found


def reason_against(name: str) -> str:
    """Why an optimizer is left out; empty when it passes."""
    if name in NEEDS:
        return f"needs {NEEDS[name]}" if "warning" not in NEEDS[name] else NEEDS[name].removeprefix("a warning: ")
    cls = OPTIMIZERS[name]
    if cls.__module__.startswith("torch."):
        return "is torch's own, under dltrain's name for it"
    try:
        best = 1.0
        for lr in (1e-3, 1e-2, 1e-1, 1.0):
            model, x, y = problem()
            before = train(model, cls(groups(name, model), lr=lr), x, y, 0, 0)
            best = min(best, train(model, cls(groups(name, model), lr=lr), x, y, 60, 0) / before)
        if not best < 0.9:
            return "lowers no loss within 60 steps, at any learning rate tried"
        model, x, y = problem()
        optimizer = cls(groups(name, model), lr=1e-2)
        train(model, optimizer, x, y, 12, 0)
        file = io.BytesIO()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
        train(model, optimizer, x, y, 12, 12)
    except Exception as error:
        return f"fails: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"
    try:
        file.seek(0)
        state = torch.load(file, weights_only=True)
        again, _, _ = problem()
        again.load_state_dict(state["model"])
        continued = cls(groups(name, again), lr=1e-2)
        continued.load_state_dict(state["optimizer"])
        train(again, continued, x, y, 12, 12)
    except Exception as error:
        return f"does not load from a safe checkpoint: {type(error).__name__}"
    same = all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    return "" if same else "continues otherwise than it was going to"


def arguments(cls: type) -> dict[str, Any]:
    """The arguments that can be written in YAML, with their defaults."""
    found = {}
    for key, parameter in inspect.signature(cls.__init__).parameters.items():
        value = parameter.default
        value = list(value) if isinstance(value, tuple) else value
        flat = value if isinstance(value, list) else [value]
        if key not in SET_BY_US and all(type(item) in (int, float, bool, str) for item in flat):
            accepts_float = "float" in str(parameter.annotation) and type(value) is int
            found[key] = float(value) if accepts_float else value
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    kept, left = {}, {}
    for name in sorted(OPTIMIZERS):
        reason = reason_against(name)
        if reason:
            left[name] = reason
        else:
            decays = "weight_decay" in inspect.signature(OPTIMIZERS[name].__init__).parameters
            kept[name] = {"decays": decays, "arguments": arguments(OPTIMIZERS[name])}
    lines = [f"    {json.dumps(n)}: {json.dumps(v)}" for n, v in kept.items()]
    missing = [f"    {json.dumps(n)}: {json.dumps(v)}" for n, v in left.items()]
    TABLE.write_text(
        f'{{\n  "version": "{version("pytorch_optimizer")}",\n  "optimizers": {{\n' + ",\n".join(lines)
        + '\n  },\n  "left_out": {\n' + ",\n".join(missing) + "\n  }\n}\n",
        encoding="utf-8",
    )  # fmt: skip
    print(len(kept), "kept,", len(left), "left out")
