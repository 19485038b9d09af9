"""What there is to say of a training before it starts: what its checkpoints carry, a summary, and notes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dltrain.data.loading.balance import told
from dltrain.data.targets import as_tensor
from dltrain.data.types import Splits
from dltrain.engine.decisions import Decisions
from dltrain.engine.networks import Network
from dltrain.engine.parts import LoopSettings
from dltrain.engine.progressive import Resizing
from dltrain.engine.resolve import ResolvedTraining
from dltrain.errors import Note
from dltrain.experiment.experiment import Experiment


def about(training: ResolvedTraining, decisions: Decisions, plugins: dict[str, str]) -> dict[str, Any]:
    """Plain values that a checkpoint carries beside the weights."""
    splits = training.splits
    return {
        "experiment": training.experiment.dump(),
        "target": splits.target.to_dict(),
        "preprocessing": training.resolved.preprocessing.to_dict(),
        "decisions": {name: asdict(decision) for name, decision in decisions.items()},
        "fingerprint": splits.fingerprint,
        "skipped": list(splits.skipped),
        "has_test": splits.test is not None,
        "plugins": dict(plugins),
    }


def summary(
    training: ResolvedTraining, network: Network, settings: LoopSettings, decisions: Decisions,
    resizing: Resizing | None,
) -> dict[str, str]:  # fmt: skip
    """What the run will do, a line each."""
    experiment, splits, preprocessing = training.experiment, training.splits, training.resolved.preprocessing
    model = network.model
    counts = ", ".join(f"{count:,} {name}" for name, count in split_sizes(splits).items())
    parameters = sum(p.numel() for p in model.parameters())
    steps = f"{settings.steps_per_epoch} step{'s' if settings.steps_per_epoch > 1 else ''}"
    cost = f"{network.multiply_adds / 1e6:,.2f}M multiply-adds"
    lines = {
        "data": f"{experiment.data.name}: {counts}, {splits.target.counted}, {preprocessing.shape}",
        "model": f"{experiment.model.name}: {parameters:,} parameters, {cost}",
        "training": f"{settings.epochs} epochs of {steps}, batch {settings.batch_size}",
    }
    if experiment.data.balance is not None:
        lines["balance"] = told(as_tensor(splits.train.targets), experiment.data.balance_power)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    if (waits := waiting(experiment)) is not None:
        lines["frozen"] = waits
    elif experiment.freeze or any(group.frozen for group in experiment.optimizer.groups):
        lines["frozen"] = f"{frozen:,} of the {parameters:,} parameters never learn"
    adaptation = getattr(model, "adaptation", None)
    for line in adaptation.lines() if adaptation is not None else ():
        key, _, change = line.partition(": ")
        lines[f"model.{key}"] = change
    if splits.train.files is not None:
        lines["images"] = f"training {preprocessing.train}; evaluation {preprocessing.evaluation}"
    lines |= {name: str(decision) for name, decision in decisions.items()}
    return lines if resizing is None else {**lines, "progressive_size": str(resizing)}


def waiting(experiment: Experiment) -> str | None:
    """What is frozen at first, and until when; None where nothing is unfrozen later by `unfreeze_at`."""
    moment = experiment.unfreeze_at
    return f"{', '.join(experiment.freeze)} until {moment} are done" if moment is not None else None


def notes(training: ResolvedTraining, decisions: Decisions, of_weights: list[Note]) -> list[Note]:
    """What a user would want to know. of_weights: on what the weights start from."""
    splits, schedule = training.splits, training.experiment.schedule
    found = [*splits.remarks, *downgrades(training.experiment, decisions, split_sizes(splits))]
    found += [*training.resolved.preprocessing.remarks, *of_weights]
    remarks = schedule.remarks(training.total_steps, training.steps_per_epoch)
    return [*found, *(Note("info", "schedule", text) for text in remarks)]


def downgrades(experiment: Experiment, decisions: Decisions, examples: dict[str, int]) -> list[Note]:
    """What the experiment asks for and does not get, and what it leaves out. examples: of each split."""
    notes, training = [], experiment.training
    seen, unseen = (training.limit_batches or 0) * training.batch, examples.get("validation", 0)
    if 0 < seen < unseen:
        measured = f"`limit_batches` measures {seen:,} of {unseen:,} validation examples"
        text = f"{measured}: the same ones each time, with all classes in proportion"
        notes.append(Note("info", "limited", text))
    if experiment.training.compile is True and not decisions["compile"].value:
        notes.append(Note("warning", "not_compiled", f"not compiled: {decisions['compile'].reason}"))
    if experiment.training.graph is True and not decisions["graph"].value:
        notes.append(Note("warning", "no_graph", f"no CUDA graph: {decisions['graph'].reason}"))
    if not experiment.training.deterministic and str(decisions["device"].value).startswith("cuda"):
        text = "deterministic is off: cuDNN picks kernels by time, and the run is not exact"
        notes.append(Note("warning", "not_exact", text))
    return notes


def split_sizes(splits: Splits) -> dict[str, int]:
    """How many examples each split has."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: len(part) for name, part in parts.items() if part is not None}
