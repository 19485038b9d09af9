"""How settings are drawn: what each sampler is a function of, and how well those that learn search."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare, qmc

from dltrain.search import Condition, Range, Sampler, Setting, Settings, Sweep, Told
from dltrain.testing import SamplerContract

UNIT = {key: {"low": 0.0, "high": 1.0} for key in "xyz"}
LEARNING = ["tpe", "gp", "cma_es"]
SETTLED = ["random", "quasi_random", "grid"]


def sweep(space: dict[str, dict[str, Any]], **options: Any) -> Sweep:
    return Sweep.model_validate({"space": {key: Range(**value) for key, value in space.items()}, **options})


def settings(space: dict[str, dict[str, Any]], seed: int = 0, **options: Any) -> Settings:
    return Settings(sweep(space, **options), seed)


def setting(found: Setting | None) -> Setting:
    assert found is not None
    return found


def search(
    drawing: Settings, cost: Callable[[dict[str, Any]], float | None], trials: int, told: Sequence[Told] = ()
) -> list[tuple[Setting, Told]]:
    """Trials one after another, each told before the next one."""
    found: list[tuple[Setting, Told]] = []
    for index in range(len(told), trials):
        one = drawing.draw(index, [*told, *(told for _, told in found)])
        if one is None:
            break
        value = cost(one.values)
        found.append((one, Told(index, one.drawn, None if value is None else (value,), True)))
    return found


def sphere(values: dict[str, Any]) -> float:
    return (values["x"] - 0.3) ** 2 + (values["y"] - 0.7) ** 2 + (values["z"] - 0.2) ** 2


def branin(values: dict[str, Any]) -> float:
    """Its minimum is 0.397887, at three places: https://www.sfu.ca/~ssurjano/branin.html"""
    x, y = 15 * values["x"] - 5, 15 * values["y"]
    return (
        (y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6) ** 2
        + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x)
        + 10
    )


def best(drawing: Settings, cost: Callable[[dict[str, Any]], float], trials: int) -> float:
    return min(told.costs[0] for _, told in search(drawing, cost, trials) if told.costs)


# -- those that look at no result


def test_random_draws_what_it_has_always_drawn() -> None:
    """Recorded before there was another sampler."""
    space = {
        "a": {"low": 1e-5, "high": 0.1, "log": True}, "b": {"low": 1, "high": 9}, "c": {"choices": ["x", "y"]},
        "d": {"low": 0.0, "high": 0.5, "step": 0.25},
    }  # fmt: skip
    drawing = settings(space, seed=3)
    assert [setting(drawing.draw(index)).drawn for index in (0, 3)] == [
        {"a": 0.028428693779033964, "b": 8, "c": 1, "d": 0.0}, {"a": 0.012707317931350817, "b": 6, "c": 1, "d": 0.0},
    ]  # fmt: skip


@pytest.mark.slow
def test_random_draws_a_whole_space_in_the_order_in_which_it_always_has() -> None:
    drawing = settings({"b": {"low": 1, "high": 500, "log": True}, "c": {"choices": [1, 2]}}, seed=1)
    drawn = [setting(drawing.draw(index)).drawn for index in range(1000)]
    assert drawing.draw(1000) is None
    text = json.dumps(drawn).encode()
    assert hashlib.sha256(text).hexdigest() == "c203b9067c91ac25e3cfcde26b1ccfb9a003f14717ea762894c9dc997ca0e8e9"


@pytest.mark.parametrize("name", SETTLED)
def test_a_trial_is_a_function_of_seed_and_index(name: str) -> None:
    space = {**UNIT, "c": {"choices": ["a", "b", "c"]}}
    drawing, seen = settings(space, sampler=name), [Told(9, {"x": 0.5, "y": 0.5, "z": 0.5, "c": 0}, (1.0,), True)]
    forth = [drawing.draw(index) for index in range(30)]
    assert [settings(space, sampler=name).draw(index, seen) for index in (29, 7, 0)] == [forth[29], forth[7], forth[0]]
    assert forth != [settings(space, 1, sampler=name).draw(index) for index in range(30)]


@pytest.mark.parametrize("name", [*SETTLED, "tpe", "cma_es", "gp"])
def test_no_setting_is_drawn_twice_and_a_finite_space_ends(name: str) -> None:
    space = {
        "i": {"low": 1, "high": 4, "log": True}, "s": {"low": 0.0, "high": 0.5, "step": 0.2},
        "c": {"choices": [0.1, {"a": 1}]},
    }  # fmt: skip
    sampler = {"name": name, "startup": 5} if name in ("tpe", "gp") else name
    found = search(settings(space, sampler=sampler), lambda values: values["i"] + values["s"], 100)
    assert len({json.dumps(one.values, sort_keys=True) for one, _ in found}) == len(found) == 4 * 3 * 2


def test_sobol_points_are_spread_more_evenly_than_random_ones() -> None:
    """By the centred L2 discrepancy, for numbers of points that are no powers of two as well."""

    def discrepancy(name: str, seed: int, count: int) -> float:
        drawing = settings(UNIT, seed, sampler=name)
        points = [list(setting(drawing.draw(index)).values.values()) for index in range(count)]
        return float(qmc.discrepancy(np.array(points)))

    for count in (20, 64, 150):
        ratios = [discrepancy("quasi_random", seed, count) / discrepancy("random", seed, count) for seed in range(5)]
        assert np.median(ratios) < 0.5, count


def test_quasi_random_visits_every_decade_and_every_choice_equally_often() -> None:
    drawing = settings(
        {"x": {"low": 1e-5, "high": 0.1, "log": True}, "c": {"choices": ["a", "b", "c"]}, "i": {"low": 2, "high": 5}},
        sampler="quasi_random",
    )
    found = [setting(drawing.draw(index)).values for index in range(512)]
    decades = np.histogram(np.log10([values["x"] for values in found]), bins=[-5, -4, -3, -2, -1])[0]
    assert decades.sum() == 512 and max(abs(decades - 128)) <= 4
    assert chisquare(np.unique([values["c"] for values in found], return_counts=True)[1]).pvalue > 0.5
    assert set(np.unique([values["i"] for values in found])) == {2, 3, 4, 5}


def test_a_grid_has_every_combination_of_evenly_spaced_values() -> None:
    space = {
        "log": {"low": 1e-4, "high": 1.0, "log": True}, "even": {"low": 0.0, "high": 0.5},
        "many": {"low": 1, "high": 9},
        "few": {"low": 1, "high": 3}, "step": {"low": 0, "high": 30, "step": 5}, "choice": {"choices": ["a", "b"]},
    }  # fmt: skip
    searched = sweep(space, sampler="grid")
    found = search(Settings(searched, 0), lambda _: 0.0, 10_000)
    values = {key: sorted({one.values[key] for one, _ in found}) for key in space}
    assert values["log"] == [1e-4, 1e-3, 0.01, 0.1, 1.0] and values["even"] == [0, 0.125, 0.25, 0.375, 0.5]
    assert values["many"] == [1, 3, 5, 7, 9] and values["few"] == [1, 2, 3]
    assert values["step"] == [0, 5, 10, 15, 20, 25, 30] and values["choice"] == ["a", "b"]
    assert len({json.dumps(one.values) for one, _ in found}) == len(found) == 5 * 5 * 5 * 3 * 7 * 2 == searched.size()
    firsts = {one.values["log"] for one, _ in found[:30]}
    assert len(firsts) == 5, "the order is drawn at random, so that few trials are spread over the grid"


def test_a_grid_says_how_many_trials_it_has() -> None:
    searched = sweep({"x": UNIT["x"]}, sampler={"name": "grid", "points": 3})
    assert searched.exhausted() == "the grid has 3 settings: each is trained once, which makes 3 trials, not 100"


# -- those that learn


@pytest.mark.parametrize(
    ("name", "cost", "trials", "seeds", "factor"),
    [("tpe", sphere, 40, 5, 0.5), ("tpe", branin, 40, 5, 0.9), ("cma_es", sphere, 60, 5, 0.5),
     ("gp", sphere, 16, 2, 0.2)],
)  # fmt: skip
def test_what_learns_finds_better_settings_than_random(
    name: str, cost: Callable[[dict[str, Any]], float], trials: int, seeds: int, factor: float
) -> None:
    """By the median over seeds of how far the best of so many trials is from the minimum."""
    space = UNIT if cost is sphere else {"x": UNIT["x"], "y": UNIT["y"]}
    least = 0.0 if cost is sphere else 0.397887

    def excess(sampler: str) -> float:
        found = [best(settings(space, seed, sampler=sampler), cost, trials) for seed in range(seeds)]
        return float(np.median(found)) - least

    assert excess(name) < factor * excess("random")


@pytest.mark.slow
def test_cma_es_converges_on_a_sphere_and_finds_the_choice() -> None:
    costs = [told.costs[0] for _, told in search(settings(UNIT, sampler="cma_es"), sphere, 200) if told.costs]
    assert min(costs) < 1e-5 and np.mean(costs[160:]) < 1e-3
    space = {"x": UNIT["x"], "c": {"choices": ["a", "b", "c"]}}
    cost = {"a": 1.0, "b": 0.0, "c": 1.0}
    last = search(settings(space, sampler="cma_es"), lambda v: (v["x"] - 0.3) ** 2 + cost[v["c"]], 100)[70:]
    assert sum(one.values["c"] == "b" for one, _ in last) >= 18


@pytest.mark.parametrize("name", LEARNING)
def test_a_trial_is_a_function_of_seed_index_and_what_was_told(name: str) -> None:
    """Whatever the order in which it is told."""
    space = {"x": UNIT["x"], "lr": {"low": 1e-4, "high": 1.0, "log": True}, "c": {"choices": ["a", "b"]}}
    told = [told for _, told in search(settings(space, sampler="random"), lambda values: values["x"], 12)]
    told[3] = Told(3, told[3].drawn, None, True)
    told[11] = Told(11, told[11].drawn, None, False)
    one = setting(settings(space, sampler=name).draw(12, told))
    assert settings(space, sampler=name).draw(12, told[::-1]) == one
    assert settings(space, sampler=name).draw(13, told) != one
    assert settings(space, 1, sampler=name).draw(12, told) != one
    better = [*told[:8], Told(8, told[8].drawn, (-5.0,), True), *told[9:]]
    assert settings(space, sampler=name).draw(12, better) != one or name == "cma_es"


@pytest.mark.slow  # a Python of its own imports torch
def test_another_process_draws_the_same() -> None:
    space = {"x": UNIT["x"], "lr": {"low": 1e-4, "high": 1.0, "log": True}, "c": {"choices": ["a", "b"]}}
    told = [told for _, told in search(settings(space), lambda values: values["x"], 12)]
    names = [*SETTLED, *LEARNING]
    code = (
        "import sys, json; from dltrain.search import *\n"
        "space, names, told = json.loads(sys.argv[1])\n"
        "space = {key: Range(**value) for key, value in space.items()}\n"
        "told = [Told(index, drawn, tuple(costs), True) for index, drawn, costs in told]\n"
        "every = [Settings(Sweep(space=space, sampler=Sampler.parse(name)), 0) for name in names]\n"
        "print(json.dumps([settings.draw(12, told).drawn for settings in every]))"
    )
    text = json.dumps([space, names, [[one.index, one.drawn, one.costs] for one in told]])
    result = subprocess.run([sys.executable, "-c", code, text], capture_output=True, text=True, check=True)
    here = [setting(settings(space, sampler=name).draw(12, told)).drawn for name in names]
    assert json.loads(result.stdout) == here


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_until_enough_have_ended_settings_are_those_of_random(name: str) -> None:
    told = [told for _, told in search(settings(UNIT), sphere, 30)]
    few = [*told[:9], *(Told(t.index, t.drawn, None, t.index % 2 == 0) for t in told[9:20])]
    for count in (3, 20):
        drawn = settings(UNIT, sampler=name).draw(count, few[:count])
        assert drawn == settings(UNIT).draw(count)
    assert settings(UNIT, sampler=name).draw(20, told[:20]) != settings(UNIT).draw(20)


def test_what_fails_is_avoided() -> None:
    """Half of the space fails: who learns leaves it."""
    found = search(settings({"x": UNIT["x"]}, sampler="tpe"), lambda v: None if v["x"] > 0.5 else v["x"], 40)
    assert sum(one.values["x"] > 0.5 for one, _ in found[15:]) <= 3
    assert sum(one.values["x"] > 0.5 for one, _ in search(settings({"x": UNIT["x"]}), lambda v: 0.0, 40)[15:]) > 6


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_trials_that_run_keep_the_next_ones_from_their_place(name: str) -> None:
    drawing = settings(UNIT, sampler=name)
    told = [told for _, told in search(settings(UNIT), sphere, 15)]
    running: list[Told] = []
    for index in range(15, 19):
        running.append(Told(index, setting(drawing.draw(index, [*told, *running])).drawn, None, False))
    points = np.array([[one.drawn[key] for key in "xyz"] for one in running])
    distances = [np.linalg.norm(a - b) for place, a in enumerate(points) for b in points[:place]]
    assert min(distances) > 0.02


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_several_costs_are_searched_together(name: str) -> None:
    space = {"x": UNIT["x"], "y": UNIT["y"]}
    drawing, told = settings(space, sampler=name), list[Told]()
    for index in range(16 if name == "gp" else 40):
        drawn = setting(drawing.draw(index, told)).drawn
        told.append(Told(index, drawn, (drawn["x"] ** 2 + drawn["y"], (drawn["x"] - 1) ** 2 + drawn["y"]), True))
    later = [trial.drawn["y"] for trial in told[-6:]]
    assert np.median(later) < 0.25, "y makes both worse, and x trades one for the other"
    assert not Sampler.parse("cma_es").several_objectives and Sampler.parse(name).several_objectives  # type: ignore[attr-defined]


# -- keys that take part only under some choices

OPTIMIZERS = {
    "name": {"choices": ["sgd", "adam"]}, "momentum": {"low": 0.0, "high": 0.9}, "lr": {"low": 0.1, "high": 1.0}
}  # fmt: skip
SGD = {"momentum": Condition(("name",), frozenset({(0,)}))}


@pytest.mark.parametrize("name", [*SETTLED, *LEARNING])
def test_keys_that_take_no_part_are_not_drawn(name: str) -> None:
    drawing = Settings(sweep(OPTIMIZERS, sampler=name).under(SGD), 0)
    found = search(drawing, lambda values: values["lr"] + values.get("momentum", 0.0), 24)
    for one, _ in found:
        keys = {"name", "lr", "momentum"} if one.values["name"] == "sgd" else {"name", "lr"}
        assert set(one.values) == set(one.drawn) == keys
    assert {one.values["name"] for one, _ in found} == {"sgd", "adam"}
    assert len({json.dumps(one.values, sort_keys=True) for one, _ in found}) == len(found)


def test_settings_that_differ_in_what_takes_no_part_are_the_same() -> None:
    space = {"name": {"choices": ["sgd", "adam"]}, "momentum": {"choices": [0.0, 0.5, 0.9]}}
    searched = sweep(space).under(SGD)
    found = search(Settings(searched, 0), lambda _: 0.0, 100)
    assert searched.size() == len(found) == 4
    assert sum(one.values["name"] == "adam" for one, _ in found) == 1
    grid = sweep(space, sampler="grid").under(SGD)
    assert len(search(Settings(grid, 0), lambda _: 0.0, 100)) == grid.size() == 4


def test_tpe_learns_what_only_some_choices_have() -> None:
    drawing = Settings(sweep(OPTIMIZERS, sampler="tpe").under(SGD), 0)
    found = search(drawing, lambda v: abs(v["momentum"] - 0.4) if v["name"] == "sgd" else 1.0, 60)
    late = [one.values for one, _ in found[40:]]
    assert sum(values["name"] == "sgd" for values in late) >= 15
    assert np.median([abs(values["momentum"] - 0.4) for values in late if values["name"] == "sgd"]) < 0.1


# -- auto


@pytest.mark.parametrize(
    ("space", "trials", "name", "why"),
    [
        ({"c": {"choices": [1, 2, 3]}, "i": {"low": 1, "high": 4}}, 12, "random", "every one of the 12 settings"),
        (UNIT, 19, "quasi_random", "19 trials are too few to learn from"),
        (UNIT, 100, "tpe", "those after the first 10 learn"),
    ],
)  # fmt: skip
def test_auto_takes_what_suits_and_says_why(space: dict[str, dict[str, Any]], trials: int, name: str, why: str) -> None:
    drawing = settings(space, trials=trials, sampler="auto")
    assert drawing.sampler.name == name and why in drawing.why
    assert drawing.draw(5) == settings(space, trials=trials, sampler=name).draw(5)
    assert settings(space, trials=trials, sampler="tpe").why == ""


class TestSamplers(SamplerContract):
    """Every sampler of the catalogue."""

    names = Sampler.all_names()
    options = {"gp": {"startup": 13}}  # its draws take long
    variants = [{"name": "grid", "points": 2}, {"name": "tpe", "startup": 5}, {"name": "cma_es", "population": 6}]
