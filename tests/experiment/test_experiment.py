"""The rules by which files, overrides and defaults become one experiment."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import pytest
import yaml

from dltrain.config import ConfigError
from dltrain.data.datasets import Digits
from dltrain.data.types import Vector
from dltrain.experiment.experiment import Experiment
from dltrain.models import Model
from dltrain.optim.optimizers.sgd import SGD

SMALL = "data: digits\nmodel: mlp\n"


def errors(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(text, "small.yaml", overrides)
    return [diagnostic.message for diagnostic in caught.value.diagnostics]


def write(folder: Path, **files: str) -> Path:
    """Write `name.yaml` files; the path of the last one."""
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.write_text(text)
    return path


# -- defaults


def test_data_and_model_are_enough() -> None:
    experiment = Experiment.parse(SMALL, "runs/small.yaml")
    assert experiment.name == "small"
    assert experiment.data.validation == 0.1
    optimizer = experiment.optimizer
    assert isinstance(optimizer, SGD)
    assert (optimizer.lr, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.1, 0.9, True, 5e-4)
    assert experiment.schedule.name == "cosine"
    assert experiment.loss.name == "cross_entropy"
    assert experiment.training.epochs == 10


def test_a_bare_name_is_a_choice_with_its_defaults() -> None:
    assert Experiment.parse(SMALL) == Experiment.parse("data: {name: digits}\nmodel: {name: mlp}")


def test_a_mapping_without_a_name_changes_the_default_choice() -> None:
    optimizer = Experiment.parse(SMALL + "optimizer: {lr: 0.2}").optimizer
    assert isinstance(optimizer, SGD)
    assert (optimizer.lr, optimizer.momentum) == (0.2, 0.9)


def test_a_named_choice_has_its_own_defaults_not_those_of_the_experiment() -> None:
    optimizer = Experiment.parse(SMALL + "optimizer: {name: sgd, lr: 0.2}").optimizer
    assert isinstance(optimizer, SGD)
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.0, False, 0.0)


def test_either_epochs_or_steps() -> None:
    assert Experiment.parse(SMALL + "training: {steps: 100}").training.epochs is None
    assert Experiment.parse(SMALL + "training: {epochs: 0.5}").training.epochs == 0.5
    assert "both given" in errors(SMALL + "training: {epochs: 1, steps: 1}")[0]


# -- extends


def test_precedence_defaults_extends_file_overrides(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        lowest=SMALL + "seed: 1\noptimizer: {name: sgd, lr: 0.1, momentum: 0.5}\ntraining: {epochs: 4, batch_size: 16}",
        middle="extends: lowest.yaml\noptimizer: {lr: 0.2}\ntraining: {batch_size: 32}",
        top="extends: middle.yaml\ntraining: {batch_size: 64}",
    )
    experiment = Experiment.load(path, ["training.accumulate=4", "seed=3"])
    optimizer, training = experiment.optimizer, experiment.training
    assert isinstance(optimizer, SGD)
    assert experiment.name == "top"
    assert (optimizer.lr, optimizer.momentum) == (0.2, 0.5)
    assert (training.epochs, training.batch_size, training.accumulate) == (4, 64, 4)
    assert experiment.seed == 3


def test_mappings_merge_and_lists_are_replaced_whole(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        base=SMALL + "augmentation: [translate, rotation]\ntraining: {early_stopping: {patience: 3}}",
        top="extends: base.yaml\naugmentation: [scale]\ntraining: {early_stopping: {metric: train/loss}}",
    )
    experiment = Experiment.load(path)
    assert [entry.name for entry in experiment.augmentation] == ["scale"]
    stopping = experiment.training.early_stopping
    assert stopping is not None
    assert (stopping.patience, stopping.metric) == (3, "train/loss")


def test_a_choice_whose_name_changes_is_replaced_whole(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        base=SMALL + "optimizer: {name: sgd, lr: 0.5, momentum: 0.9, weight_decay: 0.1}",
        top="extends: base.yaml\noptimizer: {name: adam}",
    )
    optimizer = Experiment.load(path).optimizer
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adam", 1e-3, 0.0)


def test_a_choice_of_the_same_name_is_merged(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        base="data: digits\nmodel: {name: convnet, widths: [8], dropout: 0.3}",
        top="extends: base.yaml\nmodel: {name: convnet, dropout: 0.1}",
        bare="extends: base.yaml\nmodel: convnet",
    )
    assert Experiment.load(path).dump() == Experiment.load(tmp_path / "base.yaml").dump().replace("base", "bare")
    assert "widths: [8]" in Experiment.load(tmp_path / "top.yaml").dump()


def test_extends_is_relative_to_the_file_that_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    write(tmp_path, base=SMALL)
    path = write(tmp_path / "inner", top="extends: ../base.yaml")
    monkeypatch.chdir("/")
    assert Experiment.load(path).data.name == "digits"


def test_a_circle_of_extends_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, a="extends: b.yaml", b="extends: c.yaml", c="extends: a.yaml")
    with pytest.raises(ConfigError, match="circle"):
        Experiment.load(path)


@pytest.mark.parametrize("target", ['"a\\0b"', "x" * 300, "loop.yaml", ".", "~", "[]", "/dev/zero", '""'])
def test_extending_what_is_no_file_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    path = write(tmp_path, top=f"extends: {target}\n{SMALL}")
    with pytest.raises(ConfigError) as caught:
        Experiment.load(path)
    assert "top.yaml:1:10" in str(caught.value)


def test_only_a_file_can_extend_another() -> None:
    assert errors("extends: base.yaml\n" + SMALL) == ["`extends` works only in a file"]
    assert errors(SMALL, "extends=base.yaml") == ["`extends` works only in a file"]


def test_a_mistake_in_the_extended_file_is_shown_there(tmp_path: Path) -> None:
    path = write(tmp_path, base=SMALL + "seed: x", top="extends: base.yaml\nsede: 1")
    with pytest.raises(ConfigError) as caught:
        Experiment.load(path)
    assert sorted(Path(d.where.origin).name for d in caught.value.diagnostics if d.where) == ["base.yaml", "top.yaml"]


# -- overrides


def test_an_override_replaces_the_value_of_a_dotted_key() -> None:
    experiment = Experiment.parse(SMALL, overrides=["optimizer.lr=2e-2", "model.hidden=[8, 8]", "data.validation=0"])
    assert experiment.optimizer.lr == 0.02
    assert experiment.model.hidden == [8, 8]  # type: ignore[attr-defined]
    assert experiment.data.validation == 0


def test_an_override_gives_options_to_a_bare_name() -> None:
    assert Experiment.parse(SMALL, overrides=["model.dropout=0.5"]).model.dropout == 0.5  # type: ignore[attr-defined]


def test_an_override_reaches_into_lists() -> None:
    text = SMALL + "augmentation: [translate, {name: rotation, degrees: 10}]"
    experiment = Experiment.parse(text, overrides=["augmentation.1.degrees=20.0", "augmentation.0.share=0.2"])
    assert experiment.augmentation[1].degrees == 20  # type: ignore[attr-defined]
    assert experiment.augmentation[0].share == 0.2  # type: ignore[attr-defined]


def test_an_override_reaches_the_dotted_keys_of_a_sweep() -> None:
    text = SMALL + "sweep: {space: {optimizer.lr: {low: 0.1, high: 1.0}}}"
    overrides = ["sweep.space.optimizer.lr.low=0.01", "sweep.space.model.dropout={low: 0.1, high: 0.2}"]
    sweep = Experiment.parse(text, overrides=overrides).sweep
    assert sweep is not None
    assert sweep.space["optimizer.lr"].low == 0.01
    assert sweep.space["model.dropout"].high == 0.2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("seed=1", "seed=2"), ("optimizer=adam", "optimizer.name=sgd"), ("optimizer.name=sgd", "optimizer=adam"),
        ("optimizer={name: adam, lr: 0.1}", "optimizer.lr=0.2"), ("optimizer.lr=0.2", "optimizer={lr: 0.1}"),
        ("training.average=null", "training.average.name=ema"), ("training.average.name=ema", "training.average=null"),
        ("augmentation=[translate, scale]", "augmentation=[translate]"), ("model=convnet", "model={name: mlp}"),
    ],
)  # fmt: skip
def test_overrides_that_contradict_each_other_are_refused_at_the_second(first: str, second: str) -> None:
    with pytest.raises(ConfigError, match="is given twice, with different values") as caught:
        Experiment.parse(SMALL, overrides=[first, second])
    (problem,) = caught.value.diagnostics
    assert problem.where is not None and problem.where.source == second
    assert f"also: {first}" in str(caught.value)


def test_the_same_override_twice_is_one() -> None:
    found = Experiment.parse(SMALL, overrides=["optimizer=adam", "optimizer=adam", "optimizer.name=adam"])
    assert found == Experiment.parse(SMALL, overrides=["optimizer=adam"])


SETS = [
    ["optimizer.lr=0.3", "optimizer=adam"], ["optimizer.lr=0.3", "optimizer.name=adam", "optimizer.betas=[0.8, 0.9]"],
    ["model.dropout=0.5", "model=convnet", "model.widths=[8]"],
    ["schedule.gamma=0.5", "schedule=step", "schedule.epochs=3"],
    ["training.average.decay=0.9", "training.average=ema", "training={batch_size: 32}"],
    ["augmentation.1.degrees=5.0", "augmentation=[translate, rotation]"],
    ["model.norm.groups=4", "model.norm=group_norm", "model={name: convnet, dropout: 0.1}"],
    ["data.classes=3", "data={name: synthetic, examples: 40}", "data.shape=[1, 8, 8]"],
]  # fmt: skip


@pytest.mark.parametrize("overrides", SETS, ids=lambda overrides: overrides[0])
def test_a_set_of_overrides_has_no_order_wherever_it_is_given(overrides: list[str], tmp_path: Path) -> None:
    base = SMALL + "optimizer: {lr: 0.2}\ntraining: {steps: 40}\n"
    first = Experiment.parse(base, overrides=overrides)
    for order in permutations(overrides):
        found = Experiment.parse(base, overrides=order)
        assert (found, found.notes) == (first, first.notes)
        values = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in order)}
        assert Experiment.parse(base).override_all(values) == first


CHANGES = [
    ("optimizer", "sgd"), ("optimizer", {"name": "sgd"}), ("optimizer", {"name": "sgd", "momentum": 0.5}),
    ("optimizer", {"weight_decay": 0.5}), ("optimizer", "adam"), ("model", "mlp"),
    ("model", {"name": "mlp", "dropout": 0.5}),
    ("model", {"dropout": 0.5}), ("model", "convnet"), ("training", {"batch_size": 16}), ("training", {"epochs": 2}),
    ("schedule", "cosine"), ("schedule", {"warmup": {"epochs": 1}}), ("loss", "cross_entropy"), ("data", "digits"),
    ("augmentation", ["translate"]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), CHANGES, ids=str)
@pytest.mark.parametrize(
    "rest",
    [
        "", "optimizer: {lr: 0.2}", "optimizer: {name: sgd, lr: 0.3, momentum: 0.7}", "optimizer: adam",
        "schedule: {name: cosine, end: 0.1, warmup: {steps: 5}}\ntraining: {steps: 50}",
        "training: {epochs: 2, batch_size: 32}",
    ],
)  # fmt: skip
def test_setting_a_value_means_the_same_in_a_file_on_the_command_line_and_in_python(
    rest: str, key: str, value: object, tmp_path: Path
) -> None:
    base = f"data: {{name: digits, validation: 0.2}}\nmodel: {{name: mlp, hidden: [8]}}\n{rest}\n"
    path = write(tmp_path, base=base, top=f"extends: base.yaml\nname: base\n{key}: {json.dumps(value)}\n")
    extended = Experiment.load(path)
    typed = Experiment.load(tmp_path / "base.yaml", [f"{key}={json.dumps(value)}"])
    assert typed == Experiment.load(tmp_path / "base.yaml").override(key, value)
    if typed.training == Experiment.load(tmp_path / "base.yaml").training:  # a new length moves the schedule
        assert typed == extended
    assert typed.training == extended.training


@pytest.mark.parametrize("change", ["optimizer=sgd", "optimizer.name=sgd", "optimizer={name: sgd}", "model=mlp",
                                    "model.name=mlp", "schedule.name=cosine", "loss=cross_entropy", "data.name=digits",
                                    "training.average=ema", "training.average.name=ema", "model.activation.name=gelu",
                                    "augmentation.0=rotation", "augmentation.0.name=rotation"])  # fmt: skip
@pytest.mark.parametrize("optimizer", ["", "optimizer: {lr: 0.2}", "optimizer: {name: sgd, lr: 0.2, momentum: 0.8}"])
def test_naming_the_choice_that_is_there_changes_nothing(change: str, optimizer: str) -> None:
    text = (
        "data: {name: digits, validation: 0.2}\nmodel: {name: mlp, hidden: [8], activation: {name: gelu}}\n"
        "augmentation: [{name: rotation, degrees: 3.0}]\ntraining: {average: {name: ema, decay: 0.9}}\n"
        f"schedule: {{warmup: {{epochs: 1}}}}\nloss: {{label_smoothing: 0.1}}\n{optimizer}\n"
    )
    plain, named = Experiment.parse(text), Experiment.parse(text, overrides=[change])
    assert (named, named.notes) == (plain, ())
    key, _, value = change.partition("=")
    assert plain.override(key, yaml.safe_load(value)) == plain


def test_another_name_takes_along_what_was_set_and_nothing_of_the_default() -> None:
    adam = Experiment.parse(SMALL + "optimizer: adam").optimizer
    assert Experiment.parse(SMALL, overrides=["optimizer.name=adam"]).optimizer == adam
    plain = Experiment.parse(SMALL)
    assert plain.override("optimizer.name", "sgd").override("optimizer.name", "adam").optimizer == adam
    found = Experiment.parse(SMALL + "optimizer: {lr: 0.2, nesterov: false}", overrides=["optimizer.name=adam"])
    assert found.optimizer == Experiment.parse(SMALL + "optimizer: {name: adam, lr: 0.2}").optimizer
    assert tuple(note.text for note in found.notes) == ("`optimizer.nesterov` is dropped: `adam` has no such option",)
    assert Experiment.parse(SMALL + "optimizer: {lr: 0.2, nesterov: false}").override("optimizer.name", "adam") == found


def test_a_mapping_without_a_name_changes_a_default_inside_another_choice_too() -> None:
    found = Experiment.parse("data: digits\nmodel: {name: convnet, norm: {momentum: 0.3}}")
    assert found.model.norm.name == "batch_norm" and found.model.norm.momentum == 0.3  # type: ignore[attr-defined]
    assert Experiment.parse("data: digits\nmodel: convnet", overrides=["model.norm.momentum=0.3"]) == found


def test_a_section_made_in_python_is_whole() -> None:
    experiment = Experiment.parse(SMALL + "optimizer: {name: sgd, lr: 0.5, momentum: 0.9}")
    assert experiment.override("optimizer", SGD(lr=0.1)).optimizer == SGD(lr=0.1)


@pytest.mark.parametrize(
    ("text", "override", "absent"),
    [
        ("schedule: {warmup: {epochs: 2}}", "schedule.warmup.steps=5", "epochs"),
        ("schedule: {warmup: {epochs: 2, start: 0.1}}", "schedule.warmup={start_lr: 0.01}", "start"),
    ],
)
def test_of_two_keys_that_exclude_each_other_the_new_one_stays(text: str, override: str, absent: str) -> None:
    warmup = Experiment.parse(SMALL + text, overrides=[override]).schedule.warmup
    assert warmup is not None and getattr(warmup, absent) is None


def test_a_range_to_search_becomes_choices(tmp_path: Path) -> None:
    base = SMALL + "sweep: {space: {optimizer.lr: {low: 0.1, high: 1.0, log: true}}}"
    found = Experiment.parse(base, overrides=["sweep.space.optimizer.lr={choices: [0.1, 0.2]}"]).sweep
    assert found is not None and found.space["optimizer.lr"].choices == [0.1, 0.2]


def test_a_schedule_without_a_name_is_compressed_too() -> None:
    found = Experiment.parse(SMALL + "schedule: {warmup: {epochs: 2}}", overrides=["training.epochs=5"])
    assert found.schedule.warmup is not None and found.schedule.warmup.epochs == 1


def test_overriding_only_the_name_keeps_the_options_the_new_choice_also_has() -> None:
    text = SMALL + "optimizer: {name: sgd, lr: 0.5, momentum: 0.9, nesterov: true, weight_decay: 0.01}"
    experiment = Experiment.parse(text, overrides=["optimizer.name=adamw"])
    assert (experiment.optimizer.lr, experiment.optimizer.weight_decay) == (0.5, 0.01)
    assert tuple(note.text for note in experiment.notes) == (
        "`optimizer.momentum` is dropped: `adamw` has no such option",
        "`optimizer.nesterov` is dropped: `adamw` has no such option",
    )


def test_overriding_a_choice_itself_replaces_it_whole() -> None:
    text = SMALL + "optimizer: {name: sgd, lr: 0.5, momentum: 0.9}"
    experiment = Experiment.parse(text, overrides=["optimizer=adam"])
    assert experiment.optimizer.lr == 1e-3
    assert experiment.notes == ()


def test_options_beside_an_overridden_name_are_those_of_the_new_choice() -> None:
    text = SMALL + "optimizer: {name: adam, lr: 0.01}"
    for overrides in (
        ["optimizer.momentum=0.9", "optimizer.name=sgd"],
        ["optimizer.name=sgd", "optimizer.momentum=0.9"],
    ):
        optimizer = Experiment.parse(text, overrides=overrides).optimizer
        assert isinstance(optimizer, SGD)
        assert (optimizer.lr, optimizer.momentum) == (0.01, 0.9)


def test_an_overridden_length_replaces_the_one_in_the_other_unit() -> None:
    training = Experiment.parse(SMALL + "training: {epochs: 30}", overrides=["training.steps=100"]).training
    assert (training.epochs, training.steps) == (None, 100)
    assert len(errors(SMALL, "training.steps=100", "training.epochs=3")) == 1


def test_every_wrong_override_is_reported_at_once() -> None:
    assert len(errors(SMALL, "nonsense", "seed=x", "model.dropuot=1", "=", "training.epochs.x=1")) == 5


def test_the_same_from_python() -> None:
    loaded = Experiment.parse(SMALL)
    assert loaded.override("optimizer.lr", 0.2) == Experiment.parse(SMALL, overrides=["optimizer.lr=0.2"])
    assert loaded.override_all({"seed": 3, "model": "convnet"}).model.name == "convnet"
    assert loaded.seed == 0
    with pytest.raises(ConfigError, match="must be a number > 0, not -1"):
        loaded.override("optimizer.lr", -1)


def test_an_experiment_made_in_python_can_be_overridden() -> None:
    experiment = Experiment(name="mine", data=Digits(), model=Model.parse("mlp"), optimizer=SGD(lr=0.1, momentum=0.5))
    changed = experiment.override("optimizer.name", "adam")
    assert (changed.name, changed.optimizer.name, changed.optimizer.lr) == ("mine", "adam", 0.1)
    assert tuple(note.text for note in changed.notes) == ("`optimizer.momentum` is dropped: `adam` has no such option",)


@pytest.mark.parametrize(
    ("text", "overrides", "quoted"),
    [
        ("training: {early_stopping: {}}", ["seed=1", "data.validation=0"], "data.validation=0"),
        ("training: {accumulate: 4}", ["training.batch_size=30"], "training.batch_size=30"),
        ("optimizer: {groups: [{match: '*', lr: 0.1, after: 5.0}]}", ["schedule.end=0.1", "training.epochs=4"],
         "training.epochs=4"),
        ("loss: jsd\naugmentation: [{name: aug_mix, views: 3}]", ["augmentation=[translate]"],
         "augmentation=[translate]"),
        ("optimizer: {name: sgd, lr: 0.1, momentum: 0.9, nesterov: true}", ["optimizer.momentum=0.0"],
         "optimizer.momentum=0.0"),
        ("model: {name: mlp, hidden: [8]}", ["model.name=convnet", "model.hidden=[4]"], "model.hidden=[4]"),
    ],
)  # fmt: skip
def test_the_mistake_of_an_override_is_shown_there(text: str, overrides: list[str], quoted: str) -> None:
    base = "data: digits\n" + ("" if "model" in text else "model: mlp\n") + text
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(base, "small.yaml", overrides)
    (problem,) = caught.value.diagnostics
    assert problem.where is not None and problem.where.source == quoted


def test_a_default_is_not_blamed_as_if_the_file_had_set_it() -> None:
    with pytest.raises(ConfigError, match="and `cosine`, the default, would spoil it") as caught:
        Experiment.parse(SMALL, "small.yaml", ["optimizer=schedule_free_sgd"])
    assert "| optimizer=schedule_free_sgd" in str(caught.value)


def test_a_mistake_of_the_file_stays_there_beside_overrides() -> None:
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(SMALL + "training: {accumulate: 3}", "small.yaml", ["seed=1", "optimizer.lr=0.1"])
    assert "small.yaml:3:" in str(caught.value)


def test_a_mistake_that_only_the_data_shows_is_shown_at_the_override() -> None:
    text = "data: {name: image_folder, root: a, size: 8}\nmodel: mlp"
    experiment = Experiment.parse(text, "s", ["data.root=missing"])
    for key in ("data", "data.root"):
        assert "data.root=missing" in str(experiment.error(key, "there is no such folder"))
    assert "s:1:43" in str(experiment.error("data.size", "too small"))


# -- time

SCHEDULED = SMALL + "training: {epochs: 100}\nschedule: {name: multi_step, epochs: [40, 80], warmup: {epochs: 10}}"


def test_a_shorter_training_compresses_its_schedule() -> None:
    experiment = Experiment.parse(SCHEDULED, overrides=["training.epochs=10"])
    assert experiment.schedule.epochs == [4, 8]  # type: ignore[attr-defined]
    assert experiment.schedule.warmup is not None
    assert experiment.schedule.warmup.epochs == 1
    assert tuple(note.text for note in experiment.notes) == (
        "the schedule is compressed with the training, 100 -> 10 epochs",
    )


def test_a_longer_training_keeps_its_schedule() -> None:
    experiment = Experiment.parse(SCHEDULED, overrides=["training.epochs=200"])
    assert experiment.schedule == Experiment.parse(SCHEDULED).schedule
    assert experiment.notes == ()


def test_a_schedule_that_is_overridden_too_is_taken_as_it_says() -> None:
    experiment = Experiment.parse(SCHEDULED, overrides=["training.epochs=10", "schedule={name: step, epochs: 5}"])
    assert experiment.schedule.epochs == 5  # type: ignore[attr-defined]


def test_a_schedule_is_not_compressed_between_epochs_and_steps_and_says_so() -> None:
    experiment = Experiment.parse(SCHEDULED, overrides=["training.steps=10"])
    assert tuple(note.text for note in experiment.notes) == (
        "the schedule keeps its times: the training was in epochs and is now in steps",
    )


def test_a_warm_up_longer_than_the_training_is_refused() -> None:
    text = SMALL + "training: {steps: 10}\nschedule: {name: cosine, warmup: {steps: 10}}"
    assert errors(text) == ["the warm-up takes 10 steps, and the whole training only 10"]


# -- the dump


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("experiments/*.yaml")), ids=lambda p: p.stem)
def test_the_resolved_dump_repeats_the_experiment(path: Path) -> None:
    experiment = Experiment.load(path)
    dump = experiment.dump()
    assert Experiment.parse(dump, "another name") == experiment
    assert Experiment.parse(dump).dump() == dump


def test_the_dump_writes_every_default_out() -> None:
    values = yaml.safe_load(Experiment.parse(SMALL).dump())
    for key, section in Experiment.parse(SMALL):
        if key != "sweep":
            fields = getattr(type(section), "model_fields", {})
            assert not fields or set(values[key]) == set(fields)


@pytest.mark.parametrize(
    "name", ["1e3", "yes", "off", "0x1F", "数据 🔥", "a: b", "- a", "'", '"', "#1", "null", "1_000", "%"]
)
def test_text_that_looks_like_something_else_survives_the_dump(name: str) -> None:
    experiment = Experiment.parse(SMALL).override_all({"initialize_from": name})
    assert Experiment.parse(experiment.dump()).initialize_from == name


# -- sweeps


def sweep(space: str, rest: str = "") -> str:
    return f"{SMALL}{rest}\nsweep: {{space: {{{space}}}}}"


def test_a_sweep_over_names_whose_choices_reject_a_set_option_is_refused() -> None:
    text = sweep("optimizer.name: {choices: [sgd, adam]}", "optimizer: {name: sgd, lr: 0.1, momentum: 0.9}")
    assert "`optimizer.momentum` is dropped" in errors(text)[0]


def test_a_sweep_over_names_is_refused_where_a_searched_option_is_unknown_to_all() -> None:
    text = sweep("optimizer.momentum: {low: 0.1, high: 0.5}, optimizer.name: {choices: [adam, adamw]}")
    assert "unknown option `momentum` for optimizer `adam`" in errors(text)[0]


def test_a_sweep_over_names_that_share_their_options_is_fine() -> None:
    text = sweep(
        "optimizer.name: {choices: [sgd, adam]}, optimizer.lr: {low: 0.1, high: 1.0}", "optimizer: {name: sgd, lr: 1}"
    )
    assert Experiment.parse(text).sweep is not None


def test_a_sweep_tries_both_ends_and_every_choice() -> None:
    text = sweep("optimizer.momentum: {low: 0.5, high: 1.0}, seed: {choices: [1, -1]}, loss: {choices: [focal, foal]}")
    assert [message.split(",")[0] for message in errors(text)] == [
        "`optimizer.momentum` must be a number >= 0 and < 1", "`seed` must be an integer >= 0", "unknown loss `foal`",
    ]  # fmt: skip


def test_a_sweep_with_epochs_of_its_own_cannot_search_the_length() -> None:
    text = SMALL + "sweep: {epochs: 3, space: {training.epochs: {low: 1, high: 5}}}"
    assert "`sweep.epochs` is the length of every trial" in errors(text)[0]


def test_a_sweep_needs_a_validation_split() -> None:
    text = "data: {name: digits, validation: 0}\nmodel: mlp\nsweep: {space: {seed: {low: 1, high: 5}}}"
    assert errors(text) == ["a sweep is judged on the validation split, and there is none"]


def test_the_sweep_is_left_out_of_its_trials() -> None:
    experiment = Experiment.parse(sweep("seed: {low: 1, high: 5}"))
    assert experiment.without_sweep().override_all({"seed": 3}) == Experiment.parse(SMALL, overrides=["seed=3"])


# -- everything at once


def test_mistakes_of_every_kind_are_reported_together() -> None:
    text = (
        "data: {name: digits, validation: 0}\nmodel: mlpp\nseed: 1\nseed: 2\naugmentation: [cutout, translate]\n"
        "schedule: {name: cosine, warmup: {epochs: 20}}\ntraining: {early_stopping: {}}\n"
        "sweep: {space: {sede: {low: 1, high: 2}}}"
    )
    found = errors(text, "optimizer.lr=-1")
    assert len(found) == 8
    assert sum("unknown" in message for message in found) == 2


def test_a_misspelt_section_gives_no_second_error_by_its_absence() -> None:
    assert errors("data: digits\nmodle: mlp") == ["unknown key `modle`"]
    assert errors(SMALL + "trainig: {epochs: 100}\nschedule: {warmup: {epochs: 20}}") == ["unknown key `trainig`"]


def test_parts_are_for_the_inputs_that_the_data_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "data: digits\nmodel: convnet\naugmentation: [horizontal_flip]\n"
    monkeypatch.setattr(Digits, "inputs", Vector)
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(text, "s")
    assert [(d.where and d.where.line, d.message) for d in caught.value.diagnostics] == [
        (2, "`convnet` takes images, and data `digits` gives rows of numbers"),
        (3, "`horizontal_flip` takes images, and data `digits` gives rows of numbers"),
    ]
