"""Findings in words: the layer, what it looks like, the likely cause, and the key to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dltrain.experiment.experiment import Experiment
from dltrain.runs.reports import Finding


def sentences(findings: Sequence[Finding], experiment: Experiment, classes: Mapping[str, str]) -> list[str]:
    """One for each kind of finding, about its first layer; the others are named. classes: of the layers' modules."""
    kinds = dict.fromkeys(each.kind for each in findings)
    grouped = [[each for each in findings if each.kind == kind] for kind in kinds]
    return [f"{_seen(own, classes)}: {_remedy(own[0], experiment)}" for own in grouped]


def _seen(findings: Sequence[Finding], classes: Mapping[str, str]) -> str:
    """What it looks like."""
    first, others = findings[0], [each.layer for each in findings[1:]]
    kind = classes.get(first.layer.partition(":")[0])
    name = f"`{first.layer}`" + (f" ({kind})" if kind else "")
    told = {
        "silent": f"{first.value:.0%} of its units never fire since step {first.since}",
        "flat": f"{first.value:.0%} of its outputs are saturated since step {first.since}",
        "infinite": f"its outputs are infinite or not a number in step {first.step}, as the first layer's",
        "exploding": f"its gradient explodes: a norm of {first.value:.3g} in step {first.step}",
        "far": f"each step moves it by {first.value:.0%} of its own size since step {first.since}",
        "still": f"it does not learn: no step moves it since step {first.since}",
        "vanishing": f"its gradient vanishes: {first.value:.1g} of the largest one's since step {first.since}",
    }[first.kind]
    also = f" (as in {_listed(others)})" if others else ""
    return f"{name}: {told}{also}"


def _listed(layers: Sequence[str], most: int = 3) -> str:
    more = f" and {len(layers) - most} more" if len(layers) > most else ""
    return ", ".join(f"`{layer}`" for layer in layers[:most]) + more


def _remedy(finding: Finding, experiment: Experiment) -> str:
    """The likely cause, and two keys to change at most."""
    training, begun = experiment.training, finding.since <= 1
    lower = f"lower optimizer.lr (now {experiment.optimizer.lr:g})"
    warm = [] if experiment.schedule.warmup else ["set schedule.warmup: {epochs: 1}"]
    cut = [] if training.clip_norm else ["set training.clip_norm: 1"]
    norm = ["set model.norm: batch_norm"] if getattr(experiment.model, "norm", "none") is None else []
    start = _start(experiment, "xavier_normal" if finding.kind in ("flat", "vanishing") else "he_normal")
    if finding.kind == "silent":
        why, keys = ("the start is bad", [start, lower]) if begun else ("steps were too large", [lower, start])
    elif finding.kind == "flat":
        why = "hardly any gradient passes: " + ("the start is too wide" if begun else "its inputs have grown")
        keys = [start, *norm, lower] if begun else [lower, *norm, start]
    elif finding.kind == "infinite":
        why, keys = "numbers grow beyond all bounds", [lower, *warm, *norm]
    elif finding.kind == "exploding":
        why = "it grows from layer to layer" if begun else "steps were too large"
        keys = [start, *norm, *cut] if begun else [lower, *cut, *warm]
    elif finding.kind == "far":
        why, keys = "steps are too large", [lower, *warm]
    elif finding.kind == "vanishing":
        why, keys = "what follows lets hardly any pass", ["change model.activation", *norm, start]
    elif finding.value > 0:
        scaled = experiment.optimizer.groups or experiment.optimizer.layer_decay
        raised = lower.replace("lower", "raise")
        why, keys = "its steps are lost in rounding", ["look at optimizer.groups" if scaled else raised]
        keys += ["set training.precision: float32"] if "pure" in training.precision else []
    else:
        why, keys = "no gradient reaches it", ["see whether model uses it", "add it to freeze"]
    return f"{why}; {' or '.join(keys[:2])}"


def _start(experiment: Experiment, name: str) -> str:
    """Another start than the present one."""
    chosen = experiment.model.initialization
    if chosen is not None and chosen.name == name:
        return "change model.initialization"
    return f"start with model.initialization: {name}"
