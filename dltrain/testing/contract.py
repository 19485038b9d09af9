"""What all contracts share: which parts are tested, and that each is documented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from dltrain.config import Choice
from dltrain.config.section import field_docs


class Contract:
    """The tests of one kind of part. A subclass in a test file says which parts it tests."""

    kind: ClassVar[type[Choice]]
    names: ClassVar[Sequence[str]] = ()
    """The parts under test, by their names."""
    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """By name, options to test a part with, where its defaults would show too little."""
    variants: ClassVar[Sequence[Any]] = ()
    """More choices, as they are written in YAML: parts with other options, for the tests that take any."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test that takes a `name` for each name, and one that takes a `choice` for each name and variant."""
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", self.names)
        if "choice" in metafunc.fixturenames:
            metafunc.parametrize("choice", [*self.names, *self.variants], ids=str)

    @classmethod
    def parse(cls, choice: Any, **options: Any) -> Any:
        """A part from its name, with its `example` where it has one, or from what is written in YAML."""
        if isinstance(choice, str):
            entry: Any = cls.kind.lookup(choice)
            choice = {"name": choice, **getattr(entry, "example", {}), **cls.options.get(choice, {})}
        return cls.kind.parse({**choice, **options})

    def test_the_part_and_its_options_are_documented(self, name: str) -> None:
        entry: type[Choice] = type(self.parse(name))
        assert entry.summary(), f"{entry.__name__} has no docstring"
        missing = set(entry.model_fields) - set(field_docs(entry)) - {"name"}
        assert not missing, f"no text under {missing} in {entry.__name__}"
