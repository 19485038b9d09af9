"""What `check` says of a sweep whose trials would fail, or would not be what is reported."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from dltrain.config import ConfigError
from dltrain.experiment.experiment import Experiment
from dltrain.experiment.spaces import corners
from dltrain.search import Range, Settings, Sweep

SMALL = "data: digits\nmodel: mlp\n"


def problem(space: str, rest: str = "", *overrides: str) -> tuple[str, str]:
    """The only mistake: its message and notes, and the text under its carets."""
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(f"{SMALL}{rest}\nsweep: {{{space}}}", "s.yaml", overrides)
    (found,) = caught.value.diagnostics
    where = found.where
    assert where is not None
    text = where.source[where.column - 1 : where.column - 1 + where.length]
    return "; ".join([found.message, *found.notes]), text


@pytest.mark.parametrize(
    ("space", "rest", "message", "text"),
    [
        ("training.epochs: {low: 1, high: 2}, training.steps: {low: 3, high: 5}", "", "are both given", "3"),
        ("training.batch_size: {low: 64, high: 256, step: 64.0}", "", "must be an integer", "64.0"),
        ("training.batch_size: {low: 64.0, high: 256}", "", "must be an integer", "64.0"),
        ("training.batch_size: {low: 32, high: 256}", "training: {accumulate: 4}", "33 / 4", "32"),
        ("training.batch_size: {low: 32, high: 256, step: 2}", "training: {accumulate: 4}", "34 / 4", "2"),
        ("training.accumulate: {choices: [1, 3]}, training.batch_size: {choices: [48, 64]}", "", "64 / 3", "3"),
        ("optimizer.momentum: {low: 0.1, high: 1.5}, optimizer: {choices: [adam, sgd]}", "",
         "must be a number >= 0 and < 1", "1.5"),
        ("optimizer: {choices: [adam, lion]}, optimizer.momentum: {low: 0.1, high: 0.9}", "",
         "unknown option `momentum` for optimizer `adam`", "momentum"),
        ("optimizer.lr: {low: 0.1, high: 0.9}, optimizer: {choices: [adam, {name: sgd, lr: 0.1}]}", "",
         "`optimizer.lr` is given twice", "optimizer"),
        ("optimizer: {choices: [adam, {name: sgd, momentum: 0.5}]}, optimizer.name: {choices: [sgd, adam]}", "",
         "is given twice", "optimizer.name"),
        ("model.norm: {choices: [batch_norm, {name: batch_norm, momentum: 0.2}]}, "
         "model.norm.momentum: {low: 0.1, high: 0.5}", "model: resnet20", "is given twice", "model.norm.momentum"),
        ("optimizer: {choices: [sgd, adam, {name: adam}]}", "", "is the same setting as adam", "{name: adam}"),
        ("optimizer.lr: {choices: [1, 2, 1.0]}", "", "1.0 is the same setting as 1", "1.0"),
        ("augmentation.0.degrees: {low: -5, high: 5.5}", "augmentation: [rotation]", "must be a number", "-5"),
    ],
)  # fmt: skip
def test_a_space_with_a_setting_that_fails_is_refused_at_its_key(
    space: str, rest: str, message: str, text: str
) -> None:
    if rest.startswith("model"):
        rest, found = "", problem(f"space: {{{space}}}", "", f"{rest.replace(': ', '=')}")
    else:
        found = problem(f"space: {{{space}}}", rest)
    assert message in found[0]
    assert found[1] == text


def test_what_goes_wrong_in_the_company_of_another_key_names_it() -> None:
    space = "training.accumulate: {choices: [1, 3]}, training.batch_size: {choices: [48, 96, 64]}"
    found = problem(f"space: {{{space}}}", "training: {batch_size: 48}")[0]
    assert "in a trial with `training.batch_size: 64`" in found


def test_a_trial_that_is_too_short_is_refused_where_its_length_stands() -> None:
    groups = "optimizer: {groups: [{match: '*', lr: 0.1, after: 3.0}]}"
    message, text = problem("epochs: 2, space: {optimizer.lr: {low: 0.1, high: 1.0}}", groups)
    assert "the group would never learn" in message and text == "2"


def test_a_whole_training_to_choose_keeps_to_the_length_of_the_trials() -> None:
    choices = "epochs: 2, space: {training: {choices: [{batch_size: 32}, {epochs: 3}]}}"
    message, text = problem(choices)
    assert "`sweep.epochs` is the length of every trial" in message and text == "{epochs: 3}"
    found = Experiment.parse(
        SMALL + "sweep: {epochs: 2, space: {training: {choices: [{batch_size: 32}, {batch_size: 64}]}}}"
    )
    trial = found.without_sweep().override("training", {"batch_size": 32}).override("training.epochs", 2)
    assert (trial.training.batch_size, trial.training.epochs) == (32, 2)


@pytest.mark.parametrize(
    "space",
    [
        "optimizer.lr: {low: 0.1, high: 0.9}, optimizer: {choices: [adam, adamw]}",
        "training.batch_size: {low: 32, high: 256, step: 4}, training.accumulate: {choices: [1, 2, 4]}",
        "training.steps: {low: 5, high: 9}", "optimizer.name: {choices: [sgd, adam]}",
        "optimizer.momentum: {low: 0.1, high: 0.9}, optimizer.name: {choices: [adam, sgd]}",
        "optimizer: {choices: [adam, sgd]}, optimizer.momentum: {low: 0.1, high: 0.9}",
        "model.name: {choices: [mlp, softmax_regression]}, model.dropout: {low: 0.0, high: 0.5}",
    ],
)  # fmt: skip
def test_a_sound_space_is_taken(space: str) -> None:
    text = f"{SMALL}optimizer: {{lr: 0.2}}\nsweep: {{space: {{{space}}}}}"
    assert Experiment.parse(text).sweep is not None


@pytest.mark.parametrize("override", ["epochs=2", "seeed=1", "optimzer.lr=2", "training.epochz=2"])
def test_an_unknown_key_is_one_mistake_beside_a_sweep(override: str) -> None:
    message, text = problem("space: {optimizer.lr: {low: 0.1, high: 1.0}, seed: {low: 1, high: 5}}", "", override)
    assert ("unknown key" in message and override.startswith(text.split("=")[0][:5])) or text == "epochz"


def test_the_hint_for_a_bare_epochs_is_the_trainings() -> None:
    with pytest.raises(ConfigError, match=r"did you mean `training.epochs`"):
        Experiment.parse(SMALL + "sweep: {space: {optimizer.lr: {low: 0.1, high: 1.0}}}", "s", ["epochs=2"])


def test_ranges_take_the_type_of_their_key() -> None:
    text = (
        f"{SMALL}sweep: {{space: {{optimizer.weight_decay: {{low: 0, high: 1}}, "
        "training.epochs: {low: 1, high: 9, step: 2}, seed: {low: 1, high: 9}, model.dropout: {choices: [0, 0.5]}}}"
    )
    found = Experiment.parse(text)
    assert found.sweep is not None and Experiment.parse(found.dump()) == found
    settings = Settings(found.sweep, 0)
    drawn = [setting.values for setting in map(settings.draw, range(40)) if setting is not None]
    decays = {trial["optimizer.weight_decay"] for trial in drawn}
    assert len(decays) == 40 and all(0 < decay < 1 for decay in decays)
    assert {trial["training.epochs"] for trial in drawn} == {1.0, 3.0, 5.0, 7.0, 9.0}
    assert all(type(trial["seed"]) is int for trial in drawn)


def test_corners_hold_every_pair_of_examples_in_few_settings() -> None:
    ranges = {
        key: Range(choices=list(range(size))) for key, size in zip("abcdefgh", (4, 3, 3, 3, 2, 4, 3, 2), strict=True)
    }
    examples = {key: range_.examples() for key, range_ in ranges.items()}
    rows = [{key: value for key, (_, value) in row.items()} for row in corners(examples)]
    for one, other in combinations(ranges, 2):
        pairs = {(row[one], row[other]) for row in rows}
        assert pairs >= set(product(ranges[one].choices or [], ranges[other].choices or []))
    assert len(rows) < 50


def searched(space: str, rest: str = "optimizer: {lr: 0.2}") -> Sweep:
    found = Experiment.parse(f"{SMALL}{rest}\nsweep: {{space: {{{space}}}}}").sweep
    assert found is not None
    return found


def keys(sweep: Sweep) -> set[frozenset[str]]:
    """The sets of keys that trials have."""
    drawing = Settings(sweep, 0)
    return {frozenset(found.values) for found in map(drawing.draw, range(60)) if found is not None}


def test_a_key_takes_part_where_the_catalogue_says_that_a_choice_has_it() -> None:
    momentum = "optimizer.momentum: {low: 0.1, high: 0.9}"
    names, both = frozenset({"optimizer.name"}), frozenset({"optimizer.name", "optimizer.momentum"})
    assert keys(searched(f"optimizer.name: {{choices: [adam, sgd]}}, {momentum}")) == {names, both}
    assert keys(searched(f"optimizer.name: {{choices: [rmsprop, sgd]}}, {momentum}")) == {both}
    whole = searched(f"optimizer: {{choices: [{{name: adam, lr: 0.1}}, {{name: sgd, nesterov: true}}]}}, {momentum}")
    assert keys(whole) == {frozenset({"optimizer"}), frozenset({"optimizer", "optimizer.momentum"})}


def test_a_key_may_hang_on_several_choices() -> None:
    """An option of an option: a norm's of a network's."""
    space = (
        "model.norm.groups: {choices: [1, 2]}, model.norm.name: {choices: [batch_norm, group_norm]}, "
        "model.name: {choices: [softmax_regression, convnet]}, model.norm.momentum: {low: 0.1, high: 0.2}"
    )
    found = keys(searched(space, ""))
    alone, norm = {"model.name"}, {"model.name", "model.norm.name"}
    assert found == {
        frozenset(alone),
        frozenset(norm | {"model.norm.groups"}),
        frozenset(norm | {"model.norm.momentum"}),
    }


def test_an_option_that_the_file_sets_may_be_searched_where_it_takes_part() -> None:
    momentum = "optimizer.momentum: {low: 0.1, high: 0.9}, optimizer.name: {choices: [sgd, adam]}"
    assert len(keys(searched(momentum, "optimizer: {name: sgd, lr: 0.1, momentum: 0.5}"))) == 2
    message, _ = problem(f"space: {{{momentum}}}", "optimizer: {name: sgd, lr: 0.1, momentum: 0.5, dampening: 0.1}")
    assert "`optimizer.dampening` is dropped" in message


def test_a_range_takes_the_type_of_a_key_that_the_first_choice_lacks() -> None:
    space = "optimizer.name: {choices: [adam, sgd]}, optimizer.dampening: {low: 0, high: 1}"
    assert searched(space, "optimizer: {name: sgd, lr: 0.1}").space["optimizer.dampening"].size() is None


def test_a_sweep_over_names_that_is_read_again_tries_the_same() -> None:
    """Written out, the options of the default choice would stay with the other one, or be refused."""
    space = "optimizer.name: {choices: [adam, sgd]}, optimizer.lr: {low: 0.001, high: 0.1}, seed: {low: 1, high: 5}"
    for rest in ("", "optimizer: {lr: 0.3}", "optimizer: {weight_decay: 0.1}"):
        whole = Experiment.parse(f"{SMALL}{rest}\nsweep: {{space: {{{space}}}}}")
        again = Experiment.parse(whole.dump())
        assert again == whole and "model:\n  name: mlp\n  initialization" in whole.dump()
        for name in ("adam", "sgd"):
            trial = whole.without_sweep().override_all({"optimizer.name": name, "optimizer.lr": 0.05})
            assert again.without_sweep().override_all({"optimizer.name": name, "optimizer.lr": 0.05}) == trial
