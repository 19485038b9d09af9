"""`build(splits=...)`: several trainings in one process read their data once."""

from __future__ import annotations

from pathlib import Path

import pytest
from training import arrays_experiment, assert_same_state, trained, write_arrays

from dltrain import ConfigError, build
from dltrain.data.datasets import Arrays


def test_given_splits_are_taken_and_nothing_is_read(arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = arrays_experiment(arrays, training__epochs=1)
    alone, splits = trained(experiment).state_dict(), experiment.load_data()
    monkeypatch.setattr(Arrays, "read", lambda self: pytest.fail("the data is read again"))
    for lr in (0.05, 0.01):
        trainer = build(experiment.override("optimizer.lr", lr), "cpu", splits=splits)
        for _ in trainer.run():
            pass
        if lr == 0.05:
            assert_same_state(trainer.state_dict(), alone)


def test_given_splits_must_be_those_of_the_checkpoint(arrays: Path, tmp_path: Path) -> None:
    experiment = arrays_experiment(arrays, training__epochs=1)
    state = build(experiment, "cpu").state_dict()
    other = arrays_experiment(write_arrays(tmp_path / "other.npz", examples=120)).load_data()
    with pytest.raises(ConfigError, match="the data has changed"):
        build(experiment, "cpu", state, splits=other)
