"""`eval`: measure a checkpoint on a split; the checkpoint and the data are all it needs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dltrain.commands.resuming import is_of, where_it_lies_now
from dltrain.config import ConfigError
from dltrain.console.display import Display
from dltrain.console.streams import print_result
from dltrain.data.base import Dataset
from dltrain.data.evaluation import Views
from dltrain.data.labelled import PLACES, labelled, same_place
from dltrain.data.loading.choosing import Loader, choose_loader, choose_workers, make_loader
from dltrain.data.targets import TargetSpec
from dltrain.data.types import Source, Splits
from dltrain.engine.predictor import Predictor, require_same_units, restore_predictor
from dltrain.errors import RunError
from dltrain.experiment.experiment import Experiment
from dltrain.runs.checkpoints import digest_of
from dltrain.runs.run import Run
from dltrain.tasks.impl.meters import Report
from dltrain.tasks.impl.objectives import answer_of

READING = ("cache", "download", "loader", "workers")
"""Options of data sets that change no example."""


def evaluate_run(
    paths: Sequence[str], split: str, which: str, device: str, display: Display, *, overrides: Sequence[str] = (),
    views: Views | None = None, share: float | None = None, as_json: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Measure the runs or checkpoints at `paths` on `split`, print the result and keep it in each run.

    Of several, the result is that of their ensemble, which answers with the mean of their probabilities.
    overrides: of `data` alone, for data that has moved, or other data with the same classes. views, share: of
    `evaluation`, where they are not each run's own.
    Raises RunError when there is no such run, checkpoint or split, ConfigError when the data cannot be read.
    """
    runs = [Run.open(path) for path in paths]
    found = [find_checkpoint(run, given, which) for run, given in runs]
    predictors = [restore_predictor(state, device, file) for file, state in found]
    require_same_units(predictors)
    trained, target = where_it_lies_now(runs[0][0], predictors[0].experiment), predictors[0].target
    experiment = _with_data(trained, overrides)
    for predictor in predictors:
        predictor.look(views, share)
        require_alike(target, predictor.target)
        if predictor.target != target:
            raise RunError(f"the runs have learned {target.kind} in different units: their training splits differ")
    marks = [state["about"]["fingerprint"] for _, state in found]
    source, about_data, own_data = _measured(trained.data, experiment, split, target, marks, display)
    lies = about_data["data"]
    if any(own_data):  # where it lies is told of other data alone
        about_data = {"data_fingerprint": about_data["data_fingerprint"]}
    division = _other_division(trained.data, experiment.data)
    for text in source.unlike(predictors[0].layout):
        display.warning(text)
    started = time.perf_counter()
    reports = measure_together(predictors, source, experiment)
    seen = [_seen(predictor) for predictor in predictors]
    about_data = {"seconds": round(time.perf_counter() - started, 3), **about_data}
    results = []
    for (run, _), (file, state), predictor, views_seen, report, own in zip(
        runs, found, predictors, seen, reports, own_data, strict=False
    ):
        result = {"split": split, "checkpoint": file.name, "step": state["step"], **views_seen}
        result |= report.to_dict() | about_data
        results.append(result)
        if (run.path / "experiment.yaml").is_file():  # a checkpoint may lie anywhere
            parts = [split, *_which(run, file, state), *_other_views(predictor)]
            name = "-".join([*parts, *([] if own else [about_data["data_fingerprint"]]), *division])
            always = {"data": lies, "views": predictor.evaluation.views, "share": predictor.evaluation.share}
            always |= {"checkpoint_path": str(file), "when": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            _record(run, name, {**result, **always}, display)
    title = f"{found[0][0]}, {split}"
    if len(found) > 1:
        metrics = trained.resolved_task.ranking()
        members = [
            {"checkpoint": str(file), "step": result["step"], **{each.name: result[each.name] for each in metrics}}
            for (file, _), result in zip(found, results, strict=True)
        ]
        whole = {"split": split, "members": members, **seen[0], **reports[-1].to_dict()}
        results.append(whole | about_data)
        lines = [
            f"{member['checkpoint']}, {split}: {', '.join(metric.text(member[metric.name]) for metric in metrics)}"
            for member in members
        ]
        title = "\n".join([*lines, f"ensemble of {len(found)}, {split}"])
    title = ", ".join([title, *map(str, seen[0].values())])
    print_result(json.dumps(results[-1], ensure_ascii=False) if as_json else f"{title}\n{reports[-1].table()}")
    return results[-1]


def measure(predictor: Predictor, source: Source, experiment: Experiment) -> Report:
    """The report on every example of a split, in batches of the training's size."""
    return measure_together([predictor], source, experiment)[0]


def measure_together(predictors: Sequence[Predictor], source: Source, experiment: Experiment) -> list[Report]:
    """A report for each predictor, and after those of several one for what the task combines of their answers."""
    batch_size = min(experiment.training.batch_of(len(source)), len(source))
    loaders: list[Loader] = []
    tasks = [predictor.measuring_task(combined=not predictor.evaluation.is_plain) for predictor in predictors]
    together = predictors[0].measuring_task(combined=True)
    together.adopt([predictor.task for predictor in predictors])
    reports = [task.report() for task in tasks]
    whole = together.report()
    try:
        for predictor in predictors:
            asked, processes = experiment.data.loading
            kind, _ = choose_loader(source, predictor.layout, predictor.device, asked)
            workers = choose_workers(source, processes)[0] if kind == "streaming" else 0
            loader = partial(make_loader, kind, source, predictor.layout, batch_size=batch_size, seed=0)
            loaders.append(loader(device=predictor.device, workers=workers))
        for batches in zip(*(loader.evaluation_batches() for loader in loaders), strict=True):
            answers = []
            for predictor, task, report, (batch, valid) in zip(predictors, tasks, reports, batches, strict=True):
                outputs = predictor.outputs(batch.inputs, valid)
                answers.append(answer_of(outputs))
                targets = predictor.inputs(batch.inputs) if task.learns_inputs else batch.targets
                task.measure(report, outputs, targets, valid)
            if len(predictors) > 1:
                batch, valid = batches[0]
                targets = predictors[0].inputs(batch.inputs) if together.learns_inputs else batch.targets
                together.measure(whole, together.combine(answers), targets, valid)
    finally:
        for opened in loaders:
            opened.close()
    return [*reports, whole] if len(predictors) > 1 else reports


def _seen(predictor: Predictor) -> dict[str, Any]:
    """What a result says of the views; nothing when there is one of each image."""
    seen = predictor.evaluation
    return {} if seen.is_plain else seen.model_dump(exclude={"share"} if seen.share == 1 else None)


def _which(run: Run, file: Path, state: dict[str, Any]) -> list[str]:
    """What a result's name says of the checkpoint: nothing of the run's best one."""
    own = {run.best.resolve(): [], run.last.resolve(): ["last"]}
    if file.resolve() in own and is_of(run, state["about"]):
        return own[file.resolve()]
    return [file.stem, digest_of(file)[:8]]


def _other_views(predictor: Predictor) -> list[str]:
    """What a result's name says of the views: nothing when they are the experiment's own."""
    seen = predictor.evaluation
    if seen == predictor.experiment.evaluation:
        return []
    return [seen.views, *([f"{seen.share:g}"] if seen.share != 1 else [])]


def _other_division(own: Dataset, measured: Dataset) -> list[str]:
    """What a result's name says of options of the data: nothing when they are those of the training."""
    same = {*PLACES, *READING}
    one, other = own.model_dump(mode="json", exclude=same), measured.model_dump(mode="json", exclude=same)
    return [] if one == other else [hashlib.sha256(json.dumps(other, sort_keys=True).encode()).hexdigest()[:8]]


def find_checkpoint(run: Run, file: Path | None, which: str) -> tuple[Path, dict[str, Any]]:
    """The given checkpoint file, or the run's `best` or `last` one. Raises RunError."""
    if file is not None:
        return run.checkpoint_at(file)
    if which == "best" and not run.best.exists() and run.last.exists():
        return run.checkpoint("last")  # stopped before the first evaluation
    return run.checkpoint(which)


def _with_data(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    for text in overrides:
        if text.partition("=")[0].split(".")[0] != "data":
            raise RunError(f"a checkpoint brings its own settings, all but `data`: `{text}` cannot be given here")
    return Experiment.parse(experiment.dump(), "checkpoint", overrides) if overrides else experiment


def _measured(
    trained: Dataset, experiment: Experiment, split: str, target: TargetSpec, marks: Sequence[str], display: Display
) -> tuple[Source, dict[str, Any], list[bool]]:
    """The examples to measure, what the result says of them, and for each run whether they are of its own data.
    marks: the fingerprints of the runs' own data.

    Data of another place than the training's, and with other content, is measured whole, or by a split that it brings.
    """
    data = experiment.data
    where = str(next((getattr(data, key) for key in PLACES if hasattr(data, key)), data.name))
    with contextlib.ExitStack() as tried:
        if not same_place(trained, data):
            tried.enter_context(contextlib.suppress(ConfigError))  # it need not be enough to be divided
        splits = experiment.load_data(like=marks[0])
        own = [_knows(experiment, splits, mark) for mark in marks]
        known = all(own)
        if known or same_place(trained, data):
            if not known:
                display.warning("this is not the data of the training: some of it may have been trained on")
            for note in splits.told_of_skipped():
                display.tell(note)
            require_alike(splits.target, target)
            chosen, what = _split(splits, split, data.name), f"its {split} split"
            about = {"name": data.name, "place": where, "measured": what}
            return chosen, {"data_fingerprint": splits.fingerprint, "data": about}, own
    source, what, mark = labelled(data, split, target)
    display.warning("this is not the data of the training: some of it may have been trained on")
    display.line(f"measured: {len(source):,} {source.words}, {what} in {where}")
    about = {"name": data.name, "place": where, "measured": what}
    return source, {"data_fingerprint": mark, "data": about}, [False] * len(marks)


def _knows(experiment: Experiment, splits: Splits, mark: str) -> bool:
    """Whether a fingerprint, of this version or an earlier one, is that of the data."""
    return mark == splits.fingerprint or mark == experiment.load_data(like=mark).fingerprint


def require_alike(found: TargetSpec, trained: TargetSpec) -> None:
    """Raise RunError when targets of the data, or of another network, are not those of the training."""
    if found.kind != trained.kind:
        raise RunError(f"the data has {found.kind}, and the training had {trained.kind}")
    names, known = list(found.names), list(trained.names)
    if names == known:
        return
    unknown, absent = [c for c in names if c not in known], [c for c in known if c not in names]
    parts = [f"{what}: {_listed(names)}" for what, names in (("new", unknown), ("missing", absent)) if names]
    different = "; ".join(parts) or "their order differs"
    raise RunError(f"the data's {found.kind} are not those of the training ({different})")


def _listed(names: list[str], most: int = 8) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _split(splits: Splits, name: str, data: str) -> Source:
    source: Source | None = getattr(splits, name)
    if source is None:
        others = [other for other in ("validation", "train") if getattr(splits, other) is not None]
        raise RunError(f"data `{data}` has no {name} split; use --split {others[0]}")
    return source


def _record(run: Run, name: str, content: dict[str, Any], display: Display) -> None:
    try:
        run.write_json(f"eval/{name}.json", content)
    except OSError as error:  # a run of somebody else, or a full disk: the numbers are printed all the same
        display.warning(f"the result could not be recorded in {run.path}: {error.strerror}")
