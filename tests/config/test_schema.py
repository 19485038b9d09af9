"""The JSON Schema says of a file what `check` says, as far as single values decide: on generated and mutated files."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema import ValidationError as Misfit
from jsonschema.validators import extend
from pydantic import ValidationError
from test_fuzz import EXPERIMENTS, KEYS, anything, check, choices, fuzz, mappings

from dltrain import Experiment
from dltrain.config.document import paths
from dltrain.config.dump import to_yaml
from dltrain.config.reader import read_text
from dltrain.config.schema import json_schema
from dltrain.models import Model
from dltrain.optim import Optimizer


def any_of(validator: Any, branches: list[dict[str, Any]], instance: Any, _: dict[str, Any]) -> Iterator[Misfit]:
    """`anyOf`, which leaves each branch at its first error: the library gathers all errors of all branches."""
    if not any(validator.evolve(schema=branch).is_valid(instance) for branch in branches):
        yield Misfit(f"{instance!r} is none of its choices")


VALIDATOR = extend(Draft202012Validator, {"anyOf": any_of})(json_schema(Experiment))
TOGETHER = {"field_rejected", "value_error", "assertion_error"}
"""Errors of values that do not fit one another, which a schema cannot see."""
TREES = [tree for text in EXPERIMENTS if "extends" not in (tree := read_text(text, "f").tree)]


def wrong_by_itself(tree: dict[str, Any]) -> bool:
    """Whether a value has the wrong type or range, or a key is unknown or missing.

    A schema takes 128.0 for an integer, and JSON has no infinity: what is refused for that does not count.
    """
    if any(isinstance(tree.get(key), dict) and "name" not in tree[key] for key in ("loss", "optimizer", "schedule")):
        return False  # a change of the default, which `Experiment.parse` completes
    try:
        Experiment.model_validate(tree)
    except ValidationError as error:
        together = {one["loc"][0] for one in error.errors() if one["type"] in TOGETHER}
        # A mapping whose keys do not fit one another could have been text instead, which is no mistake of its own.
        found = [one for one in error.errors() if one["type"] != "string_type" or one["loc"][0] not in together]
        whole = [isinstance(one["input"], float) and one["input"].is_integer() for one in found]
        kinds = {one["type"] for one, is_whole in zip(found, whole, strict=True) if not is_whole}
        return bool(kinds - TOGETHER - {"finite_number"})
    return False


def agree(tree: dict[str, Any]) -> str:
    """`check` and the schema say the same. What `check` said: right, wrong, or wrong together."""
    found = [error.message[:300] for error in VALIDATOR.iter_errors(tree)]
    if check(to_yaml(tree)) is not None:
        assert found == []
        return "right"
    if wrong_by_itself(tree):
        assert found != []
        return "wrong"
    return "wrong together"


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A shipped experiment with a few keys deleted, renamed, added, or with other values."""
    tree: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(TREES)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in paths(tree) if path]))
        place: Any = tree
        for key in path[:-1]:
            place = place[key]
        kind = draw(st.sampled_from(["delete", "rename", "value", "choice"]))
        if kind == "value":
            place[path[-1]] = draw(anything)
        elif kind == "choice":
            place[path[-1]] = draw(st.one_of(choices(Model), choices(Optimizer), mappings(Experiment)))
        elif isinstance(place, dict):
            value = place.pop(path[-1])
            if kind == "rename":
                place[draw(st.sampled_from([key.rpartition(".")[2] for key in KEYS]))] = value
    return tree


def jsonable(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (ValueError, TypeError, OverflowError):
        return False


@pytest.mark.parametrize("kind", ["mutated", "generated"])
def test_experiments(kind: str) -> None:
    said: Counter[str] = Counter()

    @fuzz(80)
    @given(mutated() if kind == "mutated" else st.deferred(lambda: mappings(Experiment)))
    def try_all(tree: dict[str, Any]) -> None:
        if jsonable(tree):
            said[agree(tree)] += 1

    try_all()
    assert said["right"] > 2 and said["wrong"] > (25 if kind == "mutated" else -1), said


@fuzz(50)
@given(st.data(), st.sampled_from(TREES))
def test_what_a_file_may_change_of_another(data: st.DataObject, base: dict[str, Any]) -> None:
    """Any part of an experiment under `extends`: the rest is in the other file."""
    part: dict[str, Any] = {}
    for path in data.draw(st.lists(st.sampled_from([path for path in paths(base) if path]), min_size=1, max_size=4)):
        keys = list(path)
        if numbers := [index for index, key in enumerate(keys) if isinstance(key, int)]:
            keys = keys[: numbers[0]]  # lists are replaced whole
        value: Any = base
        for key in keys:
            value = value[key]
        place = part
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        if isinstance(place, dict):
            place[keys[-1]] = copy.deepcopy(value)
    assert [error.message[:300] for error in VALIDATOR.iter_errors({"extends": "base.yaml", **part})] == []


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("extends: b.yaml\nmodel: {dropout: 0.2}", True), ("extends: b.yaml\nmodel: {dropuot: 0.2}", False),
        ("extends: b.yaml\nmodel: {dropout: a lot}", False),
        ("extends: b.yaml\nmodel: {name: mlp, widths: [3]}", False),
        ("extends: b.yaml\nsweep: {space: {optimizer.lr: {low: 0.1}}}", True), ("extends: [b.yaml]", False),
        ("extends: b.yaml\naugmentation: [{padding: 4}]", False), ("extends: b.yaml\ndata: image_folder", True),
        ("extends: b.yaml\noptimizer: {lookahead: {alpha: 0.5}}", True), ("extends: b.yaml\nsede: 1", False),
        ("extends: b.yaml\ntraining: {average: {decay: 0.9}}", True), ("data: {root: x}\nmodel: mlp", False),
        ("data: digits\nmodel: mlp\noptimizer: {momentum: 0.5}", True), ("data: digits\nmodel: {hidden: [4]}", False),
        ("data: digits\nmodel: mlp\noptimizer: {betas: [0.9, 0.9]}", False),
        ("data: digits\nmodel: mlp\ntraining: {average: {decay: 0.9}}", False),
    ],
)  # fmt: skip
def test_parts_of_choices(text: str, right: bool) -> None:
    assert VALIDATOR.is_valid(read_text(text, "f").tree) == right
