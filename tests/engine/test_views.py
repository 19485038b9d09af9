"""What a network is shown of each image: shifts, only the least confident part, and where the setting reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from training import arrays_experiment, train, trained
from typer.testing import CliRunner

from dltrain.cli import app
from dltrain.data.evaluation import Evaluation
from dltrain.data.loading.views import views_of
from dltrain.data.targets import Classes
from dltrain.data.types import ImageShape
from dltrain.engine.views import answer
from dltrain.tasks import Classification, CrossEntropy

SHAPE = ImageShape(3, 32, 32)
TASK = Classification().build(CrossEntropy(), Classes(list("abcd")), torch.device("cpu"))


def images(count: int = 10, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).mul(255).round()


def network(inputs: torch.Tensor) -> torch.Tensor:
    """Logits (B, 4) that differ between all views."""
    weight = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return F.conv2d(inputs.float() / 255 - 0.5, weight)[:, :, 0, 0] / 20


def mirrored_and_shifted(inputs: torch.Tensor) -> torch.Tensor:
    """The probabilities of Jordan (2024), with their mean in place of the logits'."""
    padded = F.pad(inputs, (1, 1, 1, 1), "reflect")

    def both(x: torch.Tensor) -> torch.Tensor:
        return (network(x).softmax(1) + network(x.flip(-1)).softmax(1)) / 2

    shifted = (both(padded[:, :, :32, :32]) + both(padded[:, :, 2:, 2:])) / 2
    return (both(inputs) + shifted) / 2


def test_shifted_views_have_half_of_the_weight() -> None:
    found = answer(TASK, network, images(), SHAPE, Evaluation(views="flip_shift"), 10)
    torch.testing.assert_close(found.exp().float(), mirrored_and_shifted(images()), rtol=1e-5, atol=1e-7)


def test_a_shift_is_a_pixel_of_32() -> None:
    large = images(2, 96)
    up_left = views_of(large, 96, 96, "flip_shift")[2]
    torch.testing.assert_close(up_left[:, :, :-3, :-3], large[:, :, 3:, 3:])
    small = views_of(images(2, 8), 8, 8, "flip_shift")[4]
    torch.testing.assert_close(small[:, :, 1:, 1:], images(2, 8)[:, :, :-1, :-1])


@pytest.mark.parametrize("views", ["flip", "flip_shift", "five_crop", "ten_crop"])
def test_the_share_says_how_many_are_looked_at_again(views: Any) -> None:
    alone = network(images()).double()
    everything = answer(TASK, network, images(), SHAPE, Evaluation(views=views), 10)
    torch.testing.assert_close(
        answer(TASK, network, images(), SHAPE, Evaluation(views=views, share=0), 10), network(images())
    )
    some = answer(TASK, network, images(), SHAPE, Evaluation(views=views, share=0.4), 10)
    least = alone.softmax(1).amax(1).argsort()[:4]
    expected = alone.clone()
    expected[least] = everything[least]
    torch.testing.assert_close(some, expected)
    assert not torch.equal(expected, alone)


def test_a_share_is_of_the_examples_that_count() -> None:
    calls: list[int] = []

    def counted(inputs: torch.Tensor) -> torch.Tensor:
        calls.append(len(inputs))
        return network(inputs)

    found = answer(TASK, counted, images(), SHAPE, Evaluation(views="flip", share=0.5), 6)
    assert calls == [10, 3]
    expected = answer(TASK, network, images()[:6], SHAPE, Evaluation(views="flip", share=0.5), 6)
    torch.testing.assert_close(found[:6], expected)
    torch.testing.assert_close(found[6:], network(images()[6:]).double())


# -- where it reaches


def evaluated(*arguments: Any) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["eval", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_validation_and_eval_see_what_the_experiment_says(share: float, arrays: Path, tmp_path: Path) -> None:
    length = {"training__epochs": 1, "training__batch_size": 30}
    code, run = train(arrays, tmp_path, evaluation={"views": "flip_shift", "share": share}, **length)
    assert code == 0
    validation = json.loads((run.path / "result.json").read_text())["last"]["validation/loss"]
    found = evaluated(run.path, "--split", "validation")
    assert found["loss"] == pytest.approx(validation, rel=1e-6)
    assert found["views"] == "flip_shift" and found.get("share", 1.0) == share
    recorded = json.loads((run.path / "eval/validation.json").read_text())
    assert recorded["loss"] == found["loss"] and (recorded["views"], recorded["share"]) == ("flip_shift", share)
    plain = evaluated(run.path, "--split", "validation", "--views", "center_crop")
    assert "views" not in plain and plain["loss"] != found["loss"]
    assert evaluated(run.path, "--split", "validation", "--views-share", 0)["accuracy"] == plain["accuracy"]


def test_several_views_are_reported_by_their_cross_entropy(arrays: Path) -> None:
    changes: dict[str, Any] = {"loss": {"name": "focal"}, "training__epochs": 1, "augmentation": []}
    trainer = trained(arrays_experiment(arrays, evaluation={"views": "flip"}, **changes))
    assert type(trainer.parts.task.reported) is type(
        trained(arrays_experiment(arrays, loss="cross_entropy", training__epochs=1)).parts.task.reported
    )


def test_a_share_is_between_0_and_1(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", "experiments/digits.yaml", "evaluation.share=1.5"])
    assert result.exit_code == 2 and "`evaluation.share` must be a number >= 0 and <= 1, not 1.5" in result.stderr
    result = CliRunner().invoke(app, ["check", "experiments/digits.yaml", "evaluation.views=flips"])
    assert result.exit_code == 2 and "did you mean `flip`?" in result.stderr
