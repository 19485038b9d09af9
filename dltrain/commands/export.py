"""`export`: a run -> one file with its preprocessing, that answers as the run does, and export.json with the proof.

The file is made in memory, put to the test on the validation split, and only then written: whole, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dltrain.commands.calibrating import use_calibration
from dltrain.commands.evaluate import find_checkpoint, require_alike, with_data
from dltrain.commands.export_bits import LOSS, Bits, in_fewer_bits
from dltrain.commands.resuming import where_it_lies_now
from dltrain.config import ConfigError
from dltrain.console.display import Display
from dltrain.console.streams import print_result
from dltrain.data.evaluation import Views
from dltrain.data.tables.encoding import Encoding
from dltrain.data.types import Canvas, ImageShape, Source, Splits, require_images
from dltrain.engine.predictor import Predictor, restore_predictor
from dltrain.errors import DltrainError, RequestError
from dltrain.experiment.experiment import Experiment
from dltrain.export.about import About, Inputs
from dltrain.export.checking import TOLERANCE, Comparison, compare
from dltrain.export.formats import Format
from dltrain.export.graph import in_float32
from dltrain.export.onnx_file import Onnx
from dltrain.export.program import Program
from dltrain.export.weights import Weights
from dltrain.runs.checkpoints import write_together
from dltrain.runs.run import Run, unwritable

REPORT = "export.json"
FORMATS: dict[str, type[Format]] = {"onnx": Onnx, "pt2": Program, "safetensors": Weights}


class UnlikeError(DltrainError):
    """The file does not answer as its run does."""


def export_run(
    path: str, form: str, output: Path | None, which: str, display: Display, *, overrides: Sequence[str] = (),
    views: Views | None = None, share: float | None = None, tolerance: float | None = None, opset: int | None = None,
    int8: bool = False, precisions: bool = False, as_json: bool = False, calibrated: bool = True,
) -> Path:  # fmt: skip
    """Write the run or checkpoint at `path` as a file of a format, by default into the run; the file's path.

    overrides: of `data` alone, for data that has moved. int8: in 8 bits. precisions: measure all of them. tolerance: by
    how much answers may differ, with int8 what may be lost; None: TOLERANCE, or LOSS.
    calibrated: whether a temperature that is kept beside the checkpoint goes into the file.
    Raises RequestError and RunError for a wrong request, ConfigError for a network that cannot be exported, UnlikeError
    when the file does not answer as the run does, or loses too much. Then nothing was written.
    """
    written = FORMATS[form](opset)
    if (int8 or precisions) and form != "onnx":
        raise RequestError(f"--{'int8' if int8 else 'precisions'} is of ONNX, and the format is {form}")
    if opset is not None and form != "onnx":
        raise RequestError(f"--opset is of ONNX, and the format is {form}")
    written.require()
    run, given = Run.open(path)
    target = output or run.path / "export" / ("int8" if int8 else "") / f"model{written.suffix}"
    _require_place(target, written)
    file, state = find_checkpoint(run, given, which)
    evaluating = restore_predictor(state, "cpu", file)
    evaluating.look(views, share)
    if calibrated:
        for remark in use_calibration(evaluating, file):
            display.line(remark)
    predictor = in_float32(evaluating)
    about, graph = state["about"], written.graph(predictor)
    splits = _splits(with_data(where_it_lies_now(run, predictor.experiment), overrides), predictor, about)
    source, split = _examples(splits)
    told = about_of(predictor, graph.names, state, file)
    display.waiting(f"writing {written.suffix} of `{predictor.experiment.model.name}`")
    content = written.content(predictor, graph, told)
    display.waiting(f"comparing {len(source):,} {source.words} of the {split} split")
    found = compare(predictor, written.runner(content, predictor, told), source, evaluating)
    alike = TOLERANCE if tolerance is None or int8 else tolerance
    if not found.passes(alike):
        display.stop()
        raise UnlikeError(f"{found.told(alike)}; nothing was written")
    lost, bits = LOSS if tolerance is None or not int8 else tolerance, None
    if int8 or precisions:
        bits = in_fewer_bits(
            written, content, predictor, told, splits.train, source, display, every=precisions, needed=int8
        )
    if int8 and bits is not None:
        content, found = _accepted(bits, content, lost, (predictor, evaluating), source, written.suffix, display)
    display.stop()
    precision = about["decisions"]["precision"]["value"]
    result = {
        "file": target.name, "format": form, **({} if written.opset is None else {"opset": written.opset}),
        "run": str(run.path), "checkpoint": file.name, "step": state["step"], "views": told.views,
        **({} if told.calibration is None else {"calibration": told.calibration}),
        "precision": {"run": precision, "file": "int8" if int8 else "float32"}, "split": split,
        "tolerance": lost if int8 else alike,
    }  # fmt: skip
    result |= found.to_dict() | ({} if bits is None else bits.to_dict(lost))
    result["bytes"] = {"checkpoint": file.stat().st_size, "file": len(content[written.suffix])}
    write_files(target, content, written.suffix, result)
    for note in written.notes(content):
        display.note(note)
    lines = [str(target), _table(result, found)]
    if bits is not None:
        lines += [text for text in (bits.verdict(lost), bits.table(predictor) if precisions else "") if text]
    print_result(json.dumps({**result, "path": str(target)}) if as_json else "\n".join(lines))
    return target


def _accepted(
    bits: Bits, content: dict[str, bytes], tolerance: float, run: tuple[Predictor, Predictor], source: Source,
    suffix: str, display: Display,
) -> tuple[dict[str, bytes], Comparison]:  # fmt: skip
    """The file in int8 in place of the other, and how it compares with the run, in float32 and as `eval` computes.
    Raises UnlikeError where it may lose more than the tolerance."""
    assert bits.loss is not None and bits.made is not None and bits.runner is not None
    if not bits.loss.within(tolerance):
        display.stop()
        more = "" if bits.loss.value > tolerance else "; more validation examples could tell, or a larger --tolerance"
        raise UnlikeError(f"{bits.verdict(tolerance)}{more}; nothing was written")
    return {**content, suffix: bits.made.content}, compare(run[0], bits.runner, source, run[1])


def _require_place(target: Path, written: Format) -> None:
    if target.suffix != written.suffix:
        raise RequestError(f"the file {target} must end in {written.suffix}")
    if target.is_dir():
        raise RequestError(f"{target} is a folder")


def _splits(experiment: Experiment, predictor: Predictor, about: dict[str, Any]) -> Splits:
    """The data that the run was trained with, or what lies in its place."""
    try:
        splits = experiment.load_data(like=about["fingerprint"])
    except ConfigError as error:
        note = "the file is put to the test on the data; if it has moved: dltrain export RUN data.root=PLACE"
        *others, last = error.diagnostics
        raise ConfigError([*others, replace(last, notes=(*last.notes, note))]) from None
    require_alike(splits.target, predictor.target)
    return splits


def _examples(splits: Splits) -> tuple[Source, str]:
    """The validation split, or that of training where there is none; and its name."""
    if splits.validation is not None:
        return splits.validation, "validation"
    return splits.train, "train"


def about_of(predictor: Predictor, outputs: list[str], state: dict[str, Any], file: Path) -> About:
    """What a file says of itself. outputs: their names. state: of the checkpoint `file`."""
    shape, layout = predictor.preprocessing.shape, predictor.layout
    state_of_task = {name: values.tolist() for name, values in predictor.task.state_dict().items()}
    return About(
        state["about"]["experiment"], predictor.experiment.resolved_task.name, predictor.target.to_dict(),
        _inputs(shape, layout), outputs, state_of_task, state["about"]["fingerprint"], file.name, state["step"],
        predictor.evaluation.views, _version(),
        None if predictor.calibration is None else predictor.calibration.to_dict(),
    )  # fmt: skip


def _inputs(shape: Any, layout: Canvas | Encoding) -> Inputs:
    if isinstance(layout, Encoding):
        return Inputs("rows", features=[_plain(asdict(feature)) for feature in layout.features])
    images: ImageShape = require_images(shape, "an exported file")
    sizes = images.channels, layout.height, layout.width
    return Inputs("images", *sizes, layout.white, layout.max_pixels)


def _plain(feature: dict[str, Any]) -> dict[str, Any]:
    known = feature["categories"]
    return {**feature, "categories": None if known is None else list(known)}


def _version() -> str:
    try:
        return version("dltrain")
    except PackageNotFoundError:
        return "unknown"


def write_files(target: Path, content: dict[str, bytes], suffix: str, result: dict[str, Any]) -> None:
    """The file, whose content has the name `suffix`, comes last: where it lies, all that belongs to it does.

    Raises RunError when it cannot be written.
    """
    others = {name: data for name, data in content.items() if name != suffix}
    others[REPORT] = (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        written = {target.parent / name: [data] for name, data in others.items()}
        write_together({**written, target: [content[suffix]]})
    except OSError as error:
        raise unwritable(error, target.parent) from None


def _table(result: dict[str, Any], found: Comparison) -> str:
    """What was found, for a terminal."""
    same = "" if found.agreement is None else f"the same answer on {found.agreement:.2%}, "
    lines = [f"{result['split']}, {found.examples:,} examples: {same}answers differ by {found.largest:.2g} at most"]
    if found.agreement is not None and found.as_eval < found.examples:
        lines.append(
            f"as `eval` reads and computes, the run has the same answer on {found.as_eval / found.examples:.2%}"
        )
    if "calibration" in result:
        lines.append(f"{'temperature':<18}{result['calibration']['temperature']:.4f}")
    run, file = (result["metrics"][name] for name in ("run", "file"))
    for name, value in run.items():
        if not isinstance(value, list):
            low, high = run.get(f"{name}_interval", (None, None))
            interval = "" if low is None else f"  (95 %: {low:.4f} to {high:.4f})"
            lines.append(f"{name:<18}run {value:.4f}, file {file[name]:.4f}{interval}")
    times, sizes = result["latency_ms"], result["bytes"]
    lines.append(f"{'ms, one at a time':<18}run {times['run']:.2f}, file {times['file']:.2f}")
    lines.append(f"{'MB':<18}checkpoint {sizes['checkpoint'] / 1e6:.2f}, file {sizes['file'] / 1e6:.2f}")
    return "\n".join(lines)
