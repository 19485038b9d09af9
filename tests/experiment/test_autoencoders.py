"""What the experiments of autoencoders say that they reach, they reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from torch import Tensor

from dltrain import Experiment, Trainer, build
from dltrain.data.types import Source
from dltrain.models.impl.autoencoders import Contraction
from dltrain.runs import checkpoints
from dltrain.tasks.impl.objectives import answer_of

FOLDER = REPOSITORY / "experiments/autoencoders"
pytestmark = pytest.mark.slow


def trained(name: str, *overrides: str) -> Trainer:
    trainer = build(Experiment.load(FOLDER / f"{name}.yaml", overrides), "cpu")
    for _ in trainer.run():
        pass
    trainer.parts.model.eval()
    return trainer


def last(trainer: Trainer, tag: str) -> float:
    return trainer.history[-1][tag]


def shown(trainer: Trainer) -> Tensor:
    """The validation images of a batch, as the network gets them."""
    loader: Any = trainer.parts.validation
    batch, valid = next(iter(loader.evaluation_batches(1)))
    return trainer.parts.pipeline.evaluate(batch.inputs)[:valid]


def rows(source: Source | None) -> np.ndarray:
    """The images of a split (N, D), in 0..1."""
    images: Any = getattr(source, "images", None)
    return np.asarray(images, float).reshape(len(images), -1) / 255


def axes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean, the variances along the principal axes, largest first, and these axes (D, D) in columns."""
    variances, vectors = np.linalg.eigh(np.cov(values.T, bias=True))
    return values.mean(0), variances[::-1], vectors[:, ::-1]


def test_a_linear_autoencoder_reaches_the_error_of_principal_components() -> None:
    trainer = trained("digits_linear")
    _, variances, _ = axes(rows(trainer.parts.train.source))
    assert last(trainer, "train/mse") == pytest.approx(variances[16:].sum() / 64, rel=0.02)


def test_a_contractive_code_changes_less() -> None:
    contractive, plain = trained("digits_contractive"), trained("digits_contractive", "model.contractive=0")
    lengths = []
    for trainer in (contractive, plain):
        encoder: Any = trainer.parts.model.encoder
        with torch.no_grad():
            lengths.append(Contraction(encoder, "sigmoid", 1.0)(encoder(shown(trainer))).mean())
    assert lengths[0] < lengths[1] / 3
    assert last(contractive, "validation/mse") < 2 * last(plain, "validation/mse")


def test_few_units_of_a_sparse_code_are_active() -> None:
    trainer = trained("digits_sparse")
    encoder: Any = trainer.parts.model.encoder
    assert 0.03 < encoder(shown(trainer)).mean() < 0.08


def test_a_denoising_autoencoder_fills_what_is_missing() -> None:
    errors = []
    for amount in (0.3, 0.0):
        trainer = trained("digits_denoising", f"model.amount={amount}")
        task: Any = trainer.parts.task
        images = shown(trainer)
        left = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) >= 0.3
        with torch.no_grad():
            errors.append(task.errors(answer_of(trainer.parts.model(images * left)), images).mean())
    assert errors[0] < 0.8 * errors[1]


def test_a_variational_autoencoder_beats_the_best_linear_gaussian_model(shared_data: Path) -> None:
    """Probabilistic principal component analysis (Tipping & Bishop 1999): N(m, W W^T + I / 2) with the best W, in
    closed form."""
    trainer = trained("mnist_vae", f"data.root={shared_data / 'mnist'}")
    loader: Any = trainer.parts.validation
    values, variance, count = rows(loader.source), 0.5, 20
    mean, variances, vectors = axes(rows(trainer.parts.train.source))
    kept = np.maximum(variances[:count], variance)
    scores = (values - mean) @ vectors[:, :count]
    rest = ((values - mean) ** 2).sum(1) - (scores**2).sum(1)
    losses = (scores**2 / kept).sum(1) / 2 + np.log(kept / variance).sum() / 2 + rest / (2 * variance)
    assert last(trainer, "validation/loss") < losses.mean() - 4


def test_a_convolutional_code_keeps_more_than_principal_components(shared_data: Path) -> None:
    trainer = trained("fashion_convolutional", f"data.root={shared_data / 'fashion-mnist'}")
    loader: Any = trainer.parts.validation
    mean, _, vectors = axes(rows(trainer.parts.train.source))
    values = rows(loader.source) - mean
    left = (values**2).sum(1) - ((values @ vectors[:, :32]) ** 2).sum(1)
    assert last(trainer, "validation/mse") < 0.013 < left.mean() / 784


def test_a_boltzmann_machine_learns_and_starts_a_classifier(shared_data: Path, tmp_path: Path) -> None:
    machine = trained("mnist_rbm", f"data.root={shared_data / 'mnist'}")
    losses = [row["validation/loss"] for row in machine.history]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 90
    checkpoints.save(machine.state_dict(), tmp_path / "machine.pt")
    accuracies = []
    for start in (f"{{path: '{tmp_path / 'machine.pt'}', part: encoder}}", "null"):
        classifier = trained("mnist_100_labels", f"data.root={shared_data / 'mnist'}", f"initialize_from={start}")
        accuracies.append(last(classifier, "validation/accuracy"))
    assert accuracies[0] > accuracies[1] + 0.015
