"""A graph -> an ONNX file, in memory: operations from torch's own exporter, words of tables encoded in front of them.

Imports torch.
"""

from __future__ import annotations

import re
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dltrain.config import ConfigError
from dltrain.data.types import ImageShape
from dltrain.engine.predictor import Predictor
from dltrain.errors import RequestError
from dltrain.experiment.experiment import Experiment
from dltrain.export.about import About
from dltrain.export.checking import Runner
from dltrain.export.formats import Format
from dltrain.export.graph import Graph
from dltrain.export.quantized import SCOPES
from dltrain.export.session import SUFFIX, Session

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch.export import ExportedProgram

LOWEST_OPSET, HIGHEST_OPSET, OPSET = 18, 23, 18
"""torch's exporter writes 18; newer ones are what onnxscript converts it to."""
LARGEST = 2**31 - 1
"""Bytes of a protobuf file, and so of an ONNX file in one piece."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")


class Onnx(Format):
    """ONNX, for onnxruntime and all that reads it."""

    suffix = SUFFIX

    def require(self) -> None:
        require_onnx()
        require_opset(OPSET if self.opset is None else self.opset)

    def content(self, predictor: Predictor, graph: Graph, about: About) -> dict[str, bytes]:
        return {self.suffix: onnx_of(predictor, graph, about, OPSET if self.opset is None else self.opset)}

    def runner(self, content: dict[str, bytes], predictor: Predictor, about: About) -> Runner:
        return Session(content[self.suffix], f"model{self.suffix}", torch.get_num_threads()).run


def require_onnx() -> None:
    """Raise RequestError when what ONNX files need is not installed."""
    if absent := [name for name in NEEDED if find_spec(name) is None]:
        raise RequestError(f"ONNX files need {', '.join(absent)}: pip install 'dltrain[export]'")


def require_opset(opset: int) -> None:
    """Raise RequestError for an opset that cannot be written."""
    if not LOWEST_OPSET <= opset <= HIGHEST_OPSET:
        what = "too old" if opset < LOWEST_OPSET else "too new"
        raise RequestError(f"opset {opset} is {what}: files are written with {LOWEST_OPSET} to {HIGHEST_OPSET}")


def program_of(predictor: Predictor, graph: Graph) -> ExportedProgram:
    """The graph as torch.export captures it, for any number of examples, and images of any size.

    Raises ConfigError, which names the key, for a network that cannot be captured.
    """
    free: Any = torch.export.Dim.DYNAMIC
    shape, batch = predictor.preprocessing.shape, torch.export.Dim("batch")
    if isinstance(shape, ImageShape):
        # sizes that are nothing else in the network, so that none is taken for a constant
        inputs: tuple[torch.Tensor, ...] = (
            torch.zeros(2, shape.height + 3, shape.width + 5, shape.channels, dtype=torch.uint8),
        )
        dynamic: Any = ({0: batch, 1: free, 2: free},)
    else:
        features = predictor.preprocessing.evaluation.features
        words = sum(feature.categories is not None for feature in features)
        numbers = torch.zeros(2, len(features) - words, dtype=torch.float64)
        codes = torch.zeros(2, words, dtype=torch.int64)
        inputs = tuple(each for each in (numbers, codes) if each.shape[1])
        dynamic = (tuple({0: batch} for _ in inputs),)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(graph, inputs, dynamic_shapes=dynamic, strict=False)
        except Exception as error:  # of operations without a form for shapes, torch raises many kinds
            raise _refused(predictor.experiment, "torch.export", error, None) from error


def onnx_of(predictor: Predictor, graph: Graph, about: About, opset: int = OPSET) -> bytes:
    """The content of the ONNX file. Raises ConfigError, which names the operation, the layer and the key, for what has
    no form there, RequestError for a network too large for one file."""
    program = program_of(predictor, graph)
    is_image = isinstance(predictor.preprocessing.shape, ImageShape)
    inputs = about.inputs
    own = ["images"] if is_image else [name for name in ("numbers", "categories") if getattr(inputs, name)]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            written = torch.onnx.export(
                program, (), dynamo=True, verbose=False, input_names=own, output_names=about.outputs,
                opset_version=opset, external_data=False,
            )  # fmt: skip
        except Exception as error:  # the exporter wraps whatever was raised
            raise _refused(predictor.experiment, "ONNX", error, program) from error
    assert written is not None
    model = written.model_proto
    if "categories" in own:
        _with_words(model, [each["categories"] for each in inputs.features if each["categories"] is not None])
    model.producer_name, model.producer_version = "dltrain", about.version
    _require_opset_of(model, opset)
    for node in model.graph.node:  # the exporter adds where in our files each was written
        kept = [each for each in node.metadata_props if each.key == SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    for name, text in about.to_texts().items():
        model.metadata_props.add(key=name, value=text)
    _name_dimensions(model, is_image)
    if model.ByteSize() > LARGEST:
        raise RequestError(f"the network takes {model.ByteSize():,} bytes, and an ONNX file holds {LARGEST:,} at most")
    return bytes(model.SerializeToString())


def _require_opset_of(model: ModelProto, opset: int) -> None:
    found = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if found != opset:
        raise RequestError(f"opset {opset} cannot express this network: only {found} can; leave --opset out")


def _name_dimensions(model: ModelProto, is_image: bool) -> None:
    """The free dimensions by what they are, in place of the exporter's symbols."""
    names: dict[str, str] = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        free = ("batch", "height", "width") if is_image else ("batch",)
        names |= {dim.dim_param: name for dim, name in zip(dims, free, strict=False) if dim.dim_param}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def _with_words(model: ModelProto, categories: list[list[str]]) -> None:
    """Put in front of the graph what turns words (N, K) into the places that they have among their `categories`."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    place = next(number for number, value in enumerate(graph.input) if value.name == "categories")
    batch = graph.input[place].type.tensor_type.shape.dim[0].dim_param or "batch"
    codes = "codes"
    for node in graph.node:
        for number, name in enumerate(node.input):
            if name == "categories":
                node.input[number] = codes
    words = helper.make_tensor_value_info("categories", TensorProto.STRING, [batch, len(categories)])
    graph.input[place].CopyFrom(words)
    nodes, parts = [], []
    for number, known in enumerate(categories):
        column, code = f"words_{number}", f"code_{number}"
        graph.initializer.append(numpy_helper.from_array(np.array([number], np.int64), f"column_{number}"))
        nodes.append(helper.make_node("Gather", ["categories", f"column_{number}"], [column], axis=1))
        nodes.append(helper.make_node(
            "LabelEncoder", [column], [code], domain="ai.onnx.ml", keys_strings=known,
            values_int64s=list(range(len(known))), default_int64=-1,
        ))  # fmt: skip
        parts.append(code)
    nodes.append(helper.make_node("Concat", parts, [codes], axis=1))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    if not any(each.domain == "ai.onnx.ml" for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))


def _refused(experiment: Experiment, into: str, error: Exception, program: ExportedProgram | None) -> ConfigError:
    """What to say of a network that cannot be exported: which operation, which layer, which key."""
    text = " ".join(str(each) for each in _causes(error))
    operation = re.search(
        r"op='([\w.:]+)'|(?:operator|op:?|target=torch\.ops\.)\s*`?((?:aten|torchvision)[.:]+\w+)", text
    )
    name = (operation[1] or operation[2]).replace("::", ".") if operation else None
    layer = _layer(program, name) if program is not None and name else ""
    reason = _reason(error)
    what = f"its operation `{name}`{layer} has no form there" if name else reason
    message = f"model `{experiment.model.name}` cannot be exported to {into}: {what}"
    notes = [reason] if name and reason else []
    parts = [key for key in ("activation", "norm", "attention") if getattr(experiment.model, key, None) is not None]
    if parts:
        notes.append(f"another {' or '.join(f'`model.{key}`' for key in parts)} may do without it")
    return experiment.error("model", message, *notes)


def _causes(error: BaseException) -> list[BaseException]:
    """An error, and those that it was raised from."""
    found: list[BaseException] = []
    here: BaseException | None = error
    while here is not None and here not in found:
        found.append(here)
        here = here.__cause__ or here.__context__
    return found


def _reason(error: BaseException) -> str:
    """The first words of what the deepest error says."""
    lines = [line.strip() for line in str(_causes(error)[-1]).splitlines() if line.strip()]
    if lines and lines[0].startswith("Constraints violated (batch)"):
        return "it takes only as many examples at once as it was captured with"
    return (lines[0] if lines else type(error).__name__)[:200]


def _layer(program: ExportedProgram, operation: str) -> str:
    """Where in the network an operation stands, as words; empty where that is not known."""
    nodes = [*program.graph.nodes, *program.run_decompositions().graph.nodes]  # as written, and as it was exported
    for node in nodes:
        if operation in str(node.target):
            stack = list(node.meta.get("nn_module_stack", {}).values())
            if stack:
                path, kind = stack[-1]
                kind = kind if isinstance(kind, str) else kind.__name__
                return f" in layer `{path.removeprefix('network.')}` ({kind.rpartition('.')[2]})"
    return ""
