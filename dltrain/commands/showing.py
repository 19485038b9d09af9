"""What a training shows in its recorders: their libraries, the first images, and what is said when one fails."""

from __future__ import annotations

from torch import Tensor

from dltrain.config import ConfigError, Diagnostic
from dltrain.console.display import Display
from dltrain.data.types import ImageShape
from dltrain.engine.pictures import pictures
from dltrain.engine.trainer import Trainer
from dltrain.experiment.experiment import Experiment
from dltrain.runs.environment import Hyperparameters, flatten
from dltrain.runs.recorders.base import About
from dltrain.runs.recording import Recordings, grid_of
from dltrain.runs.reports import EpochReport
from dltrain.runs.run import Run
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


def show_epoch(recordings: Recordings, trainer: Trainer, event: EpochReport) -> None:
    """Show a finished epoch, and, when the network was measured, what it makes of inputs, and of nothing."""
    recordings.epoch(trainer.history[-1])
    if recordings and (trainer.parts.validation is None or was_evaluated(event.metrics)):
        for name, grid in pictures(trainer).items():
            recordings.images(name, grid, event.step)


def tell_failures(recordings: Recordings, run: Run, display: Display) -> None:
    """Say which recorders have failed; the traceback goes into log.txt."""
    for text, trace in recordings.news():
        display.warning(text)
        run.log(trace)
