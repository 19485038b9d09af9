"""A search as the story that its page tells."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from dltrain.experiment.experiment import Experiment
from dltrain.sweeps.ranking import Ranking, run_folder
from dltrain.sweeps.records import TrialRecord
from dltrain.sweeps.story import Objective, SearchStory, TrialStory
from dltrain.sweeps.study import Study
from dltrain.tasks.metrics import Watched


def story_of(experiment: Experiment, study: Study, order: list[TrialRecord], path: Path, seconds: float) -> SearchStory:
    """What there is to tell. order: the trials that have reached something, the best first. seconds: that the search
    has run."""
    sweep, objectives = study.sweep, study.objectives
    told = study.told()
    rounds = 1 + max((trial.round for trial in study.trials.values()), default=0)
    fronts = Ranking(experiment, objectives, path).fronts(order)
    good = [trial.index for trial in order if trial.metrics is not None]
    best = [index for index in good if fronts.get(index) == 1] if fronts else good[:10]
    budget = [f"{sweep.trials} trials"] if sweep.trials is not None else []
    budget += [f"{sweep.time}"] if sweep.time is not None else []
    facts = {"seed": str(experiment.seed)}
    if sweep.repeats > 1:
        facts["repeats"] = f"each setting with {sweep.repeats} seeds"
    if sweep.pruner is not None:
        facts["pruner"] = sweep.pruner.name
    if sweep.epochs is not None:
        facts["epochs of a trial"] = f"{sweep.epochs:g}"
    return SearchStory(
        experiment=experiment.name,
        objectives=[Objective(each.tag, each.metric.direction, each.metric.format) for each in objectives],
        space=sweep.space,
        trials=[_trial(trial, study, path) for _, trial in sorted(study.trials.items())],
        best=best,
        sampler=study.settings.sampler.name,
        sampler_reason=study.settings.why,
        rounds=[study.settings.ranges(number, told) for number in range(rounds)],
        budget=" or ".join(budget) or f"{sweep.most_trials} trials",
        seconds=seconds,
        repeat=[f"dltrain fit {path / 'best.yaml'}", f"dltrain sweep {path}"],
        facts=facts,
    )


def _trial(trial: TrialRecord, study: Study, path: Path) -> TrialStory:
    repeats = study.sweep.repeats
    return TrialStory(
        index=trial.index, values=trial.values, state=trial.state(repeats), metrics=trial.metrics or {},
        curve=_curve(run_folder(path, trial.index, 0, repeats), study.objectives[0]), round=trial.round,
        seconds=trial.seconds, reason=trial.reason,
    )  # fmt: skip


def _curve(run: Path, watched: Watched) -> list[tuple[float, float]]:
    """The metric by epoch, as the run's table has it."""
    try:
        with (run / "metrics.csv").open(newline="") as file:
            rows = [(float(row["epoch"]), float(row.get(watched.tag) or "nan")) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError):
        return []
    return [(epoch, value) for epoch, value in rows if math.isfinite(value)]
