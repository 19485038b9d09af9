"""`dltrain list` and `dltrain schema`: everything that can be written, with its documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from rationing import some
from typer.testing import CliRunner

from dltrain.cli import app
from dltrain.commands.list import options
from dltrain.config import ConfigError, Section
from dltrain.config.annotations import sections_within
from dltrain.config.reader import read_file, read_text
from dltrain.config.schema import json_schema
from dltrain.config.section import Choice, kinds
from dltrain.experiment.experiment import Experiment

ROOT = Path(__file__).parents[2]
KINDS = kinds()
ENTRIES = [entry for root in KINDS.values() for entry in root.catalogue]


def every_section() -> list[type[Section]]:
    """Every entry, and the sections inside the experiment and inside the entries."""
    found: dict[type[Section], None] = {}
    pending: list[type[Section]] = [Experiment, *ENTRIES]
    while pending:
        cls = pending.pop()
        if cls not in found and cls not in KINDS.values():
            found[cls] = None
            pending += [inner for field in cls.model_fields.values() for inner in sections_within(field.annotation)]
    return list(found)


def run(*arguments: str) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


# -- documentation


@pytest.mark.parametrize("cls", every_section(), ids=lambda cls: cls.__name__)
def test_every_key_of_every_section_is_documented(cls: type[Section]) -> None:
    assert cls.summary(), "no docstring"
    assert [option["name"] for option in options(cls) if not option["description"]] == []
    for option in options(cls):
        assert option["type"] not in ("", "a value")
        assert option["description"].endswith((".", ")", "?")) or "`" in option["description"], option


def test_the_kinds_of_the_contract_are_there() -> None:
    assert {"models", "activations", "norms", "optimizers", "schedules", "losses", "augmentations", "datasets"} <= set(
        KINDS
    )
    assert {KINDS[kind].singular() for kind in ("models", "losses")} == {"model", "loss"}


def test_an_entry_cannot_take_the_name_of_another() -> None:
    for root in KINDS.values():
        assert len(set(root.all_names())) == sum(len(list(entry.names())) for entry in root.catalogue)


# -- list


def test_list_names_every_section_and_every_entry() -> None:
    text = run("list")
    for kind, root in KINDS.items():
        assert f"{kind}: " in text
        for name in root.all_names():
            assert "/" in name or name in text
    assert "training: How long and how to train." in text
    assert len(text.splitlines()) <= 120


@pytest.mark.parametrize("kind", KINDS)
def test_list_of_a_kind_has_a_line_for_each_entry(kind: str) -> None:
    lines = run("list", kind).splitlines()
    names = [name for name in KINDS[kind].all_names() if "/" not in name]
    found = [line.split()[0] for line in lines[: lines.index("") if "" in lines else None] if not line.startswith(" ")]
    assert [name for name in found if not name.endswith("/*")] == names
    assert run("list", KINDS[kind].singular()).splitlines() == lines


def test_list_counts_the_models_of_libraries_and_shows_them_when_asked() -> None:
    assert 'dltrain list models "timm/*"' in run("list", "models")
    lines = run("list", "models", "timm/resnet18*").splitlines()
    assert lines[0].startswith("A network of timm")
    assert "  timm/resnet18.a1_in1k" in lines
    assert all("timm/resnet18" in line for line in lines[1:])


def test_list_takes_a_pattern() -> None:
    entries = run("list", "optimizers", "adam*").partition("\n\n")[0].splitlines()
    assert {line.split()[0] for line in entries if line[0] != " "} == {"adam", "adamw", "adamax"}


def test_list_of_a_kind_names_options_and_sources() -> None:
    lines = run("list", "optimizers").splitlines()
    sgd = next(number for number, line in enumerate(lines) if line.startswith("sgd "))
    assert lines[sgd + 1].strip() == "options: momentum, dampening, nesterov"
    assert lines[sgd + 2].strip().startswith("source: https://")
    assert lines[-1].startswith("options of every optimizer: lr, weight_decay, no_decay, groups")
    names = [line.split()[0] for line in run("list", "models", "resnet1*").splitlines() if line]
    assert names[names.index("resnet101") - 1] == "resnet18"  # one class: its options stand under the last of its names
    assert "options: only initialization" in run("list", "models")


def test_list_shows_the_published_size_of_a_model() -> None:
    assert "61,706 parameters for images of 1x28x28 and 10 classes" in run("list", "models", "lenet5")


def test_list_shows_one_entry_whole() -> None:
    text = run("list", "optimizers", "sgd")
    assert "lr: a number > 0; default 0.1" in text
    assert "nesterov: true or false; default false" in text
    assert "source: https://" in text


@pytest.mark.parametrize("key", ["data", "augmentation", "model", "loss", "optimizer", "schedule"])
def test_list_takes_the_keys_of_an_experiment_too(key: str) -> None:
    assert run("list", key)


def test_list_shows_the_keys_of_the_experiment_and_of_its_sections() -> None:
    assert "seed: an integer >= 0; default 0" in run("list", "experiment")
    assert "early_stopping.patience: an integer >= 1; default 20" in run("list", "training")
    assert "space.KEY.log: true or false; default false" in run("list", "sweep")


def test_list_as_json() -> None:
    everything = json.loads(run("list", "--json"))
    assert set(everything) == set(KINDS)
    for kind, entries in everything.items():
        assert [entry["name"] for entry in entries] == KINDS[kind].all_names()
        assert all(set(entry) == {"name", "summary", "documentation", "source", "options"} for entry in entries)
    one = json.loads(run("list", "losses", "cross_entropy", "--json"))
    assert one == {"losses": [everything["losses"][0]]}
    assert one["losses"][0]["options"][0] == {
        "name": "label_smoothing", "type": "a number >= 0 and < 1", "required": False, "default": 0.0,
        "description": "Share of the target that is spread evenly over all classes; 0.1 is usual.",
    }  # fmt: skip
    assert json.loads(run("list", "training", "--json"))["training"][0]["name"] == "epochs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimisers"], "did you mean `optimizers`?"), (["models", "resnet19"], "did you mean `resnet18`?"),
        (["models", "zzz*"], "`dltrain list models` shows all"), (["training", "epochs"], "it has no entry `epochs`"),
        (["losses", "xyz", "--json"], "no loss is called `xyz`"), ([""], "there is no kind or section"),
    ],
)  # fmt: skip
def test_list_of_something_unknown_exits_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["list", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


# -- schema


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """The schema that `dltrain schema` prints."""
    schema = json.loads(run("schema"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", some(sorted(ROOT.glob("experiments/*.yaml")), 3))
def test_the_schema_accepts_every_shipped_experiment(validator: Draft202012Validator, path: Path) -> None:
    assert [error.message for error in validator.iter_errors(read_file(path).tree)] == []
    resolved = read_text(Experiment.load(path).dump(), "dump").tree
    assert [error.message for error in validator.iter_errors(resolved)] == []


@pytest.mark.parametrize(
    "text",
    [
        "data: digits\nmodel: mlp\noptimizer: {lr: 0.2}",
        "extends: other.yaml\nseed: 1",
        "data: digits\nmodel: {name: convnet, activation: {name: leaky_relu, slope: 0.1}, norm: null}",
        "data: {name: cifar10, validation: 1000, size: [32, 48]}\nmodel: timm/resnet18",
    ],
)
def test_the_schema_accepts(validator: Draft202012Validator, text: str) -> None:
    assert validator.is_valid(read_text(text, "f").tree)


@pytest.mark.parametrize(
    "text",
    [
        "data: digits", "data: digits\nmodel: mlpp", "data: digits\nmodel: mlp\nseed: -1",
        "data: digits\nmodel: mlp\nsede: 1",
        "data: digits\nmodel: {name: convnet, activation: {name: leaky_relu, slop: 0.1}}",
        "data: digits\nmodel: {name: convnet, norm: batchnorm}", "data: digits\nmodel: {hidden: [3]}",
        "data: digits\nmodel: mlp\noptimizer: {name: sgd, lr: 0}", "data: digits\nmodel: mlp\noptimizer: adamm",
        "data: image_folder\nmodel: mlp", "data: digits\nmodel: mlp\ntraining: {early_stopping: {patience: 0}}",
        "data: digits\nmodel: mlp\nsweep: {space: {}}", "data: digits\nmodel: timm/efficientnetb0",
    ],
)  # fmt: skip
def test_the_schema_refuses(validator: Draft202012Validator, text: str) -> None:
    assert not validator.is_valid(read_text(text, "f").tree)


def test_the_schema_refuses_most_of_the_broken_experiments(validator: Draft202012Validator) -> None:
    trees: list[Any] = []
    for path in ROOT.glob("tests/config/broken/*.yaml"):
        try:
            trees.append(read_file(path).tree)
        except ConfigError:
            continue
    refused = [tree for tree in trees if not validator.is_valid(tree)]
    assert len(refused) > 0.6 * len(trees)


def test_the_schema_documents_every_key() -> None:
    schema = json_schema(Experiment)
    mappings = [part for part in schema["$defs"].values() if "properties" in part]
    assert len(mappings) > len([entry for entry in ENTRIES if entry.kind in schema["$defs"]])
    for mapping in mappings:
        assert mapping["description"]
        for key, value in mapping["properties"].items():
            assert value.get("description") or key == "name", (mapping["description"], key)


def test_every_kind_is_a_choice_of_names_and_mappings() -> None:
    definitions = json_schema(Experiment)["$defs"]
    for kind, root in KINDS.items():
        if kind in definitions:
            references = [option["$ref"] for option in definitions[kind]["anyOf"]]
            assert [f"#/$defs/{kind}.{entry.__name__}" in references for entry in root.catalogue] == [True] * len(
                root.catalogue
            )


def test_a_kind_is_not_one_of_its_entries() -> None:
    assert all(issubclass(root, Choice) and root not in root.catalogue for root in KINDS.values())
