"""Exchanging the parts of a finished network: the network and an experiment's parts flow in, it changes in place.

Nothing is changed in silence: what a part cannot do raises ConfigError with the reason, and `Adaptation` counts the
rest. Modules are found by identity, since wrapping one renames those in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

import torch
from torch import nn

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.types import InputSpec
from dltrain.layers.activations import Activation
from dltrain.layers.attention import Attention
from dltrain.layers.dropout import DropBlock
from dltrain.layers.impl import sites
from dltrain.layers.impl.modules import Followed, Multiplied, Preceded
from dltrain.layers.impl.probe import Probe, native_probe, probe
from dltrain.layers.impl.residual_starts import Scalar
from dltrain.layers.norms import Norm
from dltrain.layers.weight_norms import RewritingNorm
from dltrain.models.impl.adaptation_report import Adaptation, Change

Place = tuple[nn.Module, str]
"""Where a module stands: in which module, and by which name."""


class Adapter:
    """Changes one network, made for inputs of `shape`; `label` is its name in messages."""

    def __init__(self, label: str, network: nn.Module, shape: InputSpec) -> None:
        self.label, self.network, self.shape = label, network, shape
        self.report = Adaptation()
        self._replaced: dict[nn.Module, nn.Module] = {}

    def finish(self) -> nn.Module:
        """The changed network, with the report as its `adaptation`."""
        self.network.adaptation = self.report  # type: ignore[assignment]
        return self.network

    @cached_property
    def probe(self) -> Probe:
        """What the network did before it was changed, at the size that it was made for where it takes that."""
        return native_probe(self.network, self.shape)

    @cached_property
    def _places(self) -> dict[nn.Module, list[Place]]:
        found: dict[nn.Module, list[Place]] = {}
        _add_places(self.network, found)
        return found

    def activation(self, activation: Activation | None) -> None:
        """Exchange the activations, but not those that gates need, and none on the logits."""
        if activation is None:
            return
        names, kept = sites.activations(self.probe)
        outside = sites.gated(self.probe)
        functional = [name for name in self.probe.functional if name not in outside and not self._is_activation(name)]
        if functional:
            where = f"in {functional[0] or 'its forward'}{' and elsewhere' if len(functional) > 1 else ''}"
            raise self._cannot("activation", f"the network calls functions {where}, and no modules to exchange")
        if not names:
            raise self._cannot("activation", "it has no activation to exchange")
        learned, relu = _depends_on_channels(activation), 0
        for name in names:
            shapes = {call.shape for call in self.probe.calls[name]}
            vectors = all(len(shape) == 2 for shape in shapes)
            if learned or (activation.needs_maps and not vectors):
                self._check_channels(name, shapes, activation)
            channels = next(iter(shapes))[1]
            new = activation.build_for_vectors(channels) if vectors else activation.build(channels)
            relu += activation.needs_maps and isinstance(new, nn.ReLU)
            self._exchange(name, new)
        for (
            module
        ) in self.network.modules():  # what follows may not overwrite what an activation keeps for its gradient
            if hasattr(module, "inplace"):
                module.inplace = False  # type: ignore[assignment]
        notes = [f"{len(kept)} inside gates are as published"] if kept else []
        notes += [f"{relu} of them, on vectors, are relu"] if relu else []
        self._changed("activation", activation.name, names, notes)

    def norm(self, norm: Norm | None) -> None:
        """Exchange the norms of maps, outside gates; gains and offsets are copied where both have them."""
        if norm is None:
            return
        names = sites.norms(self.probe)
        if not names and not isinstance(norm, RewritingNorm):
            raise self._cannot("norm", "it has no norm of maps to exchange")
        if norm.least_pixels > 1:
            self._check_maps(names, norm)
        for name in names:
            old = self._current(name)
            new = norm.build(self.probe.calls[name][0].shape[1])
            _copy_affine(old, new)
            self._exchange(name, _with_what_follows(old, new))
        if isinstance(norm, RewritingNorm):
            self._changed("norm", norm.name, self._rewrite(norm), [f"{len(names)} norms left out"])
        else:
            self._changed("norm", norm.name, names)

    def scalars(self) -> None:
        """Put learned scalars in the place of the norms, and before each layer, as Fixup has them."""
        norms, layers = sites.norms(self.probe), sites.weighted(self.probe)
        ends = set()
        for block in sites.blocks(self.probe):
            if (norm := sites.last_norm(self.probe, block)) is not None:
                ends.add(norm)
            elif (end := sites.branch_end(self.probe, block)) is not None:
                self._exchange(end, Followed(self._current(end), Scalar(scales=True)))
        for name in norms:
            old = self._current(name)
            self._exchange(name, _with_what_follows(old, Scalar(scales=name in ends)))
        for name in layers:
            self._exchange(name, Preceded(Scalar(), self._current(name)))
        self._changed("initialization", "fixup", norms, [f"an offset before each of {len(layers)} layers"])

    def built_with(self, activation: Activation | None, norm: Norm | None) -> None:
        """Report the parts that a network was built with; a norm that works on the layers rewrites them now."""
        for key, part in (("activation", activation), ("norm", norm)):
            if part is None:
                continue
            kind = type(part.build(8))
            names = [name for name, module in self.network.named_modules() if type(module) is kind]
            if isinstance(part, RewritingNorm):
                names = self._rewrite(part)
            self._changed(key, part.name, names)

    def attention(self, attention: Attention | None) -> None:
        """Add a gate at the end of each residual branch, or before or after each block, or before each pool."""
        if attention is None:
            return
        blocks, places = sites.blocks(self.probe), []
        for block in blocks:
            end = sites.branch_end(self.probe, block) if attention.position == "branch" else None
            places.append(place := end or block)
            call = self.probe.calls[place][0]
            pre = attention.position == "pre"
            if pre and call.listed:
                raise self._cannot("attention", "its blocks take lists of maps: set `position: post`")
            gate = attention.build((call.inputs if pre else call.output).shape[1])
            module = self._current(place)
            self._exchange(place, Preceded(gate, module) if pre else Followed(module, gate))
        if not blocks:
            if attention.position != "branch":
                raise self._cannot("attention", "it has no blocks to put one before or after: leave out `position`")
            places = sites.pools(self.probe)
            for place in places:
                gate = attention.build(self.probe.calls[place][0].shape[1])
                self._exchange(place, Preceded(gate, self._current(place)))
        if not places:
            raise self._cannot("attention", "it has neither blocks with convolutions nor pools")
        branches = sum(place not in blocks for place in places) if blocks else 0
        notes = [f"{branches} of them on a residual branch"] if branches else []
        self._changed("attention", attention.name, places, notes)

    def drop_path(self, rate: float | None) -> None:
        """Skip residual branches at random, per example, at a probability that grows to `rate` at the last."""
        if rate is None:
            return
        if own := [name for name, module in self.probe.modules.items() if _drop_path_rate(module) > 0]:
            self._changed("drop_path", f"up to {rate:g}", own)
            return
        ends = [end for block in sites.blocks(self.probe) if (end := sites.branch_end(self.probe, block))]
        if not ends:
            raise self._cannot("drop_path", "it has no residual branches to skip")
        from torchvision.ops import StochasticDepth  # late: it takes a second and a half

        for index, end in enumerate(ends):
            skip = StochasticDepth(rate * (index + 1) / len(ends), "row")
            self._exchange(end, Followed(self._current(end), skip))
        self._changed("drop_path", f"up to {rate:g}", ends)

    def after_blocks(self, drop_block: DropBlock | None, spatial_dropout: float | None) -> None:
        """Zero squares, or whole maps, after each block; in a network without blocks before each pool."""
        if drop_block is not None:
            what = f"{drop_block.rate:g} in squares of {drop_block.size}"
            self._after_blocks("drop_block", what, drop_block.build)
        if spatial_dropout is not None:
            self._after_blocks("spatial_dropout", f"{spatial_dropout:g}", lambda: nn.Dropout2d(spatial_dropout))

    def drop_connect(self, rate: float | None) -> None:
        """Zero weights of the linear layers."""
        from dltrain.layers.impl.dropout import DropConnectLinear

        if rate is None:
            return
        names = [name for name in sites.weighted(self.probe) if type(self.probe.modules[name]) is nn.Linear]
        if not names:
            raise self._cannot("drop_connect", "it has no linear layer")
        for name in names:
            layer = self._current(name)
            assert isinstance(layer, nn.Linear)
            self._exchange(name, DropConnectLinear.of(layer, rate))
        self._changed("drop_connect", f"{rate:g}", names)

    def dropout(self, rate: float | None) -> None:
        """Dropout before the last linear layer, in a network that has none of its own."""
        if not rate or any(getattr(module, "p", None) == rate for module in self.network.modules()):
            return
        if any(getattr(module, "drop_rate", None) == rate for module in self.network.modules()):
            return
        last = sites.weighted(self.probe)[-1]
        if not isinstance(self.probe.modules[last], nn.Linear):
            raise self._cannot("dropout", "it ends in no linear layer, and has no dropout of its own")
        self._exchange(last, Preceded(nn.Dropout(rate), self._current(last)))
        self._changed("dropout", f"{rate:g}", [last])

    def head_scale(self, factor: float | None) -> None:
        """A factor after the layer that makes the logits."""
        if factor is None:
            return
        last = sites.weighted(self.probe)[-1]
        self._exchange(last, Followed(self._current(last), Multiplied(factor)))
        self._changed("head_scale", f"{factor:g}", [last])

    def _is_activation(self, name: str) -> bool:
        return sites.is_activation(self.probe.modules[name])

    def _after_blocks(self, key: str, what: str, build: Callable[[], nn.Module]) -> None:
        blocks = sites.blocks(self.probe)
        for place in (places := blocks or sites.pools(self.probe)):
            module = self._current(place)
            self._exchange(place, Followed(module, build()) if blocks else Preceded(build(), module))
        if not places:
            raise self._cannot(key, "it has neither blocks with convolutions nor pools")
        self._changed(key, what, places)

    def _rewrite(self, norm: RewritingNorm) -> list[str]:
        """Rewrite the convolutions and hidden linear layers outside gates. Returns their names."""
        inside = sites.gated(self.probe)
        names = [name for name in sites.weighted(self.probe)[:-1] if name not in inside]
        for name in names:
            try:
                self._exchange(name, norm.rewrite(self._current(name)))
            except ValueError as error:
                raise self._cannot("norm", f"{error} ({name})") from error
        return names

    def _current(self, name: str) -> nn.Module:
        """What stands by now for the module that had this name before the changes, with all that wraps it."""
        module = self.probe.modules[name]
        while module in self._replaced:
            module = self._replaced[module]
        return module

    def _exchange(self, name: str, new: nn.Module) -> None:
        """Put `new` wherever the network has what stands for `name`."""
        old = self._current(name)
        places, self._places[old] = self._places.get(old, []), []
        for parent, key in places:
            parent._modules[key] = new
        if new not in self._places:
            _add_places(new, self._places)
        self._places.setdefault(new, []).extend(places)
        self._replaced[old] = new

    def _check_channels(self, name: str, shapes: Iterable[tuple[int, ...]], activation: Activation) -> None:
        """Raise unless a learned activation at `name` sees one number of channels, in dimension 1."""
        if len(widths := {shape[1] for shape in shapes}) > 1:
            numbers = ", ".join(map(str, sorted(widths)))
            reason = f"{name} is called with {numbers} channels, and {activation.name} learns for each channel"
            raise self._cannot("activation", reason)
        call = self.probe.calls[name][0]
        maker = self.probe.producer(call.inputs, "", call.order)
        last = len(call.shape) == 4 and maker is not None and isinstance(self.probe.modules[maker], nn.Linear)
        if last or len(call.shape) not in (2, 4):
            raise self._cannot("activation", f"channels come last at {name}, and {activation.name} has them first")

    def _check_maps(self, names: Iterable[str], norm: Norm) -> None:
        """Raise when, for the experiment's images, maps have fewer pixels than the norm needs."""
        actual = probe(self.network, self.shape)
        for name in names:
            height, width = actual.calls[name][0].shape[2:]
            if height * width < norm.least_pixels:
                note = "use larger images (`data.size`), `stem: small`, or another norm"
                raise self._cannot("norm", f"{norm.name} cannot normalise maps of {height}x{width} ({name})", note)

    def _changed(self, key: str, what: str, places: Iterable[str], notes: Iterable[str] = ()) -> None:
        self.report.changes.append(Change(key, what, tuple(places), tuple(notes)))

    def _cannot(self, key: str, reason: str, *notes: str) -> ConfigError:
        return ConfigError([Diagnostic(f"model `{self.label}` takes no `{key}`: {reason}", notes=notes, key=key)])


def _add_places(module: nn.Module, found: dict[nn.Module, list[Place]]) -> None:
    """Add the places of all modules in `module` that are not in `found` yet."""
    for key, child in module._modules.items():
        if child is not None:
            known = child in found
            found.setdefault(child, []).append((module, key))
            if not known:
                _add_places(child, found)


def _with_what_follows(old: nn.Module, new: nn.Module) -> nn.Module:
    """`new` in the place of a norm, with the dropout and the activation that timm keeps in the norm."""
    parts = [part for key in ("drop", "act") if isinstance(part := getattr(old, key, None), nn.Module)]
    follows = [part for part in parts if not isinstance(part, nn.Identity)]
    return nn.Sequential(new, *follows) if follows else new


def _drop_path_rate(module: nn.Module) -> float:
    """The rate of a library's own stochastic depth, or 0."""
    if type(module).__name__ == "StochasticDepth":
        return float(module.p)  # type: ignore[arg-type]
    return float(getattr(module, "drop_prob", None) or 0)


def _depends_on_channels(activation: Activation) -> bool:
    """Whether the layer for 8 channels differs in shape from that for 16."""
    few, many = ([value.shape for value in activation.build(channels).state_dict().values()] for channels in (8, 16))
    return few != many


@torch.no_grad()
def _copy_affine(old: nn.Module, new: nn.Module) -> None:
    """Gains and offsets of the same shape keep their values: a zero that a network starts a branch with is meant."""
    for key in ("weight", "bias"):
        values, place = getattr(old, key, None), getattr(new, key, None)
        if isinstance(values, nn.Parameter) and isinstance(place, nn.Parameter) and values.shape == place.shape:
            place.copy_(values)
