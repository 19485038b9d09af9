"""An ONNX file -> the same with weights and activations of 8 bits in the network; what stands around it stays in float.

    content + training examples -> the range of each activation -> a scale for it, and for each channel of weights

onnxruntime's quantisation; no torch.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dltrain.errors import DltrainError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

NETWORK = "network"
"""The name that the network has in the graph, and with which those of its weights begin."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter says of which module a node is."""
WEIGHTED = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Operations with weights, and which of their inputs these are."""
BETWEEN = ("Relu", "Clip", "MaxPool")
"""Operations that need no other scale than what goes in: they are computed in 8 bits where their neighbours are."""
CALIBRATION = 256
"""Training examples by which ranges are found."""
TOGETHER = 16
"""Examples that go through at once there: all activations of them are in memory."""
OWN_MARKS = ("onnx.quant.pre_process", "onnx.infer")
"""What the library notes in a file for itself."""


class UnquantizableError(DltrainError):
    """Nothing of the network can be computed in 8 bits."""


@dataclass(frozen=True)
class Quantized:
    """content: of the file. layers: how many are computed in 8 bits, weights: how many numbers of theirs, of all that
    the network's products have."""

    content: bytes
    layers: int
    weights: int
    of_weights: int


def chosen(targets: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The places of `count` examples, in rising order, or of all where there are no more.

    In the order of their targets (N, ...), equal ones in a random order by the seed, examples at equal distances are
    taken: each class, label set or range of values has the share that it has of all. A function of the arguments alone.
    """
    rows = np.asarray(targets).reshape(len(targets), -1)
    key = np.random.default_rng(seed).permutation(len(rows))
    order = np.lexsort((key, *rows.T[::-1]))
    if len(order) <= count:
        return np.arange(len(order))
    steps = np.floor((np.arange(count) + 0.5) * len(order) / count).astype(np.int64)
    return np.sort(order[steps])


def quantize(content: bytes, examples: Iterable[dict[str, np.ndarray]]) -> Quantized:
    """The file with its products of weights in 8 bits: weights by a scale for each channel, of 7 bits, so that sums
    overflow on no processor; activations by the range that they have over the examples.

    content: of a file that `Onnx` made. examples: its inputs, some at a time.
    Raises UnquantizableError where there is nothing to compute so.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = onnx.load_from_string(content)
    texts = {each.key: each.value for each in model.metadata_props}
    layers, sizes, whole = _layers(model)
    if not layers:
        raise UnquantizableError(
            "nothing of it can be computed in 8 bits: no convolution or linear layer has fixed float32 weights"
        )
    nodes = [*layers, *(node.name for node in model.graph.node if node.op_type in BETWEEN and _is_of_network(node))]
    model.metadata_props.add(key=OWN_MARKS[0], value="onnxruntime.quant")  # torch's exporter has done all of that
    with tempfile.TemporaryDirectory() as folder, _silent():
        file = Path(folder) / "model.onnx"
        try:
            quantize_static(
                model, file, _Reader(examples), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_quantize=nodes,
                op_types_to_quantize=[*WEIGHTED, *BETWEEN], calibrate_method=CalibrationMethod.MinMax,
            )  # fmt: skip
        except DltrainError:  # of a file with an example
            raise
        except Exception as error:  # of a graph that it does not understand, or numbers that are none, it raises many
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UnquantizableError(f"onnxruntime cannot quantise it: {reason}") from error
        made = onnx.load(file)
    _leave_in_float(made.graph, set(nodes))
    for node in made.graph.node:
        del node.metadata_props[:]
    del made.metadata_props[:]
    for key, value in texts.items():
        made.metadata_props.add(key=key, value=value)
    made.producer_name, made.producer_version = "dltrain", model.producer_version
    return Quantized(made.SerializeToString(deterministic=True), len(layers), sum(sizes), whole)


class _Reader:
    """Examples as onnxruntime asks for them."""

    def __init__(self, examples: Iterable[dict[str, np.ndarray]]) -> None:
        self._parts = _parts(examples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._parts, None)


def _parts(examples: Iterable[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    for each in examples:
        for start in range(0, len(next(iter(each.values()))), TOGETHER):
            yield {name: values[start : start + TOGETHER] for name, values in each.items()}


def _layers(model: ModelProto) -> tuple[list[str], list[int], int]:
    """The names of the nodes that multiply by fixed weights, how many weights each has, and how many there are in
    all weights of the network."""
    from onnx import TensorProto

    fixed = {each.name: each for each in model.graph.initializer}
    counts = {name: int(np.prod(each.dims)) for name, each in fixed.items() if each.data_type == TensorProto.FLOAT}
    names, used = list[str](), dict[str, int]()
    for node in model.graph.node:
        place = WEIGHTED.get(node.op_type)
        if place is None or not _is_of_network(node):
            continue
        weight = node.input[place]
        if weight in counts and len(fixed[weight].dims) > 1:
            names.append(node.name)
            used[weight] = counts[weight]
    others = sum(count for name, count in counts.items() if name.startswith(f"{NETWORK}.") and name not in used)
    return names, list(used.values()), sum(used.values()) + others


def _leave_in_float(graph: GraphProto, quantized: set[str]) -> None:
    """Take away the rounding of what linear layers give to operations in float: the answer above all. Processors have
    the sums in 32 bits anyway, and no range is cut. quantized: the names of nodes that compute in 8 bits."""
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    gone = set[str]()
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if maker is None or maker.op_type not in ("Gemm", "MatMul") or maker.name not in quantized:
            continue
        back, before = users[node.output[0]], maker.output[0]
        if len(back) > 1 or any(user.name in quantized for user in users.get(back[0].output[0], [])):
            continue
        after = back[0].output[0]
        maker.output[0] = after
        for user in users[before]:
            user.input[:] = [after if name == before else name for name in user.input]
        gone |= {node.name, back[0].name}
    kept = [node for node in graph.node if node.name not in gone]
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    fixed = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(fixed)


def _is_of_network(node: NodeProto) -> bool:
    """Whether a node stands in the network, and not in the preprocessing or in what the task makes of outputs. Nodes
    that the exporter has merged say nothing of themselves; their weights do."""
    scopes = next((each.value for each in node.metadata_props if each.key == SCOPES), "")
    return f"'{NETWORK}'" in scopes or any(name.startswith(f"{NETWORK}.") for name in node.input)


@contextmanager
def _silent() -> Any:
    """The library warns by the root logger of tensors that it leaves alone."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
