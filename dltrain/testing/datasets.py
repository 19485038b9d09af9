"""The contract of data sets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from dltrain.data.base import Dataset
from dltrain.data.types import Canvas, Source, Splits
from dltrain.testing.contract import Contract


def parts(splits: Splits) -> dict[str, Source]:
    """The splits that there are, by name."""
    found = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: source for name, source in found.items() if source is not None}


class DatasetContract(Contract):
    """A data set is the same every time, its splits share no example, and its images come as they are asked for."""

    kind = Dataset

    def test_every_split_has_all_classes_and_examples_of_its_own(self, name: str) -> None:
        section = self.parse(name)
        splits = section.load()
        assert len(set(splits.classes)) == len(splits.classes) >= 2
        assert (splits.validation is not None) == section.has_validation
        for part, source in parts(splits).items():
            assert len(source) == len(source.targets) == len(source.names()) and source.targets.dtype == np.int64
            assert set(source.targets.tolist()) == set(range(len(splits.classes))), f"{part} lacks a class"
        if section.treatment != "allow":
            for one, other in combinations(parts(splits).values(), 2):
                assert not set(one.keys()) & set(other.keys()), "an example stands in two splits"

    def test_it_is_the_same_every_time(self, name: str) -> None:
        one, two = self.parse(name).load(), self.parse(name).load()
        assert one.fingerprint == two.fingerprint
        for first, second in zip(parts(one).values(), parts(two).values(), strict=True):
            assert first.keys() == second.keys() and np.array_equal(first.targets, second.targets)
        rows = np.array([2, 0])
        part = one.train.subset(rows)
        assert part.keys() == [one.train.keys()[row] for row in rows]
        assert np.array_equal(part.targets, one.train.targets[rows])

    def test_validation_is_taken_from_training_alone(self, name: str) -> None:
        whole, divided = self.parse(name, validation=0).load(), self.parse(name, validation=0.2).load()
        if whole.validation is not None:
            pytest.skip("brings a validation split")
        assert divided.validation is not None
        assert sorted(whole.train.keys()) == sorted([*divided.train.keys(), *divided.validation.keys()])
        assert whole.fingerprint == divided.fingerprint
        if whole.test is not None:
            assert divided.test is not None and whole.test.keys() == divided.test.keys()

    def test_images_are_those_of_their_places_in_any_order_on_a_canvas(self, name: str) -> None:
        section = self.parse(name)
        splits = section.load()
        source = splits.train
        assert section.known_channels in (None, source.channels)
        canvas = Canvas(*source.native) if source.native else Canvas(16, 12, "crop")
        rows = np.array([3, 0, 3])
        images, extents = source.load(rows, canvas)
        assert images.dtype == torch.uint8 and extents is None
        assert images.shape == (3, source.channels, canvas.height, canvas.width)
        assert torch.equal(images[0], images[2]) and torch.equal(source.load(rows[1:2], canvas)[0][0], images[1])
        assert torch.equal(source.subset(rows).load(np.array([1]), canvas)[0][0], images[1])
        whole = source.whole(canvas)
        assert whole is None or torch.equal(whole[0][torch.from_numpy(rows)], images)
        other = source.with_targets(np.zeros_like(source.targets))
        assert other.keys() == source.keys() and not other.targets.any()
        if splits.test is not None:
            assert source.joined([splits.test]).keys() == [*source.keys(), *splits.test.keys()]
