"""Autoencoders: what they have in common, and the facts that define each."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from dltrain import Experiment
from dltrain.config import ConfigError
from dltrain.data.targets import NoTarget
from dltrain.data.types import ImageShape, InputSpec, Vector
from dltrain.models import Model
from dltrain.models.impl.autoencoders import Sparsity, kl_normal
from dltrain.tasks import Reconstruction
from dltrain.tasks.impl.objectives import Objective, answer_of
from dltrain.tasks.losses import BinaryCrossEntropy, MeanSquaredError
from dltrain.tasks.outputs import LikeInput, Logits

IMAGES = ImageShape(1, 7, 6)
NAMES = ["autoencoder", "sparse_autoencoder", "denoising_autoencoder", "variational_autoencoder"]


def made(name: str, inputs: InputSpec = IMAGES, **options: Any) -> nn.Module:
    section = Model.parse({"name": name, **options})
    assert isinstance(section, Model)
    torch.manual_seed(0)
    return section.make(inputs, LikeInput())


def drawn(inputs: InputSpec = IMAGES, count: int = 5) -> Tensor:
    return torch.rand(inputs.example(count).shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("inputs", "options"),
    [(Vector(9), {}), (IMAGES, {"hidden": [8, 6], "dropout": 0.2}), (ImageShape(2, 9, 4), {"channels": [3, 5]})],
)
def test_outputs_look_like_the_inputs(name: str, inputs: InputSpec, options: dict[str, Any]) -> None:
    tied = [{}] if name == "variational_autoencoder" else [{}, {"tied": True}]
    for more in tied:
        network = made(name, inputs, code=4, **options, **more)
        assert answer_of(network(drawn(inputs))).shape == drawn(inputs).shape


def test_a_classifier_starts_from_the_tensors_of_an_encoder() -> None:
    encoder = made("autoencoder", hidden=[8], code=4).encoder
    classifier = Model.parse({"name": "mlp", "hidden": [8, 4]})
    assert isinstance(classifier, Model) and isinstance(encoder, nn.Module)
    left = classifier.make(IMAGES, Logits(10)).load_state_dict(encoder.state_dict(), strict=False)
    assert left.missing_keys == ["7.weight", "7.bias"] and not left.unexpected_keys


def test_tied_weights_are_the_encoders() -> None:
    network = made("autoencoder", channels=[2], hidden=[5], code=3, tied=True, activation="tanh")
    kinds = {name.rpartition(".")[2] for name, _ in network.named_parameters() if name.startswith("decoder")}
    assert kinds == {"bias"} and len(list(network.parameters())) == 9
    network(drawn()).square().mean().backward()
    weights = [p for p in network.parameters() if p.ndim > 1]
    assert len(weights) == 3 and all(w.grad is not None and w.grad.abs().sum() > 0 for w in weights)
    twice = made("autoencoder", hidden=[], code=3, tied=True, activation=None)
    weight, rows = twice.encoder[1].weight, drawn().flatten(1)  # type: ignore[index, union-attr]
    encoded = rows @ weight.T + twice.encoder[1].bias  # type: ignore[index, union-attr]
    torch.testing.assert_close(twice(drawn()).flatten(1), encoded @ weight)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "softplus", None])
def test_contraction_is_the_squared_frobenius_norm_of_autograds_jacobian(activation: str | None) -> None:
    network = made("autoencoder", Vector(6), code=4, activation=activation, contractive=0.7).double()
    rows = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = network(rows)
    assert isinstance(found, Objective)
    encoder: Any = network.encoder
    jacobians = [torch.autograd.functional.jacobian(lambda x: encoder(x[None])[0], row) for row in rows]
    expected = torch.stack([0.7 * jacobian.square().sum() for jacobian in jacobians])
    torch.testing.assert_close(found.terms.double(), expected, rtol=1e-5, atol=1e-6)
    assert isinstance(network.eval()(rows), Tensor), "only training is penalised"


def test_sparsity_is_nothing_at_rho_alone() -> None:
    penalty = Sparsity(0.05, 3.0)
    codes = torch.tensor([[0.0, 0.05], [0.1, 0.05]])
    assert penalty(codes).abs().max() < 1e-6
    more = penalty(torch.full((2, 1), 0.5))
    expected = 3 * (0.05 * math.log(0.05 / 0.5) + 0.95 * math.log(0.95 / 0.5))
    assert more.tolist() == pytest.approx([expected] * 2)
    network = made("sparse_autoencoder", code=3, activation="relu", sparsity="l1", weight=0.5)
    codes = network.encoder(drawn())  # type: ignore[operator]
    torch.testing.assert_close(network(drawn()).terms, 0.5 * codes.abs().sum(1))


@pytest.mark.parametrize("noise", ["mask", "gaussian", "salt_and_pepper"])
def test_only_inputs_of_training_are_corrupted(noise: str) -> None:
    plain, network = made("autoencoder"), made("denoising_autoencoder", noise=noise, amount=0.4)
    corruption: Any = network.corruption
    images = 1 + drawn(ImageShape(1, 40, 50), 2)
    changed = corruption(images)
    share = (changed != images).float().mean()
    if noise == "gaussian":
        assert (changed - images).std().item() == pytest.approx(0.4, rel=0.05)
    else:
        assert share.item() == pytest.approx(0.4, abs=0.03)
        ends = {0.0} if noise == "mask" else {*images.flatten(1).amin(1).tolist(), *images.flatten(1).amax(1).tolist()}
        assert set(changed[changed != images].tolist()) == ends
    assert not torch.equal(network(drawn()), plain(drawn()))
    assert torch.equal(network.eval()(drawn()), plain(drawn()))
    assert torch.equal(made("denoising_autoencoder", noise=noise, amount=0)(drawn()), plain(drawn()))


def test_divergence_from_the_standard_normal() -> None:
    mean, log_variance = torch.tensor([[0.0], [1.0], [0.0]]), torch.tensor([[0.0], [0.0], [1.0]])
    assert kl_normal(mean, log_variance).tolist() == pytest.approx([0, 0.5, 0.359141], abs=1e-6)
    draws = torch.randn(1000, 4)
    assert kl_normal(draws[:, :2], draws[:, 2:]).min() >= 0


def test_the_loss_of_a_variational_autoencoder_is_the_negative_evidence_lower_bound() -> None:
    network = made("variational_autoencoder", hidden=[8], code=3, beta=2.0).eval()
    images, layers = drawn(), network.get_submodule
    task = Reconstruction().build(BinaryCrossEntropy(), NoTarget(), torch.device("cpu"))
    report = task.report()
    task.measure(report, network(images), images, 4)

    features = layers("encoder")(images)
    mean, log_variance = layers("mean")(features), layers("log_variance")(features)
    codes = mean + (log_variance / 2).exp() * network.noise[:5]
    logits = layers("decoder")(codes)
    reconstruction = nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(1).sum(1)
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    expected = (reconstruction + 2 * divergence.sum(1))[:4].mean().item()
    assert report.compute()["loss"] == pytest.approx(expected, rel=1e-5)
    shown = layers("decoder")(mean).sigmoid()
    assert report.compute()["mse"] == pytest.approx((shown - images)[:4].square().mean().item(), rel=1e-5)
    assert network.samples(6).shape == (6, 1, 7, 6)  # type: ignore[operator]

    halves = Reconstruction().build(MeanSquaredError(form="half_sum"), NoTarget(), torch.device("cpu"))
    found = network(images)
    squares = (found.sampled - images).square().flatten(1).sum(1) / 2  # of a sum there is no sum
    torch.testing.assert_close(halves.losses(found, images)[2], squares + found.terms)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "autoencoder", "contractive": 0.1, "activation": "gelu"}, "takes a code of `identity`, `sigmoid`"),
        ({"name": "autoencoder", "contractive": 0.1, "hidden": [3]}, "behind no other layers"),
        ({"name": "sparse_autoencoder", "activation": "relu"}, "`sparsity: kl` takes a code of `sigmoid`"),
        ({"name": "denoising_autoencoder", "amount": 1.5}, "at most 1, not 1.5"),
        ({"name": "autoencoder", "activation": "frelu"}, "looks at whole maps"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Model.parse(options)


def test_convolutions_need_images() -> None:
    with pytest.raises(ConfigError, match="`channels` are of images"):
        made("autoencoder", Vector(9), channels=[4])


BASE = "{data: {name: digits, scaling: none}, model: autoencoder, loss: binary_cross_entropy}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.scaling=standardize", "loss `binary_cross_entropy` compares values in 0..1, and `data.scaling"),
        ("task=classification", "`autoencoder` gives an output like the input, and task `classification` wants"),
        ("loss=cross_entropy", "loss `cross_entropy` takes a number per class, and task `reconstruction`"),
        ("evaluation.views=flip", "makes no one answer of several views"),
        ("evaluation.share=0.5", "does not know which answers are the least sure"),
        ("training.early_stopping.metric=validation/accuracy", "no metric `validation/accuracy`"),
    ],
)
def test_what_does_not_go_with_reconstruction_is_refused_at_its_key(change: str, message: str) -> None:
    assert Experiment.parse(BASE).resolved_task.name == "reconstruction"
    with pytest.raises(ConfigError, match=message):
        Experiment.parse(BASE, overrides=[change])


def test_a_classifier_reconstructs_nothing() -> None:
    with pytest.raises(ConfigError, match="`mlp` gives a row of numbers, and task `reconstruction` wants"):
        Experiment.parse("{data: digits, model: mlp, task: reconstruction}")
