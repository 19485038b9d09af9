"""The contract of samplers: what they draw lies in the space, once each, and is a function of what they are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from dltrain.search import Condition, Range, Sampler, Settings, Sweep, Told
from dltrain.testing.contract import Contract

SPACE = {
    "rate": Range(low=1e-4, high=1.0, log=True),
    "share": Range(low=0.0, high=0.5),
    "step": Range(low=0.0, high=1.0, step=0.25),
    "width": Range(low=1, high=64, log=True),
    "kind": Range(choices=["a", {"name": "b"}, None]),
    "option": Range(low=-1.0, high=1.0),
}
"""A key of each sort; `option` takes part with the first two of `kind`."""
CONDITIONS = {"option": Condition(("kind",), frozenset({(0,), (1,)}))}


def trials(settings: Settings, count: int, cost: Callable[[Mapping[str, Any]], float] | None = None) -> list[Told]:
    """Trials one after another, each told before the next; every fifth fails."""
    told: list[Told] = []
    for index in range(count):
        setting = settings.draw(index, told)
        if setting is None:
            break
        value = None if index % 5 == 4 else cost(setting.values) if cost is not None else 0.0
        told.append(Told(index, setting.drawn, None if value is None else (value,), True))
    return told


def usual(values: Mapping[str, Any]) -> float:
    """A cost that depends on numbers and choices."""
    return float(abs(values["share"] - 0.2) + values["width"] / 64 + (values["kind"] is None))


class SamplerContract(Contract):
    """A sampler draws within ranges, nothing twice, and the same of the same: it keeps nothing between its draws."""

    kind = Sampler

    def settings(self, choice: Any, seed: int = 0, space: Mapping[str, Range] = SPACE, **options: Any) -> Settings:
        """Those of a sweep with the sampler."""
        sweep = Sweep.model_validate({"space": dict(space), "sampler": self.parse(choice), "trials": 40, **options})
        return Settings(sweep.under(CONDITIONS if "option" in space else {}), seed)

    def test_draws_lie_within_their_ranges(self, choice: Any) -> None:
        settings = self.settings(choice)
        told = trials(settings, 18, usual)
        assert len(told) == 18
        for trial in told:
            values = settings.sweep.whole.values(trial.drawn)
            assert ("option" in values) == (values["kind"] is not None)
            assert 1e-4 <= values["rate"] <= 1 and 0 <= values["share"] <= 0.5 and -1 <= values.get("option", 0) <= 1
            assert values["step"] in (0, 0.25, 0.5, 0.75, 1) and values["width"] in range(1, 65)
            assert type(values["width"]) is int and values["kind"] in ("a", {"name": "b"}, None)
        assert len({json.dumps(trial.drawn) for trial in told}) == 18

    def test_draws_are_a_function_of_seed_trial_and_what_was_told(self, choice: Any) -> None:
        told = trials(self.settings("random"), 20, usual)
        one = self.settings(choice).draw(20, told)
        assert one == self.settings(choice).draw(20, told[::-1])
        assert one != self.settings(choice, seed=1).draw(20, told)
        assert one != self.settings(choice).draw(21, told)
        if not self.settings(choice).sampler.learns:
            assert one == self.settings(choice).draw(20)

    def test_a_finite_space_ends_when_all_is_drawn(self, choice: Any) -> None:
        space = {key: SPACE[key] for key in ("step", "kind")} | {"other": Range(low=1, high=2)}
        told = trials(self.settings(choice, space=space), 40, lambda values: values["step"])
        assert len({json.dumps(trial.drawn) for trial in told}) == len(told) == 5 * 3 * 2

    def test_rounds_draw_within_their_own_ranges(self, choice: Any) -> None:
        settings = self.settings(choice, rounds=2, trials=24)
        first = trials(self.settings("random"), 12, usual)
        ranges, told = settings.ranges(1, first), list(first)
        low, high = ranges["rate"].bounds()
        assert settings.waits_for(12) == settings.waits_for(23) == 12
        for index in range(12, 24):
            setting = settings.draw(index, told)
            assert setting is not None and setting.round == 1
            assert low <= setting.values["rate"] <= high and setting.values["kind"] in (ranges["kind"].choices or [])
            told.append(Told(index, setting.drawn, (usual(setting.values),), True))

    def test_nothing_is_printed(self, choice: Any, capfd: pytest.CaptureFixture[str]) -> None:
        trials(self.settings(choice), 13, usual)
        assert capfd.readouterr() == ("", "")
