"""What a training says and shows: before it starts, in its recorders, and at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from dltrain.commands.failures import resume_command
from dltrain.config import ConfigError, Diagnostic
from dltrain.console.display import Display
from dltrain.data.loading.resources import crowded
from dltrain.data.types import ImageShape
from dltrain.engine.pictures import filters, pictures
from dltrain.engine.timing import Clock, advice, shares
from dltrain.engine.trainer import Trainer
from dltrain.errors import Note
from dltrain.experiment.experiment import Experiment
from dltrain.runs.environment import Hyperparameters, flatten
from dltrain.runs.recorders.base import About
from dltrain.runs.recording import Recordings, grid_of
from dltrain.runs.reports import EpochReport, Look, Row, best_epoch
from dltrain.runs.run import Run
from dltrain.search import Sweep
from dltrain.tasks.metrics import was_evaluated


def require_libraries(experiment: Experiment) -> None:
    """Raise ConfigError when the library of a recorder is not installed."""
    problems = [
        Diagnostic(
            f"recorder `{recorder.name}` needs the library {recorder.library}, which is not installed",
            experiment.span("recorders", index),
            notes=(f"pip install '{recorder.install}', or leave it out: recorders=[tensorboard]",),
        )
        for index, recorder in enumerate(experiment.recorders)
        if not recorder.is_installed()
    ]
    if problems:
        raise experiment.located(ConfigError(problems), "recorders")


def require_sampler(experiment: Experiment, sweep: Sweep) -> None:
    """Raise ConfigError when the library of the sweep's sampler is not installed."""
    sampler = sweep.sampler
    if not sampler.is_installed():
        message = f"sampler `{sampler.name}` needs the library {sampler.library}, which is not installed"
        raise experiment.error("sweep.sampler", message, f"pip install '{sampler.install}', or sweep.sampler=tpe")


def start_recordings(
    recordings: Recordings, run: Run, trainer: Trainer, experiment: Experiment,
    hyperparameters: Hyperparameters | None, display: Display,
) -> None:  # fmt: skip
    """Begin with what the run is, its epochs so far and the first images. hyperparameters: those to show, by default
    those that the run began with."""
    facts = run.read_json("environment.json")
    shown = hyperparameters or facts.get("hyperparameters") or flatten(experiment.stated())
    metrics = [metric.name for metric in experiment.resolved_task.metrics]
    about = About(run.path, experiment.name, shown, metrics, facts, experiment.training.smoothing)
    recordings.start(about, trainer.history, trainer.step)
    if recordings and isinstance(trainer.parts.shape, ImageShape):
        recordings.images("train/images", grid_of(sample_images(trainer)))
    tell_failures(recordings, run, display)


def close_recordings(recordings: Recordings, run: Run, display: Display) -> None:
    """End with the state that the run has come to."""
    state = run.read_json("result.json").get("state")
    recordings.close(state if state in ("finished", "interrupted") else "failed")
    tell_failures(recordings, run, display)


def sample_images(trainer: Trainer, count: int = 32) -> Tensor:
    """The first training images as the model gets them, in full size: (B, C, H, W) float32, scaled back to 0..1."""
    batches = trainer.parts.train.batches(0)
    batch = next(batches)
    batches.close()
    pipeline = trainer.parts.pipeline
    inputs, _ = pipeline.full(batch, 0)
    images: Tensor = pipeline.scaling.invert(inputs[:count].float())
    return images.clamp(0, 255).cpu() / 255


def show_points(recordings: Recordings, points: Sequence[Row], looks: Sequence[Look], display: Display) -> None:
    """Show the points of the curves and the looks at the layers since the last event, in the order of their steps, and
    say what is wrong with a layer."""
    rows = {int(row["step"]): row for row in points}
    for look in looks:
        rows[look.step] = {**rows.get(look.step, {}), **look.row}
    recordings.steps([rows[step] for step in sorted(rows)])
    for look in looks:
        recordings.histograms(look.histograms, look.step)
        for sentence in look.sentences:
            display.warning(sentence)


def show_last_looks(recordings: Recordings, trainer: Trainer, display: Display) -> None:
    """The same of a training that has failed: what its layers did before, if the device still tells."""
    with contextlib.suppress(Exception):
        show_points(recordings, [], trainer.looks(), display)


def show_epoch(recordings: Recordings, trainer: Trainer, event: EpochReport) -> None:
    """Show a finished epoch, and, when the network was measured, what it makes of inputs, and of nothing."""
    recordings.epoch(trainer.history[-1])
    if recordings and trainer.parts.watcher is not None and (grid := filters(trainer)) is not None:
        recordings.images("watch/filters", grid, event.step)
    if recordings and (trainer.parts.validation is None or was_evaluated(event.metrics)):
        for name, grid in pictures(trainer).items():
            recordings.images(name, grid, event.step)


def tell_failures(recordings: Recordings, run: Run, display: Display) -> None:
    """Say which recorders have failed; the traceback goes into log.txt."""
    for text, trace in recordings.news():
        display.warning(text)
        run.log(trace)


def announce(run: Run, trainer: Trainer, experiment: Experiment, display: Display, notes: Sequence[Note]) -> None:
    """Say before training what it will do."""
    display.line(f"{experiment.name} -> {run.path}", "bold")
    for note in experiment.notes:
        display.tell(note)
    display.settings(trainer.summary)
    for note in (*trainer.notes, *notes):
        display.tell(note)
    for tensors in trainer.initialized.whole() if trainer.initialized is not None else ():
        run.log(tensors)
    decided = trainer.about["decisions"]
    alone = (decided["device"]["value"], decided["loader"]["value"]) == ("cpu", "resident")  # no processes of its own
    undecided = alone and experiment.training.threads == "auto"
    if undecided and (line := crowded(decided["threads"]["value"])) is not None:
        display.warning(line)


def say_what_is_next(run: Run, trainer: Trainer, display: Display) -> None:
    """Say at the end what was reached, and how to measure it."""
    watched = trainer.settings.watched
    if trainer.step < trainer.settings.total_steps:
        display.line(f"stopped early: {watched.tag if watched else ''} no longer improves")
    best = best_epoch(trainer.history, watched)
    if best is not None and watched is not None:
        row = trainer.history[best]
        display.line(f"best {watched.text(row)} in epoch {int(row['epoch'])}")
    split = "test" if trainer.about["has_test"] else "validation" if trainer.parts.validation is not None else "train"
    option = "" if split == "test" else f" --split {split}"
    display.line(f"to measure it on the {split} split: dltrain eval {run.path}{option}")


def say_what_was_slow(trainer: Trainer, experiment: Experiment, clock: Clock, display: Display) -> None:
    """Say at the end what the time went into, where it could have been shorter."""
    parts = clock.parts(trainer.history, trainer.first_step)
    evaluations = sum(map(was_evaluated, trainer.history))
    decisions = trainer.about["decisions"]
    line = advice(parts, experiment, decisions, evaluations=evaluations, inside=clock.inside)
    if line is not None:
        display.line(line)


def how_to_go_on(run: Run, trainer: Trainer) -> str:
    """The command that continues what was interrupted."""
    return f"to go on: {resume_command(run, trainer.about['plugins'])}"


def how_to_train_on(trainer: Trainer, experiment: Experiment) -> str:
    """What trains a finished run longer."""
    stopping = trainer.settings.early_stopping
    if stopping is not None and trainer.step < trainer.settings.total_steps:
        return f"it stopped early, and goes on with training.early_stopping.patience={2 * stopping.patience}"
    training = experiment.training
    longer = f"steps={2 * training.steps}" if training.steps else f"epochs={2 * (training.epochs or 0):g}"
    return f"it trains longer with training.{longer}"


def _findings(trainer: Trainer) -> dict[str, Any]:
    """What result.json says of the layers, where the training looks at them."""
    watcher = trainer.parts.watcher
    return {"watch": [asdict(finding) for finding in watcher.judge.findings]} if watcher is not None else {}


def result_of(trainer: Trainer, state: str, why: str | None, clock: Clock) -> dict[str, Any]:
    """The content of result.json."""
    history, watched = trainer.history, trainer.settings.watched
    best = best_epoch(history, watched)
    trained = sum(row["seconds/data"] + row["seconds/compute"] for row in history)
    spent = clock.parts(history, trainer.first_step)
    return {
        "state": state, "why": why, "step": trainer.step, "total_steps": trainer.settings.total_steps,
        "best_epoch": int(history[best]["epoch"]) if best is not None else None,
        "best_metric": watched.tag if watched is not None else None,
        "best": history[best] if best is not None else None,
        "last": history[-1] if history else None,
        "seconds": round(sum(spent.values()), 3),
        "time": {part: round(seconds, 3) for part, seconds in spent.items()},
        "shares": shares(spent),
        "images_per_second": round(history[-1]["step"] * trainer.settings.batch_size / trained, 1) if trained else None,
        **_findings(trainer),
    }  # fmt: skip
