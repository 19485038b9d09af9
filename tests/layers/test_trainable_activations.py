"""Activations written here: definitions in numpy, gradients of parameters, properties, phases, and use in networks."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from rationing import only
from scipy.special import erf, expit
from torch import Tensor, nn
from torch.nn import functional

from dltrain import ConfigError, Experiment
from dltrain.data.types import ImageShape
from dltrain.layers import Activation
from dltrain.models import Model
from dltrain.optim.impl.roles import exempt
from dltrain.tasks.outputs import Logits

Array = np.ndarray[Any, Any]
WRITTEN = [
    "step", "hard_sigmoid", "elish", "hard_elish", "tlu", "swish", "acon_a", "acon_b", "acon_c", "apl", "pau", "opau",
    "sau", "smu", "smu1", "maxout", "pwlu", "meta_acon", "dynamic_relu_a", "dynamic_relu_b", "dynamic_relu_c",
    "dynamic_shift_max", "frelu",
]  # fmt: skip
LEARNED = [name for name in WRITTEN if Activation.lookup(name).parameters]  # type: ignore[union-attr]
VARIANTS: list[Any] = [
    *WRITTEN,
    {"name": "hard_sigmoid", "slope": 0.2},
    {"name": "apl", "hinges": 3},
    {"name": "sau", "width": 0.7},
    {"name": "maxout", "pieces": 3},
    {"name": "pwlu", "per": "channel", "pieces": 4},
    {"name": "dynamic_shift_max", "groups": 3, "reach": 2.0},
]


def choice(value: Any) -> Activation:
    parsed = Activation.parse(value)
    assert isinstance(parsed, Activation)
    return parsed


def build(value: Any, channels: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return choice(value).build(channels).double()


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2


def perturb(layer: nn.Module) -> nn.Module:
    """Move parameters and averages from their start, where zeros and ones would hide mistakes."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.linspace(-0.3, 0.4, parameter.numel()).view_as(parameter))
        for key, buffer in layer.named_buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.linspace(0.1, 0.5, buffer.numel()).view_as(buffer))
            elif key == "steps":
                buffer.fill_(2_000)
    return layer


def filled(layer: nn.Module, **values: Any) -> nn.Module:
    """The layer with parameters set: their names with `_` for `.`."""
    parameters = {name.replace(".", "_"): p for name, p in layer.named_parameters()}
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(torch.as_tensor(value, dtype=torch.float64).expand_as(parameters[name]))
    return layer


# -- definitions


def reference(value: Any, x: Array, p: dict[str, Array]) -> Array:
    """The definition in evaluation mode, of maps (B, C, H, W), with a layer's state."""
    options = value if isinstance(value, dict) else {"name": value}
    vector = {key: v[..., None, None] for key, v in p.items()}
    match options["name"]:
        case "step":
            return (x > 0) * 1.0
        case "hard_sigmoid":
            return np.clip(options.get("slope", 1 / 6) * x + 0.5, 0, 1)
        case "elish":
            return np.where(x >= 0, x, np.expm1(x)) * expit(x)
        case "hard_elish":
            return np.where(x >= 0, x, np.expm1(x)) * np.maximum(0, np.minimum(1, (x + 1) / 2))
        case "tlu":
            return np.maximum(x, vector["threshold"])
        case "swish" | "acon_a":
            return x * expit(vector["beta"] * x)
        case "acon_b":
            q, b = vector["p"], vector["beta"]
            return np.asarray((1 - q) * x * expit(b * (1 - q) * x) + q * x)
        case "acon_c":
            return acon_c(x, vector["p1"], vector["p2"], vector["beta"])
        case "apl":
            hinges = zip(*(p[key].reshape(-1, 6, 1, 1) for key in "ab"), strict=True)
            return np.asarray(np.maximum(0, x) + sum(a * np.maximum(0, b - x) for a, b in hinges))
        case "pau":
            over = sum(a * x**j for j, a in enumerate(p["a"]))
            terms = [b * x**k for k, b in enumerate(p["b"], 1)]
            by_term = options.get("denominator") == "terms"
            return np.asarray(over / (1 + (sum(map(abs, terms)) if by_term else abs(sum(terms)))))
        case "opau":
            hermite = [np.polynomial.hermite.hermval(x, [0] * j + [1]) for j in range(6)]
            over = sum(c * h for c, h in zip(p["a"], hermite, strict=True))
            return np.asarray(over / (1 + sum(abs(d) * abs(h) for d, h in zip(p["b"], hermite[1:], strict=False))))
        case "sau":
            g, a = options.get("width", 5e-5), p["slope"]
            bump = g * (1 - a) / np.sqrt(2 * np.pi) * np.exp(-(x**2) / (2 * g**2))
            return np.asarray(bump + (1 + a) * x / 2 + (1 - a) * x / 2 * erf(x / (g * np.sqrt(2))))
        case "smu":
            return np.asarray((1.01 * x + 0.99 * x * erf(p["sharpness"] * 0.99 * x)) / 2)
        case "smu1":
            return np.asarray((1.25 * x + np.sqrt((0.75 * x) ** 2 + p["smoothness"] ** 2)) / 2)
        case "maxout":
            weight, bias = p["maps.weight"][:, :, 0, 0], p["maps.bias"]
            maps = np.einsum("oc,bchw->bohw", weight, x) + bias[:, None, None]
            return maps.reshape(len(x), -1, *x.shape[1:]).max(1)
        case "pwlu":
            maps = x.swapaxes(0, 1).reshape(len(p["mean"]), -1)
            own = {key: v.reshape(len(maps), -1) for key, v in p.items() if v.ndim}
            rows = [piecewise(row, {key: v[i] for key, v in own.items()}) for i, row in enumerate(maps)]
            return np.stack(rows).reshape(x.swapaxes(0, 1).shape).swapaxes(0, 1)
        case "meta_acon":
            hidden = normed(x.mean((2, 3)) @ p["first.weight"].T + p["first.bias"], p, "norm1.")
            beta = expit(normed(hidden @ p["second.weight"].T + p["second.bias"], p, "norm2."))
            return acon_c(x, vector["p1"], vector["p2"], beta[:, :, None, None])
        case "dynamic_shift_max":
            reach, shift = options.get("reach", 1.0), 6 // options.get("groups", 2)
            shifts = 2 * reach * (np.clip(of_means(x, p) / 6 + 0.5, 0, 1) - 0.5)
            a = shifts.reshape(len(x), 2, 2, 6, 1, 1) + np.array([[1, 0], [0, 0]])[:, :, None, None, None]
            other = x[:, [(c + shift) % 6 for c in range(6)]]
            return np.maximum(a[:, 0, 0] * x + a[:, 0, 1] * other, a[:, 1, 0] * x + a[:, 1, 1] * other)
        case "frelu":
            padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
            maps = np.einsum("bchwij,cij->bchw", windows, p["convolution.weight"][:, 0])
            return np.maximum(x, normed(maps + vector["convolution.bias"], vector, "norm."))
        case name:
            theta = (2 * expit(of_means(x, p)) - 1).reshape(len(x), 4, -1, 1, 1)
            out = np.maximum((1 + theta[:, 0]) * x + theta[:, 2] / 2, theta[:, 1] * x + theta[:, 3] / 2)
            if name == "dynamic_relu_c":
                scores = np.einsum("c,bchw->bhw", p["attention.weight"].ravel(), x) + p["attention.bias"]
                weights = np.exp(scores / 10) / np.exp(scores / 10).sum((1, 2), keepdims=True)
                out *= np.minimum(weights * x[0, 0].size / 3, 1)[:, None]
            return out


def acon_c(x: Array, p1: Array, p2: Array, b: Array) -> Array:
    return np.asarray((p1 - p2) * x * expit(b * (p1 - p2) * x) + p2 * x)


def normed(x: Array, p: dict[str, Array], at: str) -> Array:
    deviation = np.sqrt(p[at + "running_var"] + 1e-5)
    return np.asarray((x - p[at + "running_mean"]) / deviation * p[at + "weight"] + p[at + "bias"])


def of_means(x: Array, p: dict[str, Array]) -> Array:
    hidden = np.maximum(0, x.mean((2, 3)) @ p["shifts.first.weight"].T + p["shifts.first.bias"])
    return np.asarray(hidden @ p["shifts.second.weight"].T + p["shifts.second.bias"])


def piecewise(x: Array, p: dict[str, Array]) -> Array:
    """Interpolation between the knots of `p`, and its slopes beyond them."""
    mean, reach = p["mean"][0], 3 * p["deviation"][0]
    start = np.array([mean - reach, mean + reach])
    (left, right), count = start + p["ends"], len(p["values"])
    knots = np.maximum(np.linspace(*start, count), 0) + p["values"]
    inside = np.interp(x, np.linspace(left, right, count), knots)
    below, above = p["slopes"][0] * np.minimum(x - left, 0), p["slopes"][1] * np.maximum(x - right, 0)
    return np.asarray(inside + below + above)


@pytest.mark.parametrize("value", VARIANTS, ids=str)
def test_activation_agrees_with_its_definition(value: Any) -> None:
    images, layer = normal(3, 6, 4, 5) * 3, perturb(build(value)).eval()
    state = {key: tensor.numpy() for key, tensor in layer.state_dict().items()}
    expected = reference(value, images.numpy(), state)
    np.testing.assert_allclose(layer(images).detach().numpy(), expected, rtol=0, atol=1e-6)
    if not choice(value).needs_maps:
        vectors = layer(images.permute(0, 2, 3, 1).reshape(-1, 6)).detach()
        np.testing.assert_allclose(vectors, expected.transpose(0, 2, 3, 1).reshape(-1, 6), rtol=0, atol=1e-6)
    np.testing.assert_allclose(layer.float()(images.float()).detach().numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [v for v in VARIANTS if v in LEARNED or isinstance(v, dict)], ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_parameters(value: Any, training: bool) -> None:
    layer = perturb(build(value)).train(training)
    names = [name for name, _ in layer.named_parameters()]

    def from_scratch(inputs: Tensor, *parameters: Tensor) -> Tensor:
        fresh = copy.deepcopy(layer)  # running averages of one call must not change the next
        out: Tensor = torch.func.functional_call(fresh, dict(zip(names, parameters, strict=True)), inputs)
        return out

    inputs = (normal(3, 6, 2, 2), *(p.detach().clone() for p in layer.parameters()))
    if value == {"name": "sau", "width": 0.7} or "sau" not in str(value):  # a width of 5e-5 is below the differences
        assert torch.autograd.gradcheck(from_scratch, tuple(t.requires_grad_() for t in inputs), fast_mode=True)


@pytest.mark.parametrize("value", VARIANTS, ids=str)
def test_activation_under_autocast_is_near_float32(value: Any) -> None:
    images, layer = normal(3, 6, 4, 4).float(), perturb(build(value)).float()
    for training in (True, False):
        exact = copy.deepcopy(layer).train(training)(images)
        with torch.autocast("cpu", torch.bfloat16):  # a convolution under autocast gives bfloat16
            mixed = copy.deepcopy(layer).train(training)(images.bfloat16())
        assert mixed.dtype == torch.bfloat16
        torch.testing.assert_close(mixed.float(), exact, rtol=0.05, atol=0.1)


# -- properties


def known(name: str, **options: Any) -> Any:
    """An activation as a function of float64 tensors."""
    return build({"name": name, **options}, 3).eval()


def slope(function: Any, at: float) -> float:
    x = torch.full((1, 3), at, dtype=torch.float64, requires_grad=True)
    function(x).sum().backward()
    assert x.grad is not None
    return float(x.grad[0, 0])


POINTS = torch.linspace(-6, 6, 1201, dtype=torch.float64)[:, None].expand(-1, 3)
MAPS = normal(2, 8, 3, 4)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"name": "acon_b", "p": 0.0}, "acon_a"),
        ({"name": "celu", "alpha": 1.0}, "elu"),
        ({"name": "smu", "slope": 0.0, "sharpness": 0.5**0.5}, "gelu"),
        ({"name": "acon_c", "p1": 1.0, "p2": 0.0}, "silu"),
        ({"name": "apl", "a": 0.0}, "relu"),
        ({"name": "apl", "hinges": 1, "a": -0.01}, "leaky_relu"),
        ({"name": "smu1", "smoothness": 0.0, "slope": 0.01}, "leaky_relu"),
        ({"name": "smu", "sharpness": 1e6}, "leaky_relu"),
        ({"name": "sau", "slope": 0.01}, "leaky_relu"),
        ({"name": "pwlu", "per": "channel"}, "relu"),
        ({"name": "pau", "a": [0.0, 1.0], "b": [0.0] * 4}, "identity"),
        ({"name": "opau", "c": [0.0, 0.5], "d": [0.0] * 4}, "identity"),
        ({"name": "hard_sigmoid", "slope": 1 / 6}, "hard_sigmoid"),
        ("swish", "silu"),
    ],
    ids=str,
)
def test_activation_is_another(first: Any, second: str) -> None:
    torch.testing.assert_close(build(first, 3)(POINTS), build(second, 3)(POINTS), rtol=0, atol=1e-4)


def test_simple_activations_have_their_properties() -> None:
    sigmoid, tanh, relu, x = known("sigmoid"), known("tanh"), known("relu"), POINTS
    torch.testing.assert_close(sigmoid(-x), 1 - sigmoid(x))
    assert slope(sigmoid, 0.0) == pytest.approx(0.25) and slope(known("softplus"), 0.7) == pytest.approx(expit(0.7))
    torch.testing.assert_close(tanh(-x), -tanh(x))
    torch.testing.assert_close(tanh(x), 2 * sigmoid(2 * x) - 1)
    torch.testing.assert_close(relu(3 * x), 3 * relu(x))
    elish, positive = known("elish"), x[x[:, 0] >= 0]
    torch.testing.assert_close(elish(positive), known("silu")(positive))
    variance, mean = torch.var_mean(known("selu")(normal(100_000, 3) / 2))
    assert abs(mean) < 0.01 and abs(variance - 1) < 0.02
    for name, at, least in (("gelu", -0.7518, -0.169971), ("silu", -1.27846, -0.278465), ("mish", -1.1924, -0.308843)):
        function = known(name)
        assert function(x).min().item() == pytest.approx(least, abs=1e-5) and abs(slope(function, at)) < 1e-4
    rrelu = build("rrelu", 3)
    drawn = rrelu.train()(torch.full((1000, 3), -1.0, dtype=torch.float64))
    assert drawn.min() >= -1 / 3 and drawn.max() <= -1 / 8 and drawn.std() > 0.05


def test_acon_c_has_its_slopes() -> None:
    p1, p2 = 1.3, -0.4
    function = known("acon_c", p1=p1, p2=p2)
    assert slope(function, 60.0) == pytest.approx(p1) and slope(function, -60.0) == pytest.approx(p2)
    slopes = [slope(function, at) for at in np.linspace(-6, 6, 601)]
    assert max(slopes) == pytest.approx(1.0998 * p1 - 0.0998 * p2, abs=1e-3)
    assert build("acon_c", 5_000).p1.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("name", "error"), [
    ("pau", 0.0337), ({"name": "pau", "denominator": "terms"}, 0.0299), ("opau", 0.0696),
])  # fmt: skip
def test_rational_functions_start_near_leaky_relu(name: Any, error: float) -> None:
    inside = POINTS[POINTS[:, 0].abs() <= 3]
    assert (build(name, 3)(inside) - known("leaky_relu")(inside)).abs().max() <= error
    layer: Any = perturb(build(name))
    with torch.no_grad():
        layer.a.copy_(torch.tensor([1.0, 0, 0, 0, 0, 0]))
    assert layer(POINTS).max() <= 1, "the denominator is at least 1"


def test_sau_is_leaky_relu_smoothed_by_a_gaussian() -> None:
    grid, function = np.linspace(-30, 30, 60_001), known("sau", width=1.0)
    for x in (-3.0, -0.5, 0.0, 0.2, 2.5):
        shifted = x - grid
        smoothed = np.where(shifted > 0, shifted, 0.15 * shifted) * np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
        got = function(torch.full((1, 3), x, dtype=torch.float64))[0, 0].item()
        assert got == pytest.approx(np.trapezoid(smoothed, grid) if hasattr(np, "trapezoid") else smoothed.sum() * 1e-3)


def test_maxout_of_one_map_and_zero_is_relu_and_any_is_convex() -> None:
    weight = torch.cat([torch.eye(8), torch.zeros(8, 8)])[:, :, None, None]
    torch.testing.assert_close(filled(build("maxout", 8), maps_weight=weight)(MAPS), MAPS.relu())
    layer, other = perturb(build("maxout", 8)), normal(2, 8, 3, 4, seed=1)
    assert (layer((MAPS + other) / 2) <= (layer(MAPS) + layer(other)) / 2 + 1e-12).all()
    assert build("maxout", 64)(normal(50, 64)).square().mean().item() == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("name", ["dynamic_relu_a", "dynamic_relu_b", "dynamic_relu_c", "dynamic_shift_max"])
def test_dynamic_activations_start_as_relu(name: str) -> None:
    layer = build(name, 8)
    if name == "dynamic_relu_c":
        filled(layer, attention_weight=0.0)
    expected = MAPS.relu() / (3 if name == "dynamic_relu_c" else 1)
    torch.testing.assert_close(layer(MAPS), expected, rtol=0, atol=1e-12)
    layer = filled(layer, shifts_second_weight=0.4)
    alone = layer(MAPS[:1])
    torch.testing.assert_close(layer(MAPS)[:1], alone, msg="images of a batch do not mix")
    assert not torch.allclose(alone, expected[:1])


def test_frelu_without_its_norm_is_relu_and_meta_acon_with_constant_b_is_acon_c() -> None:
    torch.testing.assert_close(filled(build("frelu", 8), norm_weight=0.0)(MAPS), MAPS.relu())
    meta = filled(build({"name": "meta_acon", "p1": 1.2, "p2": -0.8}, 8), norm2_weight=0.0, norm2_bias=0.3)
    acon = build({"name": "acon_c", "p1": 1.2, "p2": -0.8, "beta": expit(0.3)}, 8)
    torch.testing.assert_close(meta(MAPS), acon(MAPS), rtol=0, atol=1e-6)


# -- the two phases of PWLU


def test_pwlu_measures_then_learns() -> None:
    layer: Any = build({"name": "pwlu", "statistics_steps": 3}, 2)
    mean, deviation = 0.0, 1.0
    for step in range(5):
        x = normal(4, 2, 3, 3, seed=step) + step
        out = layer(x)
        out.sum().backward()
        learns = step >= 3
        assert all(bool(p.grad.any()) == learns for p in layer.parameters())
        if learns:
            ends = torch.tensor([mean - 3 * deviation, mean + 3 * deviation], dtype=torch.float64)
            knots = torch.linspace(*ends.tolist(), 17, dtype=torch.float64)
            torch.testing.assert_close(layer.eval()(knots[:, None].expand(-1, 2))[:, 0], knots.relu())
            layer.train()
        else:
            torch.testing.assert_close(out, x.relu())
            mean, deviation = 0.9 * mean + 0.1 * x.mean().item(), 0.9 * deviation + 0.1 * x.std(correction=0).item()
        layer.steps.add_(1)  # as who trains does
    assert layer.mean.item() == pytest.approx(mean)

    per_channel: Any = build({"name": "pwlu", "per": "channel"}, 2)
    x = normal(4, 2, 3, 3) * torch.tensor([1.0, 5.0])[:, None, None]
    per_channel(x)
    torch.testing.assert_close(per_channel.deviation, 0.9 + 0.1 * x.std((0, 2, 3), correction=0))


def test_pwlu_is_continuous_and_can_be_the_identity() -> None:
    layer: Any = perturb(build({"name": "pwlu", "pieces": 4})).eval()
    left, width, values, _ = layer.shape()
    knots = (left + width * torch.linspace(0, 1, 5)).flatten().detach().double()
    around = (knots[:, None] + torch.tensor([-1e-9, 0, 1e-9]))[:, :, None].expand(-1, -1, 6).flatten(0, 1)
    torch.testing.assert_close(layer(around)[:, 0], values[0].repeat_interleave(3), rtol=0, atol=1e-7)
    with torch.no_grad():  # values are shifts from those of ReLU at the knots
        start = (layer.mean - 3 * layer.deviation) + 6 * layer.deviation * torch.linspace(0, 1, 5)
        layer.ends.zero_(), layer.slopes.fill_(1), layer.values.copy_(start - start.relu())
    torch.testing.assert_close(layer(POINTS.repeat(1, 2)), POINTS.repeat(1, 2))
    with torch.no_grad():
        layer.ends.copy_(torch.tensor([1e3, -1e3]))
    assert layer(POINTS.repeat(1, 2)).isfinite().all(), "ends do not cross"
    assert layer(torch.full((1, 6), math.nan, dtype=torch.float64)).isnan().all()


def test_pwlu_refuses_odd_pieces() -> None:
    with pytest.raises(ValueError, match="`pieces` must be even, not 5"):
        Activation.parse({"name": "pwlu", "pieces": 5})


# -- in networks


@pytest.mark.parametrize("network", only(["lenet5_modern"], ["lenet5_modern", "resnet20"]))
@pytest.mark.parametrize("name", LEARNED)
def test_network_learns_with_any_activation(network: str, name: str) -> None:
    torch.manual_seed(0)
    value = {"name": name, "statistics_steps": 0} if name == "pwlu" else name
    model: Any = Model.parse({"name": network, "activation": value})
    model = model.make(ImageShape(3, 16, 16), Logits(4)).to(memory_format=torch.channels_last)
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 4
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.001), []
    for _ in range(4):
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    if network == "lenet5_modern":
        assert model.train()(images[:1]).isfinite().all(), "a batch of one has no variance"
        torch.testing.assert_close(copy.deepcopy(model.eval())(images), model(images))
    moved = model.to("meta")(images.to("meta"))  # a transfer to the host would fail
    assert moved.shape == (8, 4)


def test_mlp_refuses_what_needs_maps_and_vectors_get_relu_for_frelu() -> None:
    needing = [name for name in Activation.all_names() if Activation.lookup(name).needs_maps]  # type: ignore[union-attr]
    assert len(needing) == 6
    for name in needing:
        with pytest.raises(ConfigError, match=f"`{name}` looks at whole maps, and an `mlp` has none"):
            Experiment.parse(f"data: digits\nmodel: {{name: mlp, activation: {name}}}")
    assert isinstance(choice("frelu").build_for_vectors(8), nn.ReLU)
    model: Any = Model.parse({"name": "alexnet", "activation": "meta_acon"})
    with torch.device("meta"):
        network = model.make(ImageShape(3, 64, 64), Logits(4))
    assert sum(type(module).__name__ == "OnVectors" for module in network) == 2


def test_learned_parameters_do_not_decay_but_weights_of_layers_within_do() -> None:
    words, decaying = ["bias", "norm", "activation"], {}
    for name in LEARNED:
        layer = build(name)
        spared = exempt(layer, words)
        for key, parameter in layer.named_parameters():
            assert (key in spared) == (parameter.ndim == 1), f"{name}: Muon takes the others for matrices"
            if key not in spared:
                decaying.setdefault(name, []).append(key)
    dynamic = ["shifts.first.weight", "shifts.second.weight"]
    assert decaying == {
        "maxout": ["maps.weight"], "meta_acon": ["first.weight", "second.weight"], "dynamic_relu_a": dynamic,
        "dynamic_relu_b": dynamic, "dynamic_relu_c": [*dynamic, "attention.weight"], "dynamic_shift_max": dynamic,
        "frelu": ["convolution.weight"],
    }  # fmt: skip


@pytest.mark.parametrize("value", ["elish", "apl", "acon_c", "opau", "smu1", "pwlu", "meta_acon", "dynamic_relu_c"])
def test_activation_compiles_whole(value: Any) -> None:
    layer = build(value)
    compiled = torch.compile(copy.deepcopy(layer), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(normal(3, 6, 4, 4)), layer(normal(3, 6, 4, 4)))
