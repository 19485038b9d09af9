"""`eval`: measure a checkpoint on a split; the checkpoint and the data are all it needs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from dltrain.commands.calibrating import use_calibration
from dltrain.commands.resuming import is_of, where_it_lies_now
from dltrain.config import ConfigError
from dltrain.console.display import Display
from dltrain.console.streams import print_result
from dltrain.data.base import Dataset
from dltrain.data.evaluation import Views
from dltrain.data.labelled import PLACES, labelled, same_place
from dltrain.data.loading.choosing import Loader, choose_loader, choose_workers, make_loader
from dltrain.data.targets import TargetSpec
from dltrain.data.types import Batch, Source, Splits
from dltrain.engine.predictor import Predictor, require_same_units, restore_predictor
from dltrain.errors import RunError
from dltrain.evidence.examples import ENDINGS, MOST_KEPT, Collector, ExampleTable
from dltrain.experiment.experiment import Experiment
from dltrain.runs.checkpoints import digest_of
from dltrain.runs.run import Run
from dltrain.tasks.impl.base import BuiltTask
from dltrain.tasks.impl.meters import Report
from dltrain.tasks.impl.objectives import answer_of

READING = ("cache", "download", "loader", "workers")
"""Options of data sets that change no example."""


@dataclass(frozen=True)
class Measured:
    """What was measured of a run, or of several together. result: plain values, of which a run keeps the same. title,
    text: what is printed of it. table: every example; None where that were too much. digest: what the examples and
    their order are known by."""

    result: dict[str, Any]
    title: str
    text: str
    table: ExampleTable | None
    digest: str


def evaluate_run(
    paths: Sequence[str], split: str, which: str, device: str, display: Display, *, overrides: Sequence[str] = (),
    views: Views | None = None, share: float | None = None, as_json: bool = False, calibrated: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Measure as `measure_runs` does, and print the result."""
    found = measure_runs(
        paths, split, which, device, display, overrides=overrides, views=views, share=share, calibrated=calibrated
    )
    whole = found[-1]
    lines = [*(measured.title for measured in found), whole.text]
    print_result(json.dumps(whole.result, ensure_ascii=False) if as_json else "\n".join(lines))
    return whole.result


def measure_runs(
    paths: Sequence[str], split: str, which: str, device: str, display: Display, *, overrides: Sequence[str] = (),
    views: Views | None = None, share: float | None = None, calibrated: bool = False,
) -> list[Measured]:  # fmt: skip
    """Measure the runs or checkpoints at `paths` on `split` and keep the result in each run, with the table of its
    examples.

    Of several, the last result is that of their ensemble, which answers with the mean of their probabilities.
    overrides: of `data` alone, for data that has moved, or other data with the same classes. views, share: of
    `evaluation`, where they are not each run's own. calibrated: whether a temperature that is kept beside a checkpoint
    is used; such results are kept apart.
    Raises RunError when there is no such run, checkpoint or split, ConfigError when the data cannot be read.
    """
    runs = [Run.open(path) for path in paths]
    found = [find_checkpoint(run, given, which) for run, given in runs]
    predictors = [restore_predictor(state, device, file) for file, state in found]
    require_same_units(predictors)
    trained, target = where_it_lies_now(runs[0][0], predictors[0].experiment), predictors[0].target
    experiment = with_data(trained, overrides)
    for predictor, (file, _) in zip(predictors, found, strict=True):
        predictor.look(views, share)
        if calibrated:
            for remark in use_calibration(predictor, file):
                display.line(remark)
        require_alike(target, predictor.target)
        if predictor.target != target:
            raise RunError(f"the runs have learned {target.kind} in different units: their training splits differ")
    marks = [state["about"]["fingerprint"] for _, state in found]
    source, about_data, own_data = measured_part(trained.data, experiment, split, target, marks, display)
    lies = about_data["data"]
    if any(own_data):  # where it lies is told of other data alone
        about_data = {"data_fingerprint": about_data["data_fingerprint"]}
    division = other_division(trained.data, experiment.data)
    for text in source.unlike(predictors[0].layout):
        display.warning(text)
    started = time.perf_counter()
    collectors = [Collector(source.where(), len(source)) for _ in range(len(found) + (len(found) > 1))]
    reports = measure_together(predictors, source, experiment, collectors)
    seen = [_seen(predictor) for predictor in predictors]
    about_data = {"seconds": round(time.perf_counter() - started, 3), **about_data}
    metrics, results, digest = trained.resolved_task.ranking(), [], digest_of_keys(source)
    for (run, _), (file, state), predictor, views_seen, report, own, collector in zip(
        runs, found, predictors, seen, reports, own_data, collectors, strict=False
    ):
        result = {"split": split, "checkpoint": file.name, "step": state["step"], **views_seen}
        result |= report.to_dict() | about_data
        table = collector.table()
        title = ", ".join([f"{file}, {split}", *_seen_words(views_seen)])
        if len(found) > 1:
            used = _seen_words({key: views_seen[key] for key in views_seen if key == "calibration"})
            reached = ", ".join(metric.text(result[metric.name]) for metric in metrics)
            title = f"{', '.join([str(file), split, *used])}: {reached}"
        results.append(Measured(result, title, report.table(), table, digest))
        if (run.path / "experiment.yaml").is_file():  # a checkpoint may lie anywhere
            parts = [split, *_which(run, file, state), *_other_views(predictor)]
            parts += ["calibrated"] if predictor.calibration is not None else []
            name = "-".join([*parts, *([] if own else [about_data["data_fingerprint"]]), *division])
            always = {"data": lies, "views": predictor.evaluation.views, "share": predictor.evaluation.share}
            always |= {"checkpoint_path": str(file), "when": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            _record(run, name, {**result, **always, "examples_digest": digest}, table, display)
    if len(found) > 1:
        members = [
            {
                "checkpoint": str(file),
                "step": state["step"],
                **{each.name: one.result[each.name] for each in metrics},
                **{key: value for key, value in views_seen.items() if key == "calibration"},
            }
            for (file, state), one, views_seen in zip(found, results, seen, strict=True)
        ]
        shared = {key: value for key, value in seen[0].items() if key != "calibration"}
        whole = {"split": split, "members": members, **shared, **reports[-1].to_dict(), **about_data}
        title = ", ".join([f"ensemble of {len(found)}, {split}", *_seen_words(shared)])
        results.append(Measured(whole, title, reports[-1].table(), collectors[-1].table(), digest))
    return results


def measure(predictor: Predictor, source: Source, experiment: Experiment) -> Report:
    """The report on every example of a split, in batches of the training's size."""
    return measure_together([predictor], source, experiment)[0]


def measure_together(
    predictors: Sequence[Predictor], source: Source, experiment: Experiment, collectors: Sequence[Collector] = ()
) -> list[Report]:
    """A report for each predictor, and after those of several one for what the task combines of their answers.

    collectors: as many as reports, which get every example; or none.
    """
    tasks = [predictor.measuring_task(combined=not predictor.evaluation.is_plain) for predictor in predictors]
    together = predictors[0].measuring_task(combined=True)
    together.adopt([predictor.task for predictor in predictors])
    reports = [task.report() for task in tasks]
    whole = together.report()
    tables: Sequence[Collector | None] = collectors or [None] * (len(tasks) + 1)
    with contextlib.closing(together_seen(predictors, source, experiment)) as seen:
        for batches in seen:
            answers = []
            for predictor, task, report, table, (batch, valid) in zip(
                predictors, tasks, reports, tables, batches, strict=False
            ):
                outputs = predictor.outputs(batch.inputs, valid)
                answers.append(answer_of(outputs))
                targets = predictor.inputs(batch.inputs) if task.learns_inputs else batch.targets
                _add(task, report, table, outputs, targets, valid)
            if len(predictors) > 1:
                batch, valid = batches[0]
                targets = predictors[0].inputs(batch.inputs) if together.learns_inputs else batch.targets
                _add(together, whole, tables[-1], together.combine(answers), targets, valid)
    return [*reports, whole] if len(predictors) > 1 else reports


def together_seen(
    predictors: Sequence[Predictor], source: Source, experiment: Experiment
) -> Generator[tuple[tuple[Batch, int], ...], None, None]:
    """Every example of a split, in batches of the training's size: for each predictor the batch in its layout, and how
    many of it count."""
    batch_size = min(experiment.training.batch_of(len(source)), len(source))
    loaders: list[Loader] = []
    try:
        for predictor in predictors:
            asked, processes = experiment.data.loading
            kind, _ = choose_loader(source, predictor.layout, predictor.device, asked)
            workers = choose_workers(source, processes)[0] if kind == "streaming" else 0
            loader = partial(make_loader, kind, source, predictor.layout, batch_size=batch_size, seed=0)
            loaders.append(loader(device=predictor.device, workers=workers))
        yield from zip(*(loader.evaluation_batches() for loader in loaders), strict=True)
    finally:
        for opened in loaders:
            opened.close()


def _add(task: BuiltTask, report: Report, table: Collector | None, outputs: Any, targets: Tensor, valid: int) -> None:
    """Add a batch, of which the first `valid` rows count, to a report and to the table of the examples."""
    losses = task.measured_losses(outputs, targets)
    report.update(answer_of(outputs), targets, losses, valid)
    if table is not None:
        table.add(task.outcomes(answer_of(outputs)[:valid], targets[:valid]), losses[:valid].cpu().numpy())


def digest_of_keys(source: Source) -> str:
    """What the examples of a split and their order are known by: tables of equal ones can be paired row by row."""
    total = hashlib.blake2b(digest_size=16)
    for key in source.keys():  # noqa: SIM118
        total.update(b"%d:%s" % (len(key), key))
    return total.hexdigest()


def _seen(predictor: Predictor) -> dict[str, Any]:
    """What a result says of the views, nothing when there is one of each image; and of the temperature, if any."""
    seen, used = predictor.evaluation, predictor.calibration
    views = {} if seen.is_plain else seen.model_dump(exclude={"share"} if seen.share == 1 else None)
    return views | ({} if used is None else {"calibration": used.to_dict()})


def _seen_words(seen: dict[str, Any]) -> list[str]:
    """The same for a title."""
    return [f"temperature {value['temperature']:.4f}" if key == "calibration" else str(value)
            for key, value in seen.items()]  # fmt: skip


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


def other_division(own: Dataset, measured: Dataset) -> list[str]:
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


def with_data(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    """A checkpoint's experiment with other `data`. Raises RunError for overrides of anything else."""
    for text in overrides:
        if text.partition("=")[0].split(".")[0] != "data":
            raise RunError(f"a checkpoint brings its own settings, all but `data`: `{text}` cannot be given here")
    return Experiment.parse(experiment.dump(), "checkpoint", overrides) if overrides else experiment


def measured_part(
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
        own = [knows(experiment, splits, mark) for mark in marks]
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


def knows(experiment: Experiment, splits: Splits, mark: str) -> bool:
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


def _record(run: Run, name: str, content: dict[str, Any], table: ExampleTable | None, display: Display) -> None:
    try:
        if table is not None:
            ending, written, notes = table.encoded()
            for note in notes:
                display.tell(note)
            run.write(f"eval/{name}{ending}", written)
            content["table"] = f"{name}{ending}"
        else:
            display.line(f"no table of the examples is kept: it would have more than {MOST_KEPT:,} cells")
        for other in ENDINGS:
            if f"{name}{other}" != content.get("table"):  # of an earlier measurement
                (run.path / "eval" / f"{name}{other}").unlink(missing_ok=True)
        run.write_json(f"eval/{name}.json", content)
    except OSError as error:  # a run of somebody else, or a full disk: the numbers are printed all the same
        display.warning(f"the result could not be recorded in {run.path}: {error.strerror}")
