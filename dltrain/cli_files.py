"""What can be typed to make another file of a run, as `cli`: a checkpoint for other images, or a file for other
programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dltrain.commands.options import (
    AsJson,
    Device,
    ImagePaths,
    NoCalibrate,
    Plugins,
    RunPath,
    ViewsName,
    ViewsShare,
    path_of,
    path_text,
)
from dltrain.commands.request import existing_device, load_plugins, request
from dltrain.console.streams import print_result


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog="Example: dltrain adapt runs/photos/001 new_photos/ --output adapted.pt")(adapt)
    app.command(epilog="Example: dltrain export runs/digits/001 --format onnx")(export)
    app.command(epilog="Example: dltrain serve runs/photos/001/export/model.onnx --port 8000")(serve)


@request
def adapt(
    run: RunPath,
    paths: ImagePaths,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", parser=path_of, help="The new checkpoint, a .pt file.")
    ],
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Which weights.")] = "best",
    device: Device = "auto", batch_size: Annotated[int, typer.Option(min=2, help="Images at a time.")] = 128,
    plugin: Plugins = None,
) -> int:  # fmt: skip
    """Measure batch norm's mean and variance anew on images of another kind; no weight changes."""
    load_plugins(plugin)
    from dltrain.commands.adapt import adapt_run
    from dltrain.console.display import Display

    adapt_run(run, paths, output, checkpoint, existing_device(device), Display(), batch_size)
    print_result(str(output))
    return 0


@request
def export(
    run: RunPath,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[data.KEY=VALUE]...", help="Where the data is, if it moved.")
    ] = None,
    form: Annotated[
        Literal["onnx", "pt2", "safetensors"],
        typer.Option("--format", help="For onnxruntime; for torch.export.load; weights for timm or torchvision."),
    ] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", parser=path_of, help="Default: RUN/export/model.onnx."),
    ] = None,
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Which weights.")] = "best",
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights and activations of 8 bits, if that loses no accuracy.")
    ] = False,
    precisions: Annotated[
        bool, typer.Option("--precisions", help="Measure float32, bfloat16, float16 and int8, too.")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="By how much an answer may differ from the run's (0.001); with --int8, how much "
                     "accuracy may be lost (0.02), or by what share an error may grow."),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="Of ONNX; default: 18, which most programs read.")] = None,
    no_calibrate: NoCalibrate = False,
    views: ViewsName = None, share: ViewsShare = None, as_json: AsJson = False, plugin: Plugins = None,
) -> int:  # fmt: skip
    """Write a run as one file for other programs: raw images or rows in, answers out, all preprocessing inside. It is
    put to the test on the validation split first: where it does not answer as the run does, there is no file."""
    load_plugins(plugin)
    from dltrain.commands.export import export_run
    from dltrain.console.display import Display

    export_run(
        run, form, output, checkpoint, Display(), overrides=overrides or (), views=views, share=share,
        tolerance=tolerance, opset=opset, int8=int8, precisions=precisions, as_json=as_json,
        calibrated=not no_calibrate,
    )  # fmt: skip
    return 0


@request
def serve(
    file: Annotated[str, typer.Argument(metavar="FILE", parser=path_text, help="An exported .onnx file.")],
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0: all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8000,
    max_bytes: Annotated[int, typer.Option(min=1, help="Of a body; larger ones are refused.")] = 20_000_000,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of an image; larger ones are refused.")] = 50_000_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Until a body, and an answer, must be there.")] = 30.0,
    workers: Annotated[int | None, typer.Option(min=1, help="That answer at a time. Default: one a core.")] = None,
) -> int:  # fmt: skip
    """Answer over HTTP from an exported file, without torch: POST /predict, GET /health and /metrics, and a page to
    drop images on."""
    from dltrain.commands.serve import serve_file

    serve_file(file, host, port, max_bytes=max_bytes, max_pixels=max_pixels, seconds=seconds, workers=workers)
    return 0
