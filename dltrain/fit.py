"""`fit` and `resume`: a trainer's events flow into a run directory and a display, in one visible order."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from dltrain.builder import build
from dltrain.console import Display
from dltrain.experiment import Experiment
from dltrain.runs import Run, next_free
from dltrain.trainer import EpochReport, NonFiniteError, Trainer, best_epoch

Hyperparameters = dict[str, str | int | float | bool]
"""By dotted key, with plain values."""


def fit(
    experiment: Experiment, path: Path | None, device: str, display: Display, *, runs: Path = Path("runs"),
    plugins: dict[str, str] | None = None, hyperparameters: Hyperparameters | None = None,
) -> tuple[int, Run]:  # fmt: skip
    """Train an experiment in a new run directory; the exit code and the run.

    path: the directory, or None for the next number under `runs`/<experiment name>.
    hyperparameters: the run's row in TensorBoard's table, by default the whole experiment.

    Raises ConfigError before anything is created when the data does not fit the experiment.
    """
    trainer = build(experiment, device)
    run = Run.create(path or next_free(runs / experiment.name))
    run.lock()
    try:
        (run.path / "experiment.yaml").write_text(experiment.dump())
        run.write_json("environment.json", environment(trainer, experiment, plugins or {}))
        return train(run, trainer, experiment, display, hyperparameters), run
    finally:
        run.close()
        trainer.close()


def resume(
    path: str, device: str | None, display: Display, *, hyperparameters: Hyperparameters | None = None
) -> tuple[int, Run]:
    """Continue a run from its last checkpoint (or the given one), bit-exactly.

    Raises RunError when the run cannot be continued.
    """
    run, file = Run.open(path)
    run.lock()
    try:
        state = None
        if file is not None or run.last.exists():
            _, state = run.checkpoint_at(file) if file is not None else run.checkpoint("last")
        experiment = Experiment.load(run.path / "experiment.yaml")
        decided = run.read_json("environment.json").get("decisions", {}).get("device", {}).get("value", "auto")
        if device is not None and device not in (decided, "auto"):
            display.warning(f"the run began on {decided}; on {device} it is continued, but not bit-exactly")
        trainer = build(experiment, device or decided, state)
        try:
            if state is not None:
                trainer.load_state_dict(state)
            if trainer.step >= trainer.plan.total_steps or trainer.should_stop():
                display.line(f"{run.path} is already finished; nothing to do")
                return 0, run
            return train(run, trainer, experiment, display, hyperparameters), run
        finally:
            trainer.close()
    finally:
        run.close()


def train(
    run: Run, trainer: Trainer, experiment: Experiment, display: Display, hyperparameters: Hyperparameters | None = None
) -> int:
    """Run the trainer to its end, a signal or a failure. Returns the exit code."""
    display.log = run.log
    announce(run, trainer, experiment, display)
    started = time.time()
    earlier = run.read_json("result.json").get("seconds", 0.0) if trainer.step else 0.0
    run.start_events(trainer.history, hyperparameters or flatten(experiment), trainer.sample_images())

    def result(state: str, why: str | None = None) -> None:
        run.write_json("result.json", summary(trainer, state, why, earlier + time.time() - started))

    result("running")
    saved = time.monotonic()
    interval = experiment.training.checkpoint_every * 60
    try:
        with Signals() as signals:
            for event in trainer.run():
                if isinstance(event, EpochReport):
                    display.epoch(event)
                    run.save(trainer.state_dict(), best=event.is_best)
                    run.record(trainer.history)
                    result("running")
                    saved = time.monotonic()
                else:
                    display.progress(event)
                    if time.monotonic() - saved > interval:
                        run.save(trainer.state_dict())
                        saved = time.monotonic()
                if signals.received is not None and trainer.step < trainer.plan.total_steps:
                    run.save(trainer.state_dict())
                    result("interrupted", signals.received.name)
                    display.error(f"interrupted at step {trainer.step}; to go on: dltrain resume {run.path}")
                    return 128 + signals.received
    except NonFiniteError as error:
        result("failed", str(error))
        display.error(_advice_on_non_finite(error, run))
        return 1
    except Exception as error:
        if is_out_of_memory(error):
            message = _advice_on_memory(error, experiment, trainer)
        else:
            run.log(traceback.format_exc())
            message = f"training failed: {type(error).__name__}: {error}\nthe traceback is in {run.path / 'log.txt'}"
        result("failed", f"{type(error).__name__}: {error}")
        display.error(f"{message}\n{_how_to_go_on(run)}")
        return 1
    finally:
        display.stop()
    result("finished")
    _farewell(run, trainer, display)
    return 0


def announce(run: Run, trainer: Trainer, experiment: Experiment, display: Display) -> None:
    """Say before training what it will do."""
    display.line(f"{experiment.name} -> {run.path}", "bold")
    for note in experiment.notes:
        display.warning(note)
    display.settings(trainer.summary)
    for note in trainer.notes:
        display.line(note)


def _farewell(run: Run, trainer: Trainer, display: Display) -> None:
    best = best_epoch(trainer.history, trainer.best_metric)
    if best is not None and trainer.best_metric is not None:
        row = trainer.history[best]
        display.line(f"best {trainer.best_metric} {row[trainer.best_metric]:.4f} in epoch {int(row['epoch'])}")
    display.line(f"to measure it on the test split: dltrain eval {run.path}")


def summary(trainer: Trainer, state: str, why: str | None, seconds: float) -> dict[str, Any]:
    """The content of result.json."""
    best = best_epoch(trainer.history, trainer.best_metric)
    trained = sum(row["seconds/train"] for row in trainer.history)
    images = trainer.step * trainer.plan.batch_size
    return {
        "state": state, "why": why, "step": trainer.step, "total_steps": trainer.plan.total_steps,
        "best_epoch": int(trainer.history[best]["epoch"]) if best is not None else None,
        "best_metric": trainer.best_metric,
        "best": trainer.history[best] if best is not None else None,
        "last": trainer.history[-1] if trainer.history else None,
        "seconds": round(seconds, 3),
        "images_per_second": round(images / trained, 1) if trained else None,
    }  # fmt: skip


def environment(trainer: Trainer, experiment: Experiment, plugins: dict[str, str]) -> dict[str, Any]:
    """What the numbers of a run depend on besides its experiment."""
    from importlib.metadata import version

    packages = ("dltrain", "torch", "torchvision", "timm", "numpy", "pydantic", "optuna", "pillow")
    return {
        "python": platform.python_version(), "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "command": sys.argv, "git_commit": _git_commit(), "seed": experiment.seed,
        "data_fingerprint": trainer.about["fingerprint"], "decisions": trainer.about["decisions"],
        "plugins": plugins, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }  # fmt: skip


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def flatten(experiment: Experiment) -> Hyperparameters:
    """The experiment as dotted keys with plain values, for TensorBoard's hyperparameter table."""
    flat: Hyperparameters = {}

    def walk(value: Any, prefix: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{prefix}.{key}" if prefix else key)
        elif isinstance(value, (str, int, float, bool)):
            flat[prefix] = value
        elif value is not None:
            names = [item["name"] if isinstance(item, dict) and "name" in item else item for item in value]
            flat[prefix] = ", ".join(map(str, names))

    walk(experiment.model_dump(mode="json", exclude={"sweep"}), "")
    return flat


class Signals:
    """Notes SIGINT and SIGTERM instead of dying; a second one ends the process at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: leave signals to whoever is
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the device or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def _advice_on_memory(error: BaseException, experiment: Experiment, trainer: Trainer) -> str:
    training = experiment.training
    batch, parts = training.batch_size, training.accumulate
    lines = [f"out of memory with {batch // parts} images at a time on {trainer.parts.device}"]
    more = next((n for n in range(parts + 1, batch + 1) if batch % n == 0 and n >= 2 * parts), None)
    if more is not None:
        lines.append(f"  training.accumulate={more}  the same batch in parts of {batch // more}: same learning rate")
    if trainer.about["decisions"]["precision"]["value"] == "float32" and trainer.parts.device.type == "cuda":
        lines.append("  training.precision=bfloat16  about half the memory for activations")
    if batch > 1:
        lr = getattr(experiment.optimizer, "lr", None)
        scaled = f" optimizer.lr={lr / 2:g}" if lr is not None else ""
        lines.append(f"  training.batch_size={batch // 2}{scaled}  half the batch, with the learning rate scaled along")
    if experiment.data.loader != "streaming" and trainer.about["decisions"]["loader"]["value"] == "resident":
        lines.append("  data.loader=streaming  keeps the images off the device")
    return "\n".join(lines)


def _advice_on_non_finite(error: NonFiniteError, run: Run) -> str:
    hint = "a smaller optimizer.lr, a warm-up (schedule.warmup.epochs) or training.clip_norm=1.0 usually helps"
    return f"{error}\n{hint}\n{_how_to_go_on(run)}"


def _how_to_go_on(run: Run) -> str:
    if run.last.exists():
        return f"the last good checkpoint is {run.last}; to go on: dltrain resume {run.path}"
    return "no checkpoint had been written yet"
