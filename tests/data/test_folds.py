"""The folds of a data set: by content, equally many of each class, copies and groups whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training import write_folder

from dltrain import ConfigError, Experiment
from dltrain.data.folding import folds

DRAW = np.random.default_rng(0)


def keys_of(count: int) -> np.ndarray:
    return np.array([DRAW.bytes(8).hex() for _ in range(count)], dtype="S32")


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_classes_are_within_one_example(count: int) -> None:
    strata, keys = DRAW.choice(4, 503, p=[0.6, 0.25, 0.1, 0.05]), keys_of(503)
    found = folds(strata, keys, np.arange(503), count)
    counts = np.array([np.bincount(strata[found == fold], minlength=4) for fold in range(count)])
    assert counts.sum() == 503 and (np.ptp(counts, axis=0) <= 1).all()
    turned = DRAW.permutation(503)
    assert np.array_equal(folds(strata[turned], keys[turned], np.arange(503), count), found[turned]), "by content alone"


def test_sets_are_whole_and_evened_out_by_single_examples() -> None:
    strata = np.repeat([0, 1, 0, 1], [30, 30, 100, 100])
    sets = np.concatenate([np.arange(60) % 11, np.arange(100, 300)])  # eleven groups of both classes, and single ones
    found = folds(strata, keys_of(260), sets, 5)
    for each in range(11):
        assert len(set(found[sets == each])) == 1
    counts = np.array([np.bincount(strata[found == fold]) for fold in range(5)])
    assert (counts == 26).all()


def test_a_class_that_is_too_small_is_named() -> None:
    strata = np.repeat([0, 1], [20, 3])
    with pytest.raises(ConfigError, match="one of 5 folds would have no example of class `rare`"):
        folds(strata, keys_of(23), np.arange(23), 5, ["usual", "rare"])
    with pytest.raises(ConfigError, match="there are 20 examples in 4 groups or copies that stay together"):
        folds(np.zeros(20, np.int64), keys_of(20), np.arange(20) % 4, 5)


def test_copies_and_the_test_part_take_no_part(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos")
    for number in range(4):
        for copy in range(2):
            copied = folder / f"bright/copy-{number}-{copy}.png"
            copied.write_bytes((folder / f"bright/{number:02d}.png").read_bytes())
    text = (
        f"data: {{name: image_folder, root: {folder}, size: 8, test: 0.2, fold: {{number: %d, of: 4}}}}\nmodel: mlp\n"
    )
    splits = [Experiment.parse(text % number).load_data() for number in (1, 2, 3, 4)]
    tests = [sorted(each.test.keys()) for each in splits if each.test is not None]
    assert len(tests) == 4 and all(each == tests[0] for each in tests) and len({s.fingerprint for s in splits}) == 1
    held = [sorted(Path(path).name for path in each.validation.files.full) for each in splits if each.validation]
    seen = [name for names in held for name in names]
    total = len(splits[0].train) + len(splits[0].validation or ())
    assert len(seen) == total == 48 - len(tests[0])
    for number in range(4):
        sides = [i for i, each in enumerate(splits) if each.validation is not None
                 for path in each.validation.files.full
                 if Path(path).parent.name == "bright" and Path(path).name in
                 (f"{number:02d}.png", f"copy-{number}-0.png", f"copy-{number}-1.png")]  # fmt: skip
        assert len(set(sides)) <= 1 and len(sides) in (0, 3)


def test_data_with_its_own_validation_split_has_no_folds(tmp_path: Path) -> None:
    for part in ("train", "validation"):
        write_folder(tmp_path / "photos" / part, each=4)
    text = f"data:\n  name: image_folder\n  root: {tmp_path / 'photos'}\n  size: 8\n  copies: allow\n"
    experiment = Experiment.parse(f"{text}  fold: {{number: 1, of: 2}}\nmodel: mlp\n")
    with pytest.raises(ConfigError, match="the data brings its validation split") as caught:
        experiment.load_data()
    from dltrain.engine.resolve import at

    with pytest.raises(ConfigError) as placed, at(experiment, "data"):
        raise caught.value
    assert placed.value.diagnostics[0].where is not None and placed.value.diagnostics[0].where.line == 6
