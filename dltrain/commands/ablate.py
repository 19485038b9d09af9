"""`ablate`: which parts of an experiment help, each decided with as few trainings as it takes.

experiment -> its parts -> the base and the experiment without each part, seed after seed -> tests -> ablation.json, .md

    runs/NAME/ablate-001:  ablation.yaml  base.yaml  ablation.json  ablation.md
                           base/seed-0/ ...   model.norm/seed-0/ ...        each an ordinary run

The base is trained once a seed, for all questions. A part that is decided is trained no more.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from dltrain.commands.ablated import BASE, Ablated, Question
from dltrain.commands.ask import write
from dltrain.commands.fit import Plugins
from dltrain.commands.fit_several import Loaded, train_one
from dltrain.commands.pairs import is_finished, pair_of
from dltrain.commands.showing import require_libraries
from dltrain.console.display import Display
from dltrain.engine.torch_threads import TORCH_THREADS, forget_last_training
from dltrain.errors import RequestError, RunError
from dltrain.evidence.sequential import SequentialTest
from dltrain.experiment.ablation import ABLATION, Ablation, Asked, asked, load_ablation, parts_of
from dltrain.experiment.experiment import Experiment
from dltrain.runs.interrupts import Signals
from dltrain.runs.run import Run, next_free

PAIRS = 8
"""Of the base and each part, where no budget is given."""
FAILED = "failed.json"
"""By part, why the training without it failed."""


def ablate(
    path: Path, device: str, display: Display, *, parts: Sequence[str] = (), metric: str | None = None,
    difference: float = 0.0, error: float = 0.05, budget: int | None = None, runs: Path = Path("runs"),
    plugins: Plugins | None = None, overrides: Sequence[str] = (),
) -> tuple[int, Path, Ablated | None]:  # fmt: skip
    """Ask of each part of an experiment whether it helps; the exit code, the folder, and what was found.

    parts: names; by default what the file states. budget: trainings in all. error: of each answer. difference: a part
    that changes the metric by less makes none. Raises ConfigError and RequestError before anything is created, for an
    experiment without parts, a name of no part, a budget within which nothing could be decided, and data that does not
    fit.
    """
    if path.is_dir():
        raise RunError(f"{path} is a folder; to ask of an experiment: dltrain ablate EXPERIMENT.yaml")
    base = Experiment.load(path, overrides).without_sweep()
    changes = parts_of(base, parts)
    test = SequentialTest(error, difference)
    fewest = test.fewest()
    least = fewest * (1 + len(changes))
    if budget is None:
        budget = max(PAIRS, fewest) * (1 + len(changes))
    if budget < least:
        raise RequestError(
            f"{budget} runs cannot decide, whatever they reach: with an error of {error:g} it takes {fewest} pairs at "
            f"least, and with {len(changes)} parts --budget {least}; or ask of fewer with --parts"
        )
    ablation = Ablation(
        base="base.yaml", parts=changes, metric=metric, difference=difference, error=error, budget=budget
    )
    return _carried_out(asked(base, ablation), None, runs, device, display, plugins)


def go_on(
    folder: Path, device: str, display: Display, plugins: Plugins | None = None
) -> tuple[int, Path, Ablated | None]:
    """Go on in the folder of an ablation, with what is left. Raises RunError where it is none."""
    if not (folder / ABLATION).is_file():
        raise RunError(f"{folder} holds no ablation; to begin one: dltrain ablate EXPERIMENT.yaml")
    return _carried_out(load_ablation(folder / ABLATION), folder, folder.parent, device, display, plugins)


def _carried_out(
    found: Asked, folder: Path | None, runs: Path, device: str, display: Display, plugins: Plugins | None
) -> tuple[int, Path, Ablated | None]:
    """Train, in a new folder where none is given, and write down what was found."""
    loaded = Loaded()
    for experiment in (found.base, *found.without.values()):
        require_libraries(experiment)
        loaded.splits_of(experiment)  # a mistake of the data comes before there is a folder
    if folder is None:
        folder = next_free(runs / found.base.name, "ablate-")
        write(folder, found.repeated())
    display.line(f"which of {len(found.without)} parts help: {folder}", "bold")
    test = SequentialTest(found.ablation.error, found.ablation.difference)
    result = Ablated(found, test, folder, [Question(name) for name in found.without])
    code = _train(result, loaded, device, display, plugins)
    if code:
        return code, folder, None
    write(folder, {"ablation.md": result.as_markdown()}, {"ablation.json": result.as_dict()})
    return 0, folder, result


def _train(result: Ablated, loaded: Loaded, device: str, display: Display, plugins: Plugins | None) -> int:
    """Train seed after seed until all is decided or the budget is spent. What is finished is not trained again.
    Returns an exit code, which is 0 unless it was interrupted or a training failed that all the others need."""
    threads, going_on = TORCH_THREADS.default, f"to go on: dltrain ablate {shlex.quote(str(result.folder))}"
    failures = Run(result.folder).read_json(FAILED)  # of an earlier process: those would fail again
    with Signals() as signals:
        for seed in count(result.asked.base.seed):
            if not result.begin_round():
                break
            for question, experiment, place in _trainings(result, seed):
                if question is not None and question.name in failures and not is_finished(place):
                    question.failed = failures[question.name]
                    continue
                if not is_finished(place):
                    if signals.received is not None:  # between two trainings
                        display.error(f"interrupted; {going_on}")
                        return 128 + signals.received
                    display.line(f"{place.parent.name}, seed {seed}")
                    forget_last_training(threads)
                    code, run = train_one(experiment.override("seed", seed), place, loaded, device, plugins)
                    if code and question is not None and run.failure is not None and not run.failure.of_machine:
                        question.failed = failures[question.name] = run.failure.why
                        write(result.folder, {}, {FAILED: failures})
                        display.warning(f"without {question.name} training fails, and it is asked no more")
                        continue
                    if code:
                        display.error(f"{place} came to no end; {going_on}")
                        return code
                if question is not None:
                    base = result.folder / BASE / place.name
                    question.pairs.append(pair_of(seed, base, place, result.asked.watched.tag))
                    display.line(f"{question.name}: {result.in_short(question)}")
    forget_last_training(threads)
    return 0


def _trainings(result: Ablated, seed: int) -> Iterator[tuple[Question | None, Experiment, Path]]:
    """Those of a round: first the base, then what lacks each part that is undecided, and where each is trained."""
    yield None, result.asked.base, result.folder / BASE / f"seed-{seed}"
    for question in result.undecided():
        yield question, result.asked.without[question.name], result.folder / question.name / f"seed-{seed}"
