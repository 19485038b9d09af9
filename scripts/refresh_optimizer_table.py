"""Write the table of pytorch_optimizer's optimizers into the package. Run after upgrading the library.

Each is tried: it must build, lower a loss, follow the learning rate, and continue exactly from a safe checkpoint. Those
that do not, or that need more than gradients, are listed under `left_out` with the reason. `fixed` are arguments that
are not the user's to set, and `one_rate` marks those that take one learning rate for all groups.
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

TABLE = Path(__file__).parent.parent / "dltrain" / "optim" / "optimizers" / "pytorch_optimizer.json"
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
    "kron": "a warning: it may continue otherwise than it was going to",
    "srmm": "a warning: its first step shrinks all weights by 0.3, whatever the learning rate, as its mean starts at 0",
}  # fmt: skip
RATES = (1e-3, 1e-2, 1e-1, 1.0)
FIXED: dict[str, dict[str, Any]] = {
    "adafactor": {"relative_step": False, "warmup_init": False},
    "apollodqn": {"warmup_steps": 0, "init_lr": 1e-5},
}
"""Arguments with which they follow the learning rate that they are given, instead of one of their own."""


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


def make(name: str, parameters: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    return OPTIMIZERS[name](parameters, lr=lr, **FIXED.get(name, {}))


def groups(name: str, model: nn.Module) -> list[dict[str, Any]]:
    decay = [p for p in model.parameters() if p.ndim > 1]
    found = [{"params": decay}, {"params": [p for p in model.parameters() if p.ndim == 1]}]
    if "weight_decay" in inspect.signature(OPTIMIZERS[name].__init__).parameters:
        found[0]["weight_decay"], found[1]["weight_decay"] = 1e-4, 0.0
    return found


def moves(name: str, rates: list[float], slow: int | None = None) -> list[list[float]]:
    """How far the two groups move in each step with these learning rates, the group `slow` with a thousandth of it."""
    model, x, y = problem()
    optimizer = make(name, groups(name, model), 1e-2)
    found = []
    for step, rate in enumerate(rates):
        for index, group in enumerate(optimizer.param_groups):
            group["lr"] = rate * (1e-3 if index == slow else 1.0)
        before = [[p.detach().clone() for p in group["params"]] for group in optimizer.param_groups]
        train(model, optimizer, x, y, 1, step)
        found.append([
            sum(float((p.detach() - old).square().sum()) for p, old in zip(group["params"], olds, strict=True)) ** 0.5
            for group, olds in zip(optimizer.param_groups, before, strict=True)
        ])  # fmt: skip
    return found


def whole(found: list[list[float]]) -> float:
    """The moves of both groups, without those of the first three steps, where some bring the weights to a norm."""
    return sum(map(sum, found[3:]))


def rate_problem(name: str) -> str:
    """How an optimizer fails to follow the learning rate; empty when it does."""
    fast, slow = (whole(moves(name, [rate] * 12)) for rate in (1e-2, 1e-5))
    if slow > 0.3 * fast:
        return "does not follow the learning rate: with a thousandth of it, it moves as far or almost"
    *_, before, after = moves(name, [1e-2] * 20 + [1e-7])
    if sum(after) > 2 * sum(before):
        return "moves its weights when the learning rate falls, as every schedule lets it"
    return ""


def falls(name: str, lr: float, steps: int = 60) -> float:
    """The loss after some steps at a learning rate, as a share of that before."""
    model, x, y = problem()
    before = train(model, make(name, groups(name, model), lr), x, y, 0, 0)
    return train(model, make(name, groups(name, model), lr), x, y, steps, 0) / before


def default_lr(name: str) -> float:
    """The library's own learning rate, or the lowest one tried above it with which the loss falls by a tenth."""
    own = float(inspect.signature(OPTIMIZERS[name].__init__).parameters["lr"].default)
    higher = [lr for lr in RATES if lr > own]
    return next((lr for lr in (own, *higher) if falls(name, lr) < 0.9), own)


def has_one_rate(name: str) -> bool:
    """Whether an optimizer takes one learning rate for all groups."""
    alike = moves(name, [1e-2] * 12)
    for slow in (0, 1):
        far = moves(name, [1e-2] * 12, slow)
        if sum(step[slow] for step in far[3:]) > 0.3 * sum(step[slow] for step in alike[3:]):
            return True
    return False


def reason_against(name: str) -> str:
    """Why an optimizer is left out; empty when it passes."""
    if name in NEEDS:
        return f"needs {NEEDS[name]}" if "warning" not in NEEDS[name] else NEEDS[name].removeprefix("a warning: ")
    cls = OPTIMIZERS[name]
    if cls.__module__.startswith("torch."):
        return "is torch's own, under dltrain's name for it"
    try:
        if not min(falls(name, lr) for lr in RATES) < 0.9:
            return "lowers no loss within 60 steps, at any learning rate tried"
        if problem_found := rate_problem(name):
            return problem_found
        model, x, y = problem()
        optimizer = make(name, groups(name, model), 1e-2)
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
        continued = make(name, groups(name, again), 1e-2)
        continued.load_state_dict(state["optimizer"])
        train(again, continued, x, y, 12, 12)
    except Exception as error:
        return f"does not load from a safe checkpoint: {type(error).__name__}"
    same = all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    return "" if same else "continues otherwise than it was going to"


def arguments(name: str) -> dict[str, Any]:
    """The arguments that can be written in YAML, with their defaults."""
    found = {}
    for key, parameter in inspect.signature(OPTIMIZERS[name].__init__).parameters.items():
        value = parameter.default
        value = list(value) if isinstance(value, tuple) else value
        flat = value if isinstance(value, list) else [value]
        plain = all(type(item) in (int, float, bool, str) for item in flat)
        if plain and key not in (*SET_BY_US, *FIXED.get(name, {})):
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
            kept[name] = {"decays": decays, "lr": default_lr(name), "arguments": arguments(name)}
            if name in FIXED:
                kept[name]["fixed"] = FIXED[name]
            if has_one_rate(name):
                kept[name]["one_rate"] = True
    lines = [f"    {json.dumps(n)}: {json.dumps(v)}" for n, v in kept.items()]
    missing = [f"    {json.dumps(n)}: {json.dumps(v)}" for n, v in left.items()]
    TABLE.write_text(
        f'{{\n  "version": "{version("pytorch_optimizer")}",\n  "optimizers": {{\n' + ",\n".join(lines)
        + '\n  },\n  "left_out": {\n' + ",\n".join(missing) + "\n  }\n}\n",
        encoding="utf-8",
    )  # fmt: skip
    print(len(kept), "kept,", len(left), "left out")
