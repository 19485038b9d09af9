"""What can be typed to ask a trained run something, as `cli`: what it reaches on a split, what it answers, whether
it is better than another, and what its answers rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dltrain.commands import completing
from dltrain.commands.options import (
    AsJson,
    AskedPath,
    Device,
    ImagePaths,
    NoCalibrate,
    Overrides,
    Plugins,
    RunsFolder,
    ViewsName,
    ViewsShare,
    is_exported,
    path_of,
    path_text,
    share_of,
)  # fmt: skip
from dltrain.commands.request import existing_device, fail, load_plugins, request
from dltrain.console.streams import print_result


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("eval", epilog="Example: dltrain eval runs/digits/001 --json")(evaluate)
    app.command(epilog="Example: dltrain compare runs/digits/001 runs/digits/002 --split test")(compare)
    app.command(epilog="Example: dltrain report runs/digits/001 --split test")(report)
    app.command(epilog="Example: dltrain ask claims/digits_smoothing.yaml")(ask)
    app.command(epilog="Example: dltrain ablate experiments/digits.yaml --parts model.norm,schedule")(ablate)
    app.command(epilog="Example: dltrain runs runs/digits --sort best")(runs)
    app.command(epilog="Example: dltrain predict runs/photos/001 photo.jpg more_photos/ --format jsonl")(predict)
    app.command(epilog="Example: dltrain explain runs/digits/001 --errors 24")(explain)


@request
def evaluate(
    run: AskedPath,
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]... [data.KEY=VALUE]...",
            autocompletion=completing.runs,
            help="Other runs to answer together with, by the mean of probabilities; where the data is, if it moved.",
        ),
    ] = None,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="What to measure on.")] = "test",
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Which weights.")] = "best",
    calibrate: Annotated[
        bool | None,
        typer.Option("--calibrate/--no-calibrate", help="Fit a temperature on the validation split first and keep it "
                     "beside the checkpoint; or leave out the one that is there. Default: use it."),
    ] = None,
    views: ViewsName = None, share: ViewsShare = None, device: Device = "auto", as_json: AsJson = False,
    plugin: Plugins = None,
) -> int:  # fmt: skip
    """Measure a run, or several and their ensemble: accuracy, loss, and how each class fares."""
    load_plugins(plugin)
    from dltrain.commands.calibrate import calibrate_runs
    from dltrain.commands.evaluate import evaluate_run
    from dltrain.commands.exported import evaluate_file, require_alone
    from dltrain.console.display import Display

    data = [text for text in more or () if "=" in text and not Path(text).exists()]
    runs = [run, *(path_text(text) for text in more or () if text not in data)]
    display, target = Display(), existing_device(device)
    if is_exported(run):
        require_alone(runs[1:], {"--views": views, "--views-share": share, "--calibrate": calibrate})
        evaluate_file(run, split, display, overrides=data, as_json=as_json)
        return 0
    from dltrain.commands.evaluate_several import evaluate_several
    from dltrain.commands.several import each_run, several_at

    if calibrate:
        calibrate_runs(each_run(runs), checkpoint, target, display, overrides=data, views=views, share=share)
    asked: Any = {"overrides": data, "views": views, "share": share, "as_json": as_json}
    asked["calibrated"] = calibrate is not False
    if len(runs) == 1 and (several := several_at(runs[0])) is not None:
        evaluate_several(several, split, checkpoint, target, display, **asked)
        return 0
    evaluate_run(each_run(runs), split, checkpoint, target, display, **asked)
    return 0


@request
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN...", parser=path_text, autocompletion=completing.runs, help="Runs or "
                       "checkpoints; or folders of runs, several seeds each. The others are compared with the first."),
    ],
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Where.")] = "validation",
    device: Device = "auto", as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for a paper.")] = False,
    plugin: Plugins = None,
) -> int:  # fmt: skip
    """Say what differs between runs, in their settings and their results, and whether that is more than chance."""
    load_plugins(plugin)
    if as_json and markdown:
        fail("error: --json or --markdown, not both")
    from dltrain.commands.compare import compare_runs
    from dltrain.commands.compare_seeds import compare_groups, is_group
    from dltrain.console.display import Display

    together = compare_groups if all(map(is_group, runs)) else compare_runs
    target = existing_device(device)
    together(runs, split, target, "json" if as_json else "markdown" if markdown else "text", Display())
    return 0


@request
def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", parser=path_text, autocompletion=completing.runs, help="Runs, checkpoints or "
                       "folders of seeds or folds. The curves are those of all, the examples those of the first."),
    ],
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        typer.Option(help="Whose examples; by default validation, where there is one."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path_of, help="The file; by default report.html in the run.")
    ] = None,
    device: Device = "auto", plugin: Plugins = None,
) -> int:  # fmt: skip
    """Write a page on runs, one HTML file: curves, mistakes, confusion, calibration, slices, plan, how to repeat it."""
    load_plugins(plugin)
    from dltrain.commands.report import report_runs
    from dltrain.console.display import Display

    report_runs(runs, split, output, existing_device(device), Display())
    return 0


@request
def ask(
    claim: Annotated[
        Path, typer.Argument(metavar="CLAIM", parser=path_of, autocompletion=completing.experiments,
                             help="A claim's YAML file, or a folder to go on in.")
    ],
    overrides: Overrides = None, runs: RunsFolder = Path("runs"), device: Device = "auto", plugin: Plugins = None,
) -> int:  # fmt: skip
    """Say whether a change to an experiment helps: trains both sides in pairs until it is decided."""
    plugins = load_plugins(plugin)
    existing_device(device)
    from dltrain.commands.ask import ask as answered
    from dltrain.console.display import Display

    code, folder = answered(claim, device, Display(), runs=runs, plugins=plugins, overrides=overrides or ())
    print_result(str(folder / "answer.md" if code == 0 else folder))
    return code


@request
def ablate(
    experiment: Annotated[
        Path,
        typer.Argument(metavar="EXPERIMENT", parser=path_of, autocompletion=completing.experiments,
                       help="An experiment's file, or a folder to go on in."),
    ],
    overrides: Overrides = None,
    parts: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY[,KEY]...", help="Which parts, by dotted key; by default all that the file states."),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Trainings in all; by default 8 of each experiment.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="What tells, such as validation/loss; by default what ranks the task's runs.")
    ] = None,
    difference: Annotated[float, typer.Option(min=0, help="A part that changes it by less makes no difference.")] = 0.0,
    error: Annotated[float, typer.Option(min=0.001, max=0.49, help="How probable a wrong answer is at most.")] = 0.05,
    runs: RunsFolder = Path("runs"), device: Device = "auto", as_json: AsJson = False, plugin: Plugins = None,
) -> int:  # fmt: skip
    """Say which parts of an experiment help: trains it without each of them, in pairs, until it is decided."""
    plugins = load_plugins(plugin)
    existing_device(device)
    from dltrain.commands.ablate import ablate as ablated
    from dltrain.commands.ablate import go_on
    from dltrain.console.display import Display

    if experiment.is_dir():
        if overrides or parts or budget or metric or difference or error != 0.05:
            fail(f"error: what is begun in {experiment} goes on as it is: leave out all but the folder")
        code, folder, found = go_on(experiment, device, Display(), plugins)
    else:
        names = [name.strip() for text in parts or () for name in text.split(",")]
        code, folder, found = ablated(
            experiment, device, Display(), parts=names, metric=metric, difference=difference, error=error,
            budget=budget, runs=runs, plugins=plugins, overrides=overrides or (),
        )  # fmt: skip
    if found is None:
        print_result(str(folder))
    else:
        print_result(found.as_json() if as_json else f"{found.as_text()}\n{folder / 'ablation.md'}")
    return code


@request
def runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", parser=path_of, help="Where they are.")] = Path("runs"),
    order: Annotated[
        Literal["began", "best", "seconds", "name"], typer.Option("--sort", help="What comes first.")
    ] = "began",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    plugin: Plugins = None,
) -> int:  # fmt: skip
    """List runs and sweeps: state, best metric, when, and how long. Nothing is loaded, and nothing changes."""
    load_plugins(plugin)
    from dltrain.commands.runs import show_runs

    show_runs(folder, order, as_json=as_json)
    return 0


@request
def predict(
    run: AskedPath,
    paths: ImagePaths,
    output: Annotated[Literal["csv", "jsonl"], typer.Option("--format", help="csv or JSON lines.")] = "csv",
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Which weights.")] = "best",
    others: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="RUN", parser=path_text, autocompletion=completing.runs,
                     help="Another run; their answers are averaged."),
    ] = None,
    views: ViewsName = None, share: ViewsShare = None, device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    reconstructions: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write what an autoencoder makes of each, as PNG.")
    ] = None,
    truth: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="The column that says what is right (once for each number or label), or "
                     "`folder`, the name of an image's folder: adds target, prediction and loss."),
    ] = None,
    abstain: Annotated[
        str | None,
        typer.Option(metavar="ALPHA", help="Add the columns `set`, classes of which one is right with a probability of "
                     "1 - ALPHA, and `abstains`: whether these are not exactly one. Measures the validation split."),
    ] = None,
    no_calibrate: NoCalibrate = False,
    plugin: Plugins = None,
) -> int:  # fmt: skip
    """Answer for images, on stdout: a class and the probabilities of all, numbers, labels, or errors."""
    load_plugins(plugin)
    from dltrain.commands.exported import predict_file, require_alone
    from dltrain.commands.predict import predict_files

    runs = [run, *(others or ())]
    if is_exported(run):
        asked = {"--views": views, "--views-share": share, "--reconstructions": reconstructions, "--truth": truth}
        require_alone(others or (), {**asked, "--abstain": abstain, "--no-calibrate": no_calibrate or None})
        return predict_file(run, paths, output, batch_size)
    from dltrain.commands.several import each_run

    if truth and abstain is not None:
        fail("error: --truth or --abstain, not both")
    found, alpha = existing_device(device), None if abstain is None else share_of(abstain, "--abstain")
    return predict_files(
        each_run(runs), paths, output, checkpoint, found, batch_size, views, share, reconstructions, truth or (),
        calibrated=not no_calibrate, abstain=alpha,
    )  # fmt: skip


@request
def explain(
    run: AskedPath,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", parser=path_of, help="Image files or folders of them."),
    ] = None,
    errors: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Instead of files: the N worst errors of the split.")
    ] = None,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Whose errors.")] = "test",
    method: Annotated[
        Literal["gradcam", "gradcam++", "hirescam", "layercam", "eigencam"],
        typer.Option(help="How maps are drawn; eigencam knows no class."),
    ] = "gradcam",
    target: Annotated[
        str | None, typer.Option(metavar="NAME", help="The class, label or number that maps are of. Default: the "
                                 "answer; of several numbers the first.")
    ] = None,
    share: Annotated[
        float, typer.Option("--hide", min=0.01, max=0.9, metavar="SHARE", help="Of the pixels, what is hidden.")
    ] = 0.2,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", parser=path_of, help="Where to. Default: RUN/explain.")
    ] = None,
    device: Device = "auto", as_json: AsJson = False, plugin: Plugins = None,
) -> int:  # fmt: skip
    """Draw which part of each image speaks for the answer, and try it: does hiding it change more than chance does?"""
    load_plugins(plugin)
    if (errors is None) == (not paths):
        fail("error: explain takes images, or --errors N")
    if is_exported(run):
        fail(f"error: {run} is an exported file, whose layers cannot be asked: give the run")
    from dltrain.commands.explain import Asked, explain_run
    from dltrain.console.display import Display

    asked = Asked(paths or (), errors, split, method, target, share)
    return explain_run(run, asked, output, existing_device(device), Display(), as_json=as_json)
