"""Images that grow during a training: which size when, and that nothing but the step decides it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from training import arrays_experiment, assert_same_state, built, train, trained
from typer.testing import CliRunner

from dltrain import ConfigError, EpochReport
from dltrain.cli import app
from dltrain.experiment.training import ProgressiveSize

GROWING: dict[str, Any] = {
    "training__progressive_size": {"start": 0.5, "delay": 0.2, "finetune": 0.4, "multiple_of": 1},
    "training__epochs": 2, "training__early_stopping": None,
}  # fmt: skip


def seen_sizes(experiment: Any) -> tuple[Any, list[tuple[int, ...]]]:
    """The trainer after its training, and height and width of the inputs of each step."""
    trainer, found = built(experiment), []
    trainer.parts.model.register_forward_pre_hook(
        lambda model, inputs: found.append((model.training, *inputs[0].shape[2:]))
    )
    reports = [event for event in trainer.run() if isinstance(event, EpochReport)]
    assert reports
    return trainer, found


def test_sizes_grow_linearly_between_delay_and_finetuning() -> None:
    assert ProgressiveSize().sizes(32, 32, 1000) == [(0, 16, 16), (650, 24, 24), (800, 32, 32)]
    four = ProgressiveSize(start=0.25, delay=0.1, finetune=0.3, count=4).sizes(224, 160, 100)
    assert four == [(0, 56, 40), (30, 112, 80), (50, 168, 120), (70, 224, 160)]
    assert ProgressiveSize().sizes(30, 30, 1000)[-1] == (800, 30, 30)  # the full size is what it is
    assert ProgressiveSize(start=0.9).sizes(32, 32, 1000) == [(0, 28, 28), (650, 32, 32)]  # not the same size twice


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("side", [1, 3, 9])
def test_short_trainings_and_small_images_have_fewer_sizes(steps: int, side: int) -> None:
    found = ProgressiveSize(count=6).sizes(side, side, steps)
    assert found[0][0] == 0 and found[-1][1:] == (side, side)
    assert all(a[0] < b[0] and a[1:] < b[1:] for a, b in pairwise(found)), found


def test_the_network_sees_the_size_of_the_step_and_evaluation_full_images(arrays: Path) -> None:
    trainer, found = seen_sizes(arrays_experiment(arrays, **GROWING, training__average=None))
    training = [size[1:] for size in found if size[0]]
    steps = trainer.settings.total_steps
    expected = [(4, 4)] * round(0.4 * steps) + [(6, 6)] * round(0.2 * steps) + [(8, 8)] * round(0.4 * steps)
    assert training == [size for size in expected for _ in range(trainer.settings.accumulate)]
    assert {size[1:] for size in found if not size[0]} == {(8, 8)}
    assert trainer.summary["progressive_size"] == "4x4, 6x6 from step 4, 8x8 from step 6"


def test_the_images_are_those_of_the_step_made_smaller(arrays: Path) -> None:
    small, full = (built(arrays_experiment(arrays, **changes)) for changes in (GROWING, {}))
    for step in (0, 4, 9):
        inputs, targets = small.parts.pipeline.train(next(small.parts.train.batches(step)), step)
        expected, same = full.parts.pipeline.train(next(full.parts.train.batches(step)), step)
        side = {0: 4, 4: 6, 9: 8}[step]
        expected = F.interpolate(expected, (side, side), mode="bilinear", antialias=True)
        torch.testing.assert_close(inputs, expected, rtol=0, atol=0)
        torch.testing.assert_close(targets, same, rtol=0, atol=0)


@pytest.mark.parametrize("stop", [3, 4, 7])
def test_a_training_continues_exactly(stop: int, arrays: Path) -> None:
    whole = trained(arrays_experiment(arrays, **GROWING))
    part = trained(arrays_experiment(arrays, **GROWING), until=stop)
    rest = built(arrays_experiment(arrays, **GROWING))
    rest.load_state_dict(part.state_dict())
    assert list(rest.run())
    assert_same_state(rest.state_dict(), whole.state_dict())


@pytest.mark.slow
def test_a_compiled_network_is_compiled_for_each_size(arrays: Path) -> None:
    changes = {**GROWING, "training__compile": True, "evaluation": {"views": "flip", "share": 0.3}}
    sizes = {"start": 0.5, "delay": 0.0, "finetune": 0.2, "count": 6, "multiple_of": 1}
    experiment = arrays_experiment(arrays, **{**changes, "training__progressive_size": sizes})
    whole, part = trained(experiment), trained(experiment, until=6)
    torch._dynamo.reset()
    rest = built(experiment)
    rest.load_state_dict(part.state_dict())
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        assert list(rest.run())
    assert_same_state(rest.state_dict(), whole.state_dict())


def test_filters_that_come_from_images_come_from_full_ones(arrays: Path) -> None:
    same = {"model": "airbench94", "data__size": 20, "training__average": None}
    growing, full = (built(arrays_experiment(arrays, **same, **changes)) for changes in (GROWING, {}))
    torch.testing.assert_close(growing.parts.model.state_dict(), full.parts.model.state_dict(), rtol=0, atol=0)


def test_scaling_that_knows_each_pixel_comes_before(arrays: Path, tmp_path: Path) -> None:
    code, run = train(arrays, tmp_path, **GROWING, data__scaling="zca_whiten")
    assert code == 0 and (run.path / "checkpoints/last.pt").is_file()


@pytest.mark.parametrize("command", ["fit", "plan"])
def test_a_network_for_one_size_is_refused_where_it_is_written(command: str, tmp_path: Path) -> None:
    path = tmp_path / "mlp.yaml"
    path.write_text("data: digits\nmodel: mlp\ntraining:\n  epochs: 1\n  progressive_size: {start: 0.5}\n")
    result = CliRunner().invoke(app, [command, str(path)])
    assert result.exit_code == 2, result.stderr
    assert "`mlp` cannot be trained on images of 4x4: " in result.stderr
    assert f"--> {path}:5:21" in result.stderr


def test_the_plan_says_the_sizes() -> None:
    changes = ["data.shape=[3,16,16]", "training.progressive_size={}", "model=convnet"]
    result = CliRunner().invoke(app, ["plan", "experiments/digits.yaml", "data=synthetic", *changes])
    assert result.exit_code == 0, result.stderr
    assert "images    8x8, 12x12 from step " in result.stdout


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"more than the whole: 0.7 [+] 0.4"):
        ProgressiveSize(delay=0.7, finetune=0.4)
    with pytest.raises(ConfigError, match=r"`training\.progressive_size\.count`"):
        arrays_experiment(Path("x.npz"), training__progressive_size={"count": 1})
