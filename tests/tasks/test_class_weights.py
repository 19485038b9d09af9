"""`loss.class_weights` in a training: the weighted mean over the whole batch, as torch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from training import arrays_experiment, built

ONE_STEP: dict[str, Any] = {
    "augmentation": [], "model": {"name": "mlp", "hidden": [8]}, "optimizer": {"name": "sgd", "lr": 0.5},
    "schedule": "constant", "training": {"steps": 1, "batch_size": 24, "precision": "float32", "clip_norm": None},
}  # fmt: skip
WEIGHTS = [0.5, 4.0, 1.0]


def step(arrays: Path, weights: Any, **changes: Any) -> tuple[list[torch.Tensor], Any]:
    """How far a step moves each tensor, and the trainer after it."""
    loss = {"name": "cross_entropy", "class_weights": weights}
    trainer = built(arrays_experiment(arrays, loss=loss, **{**ONE_STEP, **changes}))
    before = [p.detach().clone() for p in trainer.parts.model.parameters()]
    for _ in trainer.run():
        pass
    return [p.detach() - b for p, b in zip(trainer.parts.model.parameters(), before, strict=True)], trainer


def test_only_ratios_count(arrays: Path) -> None:
    (plain, first), (tenfold, second) = (step(arrays, weights) for weights in ([1.0] * 3, [10.0] * 3))
    torch.testing.assert_close(tenfold, plain)
    assert second.history[0]["train/loss"] == pytest.approx(first.history[0]["train/loss"], rel=1e-6)
    torch.testing.assert_close(plain, step(arrays, None)[0])
    assert not torch.allclose(plain[0], step(arrays, WEIGHTS)[0][0])


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("augmentation", [[], [{"name": "mixup", "alpha": 1.0}]], ids=["labels", "mixed"])
def test_a_step_is_that_of_torchs_weighted_mean(accumulate: int, augmentation: Any, arrays: Path) -> None:
    training = {**ONE_STEP["training"], "accumulate": accumulate}
    moved, trainer = step(arrays, WEIGHTS, training=training, augmentation=augmentation)
    loss = {"name": "cross_entropy", "class_weights": WEIGHTS}
    other = built(arrays_experiment(arrays, loss=loss, **{**ONE_STEP, "augmentation": augmentation}))
    inputs, targets = other.parts.pipeline.train(next(other.parts.train.batches(0)), 0)
    logits, weights = other.parts.model.train()(inputs), torch.tensor(WEIGHTS)
    if targets.is_floating_point():
        expected = -(targets * weights * logits.log_softmax(1)).sum() / (targets * weights).sum()
    else:
        expected = F.cross_entropy(logits, targets, weights)
    gradients = torch.autograd.grad(expected, list(other.parts.model.parameters()))
    torch.testing.assert_close(moved, [-0.5 * gradient for gradient in gradients], rtol=1e-4, atol=1e-6)
    assert trainer.history[0]["train/loss"] == pytest.approx(expected.item(), rel=1e-5)
