"""`sweep`: search hyperparameters on the validation split.

    runs/<experiment>/sweep-NNN/
      experiment.yaml   journal.log   ranking.csv   best.yaml   sweep.html   trials/<NNN>/ (a run each)

A trial is an ordinary run, shortened; one that was interrupted is resumed. The directory is therefore all that a search
needs to go on.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dltrain.commands.resuming import PLACES, SHOWING
from dltrain.commands.showing import require_libraries, require_sampler
from dltrain.config.dump import to_yaml
from dltrain.console.display import Display
from dltrain.data.types import Splits
from dltrain.engine.length import count_steps
from dltrain.errors import RunError
from dltrain.experiment.experiment import Experiment
from dltrain.runs.checkpoints import write_atomically
from dltrain.runs.run import JOURNAL, next_free, unwritable
from dltrain.search.judging import Judge
from dltrain.sweeps.agenda import Agenda
from dltrain.sweeps.board import Board
from dltrain.sweeps.cluster import Cluster, connected
from dltrain.sweeps.coordinator import Coordinator
from dltrain.sweeps.finish import Finish
from dltrain.sweeps.packing import Packer, faster_together, why_none_together
from dltrain.sweeps.page import write_page
from dltrain.sweeps.ranking import Ranking, trial_folder
from dltrain.sweeps.sharing import require_memory, shared
from dltrain.sweeps.study import Study
from dltrain.sweeps.telling import story_of
from dltrain.sweeps.trial import Setup
from dltrain.sweeps.workers import Here, Processes, Workers, wait_for_orphans

BUDGET = ("trials", "time")
"""The keys of a sweep that may change while it is made."""


@dataclass(frozen=True)
class Request:
    """How a search is to be made. jobs: trials at once; None: one, or as many as a cluster has room for. cluster: the
    address of a Ray cluster, or auto. plugins: path -> sha256. retry_failed: whether the trials that failed are made
    again, from their beginning. finish: how many of the best settings are trained at full length."""

    device: str = "auto"
    jobs: int | None = None
    cluster: str | None = None
    plugins: dict[str, str] = field(default_factory=dict)
    retry_failed: bool = False
    finish: int = 0


def is_sweep(folder: Path) -> bool:
    """Whether `folder` is the directory of a sweep."""
    return (folder / JOURNAL).is_file() and (folder / "experiment.yaml").is_file()


def run_sweep(experiment: Experiment, folder: Path, request: Request, display: Display) -> tuple[int, Path | None]:
    """Make every trial that is still missing; the exit code, and the path of best.yaml.

    folder: an earlier sweep's directory, or where a new one is made. Raises ConfigError when the data is unfit, or the
    earlier sweep searched something else, and RunError when another process runs it or its directory cannot be written.
    """
    require_libraries(experiment)
    assert experiment.sweep is not None
    require_sampler(experiment, experiment.sweep)
    splits = experiment.load_data()  # before anything is created: unfit data would fail every trial
    for note in splits.remarks:
        display.tell(note)
    facts = {"data": splits.fingerprint, **_searched(experiment)}
    splits = splits.sealed()
    jobs = request.jobs or 1
    if jobs > 1 and request.cluster is None:
        require_memory(experiment, splits, jobs)
    ray = connected(request.cluster) if request.cluster is not None else None
    path = folder if is_sweep(folder) else next_free(folder, "sweep-")
    lock = FileLock(path / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{path} is being run by another process") from None
    except OSError as error:
        raise unwritable(error, path) from None
    try:
        wait_for_orphans(path)
        return _search(experiment, splits, facts, path, request, display, ray)
    except OSError as error:
        raise unwritable(error, path) from None
    finally:
        lock.release()


def _search(
    experiment: Experiment,
    splits: Splits,
    facts: dict[str, Any],
    path: Path,
    request: Request,
    display: Display,
    ray: Any,
) -> tuple[int, Path | None]:
    sweep = experiment.sweep
    assert sweep is not None
    objectives = tuple(experiment.resolved_task.objective(tag) for tag in sweep.metrics)
    study = Study(path, sweep, objectives, experiment.seed)
    if study.mended is not None:
        display.warning(study.mended)
    _refuse_changes(experiment, study.remember(facts), facts, path)
    write_atomically(path / "experiment.yaml", experiment.dump().encode())
    if request.retry_failed:
        for index in study.forget_failures():
            shutil.rmtree(trial_folder(path, index), ignore_errors=True)
    agenda = Agenda(sweep, study, _judge(experiment, len(splits.train)))
    ranking = Ranking(experiment, objectives, path)
    order = ranking.write(study.trials.values())
    board = Board(display, ranking, path, agenda.most if agenda.most < sys.maxsize else None, request.plugins)
    board.begin(experiment.name, sum(trial.ended(sweep.repeats) for trial in order))
    if study.settings.why:
        display.line(f"sampler: {study.settings.sampler.name} ({study.settings.why})")
    if note := sweep.exhausted():
        display.warning(note)
    plain, together = experiment.without_sweep(), sweep.vectorize
    if together == "auto":
        together, why = faster_together(plain, study, sweep.epochs, splits, request.device, request.plugins)
        display.line(f"vectorize: {together} ({why})")
    elif together > 1 and (reason := why_none_together(plain, study)) is not None:
        display.warning(f"`sweep.vectorize: {together}` trains nothing together: {reason}")
    packer = Packer(plain, together)
    workers = _workers(experiment, splits, path, request, ray)
    try:
        coordinator = Coordinator(study, agenda, packer, workers, ranking, board, path, experiment.seed)
        code = coordinator.run()
        order = ranking.write(study.trials.values())
        if order:
            write_page(path, story_of(experiment, study, order, path, coordinator.seconds))
        best = board.table(order) if code == 0 else None
        if best is None:
            code = code or 1
        elif request.finish:
            good = [trial for trial in order if trial.metrics is not None][: request.finish]
            task = experiment.resolved_task
            code = Finish(path, task.ranking(), workers, request.device, display).run(good, len(order))
    finally:
        workers.close()
    if code >= 128:
        display.error(f"interrupted; {board.how_to_go_on}")
    return code, best if code == 0 else None


def _judge(experiment: Experiment, examples: int) -> Judge | None:
    """What judges the trials, of so many training examples."""
    sweep = experiment.sweep
    if sweep is None or sweep.pruner is None:
        return None
    if sweep.epochs is not None:
        return sweep.pruner.build(math.ceil(sweep.epochs))
    per_epoch, steps = count_steps(experiment.without_sweep(), examples)
    return sweep.pruner.build(math.ceil(steps / per_epoch))


def _workers(experiment: Experiment, splits: Splits, path: Path, request: Request, ray: Any) -> Workers:
    plain = experiment.without_sweep()
    text = to_yaml({**plain.document.tree, "name": experiment.name})
    setup = Setup(text, experiment.name, request.device, request.plugins)
    if ray is not None:
        return Cluster(ray, setup, path, request.jobs)
    if (request.jobs or 1) == 1:
        return Here(setup, plain, splits)
    return Processes(shared(setup, request.jobs or 1), path)


def _searched(experiment: Experiment) -> dict[str, Any]:
    """All that a trial depends on, by dotted key: the experiment without what a search may take and what is shown."""
    flat: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else name)
        else:
            flat[key] = value

    walk(experiment.model_dump(mode="json", exclude={"sweep": set(BUDGET)}), "")
    return {key: value for key, value in flat.items() if key not in SHOWING}


def _refuse_changes(experiment: Experiment, before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    absent = object()
    for key in {**before, **now}:
        was, is_ = before.get(key, absent), now.get(key, absent)
        if was == is_ or key in PLACES:  # the fingerprint says whether data that has moved is the same
            continue
        if was is absent and is_ is None:  # the sweep is older than the key
            continue
        if key == "data":
            message = f"the data has changed since the sweep began ({was} -> {is_})"
        else:
            values = ["not set" if value is absent else json.dumps(value) for value in (was, is_)]
            message = f"the trials of {path} were made with `{key}` {values[0]}; it cannot be {values[1]} now"
        what = "only `sweep.trials` and `sweep.time`, and where the data lies, can change"
        note = f"{what}; for anything else start a new sweep: dltrain sweep EXPERIMENT"
        raise experiment.error(key, message, note)
