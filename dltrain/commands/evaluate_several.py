"""`eval` of a folder of seeds or folds: each run, the mean over them, and what they reach together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dltrain.commands.evaluate import Measured, find_checkpoint, measure_runs
from dltrain.commands.several import Member, Several, out_of_fold, over, over_in_words, pooled_metrics
from dltrain.console.display import Display
from dltrain.console.streams import print_result
from dltrain.data.evaluation import Views
from dltrain.errors import RunError
from dltrain.runs.run import Run
from dltrain.tasks.metrics import Metric


def evaluate_several(
    several: Several, split: str, which: str, device: str, display: Display, *, overrides: Sequence[str] = (),
    views: Views | None = None, share: float | None = None, as_json: bool = False, calibrated: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Measure the finished runs of a folder, print the result and keep it there, as `evaluate_run` does of a run.

    Together they are an ensemble; of the validation split of folds, every example is answered by the run that was not
    trained on it. Folds that have learned numbers in units of their own have no ensemble.
    Raises RunError for the training split of folds, and like `measure_runs`.
    """
    members, metrics = several.finished(), several.experiment.resolved_task.ranking()
    paths = [str(member.path) for member in members]
    if several.kind == "folds" and split == "train":
        raise RunError("the folds were trained on different parts: use --split validation (out of fold) or test")
    pooling = several.kind == "folds" and split == "validation"
    separately = pooling or len(paths) == 1
    if not separately and not _in_same_units(members, which):
        display.warning("each fold has learned numbers in units of its own: they are measured one by one")
        separately = True
    groups = [[path] for path in paths] if separately else [paths]
    found = [
        each for group in groups
        for each in measure_runs(group, split, which, device, display, overrides=overrides, views=views, share=share,
                                 calibrated=calibrated)
    ]  # fmt: skip
    alone = found[: len(members)]
    told = over([each.result for each in alone], metrics)
    whole = {"split": split, **_together(members, found, metrics, pooling=pooling), "kind": several.kind, "mean": told}
    lines = [each.title for each in found]
    lines += [over_in_words(several.kind, len(members), told, metrics)]
    lines += [found[-1].text] if len(found) > len(members) else [_pooled_text(whole, metrics)]
    if len(members) < several.count:
        display.warning(f"{len(members)} of {several.count} {several.kind} are finished, and measured")
    try:
        used = "-calibrated" if any("calibration" in each.result for each in alone) else ""
        Run(several.path).write_json(f"eval/{split}{used}.json", whole)
    except OSError as error:
        display.warning(f"the result could not be recorded in {several.path}: {error.strerror}")
    print_result(json.dumps(whole, ensure_ascii=False) if as_json else "\n".join(filter(None, lines)))
    return whole


def _in_same_units(members: Sequence[Member], which: str) -> bool:
    """Whether the targets of all runs are scaled alike, so that there is a mean of what they put out."""
    states = [find_checkpoint(Run(member.path), None, which)[1] for member in members]
    return all(state["about"]["target"] == states[0]["about"]["target"] for state in states)


def _together(
    members: Sequence[Member], found: Sequence[Measured], metrics: Sequence[Metric], *, pooling: bool
) -> dict[str, Any]:
    """The ensemble's result, the last one, where there is one; else that of each run, and, pooling, what the examples
    of all say together."""
    if len(found) > len(members):
        return found[-1].result
    table = out_of_fold(members, found) if pooling else None
    told = [
        {
            "run": member.name,
            **{each.name: one.result[each.name] for each in metrics if each.name in one.result},
            **({"calibration": one.result["calibration"]} if "calibration" in one.result else {}),
        }
        for member, one in zip(members, found, strict=True)
    ]
    pooled = {"examples": len(table), **pooled_metrics(table)} if table is not None else {}
    return {"members": told, **pooled}


def _pooled_text(whole: dict[str, Any], metrics: Sequence[Metric]) -> str:
    texts = [metric.text(whole[metric.name]) for metric in metrics if metric.name in whole]
    return f"out of fold, {whole['examples']:,} examples: {', '.join(texts)}" if texts else ""
