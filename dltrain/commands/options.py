"""Arguments and options that several commands share."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import typer

from dltrain.commands import completing


def path_text(text: str) -> str:
    """A path of the command line with `~` and `$NAME` replaced, where the shell has not done it: `--runs=~/runs`."""
    from dltrain.config.paths import expanded

    try:
        return expanded(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def path_of(text: str) -> Path:
    """The same as a Path."""
    return Path(path_text(str(text)))


def share_of(text: str, option: str) -> Fraction:
    """A share between 0 and 1, both excluded, exactly as it is written."""
    try:
        found = Fraction(text)
    except (ValueError, ZeroDivisionError):
        found = Fraction(0)
    if not 0 < found < 1:
        raise typer.BadParameter(f"{text!r} is no number between 0 and 1", param_hint=option)
    return found


def is_exported(path: str) -> bool:
    """Whether a path names a file that other programs run, and no run."""
    return path.endswith(".onnx")


ExperimentFile = Annotated[
    Path,
    typer.Argument(
        metavar="EXPERIMENT", parser=path_of, autocompletion=completing.experiments, help="The experiment's YAML file."
    ),
]
ImagePaths = Annotated[
    list[Path], typer.Argument(metavar="PATH...", parser=path_of, help="Image files or folders of them.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", autocompletion=completing.overrides, help="Settings that replace the file's."
    ),
]
RunsFolder = Annotated[
    Path, typer.Option("--runs", metavar="DIR", parser=path_of, help="Where run directories are made.")
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 or mps.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", parser=path_of, help="A Python file that adds parts by subclassing."),
]
Devices = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Train on N devices of this machine, a process each: GPUs, or "
                             "CPU processes with --device cpu. Each takes an equal part of every batch.")
]  # fmt: skip
MaxRestarts = Annotated[
    int, typer.Option(min=0, metavar="N", help="With --devices: when a process is lost, go on from the last "
                      "checkpoint, up to N times.")
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ViewsName = Annotated[
    Literal["center_crop", "flip", "flip_shift", "five_crop", "ten_crop"] | None,
    typer.Option(help="Views of each image whose probabilities are averaged. Default: the run's own."),
]
ViewsShare = Annotated[
    float | None,
    typer.Option(
        "--views-share", min=0, max=1, help="Share of each batch, the least confident part, that is seen in them."
    ),
]
NoCalibrate = Annotated[
    bool, typer.Option("--no-calibrate", help="Leave out the temperature that `eval --calibrate` has fitted.")
]
RunPath = Annotated[
    str,
    typer.Argument(
        metavar="RUN", parser=path_text, autocompletion=completing.runs, help="A run directory or a checkpoint file."
    ),
]
AskedPath = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        parser=path_text,
        autocompletion=completing.runs,
        help="A run directory, a checkpoint or an exported file.",
    ),
]
DataPath = Annotated[
    Path,
    typer.Argument(
        metavar="PATH", parser=path_of, help="A folder of images, a table (CSV or Parquet) or an .npz file."
    ),
]
