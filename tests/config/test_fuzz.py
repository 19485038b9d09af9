"""Whatever is written, `check` answers with an experiment or with diagnostics, never with a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dltrain.config import ConfigError, Section
from dltrain.config.annotations import annotation_of, is_kind, is_section, members
from dltrain.config.section import Choice, is_name_enough
from dltrain.experiment.experiment import Experiment

SHIPPED = [path.read_text("utf-8") for path in sorted(Path(__file__).parents[2].glob("experiments/*.yaml"))]
EXPERIMENTS = [text for text in SHIPPED if "extends:" not in text]  # a text without a file extends none
BROKEN = [path.read_text("utf-8") for path in sorted(Path(__file__).parent.glob("broken/*.yaml"))]


def fuzz(examples: int) -> settings:
    """The same examples at every run."""
    return settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def check(text: str, *overrides: str) -> Experiment | None:
    """The experiment, or None when it was refused with a message that can be printed."""
    try:
        return Experiment.parse(text, "fuzz.yaml", overrides)
    except ConfigError as error:
        shown = str(error)
        shown.encode()
        assert shown.startswith("error: ")
        assert all(character.isprintable() for character in shown.replace("\n", ""))
        assert all(len(line) < 2000 for line in shown.splitlines())
        return None


# -- any text

characters = st.one_of(
    st.sampled_from(list(":-[]{},#&*!|>'\"%@`~<? \t\n\r=.0123456789eE_")),
    st.sampled_from(["\x00", "\x1b", "\x85", "\u2028", "\ufeff", "\u202e", "数", "🔥", "é", "\u0301", "\ud800"]),
    st.characters(),
)
words = st.sampled_from([
    "data", "model", "optimizer", "training", "sweep", "space",
    "augmentation", "name", "lr", "epochs", "digits", "mlp", "sgd",
    "null", "true", ".inf", "1e999", "<<",
])  # fmt: skip
texts = st.lists(st.one_of(characters, words, words.map(lambda word: f"{word}: "), st.just("\n  "))).map("".join)


@fuzz(250)
@given(texts)
def test_no_text_gives_a_traceback(text: str) -> None:
    check(text)


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A valid or broken experiment with a few characters, words or lines deleted, inserted, replaced or moved."""
    text = draw(st.sampled_from(EXPERIMENTS + BROKEN))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["delete", "insert", "replace", "line", "swap", "word"]))
        place = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 12))
        lines = text.split("\n")
        row = draw(st.integers(0, len(lines) - 1))
        if kind == "delete":
            text = text[:place] + text[place + length :]
        elif kind == "insert":
            text = text[:place] + draw(texts) + text[place:]
        elif kind == "replace":
            text = text[:place] + draw(characters) + text[place + 1 :]
        elif kind == "word":
            text = text[:place] + draw(words) + text[place + length :]
        elif kind == "line":
            text = "\n".join(
                lines[:row] + draw(st.sampled_from([[], [lines[row]] * 2, ["x" * 5000]])) + lines[row + 1 :]
            )
        else:
            text = "\n".join(lines[row:] + lines[:row])
    return text


@fuzz(300)
@given(mutations())
def test_no_mutation_of_an_experiment_gives_a_traceback(text: str) -> None:
    check(text)


# -- any values in the place of any other

anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), words,
        st.sampled_from([10**400, -1, 2**63]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(words, st.text(max_size=3)), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
KEYS = sorted({
    "seed", "name", "data", "model", "augmentation", "loss", "sweep", "training", "optimizer", "schedule", "data.size",
    "data.validation", "model.norm", "model.activation", "model.widths", "augmentation.0", "augmentation.0.probability",
    "optimizer.lr", "optimizer.betas", "optimizer.name", "model.name", "data.name", "schedule.name", "schedule.warmup",
    "training.epochs", "training.steps", "training.average", "training.early_stopping", "sweep.space", "sweep.epochs",
    "sweep.space.optimizer.lr", "sweep.space.optimizer.lr.low", "sweep.space.model.name.choices", "initialize_from",
})  # fmt: skip


@fuzz(200)
@given(st.sampled_from(EXPERIMENTS), st.lists(st.tuples(st.sampled_from(KEYS), anything), min_size=1, max_size=3))
def test_no_value_in_any_place_gives_a_traceback(text: str, changes: list[tuple[str, Any]]) -> None:
    experiment = Experiment.parse(text, "fuzz.yaml")
    try:
        experiment.override_all(dict(changes))
    except ConfigError as error:
        str(error).encode()


@fuzz(200)
@given(
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
            st.builds("{}={}".format, st.sampled_from(KEYS), texts),
            st.builds("{}={}".format, st.text(max_size=8), texts),
        ),
        max_size=3,
    )
)
def test_no_override_gives_a_traceback(overrides: list[str]) -> None:
    check("data: digits\nmodel: mlp", *overrides)


# -- the dump


def numbers(annotation: Any, limits: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Numbers of a type within its bounds."""
    if annotation is int:
        low = limits.get("ge", limits.get("gt", -1) + 1)
        return st.integers(low, min(limits.get("le", low + 999), low + 999))
    low, high = limits.get("ge", limits.get("gt", -1e3)), limits.get("le", limits.get("lt", 1e3))
    return st.floats(low, high, exclude_min="gt" in limits, exclude_max="lt" in limits)


def values(annotation: Any, limits: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Plain values of a field's type."""
    limits = limits or {}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        found = {
            name: getattr(constraint, name)
            for part in arguments[1:]
            for constraint in getattr(part, "metadata", [part])
            for name in ("gt", "ge", "lt", "le", "min_length", "max_length")
            if getattr(constraint, name, None) is not None
        }
        return values(arguments[0], {**limits, **found})
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is list:
        least = limits.get("min_length", 0)
        return st.lists(values(arguments[0]), min_size=least, max_size=limits.get("max_length", least + 2))
    if is_section(annotation):
        return choices(annotation) if is_kind(annotation) else mappings(annotation)
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is str:
        return st.text(st.characters(exclude_categories=["Cs", "Cc"], max_codepoint=0xFFFD), max_size=8)
    if annotation in (int, float):
        return numbers(annotation, limits)
    return st.one_of([values(member, limits) for member in arguments or members(annotation)])


def mappings(section: type[Section]) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings for a section, with any of its optional keys."""
    required, optional = {}, {}
    for key, field in section.model_fields.items():
        if key != "name" and get_origin(field.annotation) is not dict:
            (required if field.is_required() else optional)[key] = values(annotation_of(field))
    return st.fixed_dictionaries(required, optional=optional)


def choices(kind: type[Choice]) -> st.SearchStrategy[Any]:
    """A name, or a mapping with a name and options."""
    entries = [(entry, name) for entry in kind.catalogue for name in list(entry.names())[:3]]

    def of(entry: type[Choice], name: str) -> st.SearchStrategy[Any]:
        whole = mappings(entry).map(lambda options: {"name": name, **options})
        return st.one_of(st.just(name), whole) if is_name_enough(entry) else whole

    return st.sampled_from(entries).flatmap(lambda item: of(*item))


def test_the_dump_of_any_experiment_repeats_it() -> None:
    from dltrain.config.dump import to_yaml

    valid = 0

    @fuzz(150)
    @given(st.deferred(lambda: mappings(Experiment)))
    def repeats(tree: dict[str, Any]) -> None:
        nonlocal valid
        tree = {key: value for key, value in tree.items() if key != "sweep"}
        experiment = check(to_yaml(tree))
        if experiment is not None:
            valid += 1
            assert Experiment.parse(experiment.dump()) == experiment

    repeats()
    assert valid > 20, "most of what was generated is refused"
