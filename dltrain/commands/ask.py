"""`ask`: whether a claim is true, decided with as few trainings as it takes.

claim -> pairs of trainings with the same seed, one after another -> the sequential test -> answer.json, answer.md

    runs/NAME/ask-001:  claim.yaml  base.yaml  answer.json  answer.md
                        base/seed-0/ ...   changed/seed-0/ ...        each an ordinary run
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltrain.commands.answer import Answer, as_json, as_markdown, changed_sides
from dltrain.commands.fit import Plugins
from dltrain.commands.fit_several import Loaded, train_one
from dltrain.commands.pairs import Pair, differences, is_finished, pair_of
from dltrain.commands.showing import require_libraries
from dltrain.console.display import Display
from dltrain.engine.torch_threads import TORCH_THREADS, forget_last_training
from dltrain.errors import RunError
from dltrain.evidence.sequential import Look, SequentialTest
from dltrain.experiment.claim import CLAIM, Sides, load_claim
from dltrain.experiment.experiment import Experiment
from dltrain.runs.interrupts import Signals
from dltrain.runs.run import Run, next_free, unwritable

ANSWER = "answer"
SIDES = ("base", "changed")


def ask(
    path: Path, device: str, display: Display, *, runs: Path = Path("runs"), plugins: Plugins | None = None,
    overrides: Sequence[str] = (),
) -> tuple[int, Path]:  # fmt: skip
    """Answer the claim in a file, or go on in the folder of one; the exit code and the folder.

    overrides: `key=value`, of both sides. Raises ConfigError before anything is created for a claim that is wrong or
    cannot be decided within its budget, or data that does not fit; RunError when the machine does not.
    """
    folder = path if path.is_dir() else None
    if folder is not None and not (folder / CLAIM).is_file():
        raise RunError(f"{folder} holds no claim; to ask one: dltrain ask CLAIM.yaml")
    if folder is not None and overrides:
        raise RunError(f"what is begun in {folder} goes on as it is: leave out {', '.join(overrides)}")
    sides = load_claim(path / CLAIM if folder is not None else path, overrides)
    test = SequentialTest(sides.claim.decide.error, sides.claim.decide.difference)
    _require_budget(sides, test)
    trained = dict(zip(SIDES, (sides.base, sides.changed), strict=True))
    loaded = {name: Loaded() for name in SIDES}
    if sides.base.data == sides.changed.data:
        loaded["changed"] = loaded["base"]
    for name, experiment in trained.items():
        require_libraries(experiment)
        loaded[name].splits_of(experiment)  # a mistake of the data comes before there is a folder
    if folder is None:
        folder = next_free(runs / sides.base.name, "ask-")
        write(folder, sides.repeated())
    display.line(f"{sides.claim.claim}: {folder}", "bold")
    code, pairs = _train(folder, sides, test, trained, loaded, device, display, plugins)
    if code:
        return code, folder
    answer = _answer(folder, sides, test, pairs)
    answer = changed_sides(answer, folder, sides, device, display)
    write(folder, {f"{ANSWER}.md": as_markdown(answer)}, {f"{ANSWER}.json": as_json(answer)})
    display.line(answer.sentence, "bold")
    return 0, folder


def _require_budget(sides: Sides, test: SequentialTest) -> None:
    """Raise ConfigError where no result could decide the claim, so that trainings would be wasted."""
    fewest = test.fewest()
    if sides.claim.decide.budget.runs // 2 < fewest:
        message = f"{sides.claim.decide.budget.runs} runs cannot decide, whatever they reach"
        note = f"with an error of {test.error:g} it takes {fewest} pairs at least: runs: {2 * fewest}"
        raise sides.error("decide.budget.runs", message, note)


def _train(
    folder: Path, sides: Sides, test: SequentialTest, trained: dict[str, Experiment], loaded: dict[str, Loaded],
    device: str, display: Display, plugins: Plugins | None,
) -> tuple[int, list[Pair]]:  # fmt: skip
    """Train pair after pair until it is decided, or the budget is spent; those that are finished are not trained again.
    Returns an exit code, which is 0 unless it was interrupted or a training failed, and the pairs."""
    threads, pairs, first = TORCH_THREADS.default, list[Pair](), sides.base.seed
    go_on = f"to go on: dltrain ask {shlex.quote(str(folder))}"
    with Signals() as signals:
        for seed in range(first, first + sides.claim.decide.budget.runs // 2):
            for name, experiment in trained.items():
                place = folder / name / f"seed-{seed}"
                if is_finished(place):
                    continue
                if signals.received is not None:  # between two trainings
                    display.error(f"interrupted; {go_on}")
                    return 128 + signals.received, pairs
                display.line(f"pair {len(pairs) + 1}, {name}, seed {seed}")
                forget_last_training(threads)
                code, _ = train_one(experiment.override("seed", seed), place, loaded[name], device, plugins)
                if code:
                    failed = "" if code >= 128 else f"{place} failed, and there is no answer without it; "
                    display.error(f"{failed}{go_on}")
                    return code, pairs
            base, changed = (folder / name / f"seed-{seed}" for name in SIDES)
            pairs.append(pair_of(seed, base, changed, sides.watched.tag))
            look = test.look(differences(pairs))
            display.line(f"after {look.pairs} pairs: {_in_short(look, sides)}")
            if look.verdict != "undecided":
                break
    forget_last_training(threads)
    return 0, pairs


def _in_short(look: Look, sides: Sides) -> str:
    shown = sides.watched.metric.format
    return f"{sides.watched.tag} {look.mean:+{shown}}, p = {look.p:.2g}, {look.verdict}"


def _answer(folder: Path, sides: Sides, test: SequentialTest, pairs: Sequence[Pair]) -> Answer:
    look = test.look(differences(pairs))
    gains = {"higher": "worse", "lower": "better"} if sides.watched.falls else {"higher": "better", "lower": "worse"}
    table: list[dict[str, Any]] = [
        {"seed": pair.seed, "base": pair.values[0], "changed": pair.values[1],
         "difference": pair.values[1] - pair.values[0], "seconds": round(sum(pair.seconds), 3)}
        for pair in pairs
    ]  # fmt: skip
    return Answer(
        sides=sides, look=look, verdict=gains.get(look.verdict, look.verdict), assumes=test.assumes, pairs=table,
        repeat=f"dltrain ask {shlex.quote(str(folder / CLAIM))}",
    )  # fmt: skip


def write(folder: Path, files: dict[str, str], objects: dict[str, dict[str, Any]] | None = None) -> None:
    """Write texts and JSON objects, by file name. Raises RunError where the disk does not take them."""
    try:
        for name, content in (objects or {}).items():
            Run(folder).write_json(name, content)
        for name, text in files.items():
            Run(folder).write(name, text.encode())
    except OSError as error:
        raise unwritable(error, folder) from None
