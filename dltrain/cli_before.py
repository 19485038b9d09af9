"""What can be typed before a training is started, as `cli`: is the experiment right, what will it cost, and with which
learning rate?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltrain.commands import completing
from dltrain.commands.options import AsJson, Device, ExperimentFile, Overrides, Plugins, path_of, path_text
from dltrain.commands.request import existing_device, fail, load_plugins, request
from dltrain.console.streams import print_result, say


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog="Example: dltrain check experiments/*.yaml")(check)
    app.command(epilog="Example: dltrain plan experiments/digits.yaml model=resnet18 training.batch_size=64")(plan)
    find = typer.Typer(no_args_is_help=True, help="Find a setting by trying it out, without a run.")
    find.command("lr", epilog="Example: dltrain find lr experiments/digits.yaml")(find_lr)
    app.add_typer(find, name="find")
    app.command("verify-resume", epilog="Example: dltrain verify-resume experiments/digits.yaml")(verify_resume)
    app.command(epilog="Example: dltrain doctor --json")(doctor)


@request
def check(
    experiments: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT... [KEY=VALUE]...", autocompletion=completing.experiments, help="YAML files."
        ),
    ],
    gradients: Annotated[
        bool, typer.Option("--gradients", help="Also compare gradients with differences, on the first batch.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(min=1e-12, help="With --gradients: the relative error that is allowed.")
    ] = 1e-6,
    coordinates: Annotated[
        int, typer.Option(min=1, metavar="N", help="With --gradients: look at N numbers of each tensor, at most.")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: what is wrong and where, or gradients.")] = False,
    plugin: Plugins = None,
) -> int:  # fmt: skip
    """Validate experiments without reading data or training. With --gradients: compare the gradient of each parameter
    tensor with central differences of the loss, in float64; exit code 1 where one is wrong."""
    load_plugins(plugin)
    from dltrain.commands.check import GradientCheck, check_files, check_to_json

    overrides = [text for text in experiments if "=" in text and not Path(text).exists()]
    files = [path_text(text) for text in experiments if text not in overrides]
    if not files:
        fail("error: no experiment is named: dltrain check EXPERIMENT... [KEY=VALUE]...")
    if as_json and not gradients:
        return check_to_json(files, overrides)
    return check_files(files, overrides, GradientCheck(tolerance, coordinates, as_json) if gradients else None)


@request
def plan(
    experiment: ExperimentFile, overrides: Overrides = None, device: Device = "auto",
    depth: Annotated[
        int | None, typer.Option(min=1, help="Levels of modules in the table of layers; default: what fits.")
    ] = None,
    as_json: AsJson = False, plugin: Plugins = None,
) -> int:  # fmt: skip
    """Say what a training would do and cost, without training: layers, memory, learning rate, decisions, warnings."""
    import json
    import shutil

    load_plugins(plugin)
    from dltrain.experiment.experiment import Experiment

    loaded = Experiment.load(experiment, overrides or ())
    for note in loaded.notes:
        say(note.text)
    target = existing_device(device)
    from dltrain.planning.plan import plan as plan_training
    from dltrain.planning.text import render

    found = plan_training(loaded, target, depth)
    print_result(json.dumps(found, indent=2) if as_json else render(found, shutil.get_terminal_size().columns))
    return 0


@request
def find_lr(
    experiment: Annotated[
        Path,
        typer.Argument(
            metavar="EXPERIMENT", parser=path_of, autocompletion=completing.experiments,
            help="A YAML file; or a run, whose last checkpoint is gone on from.",
        ),
    ],
    overrides: Overrides = None,
    low: Annotated[
        float | None, typer.Option("--from", min=1e-12, help="The first learning rate; default: by the optimizer.")
    ] = None,
    high: Annotated[float | None, typer.Option("--to", max=1e6, help="The last learning rate.")] = None,
    steps: Annotated[int, typer.Option(min=10, metavar="N", help="Steps from the first to the last.")] = 200,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", parser=path_of, help="The picture, an SVG; default find-lr/."),
    ] = None,
    device: Device = "auto", as_json: AsJson = False, plugin: Plugins = None,
) -> int:  # fmt: skip
    """Look for the learning rate: let it grow from step to step of a training in memory until the loss diverges.
    Nothing is written but the picture; exit code 1 where the loss falls at none."""
    import shutil

    plugins = load_plugins(plugin)
    from dltrain.commands.find import Range
    from dltrain.commands.find import find_lr as test
    from dltrain.console.display import Display

    target, width = existing_device(device), shutil.get_terminal_size().columns
    asked = Range(low, high, steps)
    text, there = test(
        experiment, overrides or (), target, asked, output, Display(), plugins=plugins, width=width, as_json=as_json
    )
    print_result(text)
    return 0 if there else 1


@request
def verify_resume(
    experiment: ExperimentFile, overrides: Overrides = None,
    steps: Annotated[int, typer.Option(min=6, metavar="N", help="Steps of the short copy, about.")] = 24,
    kills: Annotated[int, typer.Option(min=1, max=20, metavar="N", help="How often it is killed.")] = 2,
    device: Device = "auto", as_json: AsJson = False, plugin: Plugins = None,
) -> int:  # fmt: skip
    """Prove on this machine that a training that is killed and resumed gives the same bits: train a short copy in
    child processes, once through and once killed by SIGKILL; exit code 1 where they differ."""
    import json

    load_plugins(plugin)
    from dltrain.commands.verify_resume import to_dict, told, verify
    from dltrain.console.display import Display
    from dltrain.experiment.experiment import Experiment

    loaded = Experiment.load(experiment, overrides or ())
    verdict = verify(
        loaded, existing_device(device), steps, kills, Display(), plugins=[str(file) for file in plugin or ()]
    )
    print_result(json.dumps(to_dict(verdict), indent=2) if as_json else told(verdict))
    return 0 if verdict.same else 1


@request
def doctor(device: Device = "auto", as_json: AsJson = False) -> int:
    """Say what this machine offers, which extras are installed, and what dltrain would do with it: device, precision,
    compiling, threads and loader of a small and of a large training."""
    import json

    from dltrain.commands.doctor import examined, told

    found = examined(existing_device(device))
    print_result(json.dumps(found, indent=2) if as_json else told(found))
    return 0
