"""The command line. Commands import what they need when they run: `--help`, `check` and `list` stay instant.

Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 129/130/143 interrupted after saving (the terminal went
away, Ctrl-C, asked to end).
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dltrain import cli_before, cli_files, cli_results
from dltrain.commands import completing
from dltrain.commands.options import (
    AsJson,
    DataPath,
    Device,
    Devices,
    ExperimentFile,
    MaxRestarts,
    Overrides,
    Plugins,
    RunPath,
    RunsFolder,
    path_of,
)  # fmt: skip
from dltrain.commands.request import existing_device, fail, launched, load_plugins, request
from dltrain.console.streams import print_result

if TYPE_CHECKING:
    from dltrain.commands.several import Kind, Several

app = typer.Typer(
    name="dltrain", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False,
    rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print_result(f"dltrain {version('dltrain')}")
        except PackageNotFoundError:
            print_result("dltrain, not installed: run from its source")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """One YAML file in, a trained and trusted model out."""


@app.command(epilog="Example: dltrain fit experiments/digits.yaml optimizer.lr=0.05 training.epochs=20")
@request
def fit(
    experiment: ExperimentFile, overrides: Overrides = None, runs: RunsFolder = Path("runs"), device: Device = "auto",
    plugin: Plugins = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Trace some steps into RUN/profile, for TensorBoard and ui.perfetto.dev.")
    ] = False,
    profile_steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Trace N steps, after 10 others; 10 without it.")
    ] = None,
    devices: Devices = None, max_restarts: MaxRestarts = 0,
    seeds: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Train N times, with the seed and the N - 1 after it: one "
                                 "folder, one summary.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Cross-validation: train N times, each N-th part of the "
                                 "training part being the validation split once.")
    ] = None,
    as_json: AsJson = False,
) -> int:  # fmt: skip
    """Train an experiment in a new run directory; with --seeds or --folds several times, in a new folder of runs."""
    plugins = load_plugins(plugin)
    from dltrain.experiment.experiment import Experiment

    if seeds and folds:
        fail("error: --seeds or --folds, not both")
    if (seeds or folds) and (devices not in (None, 1) or profile or profile_steps):
        fail("error: --seeds and --folds train one after another on one device, without --devices and --profile")
    if experiment.is_dir() and not (seeds or folds):
        from dltrain.commands.several import several_at

        if (several := several_at(experiment)) is not None:
            return _go_on(several, None if device == "auto" else device, plugins, overrides)
    loaded = Experiment.load(experiment, overrides or ())
    existing_device(device)
    if seeds or folds:
        from dltrain.commands.fit_several import fit_several
        from dltrain.console.display import Display

        kind: Kind = "seeds" if seeds else "folds"
        done = fit_several(loaded, kind, seeds or folds or 0, device, Display(), runs=runs, plugins=plugins)
        print_result(json.dumps({"path": str(done[1])}) if as_json else str(done[1]))
        return done[0]
    if (code := launched(devices, max_restarts, device)) is not None:
        return code
    from dltrain.commands.fit import fit as run_fit
    from dltrain.console.display import Display, Errors
    from dltrain.engine.distributed import joined

    traced = profile_steps or (10 if profile else 0)
    with joined() as group:
        display = Display() if group.leads else Errors()
        code, run = run_fit(
            loaded, None, device, display, runs=runs, plugins=plugins, profile_steps=traced if group.leads else 0,
            group=group,
        )  # fmt: skip
        if group.leads:
            result = {"path": str(run.path), **run.read_json("result.json")}
            print_result(json.dumps(result) if as_json else str(run.path))
        group.leave(code)
    return code


@app.command(epilog="Example: dltrain resume runs/digits/001")
@request
def resume(
    run: RunPath,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Where the data is, if it moved (data.root=NEW), or a longer training (training.epochs=60).",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Default: the run's own.")] = None,
    plugin: Plugins = None, devices: Devices = None, max_restarts: MaxRestarts = 0,
) -> int:  # fmt: skip
    """Continue an interrupted run, bit-exactly; by default on as many devices as it began on. A finished one can be
    made longer. Of a folder of seeds or folds, the runs that are not finished."""
    plugins = load_plugins(plugin)
    if device:
        existing_device(device)
    from dltrain.commands.several import several_at

    if (several := several_at(run)) is not None:
        if devices not in (None, 1):
            fail("error: a folder of seeds or folds is trained on one device, without --devices")
        return _go_on(several, device, plugins, overrides)
    from dltrain.runs.run import Run

    if devices is None:
        devices = Run.open(run)[0].read_json("environment.json").get("decisions", {}).get("devices", {}).get("value")
    if (code := launched(devices, max_restarts, device or "auto")) is not None:
        return code
    from dltrain.commands.fit import resume as run_resume
    from dltrain.console.display import Display, Errors
    from dltrain.engine.distributed import joined

    with joined() as group:
        display = Display() if group.leads else Errors()
        code, resumed = run_resume(run, device, display, plugins=plugins, group=group, overrides=overrides or ())
        if group.leads:
            print_result(str(resumed.path))
        group.leave(code)
    return code


def _go_on(several: Several, device: str | None, plugins: dict[str, str], overrides: list[str] | None) -> int:
    """Train what is left of a folder of seeds or folds."""
    from dltrain.commands.fit_several import resume_several
    from dltrain.console.display import Display

    code, folder = resume_several(several, device, Display(), plugins=plugins, overrides=overrides or ())
    print_result(str(folder))
    return code


cli_results.add_to(app)


@app.command(epilog="Example: dltrain record runs/digits/001 wandb project=digits")
@request
def record(
    run: RunPath,
    recorder: Annotated[str, typer.Argument(metavar="RECORDER", help="One of `dltrain list recorders`.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Options of the recorder: project=digits.")
    ] = None,
    plugin: Plugins = None,
) -> int:  # fmt: skip
    """Replay a run, finished or not, into one more recorder: what its directory holds, without training."""
    load_plugins(plugin)
    from dltrain.commands.record import record as replay
    from dltrain.console.display import Display

    replay(run, recorder, options or (), Display())
    return 0


@app.command(epilog="Example: dltrain sweep experiments/digits.yaml sweep.trials=20")
@request
def sweep(
    experiment: Annotated[
        Path,
        typer.Argument(
            metavar="EXPERIMENT", parser=path_of, autocompletion=completing.experiments,
            help="A YAML file, or an interrupted sweep's directory to go on.",
        ),
    ],
    overrides: Overrides = None, runs: RunsFolder = Path("runs"), device: Device = "auto", plugin: Plugins = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, metavar="N", help="Train N trials at once, a process each.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="ADDRESS", help="Train on the machines of a Ray cluster: auto, "
                                 "or ray://host:10001. Needs pip install 'dltrain[cluster]'.")
    ] = None,
    finish: Annotated[
        int, typer.Option("--finish", min=0, metavar="N", help="Then train the N best settings at full length, and "
                          "measure each on test data, once.")
    ] = 0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="In an earlier sweep's directory: make the failed trials again.")
    ] = False,
    as_json: AsJson = False,
) -> int:  # fmt: skip
    """Search hyperparameters on the validation split; the test split takes no part."""
    plugins = load_plugins(plugin)
    from dltrain.experiment.experiment import Experiment

    continued = experiment if experiment.is_dir() else None
    if retry_failed and continued is None:
        fail("error: --retry-failed needs an earlier sweep: dltrain sweep runs/NAME/sweep-001 --retry-failed")
    loaded = Experiment.load(experiment / "experiment.yaml" if continued else experiment, overrides or ())
    if loaded.sweep is None:
        note = "write `sweep: {space: {optimizer.lr: {low: 1.0e-3, high: 1.0, log: true}}}`"
        raise loaded.error("sweep", f"{experiment} has no `sweep` section", note)
    from dltrain.console.display import Display
    from dltrain.sweeps.ranking import told
    from dltrain.sweeps.sweep import Request, is_sweep, run_sweep

    if continued is not None and not is_sweep(continued):
        fail(f"error: {continued} is not a sweep's directory; to start one: dltrain sweep EXPERIMENT.yaml")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # between two trials: say how to go on
    folder = continued or runs / loaded.name
    wanted = Request(existing_device(device), jobs, cluster, plugins, retry_failed, finish)
    code, best = run_sweep(loaded, folder, wanted, Display())
    if best is not None and as_json:
        print_result(json.dumps({"path": str(best.parent), "best": str(best), "ranking": told(best.parent)}))
    elif best is not None:
        print_result(str(best))
    return code


@app.command(epilog="Example: dltrain pack experiments/photos.yaml data.cache=true")
@request
def pack(experiment: ExperimentFile, overrides: Overrides = None, plugin: Plugins = None) -> int:
    """Decode and resize a folder's images ahead of training, into the cache that `data.cache` names."""
    load_plugins(plugin)
    from dltrain.experiment.experiment import Experiment

    loaded = Experiment.load(experiment, overrides or ())
    from dltrain.commands.pack import pack as make_packs
    from dltrain.console.display import Display

    for made in make_packs(loaded, Display()):
        print_result(str(made.path))
    return 0


@app.command("list", epilog='Example: dltrain list models "resnet*"')
@request
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="models, optimizers, ..., or a section: experiment, training, sweep.")
    ] = None,
    name: Annotated[str | None, typer.Argument(help="One entry, or a pattern such as resnet*.")] = None,
    as_json: AsJson = False, plugin: Plugins = None,
) -> int:  # fmt: skip
    """Show what can be written in an experiment."""
    load_plugins(plugin)
    from dltrain.commands.list import show

    print_result(show(kind, name, as_json=as_json))
    return 0


@app.command(epilog="Example: dltrain schema > dltrain.schema.json")
@request
def schema(plugin: Plugins = None) -> int:
    """Print the JSON Schema of an experiment, for editors."""
    import json

    load_plugins(plugin)
    from dltrain.config.schema import json_schema
    from dltrain.experiment.experiment import Experiment

    print_result(json.dumps(json_schema(Experiment), indent=2))
    return 0


@app.command(epilog="Example: dltrain init photos/ --output experiments/photos.yaml")
@request
def init(
    path: DataPath,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", parser=path_of, help="Where to write it; default experiments/."),
    ] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option("--pretrained/--no-pretrained", help="Begin with ImageNet weights; default: if they can be had."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="COLUMN", help="Of a table, the column to learn; default: a guess."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--time/--no-time", help="Train a few steps, to say how long the training will take.")
    ] = True,
    as_json: AsJson = False,
) -> int:
    """Look at data and write a commented experiment that trains well on it."""
    from dltrain.commands.init import write_experiment
    from dltrain.console.display import Display

    said: list[str] = []
    display = Display(said.append)
    found = write_experiment(path, output, display, pretrained=pretrained, measure=measure, column=target)
    print_result(json.dumps({"path": str(found), "notes": said}, ensure_ascii=False) if as_json else str(found))
    return 0


cli_files.add_to(app)
cli_before.add_to(app)
