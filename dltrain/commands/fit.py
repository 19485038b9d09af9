"""`fit` and `resume`: a trainer's events flow into a run directory and a display, in one visible order."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals as Signal
from typing import Any

from dltrain.commands.failures import explain, is_out_of_memory, judge
from dltrain.commands.resuming import changed, continued, device_of, differences, extension, moved, resumption
from dltrain.commands.showing import (
    announce,
    close_recordings,
    how_to_go_on,
    how_to_train_on,
    require_libraries,
    result_of,
    say_what_is_next,
    say_what_was_slow,
    show_epoch,
    show_last_looks,
    show_points,
    start_recordings,
    tell_failures,
)
from dltrain.config import ConfigError
from dltrain.console.display import Display
from dltrain.data.types import Splits
from dltrain.engine.builder import build
from dltrain.engine.diagnosis import diagnose
from dltrain.engine.distributed import ALONE, Group, is_loss
from dltrain.engine.forecast import Forecast
from dltrain.engine.length import count_steps
from dltrain.engine.profiling import Profiler
from dltrain.engine.timing import Clock
from dltrain.engine.trainer import Trainer
from dltrain.errors import Note, RunError
from dltrain.experiment.experiment import Experiment
from dltrain.planning.plan import plan_of
from dltrain.runs.environment import Hyperparameters, environment, flatten
from dltrain.runs.interrupts import Signals
from dltrain.runs.keeping import Keeper
from dltrain.runs.recording import Recordings
from dltrain.runs.reports import EpochReport, NonFiniteError, Row
from dltrain.runs.run import FULL, ReadOnlyRun, Run, next_free, unwritable

__all__ = ["Begun", "Hyperparameters", "fit", "fit_by_epochs", "resume", "resume_by_epochs"]

Plugins = dict[str, str]
"""The files that `--plugin` named, and their SHA-256."""


@dataclass(frozen=True)
class Begun:
    """A training stands. rows: of the epochs that are done. parameters: how many numbers its network has."""

    rows: list[Row]
    parameters: int


ByEpochs = Generator[Begun | EpochReport, bool, tuple[int, Run]]
"""A training in the hands of whoever asks for its epochs: first yields `Begun`, then a report of each epoch. Sending
True ends it there, to go on another time. Returns the exit code and the run. A SIGKILL takes epochs of the last second
back: `Begun` of the resume has those that are kept, and the others are reported again, with the same numbers."""


def fit(experiment: Experiment, path: Path | None, device: str, display: Display, **options: Any) -> tuple[int, Run]:
    """Train an experiment in a new run directory; the exit code and the run. options: see `fit_by_epochs`."""
    return _whole(fit_by_epochs(experiment, path, device, display, **options))


def resume(path: str, device: str | None, display: Display, **options: Any) -> tuple[int, Run]:
    """Continue a run to its end. See `resume_by_epochs`."""
    return _whole(resume_by_epochs(path, device, display, **options))


def _whole(training: ByEpochs) -> tuple[int, Run]:
    try:
        while True:
            next(training)
    except StopIteration as end:
        done: tuple[int, Run] = end.value
        return done


def fit_by_epochs(
    experiment: Experiment, path: Path | None, device: str, display: Display, *, runs: Path = Path("runs"),
    plugins: Plugins | None = None, hyperparameters: Hyperparameters | None = None, profile_steps: int = 0,
    group: Group = ALONE, splits: Splits | None = None, trainer: Trainer | None = None, signals: Signals | None = None,
) -> ByEpochs:  # fmt: skip
    """Train an experiment in a new run directory.

    path: the directory, or None for the next number under `runs`/<experiment name>.
    hyperparameters: what recorders show of the experiment, by default what it states.
    profile_steps: how many steps to trace with torch's profiler. group: the processes that train together; when they
    were started again, they continue the run that they had begun. splits: the data, when it is loaded already.
    trainer: what trains, when it is built already; who built it closes it. signals: those of several trainings.

    Raises ConfigError before anything is created when the data does not fit the experiment, and RunError
    when the machine does not.
    """
    begun = group.broadcast(_begun_by(group, runs / experiment.name) if group.leads and group.restarts else None)
    if begun is not None:
        options: dict[str, Any] = {"plugins": plugins, "hyperparameters": hyperparameters, "group": group}
        return (yield from resume_by_epochs(str(begun), device, display, **options))
    require_libraries(experiment)
    with contextlib.ExitStack() as opened:
        if trainer is None:
            trainer = opened.enter_context(_built(experiment, device, plugins=plugins, group=group, splits=splits))
        signals = signals or opened.enter_context(Signals())
        experiment = _settled(experiment, trainer)
        plan, notes = _plan(experiment, trainer) if group.leads else ({}, [])
        path = group.broadcast(path or next_free(runs / experiment.name) if group.leads else None)
        assert path is not None
        run = _kind_of_run(group).create(path)
        with contextlib.closing(run):
            try:
                run.write("experiment.yaml", experiment.dump().encode())
                shown = {"hyperparameters": hyperparameters or flatten(experiment.stated())}
                loaded = {"initialized": trainer.initialized.to_dict()} if trainer.initialized is not None else {}
                facts = environment(trainer.about, experiment.seed) | shown | _launch(group) | loaded
                run.write_json("environment.json", facts)
                if plan:
                    run.write_json("plan.json", plan)
            except OSError as error:
                raise unwritable(error, run.path) from None
            code = yield from train(run, trainer, experiment, display, signals, hyperparameters, profile_steps, notes)
            return code, run


def resume_by_epochs(
    path: str, device: str | None, display: Display, *, plugins: Plugins | None = None,
    hyperparameters: Hyperparameters | None = None, group: Group = ALONE, overrides: Sequence[str] = (),
    splits: Splits | None = None,
) -> ByEpochs:  # fmt: skip
    """Continue a run from its last checkpoint (or the given one), bit-exactly where nothing differs.

    overrides: `key=value`, of what may change: where the data is, and how long the training is. splits: the data, when
    it is loaded already. Raises RunError when the run cannot be continued, ConfigError when its data has changed.
    """
    run, file = _kind_of_run(group).open(path)
    if not (run.path / "experiment.yaml").is_file():
        raise RunError(f"{path} lies in no run directory; for its weights: dltrain fit ... initialize_from={path}")
    run.lock()
    with contextlib.closing(run):
        state = None
        if file is not None or run.last.exists():
            file, state = run.checkpoint_at(file) if file is not None else run.checkpoint("last")
        begun = run.read_json("environment.json")
        warnings = list(differences(run, begun, dict(plugins or {}), device, group.size))  # or no plug-in for its parts
        experiment, before = continued(run, state, file, overrides)
        require_libraries(experiment)
        for warning in warnings:
            display.warning(warning)
        if device is None:
            device = device_of(run, begun) if group.size == 1 else _began_on(begun)
        with contextlib.ExitStack() as opened:
            try:
                trainer = opened.enter_context(_built(experiment, device, state, begun, plugins, group, splits))
            except ConfigError as error:
                raise moved(error, experiment, run) from None
            signals = opened.enter_context(Signals())
            if state is not None:
                try:
                    trainer.load_state_dict(state)
                except Exception as error:  # whatever parts make of a state that is not theirs
                    raise RunError(f"{file} does not fit what {experiment.name} builds now: {error}") from None
            steps = count_steps(before, trainer.examples["train"], group.size)[1]
            if trainer.settings.total_steps < steps:
                raise RunError(f"a run can become longer, not shorter: this one ends at step {steps:,}")
            if trainer.finished and run.read_json("result.json").get("state") == "finished":
                if changes := changed(before, experiment):  # where the data is now
                    _rewrite(run, trainer, experiment, begun, changes)
                display.line(f"{run.path} is finished already; {how_to_train_on(trainer, experiment)}")
                yield _begun(trainer)
                return 0, run
            notes = []
            if trainer.settings.total_steps > steps and trainer.step:
                last = trainer.history[-1]["lr"] if trainer.history else None
                longer = extension(steps, trainer.settings.total_steps, trainer.lr(trainer.step), last)
                notes.append(Note("info", "longer", longer))
            notes += _rewrite(run, trainer, experiment, begun, changed(before, experiment))
            display.log = run.log
            display.line(f"continuing at step {trainer.step}, {time.strftime('%Y-%m-%dT%H:%M:%S%z')}")
            return (yield from train(run, trainer, experiment, display, signals, hyperparameters, notes=notes)), run


def _begun(trainer: Trainer) -> Begun:
    return Begun([dict(row) for row in trainer.history], sum(p.numel() for p in trainer.parts.model.parameters()))


def _settled(experiment: Experiment, trainer: Trainer) -> Experiment:
    """The experiment with the numbers that were found when its trainer was built: the run repeats what was trained,
    however fast the machine is."""
    training, settings, found = experiment.training, trainer.settings, dict[str, Any]()
    if training.time is not None:
        found["training.steps"] = settings.total_steps
    if training.threads == "probe":
        found["training.threads"] = trainer.about["decisions"]["threads"]["value"]
    if training.batch_size == "all":
        found["training.batch_size"] = settings.batch_size
    return experiment.settled(found) if found else experiment


def _began_on(begun: dict[str, Any]) -> str:
    device: str = begun.get("decisions", {}).get("device", {}).get("value", "auto")
    return device


def _rewrite(
    run: Run, trainer: Trainer, experiment: Experiment, begun: dict[str, Any], changes: dict[str, list[Any]]
) -> list[Note]:
    """Record in the run that it is continued, and with what. Returns what there is to say of its plan.

    Raises RunError when it cannot be written.
    """
    about = begun or environment(trainer.about, experiment.seed)  # it was killed before this was written
    told = begun.get("resumed")
    entry = resumption(trainer.step, trainer.about, changes)
    plan, notes = _plan(experiment, trainer) if changes else ({}, [])
    try:
        run.write_json("environment.json", about | {"resumed": [*(told if isinstance(told, list) else []), entry]})
        if changes:
            run.write("experiment.yaml", experiment.dump().encode())
            if plan:
                run.write_json("plan.json", plan)
    except OSError as error:
        raise unwritable(error, run.path) from None
    return notes


@contextlib.contextmanager
def _built(
    experiment: Experiment, device: str, state: dict[str, Any] | None = None, begun: dict[str, Any] | None = None,
    plugins: Plugins | None = None, group: Group = ALONE, splits: Splits | None = None,
) -> Iterator[Trainer]:  # fmt: skip
    """begun: the environment of the run that goes on, whose decisions and plug-ins it keeps."""
    begun = begun or {}
    plugins = begun.get("plugins", plugins)
    try:
        trainer = build(experiment, group.device(device), state, begun.get("decisions"), group, plugins, splits=splits)
    except OSError as error:
        if is_out_of_memory(error):
            raise RunError("the machine has no memory left", "memory") from None
        what = f"{error.filename}: " if error.filename else ""
        kind = "full disk" if error.errno in FULL else "disk"
        raise RunError(
            f"the data and the network cannot be made ready: {what}{error.strerror or error}", kind
        ) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = f"the model and the data do not fit into memory: {(str(error).splitlines() or [''])[0]}"
        less = "less: data.loader=streaming, a smaller data.size or a smaller model"
        raise RunError(f"{message}\n{less}", "memory") from None
    with contextlib.closing(trainer):
        yield trainer


def _plan(experiment: Experiment, trainer: Trainer) -> tuple[dict[str, Any], list[Note]]:
    """The plan of the training, empty when it cannot be made; and its warnings, or why there is none."""
    try:
        plan = plan_of(experiment, trainer)
    except Exception as error:  # a plug-in's network may run on its own device only: that is no reason not to train
        return {}, [Note("info", "no_plan", f"no plan.json: {type(error).__name__}: {error}")]
    told = {note.text for note in trainer.notes}
    return plan, [Note("warning", "plan", text) for text in plan["warnings"] if text not in told]


def _kind_of_run(group: Group) -> type[Run]:
    return Run if group.leads else ReadOnlyRun


def _launch(group: Group) -> dict[str, str]:
    """What environment.json says of the command that started several processes."""
    return {"launch": group.launch} if group.size > 1 else {}


def _begun_by(group: Group, folder: Path) -> Path | None:
    """The run that the processes had begun before they were started again, if they had got so far."""
    runs = sorted(path.parent for path in folder.glob("*/environment.json"))
    return next(
        (path for path in reversed(runs) if Run(path).read_json("environment.json").get("launch") == group.launch), None
    )


def train(
    run: Run, trainer: Trainer, experiment: Experiment, display: Display, signals: Signals,
    hyperparameters: Hyperparameters | None = None, profile_steps: int = 0, notes: Sequence[Note] = (),
) -> Generator[Begun | EpochReport, bool, int]:  # fmt: skip
    """Run the trainer to its end, a signal, a failure, or where it is parked. Returns the exit code: see `ByEpochs`.
    notes: told with the trainer's."""
    display.log, group = run.log, trainer.parts.group
    clock = Clock(run.read_json("result.json") if trainer.step else {})
    recordings, metrics = Recordings(experiment.recorders, leads=group.leads), experiment.resolved_task.metrics

    def result(state: str, why: str | None = None) -> None:
        run.write_json("result.json", result_of(trainer, state, why, clock))

    often = min(trainer.settings.progress_seconds, display.seconds)
    trainer.settings = replace(trainer.settings, progress_seconds=often)
    keeper = Keeper(run, recordings, lambda: result("running"))
    try:
        announce(run, trainer, experiment, display, notes)
        start_recordings(recordings, run, trainer, experiment, hyperparameters, display)
        result("running")
        compiles = trainer.about["decisions"]["compile"]["value"]
        display.waiting("the first step: compiling the network" if compiles else "the first step")
        clock.starts()
        stuck, told, forecast = None, False, Forecast(trainer)
        profiler = Profiler(trainer, run.path / "profile", profile_steps) if profile_steps else None
        if (yield _begun(trainer)):
            result("interrupted", "parked")
            return 0
        with keeper:
            for event in trainer.run(profiler.watch) if profiler else trainer.run():
                overdue = keeper.seconds > 60 * experiment.training.checkpoint_every
                stopping, overdue = group.any(signals.received is not None and not trainer.finished, overdue)
                _tell(profiler, display)
                show_points(recordings, event.points, event.looks, display)
                if (line := forecast.news(event)) is not None:
                    display.line(line)
                if isinstance(event, EpochReport):
                    display.epoch(event, metrics, trainer.parts.shape.one)
                    stuck = diagnose(trainer, experiment) if group.leads else None
                    if stuck is not None and (trainer.finished or not told):
                        told = True
                        display.warning(stuck)
                    keeper.take(trainer.state_dict, best=event.is_best, now=trainer.finished or stopping)
                    event.metrics["seconds/checkpoint"] = keeper.spent()
                    show_epoch(recordings, trainer, event)
                else:
                    display.progress(event, metrics, trainer.parts.shape.one)
                    keeper.write()
                    if stopping or overdue:
                        clock.inside += keeper.take(trainer.state_dict, now=True)
                keeper.tell()
                tell_failures(recordings, run, display)
                if stopping:
                    raise KeyboardInterrupt
                if isinstance(event, EpochReport) and (yield event) and not trainer.finished:
                    keeper.finish()
                    result("interrupted", "parked")
                    return 0
        result("finished", stuck)
        _tell(profiler, display, finished=True)
    except KeyboardInterrupt:  # ours, or that of a second signal
        number = signals.received or Signal.SIGINT
        with contextlib.suppress(OSError):  # a full disk: the checkpoint is what counts
            result("interrupted", number.name)
        if group.leads:
            display.error(f"interrupted at step {trainer.step}; {how_to_go_on(run, trainer)}")
        return 128 + number
    except Exception as error:
        if group.leads or not (is_loss(error) or isinstance(error, NonFiniteError)):  # else the first process says it
            show_last_looks(recordings, trainer, display)
            with contextlib.suppress(OSError):  # the disk may be what failed
                result("failed", _judged(error, run))
            display.error(explain(error, run, trainer, experiment))
        return 1
    finally:
        display.stop()
        close_recordings(recordings, run, display)
    say_what_is_next(run, trainer, display)
    say_what_was_slow(trainer, experiment, clock, display)
    return 0


def _judged(error: Exception, run: Run) -> str:
    """Why a training failed, for result.json; the run keeps whose failure it is, and the traceback of a strange one."""
    run.failure = judge(error, run.path)
    if isinstance(error, ConfigError):  # an image that could be read before: no fault of the settings
        run.failure = replace(run.failure, of_machine=True)
        return str(error)
    if not (isinstance(error, NonFiniteError) or is_loss(error)):
        run.log(traceback.format_exc())
    return run.failure.why


def _tell(profiler: Profiler | None, display: Display, *, finished: bool = False) -> None:
    if profiler is None:
        return
    if finished:
        profiler.finish()
    for line in profiler.news():
        display.line(line)
