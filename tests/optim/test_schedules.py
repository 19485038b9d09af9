"""Learning-rate schedules: against torch's schedulers, against published values, and as shapes."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.optim import lr_scheduler as reference
from training import arrays_experiment, assert_same_state, built, trained

from dltrain import Experiment
from dltrain.config import ConfigError
from dltrain.optim.schedules.base import Schedule, Warmup
from dltrain.optim.schedules.cosine import Cosine
from dltrain.optim.schedules.exponential import Exponential
from dltrain.optim.schedules.reduce_on_plateau import ReduceOnPlateau
from dltrain.optim.schedules.step import Step
from dltrain.tasks import Classification
from dltrain.testing import ScheduleContract

TOTAL, PER_EPOCH = 120, 10

EXAMPLES = {name: Schedule.lookup(name).example for name in Schedule.all_names()}  # type: ignore[union-attr]


def parse(name: str, **options: Any) -> Schedule:
    section = Schedule.parse({"name": name, **options})
    assert isinstance(section, Schedule)
    return section


def values(section: Schedule, lr: float = 1.0, total: int = TOTAL, per_epoch: int = PER_EPOCH) -> list[float]:
    function = section.build(lr, total, per_epoch)
    return [function(step) for step in range(total)]


def torch_values(cls: Any, lr: float = 1.0, total: int = TOTAL, **options: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = cls(optimizer, **options)
        for _ in range(total):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if len(found) < total:
                scheduler.step()
    return found


# -- every schedule


class TestSchedules(ScheduleContract):
    names = Schedule.all_names()
    rises_again = ("cosine_restarts",)
    own_warmup = ("one_cycle",)


@pytest.mark.parametrize("start", [{}, {"start": 0.0}, {"start_lr": 0.0}])
@pytest.mark.parametrize("length", [1, 3, 10])
def test_the_first_step_of_a_warmup_learns(length: int, start: dict[str, float]) -> None:
    """A line from 0 at "step -1" to lr at the end of the warm-up."""
    found = values(parse("constant", warmup={"steps": length, **start}), lr=2.0)
    assert found[: length + 1] == pytest.approx([2.0 * (t + 1) / (length + 1) for t in range(length + 1)])
    assert all(lr == 2.0 for lr in found[length:])


def test_catalogue() -> None:
    assert set(Schedule.all_names()) >= {
        "constant", "step", "multi_step", "exponential", "cosine", "linear", "polynomial", "one_cycle",
        "cosine_restarts", "inverse_sqrt", "wsd",
    }  # fmt: skip


# -- against torch


@pytest.mark.parametrize(
    ("section", "cls", "options"),
    [
        (parse("constant"), reference.ConstantLR, {"factor": 1.0}),
        (parse("step", steps=17, gamma=0.3), reference.StepLR, {"step_size": 17, "gamma": 0.3}),
        (parse("step", epochs=3.0), reference.StepLR, {"step_size": 30}),
        (parse("multi_step", steps=[40, 90]), reference.MultiStepLR, {"milestones": [40, 90]}),
        (parse("multi_step", epochs=[2.5, 9.0], gamma=0.5), reference.MultiStepLR,
         {"milestones": [25, 90], "gamma": 0.5}),
        (parse("exponential", gamma=0.97, steps=1), reference.ExponentialLR, {"gamma": 0.97}),
        (parse("exponential", gamma=0.5, epochs=2.5), reference.ExponentialLR, {"gamma": 0.5 ** (1 / 25)}),
        (parse("cosine"), reference.CosineAnnealingLR, {"T_max": TOTAL}),
        (parse("cosine", end=0.1), reference.CosineAnnealingLR, {"T_max": TOTAL, "eta_min": 0.1}),
        (parse("cosine", end_lr=0.02), reference.CosineAnnealingLR, {"T_max": TOTAL, "eta_min": 0.02}),
        (parse("linear"), reference.LinearLR, {"start_factor": 1.0, "end_factor": 0.0, "total_iters": TOTAL}),
        (parse("linear", end=0.2), reference.LinearLR, {"start_factor": 1.0, "end_factor": 0.2, "total_iters": TOTAL}),
        (parse("polynomial", power=2.0), reference.PolynomialLR, {"total_iters": TOTAL, "power": 2.0}),
        (parse("cosine_restarts", steps=20), reference.CosineAnnealingWarmRestarts, {"T_0": 20}),
        (parse("cosine_restarts", epochs=1.0, factor=2.0, end=0.1), reference.CosineAnnealingWarmRestarts,
         {"T_0": 10, "T_mult": 2, "eta_min": 0.1}),
        (parse("one_cycle"), reference.OneCycleLR, {"max_lr": 1.0, "total_steps": TOTAL}),
        (parse("one_cycle", peak=0.45, start=0.1, end=0.01), reference.OneCycleLR,
         {"max_lr": 1.0, "total_steps": TOTAL, "pct_start": 0.45, "div_factor": 10.0, "final_div_factor": 10.0}),
    ],
    ids=lambda value: getattr(value, "name", None),
)  # fmt: skip
def test_agrees_with_torch(section: Schedule, cls: Any, options: dict[str, Any]) -> None:
    assert values(section) == pytest.approx(torch_values(cls, **options), rel=1e-6, abs=1e-12)


def test_momentum_of_one_cycle_agrees_with_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = reference.OneCycleLR(optimizer, max_lr=1.0, total_steps=TOTAL)
    momentum = parse("one_cycle").build_momentum(TOTAL, PER_EPOCH)
    assert momentum is not None
    for step in range(TOTAL):
        assert momentum(step) == pytest.approx(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        if step < TOTAL - 1:
            scheduler.step()
    assert parse("one_cycle", cycle_momentum=False).build_momentum(TOTAL, PER_EPOCH) is None
    assert parse("cosine").build_momentum(TOTAL, PER_EPOCH) is None


# -- published values


def test_notes_recipe() -> None:
    """lr 0.1 -> 0.4 over 5 epochs, then cosine to 0 over 145."""
    per_epoch = 49
    function = Cosine(warmup=Warmup(epochs=5.0, start=0.25)).build(0.4, 150 * per_epoch, per_epoch)
    at = {epoch: round(function(epoch * per_epoch), 6) for epoch in (0, 1, 2, 3, 4, 5, 50, 100, 150)}
    assert list(at.values()) == [0.1, 0.16, 0.22, 0.28, 0.34, 0.4, 0.312237, 0.106318, 0.0]
    absolute = Cosine(warmup=Warmup(epochs=5.0, start_lr=0.1)).build(0.4, 150 * per_epoch, per_epoch)
    assert [absolute(t) for t in range(500)] == pytest.approx([function(t) for t in range(500)])


def test_facts() -> None:
    cosine = parse("cosine").build(1.0, 100, 10)
    assert (cosine(0), cosine(50), cosine(100)) == pytest.approx((1.0, 0.5, 0.0))
    assert parse("polynomial", power=2.0).build(1.0, 100, 10)(50) == pytest.approx(0.25)
    assert parse("linear", end=0.5).build(1.0, 100, 10)(50) == pytest.approx(0.75)
    found = values(parse("one_cycle"), total=1000)
    assert (found[0], max(found), found[-1]) == pytest.approx((0.04, 1.0, 4e-6))
    milestone = parse("multi_step", steps=[32000, 48000]).build(0.1, 64000, 391)
    assert [milestone(t) for t in (31999, 32000, 47999, 48000)] == pytest.approx([0.1, 0.01, 0.01, 0.001])


def test_restarts_of_doubling_cycles() -> None:
    section = parse("cosine_restarts", steps=10, factor=2.0)
    function = section.build(1.0, 150, 10)
    assert [function(step) for step in (0, 10, 30, 70)] == [1.0] * 4
    assert section.remarks(150, 10) == []
    assert section.remarks(TOTAL, 10) == ["the training ends after 50 of the 80 steps of the last cycle"]


def test_inverse_sqrt_of_the_warmup_is_that_of_the_transformer() -> None:
    function = parse("inverse_sqrt", warmup={"steps": 40}).build(2.0, 400, 10)
    expected = [2.0 * min((t + 1) / 41, math.sqrt(40 / max(t, 1))) for t in range(400)]
    assert [function(t) for t in range(400)] == pytest.approx(expected)
    assert (function(40), function(160)) == (2.0, 1.0)


def test_wsd_keeps_lr_until_the_decay() -> None:
    found = values(parse("wsd", decay=0.25, shape="linear", end=0.1, warmup={"steps": 20}))
    assert found[20:91] == [1.0] * 71 and found[105] == pytest.approx(0.55)
    with pytest.raises(ConfigError, match=r"the warm-up ends at step 100, .* begin \(step 90\)"):
        values(parse("wsd", decay=0.25, warmup={"steps": 100}))


def test_milestones_count_from_the_start_whatever_the_warmup() -> None:
    """As in 1706.02677: warm-up for 5 epochs, drops at 30 and 60."""
    function = parse("step", epochs=30.0, warmup={"epochs": 5.0}).build(1.0, 900, 10)
    assert [function(t) for t in (50, 299, 300, 599, 600)] == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])
    function = parse("multi_step", epochs=[30.0, 60.0], warmup={"epochs": 5.0}).build(1.0, 900, 10)
    assert [function(t) for t in (50, 299, 300, 599, 600)] == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])


def test_other_schedules_run_over_what_the_warmup_leaves() -> None:
    function = Cosine(warmup=Warmup(steps=20)).build(1.0, 120, 10)
    assert [function(t) for t in (0, 10, 20)] == pytest.approx([1 / 21, 11 / 21, 1.0])
    assert function(70) == pytest.approx(0.5)  # half-way through the 100 steps that are left
    fall = Exponential(gamma=0.5, steps=10, warmup=Warmup(steps=20)).build(1.0, 120, 10)
    assert fall(30) == pytest.approx(0.5)


# -- compression


def test_compression_scales_every_time_and_nothing_else() -> None:
    section = parse("multi_step", epochs=[80.0, 120.0], gamma=0.2, warmup={"epochs": 5.0, "start": 0.1})
    short = section.compressed(1 / 10)
    assert (
        short.model_dump()
        == parse("multi_step", epochs=[8.0, 12.0], gamma=0.2, warmup={"epochs": 0.5, "start": 0.1}).model_dump()
    )
    steps = parse("step", steps=30000, warmup={"steps": 500}).compressed(1 / 1000)
    assert steps.steps == 30 and steps.warmup.steps == 0  # type: ignore[attr-defined,union-attr]
    assert parse("cosine").compressed(0.1) == Cosine()


# -- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cosine", "warmup": {"start": 0.1}}, "a warm-up needs a time"),
        ({"name": "cosine", "warmup": {"epochs": 1.0, "steps": 5}}, "both given"),
        ({"name": "cosine", "warmup": {"epochs": 1.0, "start": 0.1, "start_lr": 0.1}}, "keep one"),
        ({"name": "cosine", "warmup": {"epochs": -1.0}}, "greater than or equal to 0"),
        ({"name": "cosine", "end": 0.1, "end_lr": 0.1}, "keep one"),
        ({"name": "cosine", "end": 1.5}, "less than or equal to 1"),
        ({"name": "step"}, "schedule `step` needs a time: `epochs: 30`"),
        ({"name": "step", "epochs": 0.0}, "greater than 0"),
        ({"name": "step", "epochs": 1.0, "steps": 5}, "both given"),
        ({"name": "multi_step", "epochs": []}, "`epochs` is empty"),
        ({"name": "multi_step", "epochs": [80.0, 40.0]}, "must rise: 40, 80"),
        ({"name": "exponential", "epochs": 1.0}, "gamma"),
        ({"name": "cosine_restarts"}, "schedule `cosine_restarts` needs a time"),
        ({"name": "cosine_restarts", "steps": 5, "factor": 0.5}, "greater than or equal to 1"),
        ({"name": "inverse_sqrt"}, "schedule `inverse_sqrt` needs a time: `warmup: {epochs: 5}`"),
        ({"name": "inverse_sqrt", "steps": 5, "epochs": 1.0, "warmup": {"steps": 5}}, "both given"),
        ({"name": "wsd", "decay": 1.0}, "less than 1"),
        ({"name": "one_cycle", "warmup": {"epochs": 1.0}}, "has its own warm-up"),
        ({"name": "one_cycle", "low_momentum": 0.99}, "must not be above"),
        ({"name": "one_cycle", "start": 0.0}, "greater than 0"),
        ({"name": "step", "epochs": 1.0, "gamma": 2.0}, "less than or equal to 1"),
        ({"name": "multi_step", "steps": [5], "gamma": 1.5}, "less than or equal to 1"),
        ({"name": "reduce_on_plateau", "factor": 2.0}, "less than 1"),
    ],
)
def test_mistakes_are_found_in_the_file(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Schedule.parse(options)


@pytest.mark.parametrize("length", [{"epochs": 12.0}, {"steps": 120}, {"steps": 500}])
def test_a_warmup_as_long_as_the_training_is_an_error(length: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"the warm-up takes .* steps, and the whole training only 120"):
        values(parse("cosine", warmup=length))


def test_a_drop_inside_the_warmup_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"the first drop .*step 20.* comes before the warm-up ends .*step 50"):
        values(parse("multi_step", epochs=[2.0, 8.0], warmup={"epochs": 5.0}))
    with pytest.raises(ConfigError, match="before the warm-up ends"):
        values(Step(epochs=2.0, warmup=Warmup(epochs=5.0)))


HIGH = [
    ("cosine", {"end_lr": 0.2}, "end_lr"), ("linear", {"end_lr": 0.2}, "end_lr"),
    ("polynomial", {"end_lr": 0.2}, "end_lr"), ("wsd", {"end_lr": 0.2}, "end_lr"),
    ("cosine_restarts", {"end_lr": 0.2, "steps": 9}, "end_lr"),
    ("constant", {"warmup": {"steps": 9, "start_lr": 0.2}}, "warmup.start_lr"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "key"), HIGH, ids=[name for name, *_ in HIGH])
def test_no_rate_above_the_peak(name: str, options: dict[str, Any], key: str) -> None:
    section = parse(name, **options)
    assert max(values(section, lr=0.2)) == 0.2, "a rate that is the peak is none above it"
    with pytest.raises(ConfigError, match=rf"`schedule\.{key}` \(0\.2\) is above the peak, `optimizer\.lr` \(0\.1\)"):
        values(section, lr=0.1)
    text = f"data: digits\nmodel: mlp\nschedule: {json.dumps({'name': name, **options})}\noptimizer: {{lr: 0.1}}\n"
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(text)
    (problem,) = caught.value.diagnostics
    assert problem.where is not None and (problem.where.line, problem.where.column) == (3, text.index("0.2") - 23)
    space = "sweep: {trials: 2, space: {optimizer.lr: {low: 0.1, high: 1.0}}}"
    with pytest.raises(ConfigError, match=r"`optimizer.lr` cannot be 0.1: .* is above the peak"):
        Experiment.parse(text.replace("lr: 0.1", "lr: 0.5") + space)


def test_drops_that_never_come_are_remarked_on() -> None:
    (remark,) = parse("multi_step", epochs=[8.0, 20.0]).remarks(TOTAL, PER_EPOCH)
    assert remark.startswith("only 1 of 2 drops") and "ends at step 120, before step 200" in remark
    (remark,) = parse("step", epochs=30.0).remarks(TOTAL, PER_EPOCH)
    assert remark.startswith("no drop of the learning rate happens")


# -- the schedule that watches a metric


def plateau(**options: Any) -> ReduceOnPlateau:
    found = Schedule.parse({"name": "reduce_on_plateau", **options})
    assert isinstance(found, ReduceOnPlateau)
    return found


@pytest.mark.parametrize("metric", ["validation/loss", "validation/accuracy"])
@pytest.mark.parametrize("seed", range(5))
def test_reduce_on_plateau_is_torchs(metric: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    values = np.round(np.abs(np.cumsum(draw.normal(0, 0.05, 60)) + 1), 2)
    patience, cooldown = int(draw.integers(0, 4)), int(draw.integers(0, 3))
    options = {"factor": 0.5, "patience": patience, "cooldown": cooldown, "threshold": 0.02, "min_lr": 0.01}
    feedback = plateau(metric=metric, **options).build_feedback(0.4, Classification(), validation=True)
    assert feedback is not None
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    mode = "min" if metric.endswith("loss") else "max"
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode=mode, **options)  # type: ignore[arg-type]
    history: list[dict[str, float]] = []
    rates = set()
    for value in values.tolist():
        history += [{"train/loss": 0.0}, {metric: value}]  # an epoch that did not measure it does not count
        theirs.step(value)
        assert 0.4 * feedback(history) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        rates.add(feedback(history))
    assert len(rates) > 1


def test_with_patience_2_the_third_bad_epoch_drops_the_rate() -> None:
    feedback = plateau(patience=2).build_feedback(1.0, Classification(), validation=False)
    assert feedback is not None
    losses = [1.0, 0.5, 0.5, 0.6, 0.5, 0.5]
    factors = [feedback([{"train/loss": loss} for loss in losses[: n + 1]]) for n in range(len(losses))]
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1])


def test_a_floor_above_the_rate_does_not_lift_it() -> None:
    feedback = plateau(patience=0, min_lr=0.1).build_feedback(0.001, Classification(), validation=False)
    assert feedback is not None
    assert [feedback([{"train/loss": 1.0}] * n) for n in range(1, 6)] == [1.0] * 5


def test_a_training_that_reacts_resumes_exactly(arrays: Path) -> None:
    options: dict[str, Any] = {
        "schedule": {"name": "reduce_on_plateau", "patience": 0, "threshold": 0.5, "factor": 0.5},
        "training__early_stopping": None,
    }
    whole = trained(arrays_experiment(arrays, **options))
    rates = [row["lr"] for row in whole.history]
    assert rates[0] == 0.05 and rates[-1] < 0.05
    first = trained(arrays_experiment(arrays, **options), until=18)
    second = built(arrays_experiment(arrays, **options))
    second.load_state_dict(first.state_dict())
    for _ in second.run():
        pass
    assert_same_state(second.state_dict(), whole.state_dict())


def test_a_schedule_that_watches_validation_needs_that_split() -> None:
    text = (
        "data: {name: digits, validation: 0}\nmodel: mlp\nschedule: {name: reduce_on_plateau, metric: validation/loss}"
    )
    with pytest.raises(ConfigError, match="watches `validation/loss`, and there is no validation split"):
        Experiment.parse(text)
