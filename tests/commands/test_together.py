"""Several runs, several views of an image, and statistics of another domain: what an answer can be averaged from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluating import invoke, measured
from PIL import Image
from training import arrays_experiment, built, train, trained, write_arrays

from dltrain.commands.adapt import adapt_statistics, averaging_layers
from dltrain.config import ConfigError
from dltrain.data.loading.views import views_layout, views_of
from dltrain.data.types import Canvas
from dltrain.engine.predictor import restore_predictor
from dltrain.runs import checkpoints
from dltrain.runs.run import Run
from dltrain.tasks.impl.classification import log_mean_probability

TEXT = """
data: {{name: image_folder, root: {root}, size: 16, validation: 0.2}}
augmentation: [{{name: random_resized_crop, scale: [0.5, 1.0]}}]
model: {{name: convnet, widths: [8, 16], dropout: 0.5}}
training: {{epochs: 2, batch_size: 16, average: {{name: ema, decay: 0.8}}}}
"""


def predicted(*arguments: Any) -> list[dict[str, Any]]:
    result = invoke("predict", *arguments, "--format", "jsonl")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos, and two runs on it that differ in their seed and their size."""
    base = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(90):
        pixels = random.integers(0, 256, (24 + number % 5, 22, 3)).astype(np.uint8)
        pixels[:, :, number % 3] //= 2
        file = base / "data" / "abc"[number % 3] / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    (base / "tiny.yaml").write_text(TEXT.format(root=base / "data"))
    for changes in ([], ["seed=1", "data.size=12"]):
        result = invoke("fit", base / "tiny.yaml", *changes, "--runs", base)
        assert result.exit_code == 0, result.stderr
    return base


@pytest.fixture
def runs(photos: Path, tmp_path: Path) -> list[Path]:
    """Copies of the two runs."""
    return [Path(shutil.copytree(photos / "tiny" / number, tmp_path / number)) for number in ("001", "002")]


# -- ensemble


def test_identical_members_are_one(runs: list[Path]) -> None:
    one, three = measured(runs[0]), measured(runs[0], runs[0], runs[0])
    assert three["confusion_matrix"] == one["confusion_matrix"]
    assert three["loss"] == pytest.approx(one["loss"], rel=1e-6)
    assert [member["loss"] for member in three["members"]] == [one["loss"]] * 3


def test_an_ensembles_loss_is_at_most_the_mean_of_its_members(runs: list[Path]) -> None:
    together = measured(*runs)
    alone = [measured(run) for run in runs]
    assert [member["loss"] for member in together["members"]] == [one["loss"] for one in alone]
    assert together["loss"] <= np.mean([one["loss"] for one in alone])
    assert together["loss"] != alone[0]["loss"]
    for run, one in zip(runs, alone):  # each run keeps its own score
        assert json.loads((run / "eval/test.json").read_text())["loss"] == one["loss"]
    table = invoke("eval", *runs).stdout.splitlines()
    assert table[0].startswith(f"{runs[0] / 'checkpoints/best.pt'}, test: accuracy ")
    assert table[2] == "ensemble of 2, test"


def test_prediction_with_another_run_is_the_mean(photos: Path, runs: list[Path]) -> None:
    first, second, both = (
        predicted(*arguments, photos / "data/a") for arguments in ([runs[0]], [runs[1]], [runs[0], "--with", runs[1]])
    )
    for one, two, mean in zip(first, second, both, strict=True):
        for name, value in mean["probabilities"].items():
            assert value == pytest.approx((one["probabilities"][name] + two["probabilities"][name]) / 2, abs=1e-6)


def test_members_must_know_the_same_classes(photos: Path, runs: list[Path]) -> None:
    state = checkpoints.load(runs[1] / "checkpoints/best.pt")
    state["about"]["target"]["names"] = ["a", "b", "x"]
    checkpoints.save(state, runs[1] / "checkpoints/best.pt")
    result = invoke("eval", *runs)
    assert result.exit_code == 2 and "(new: `c`; missing: `x`)" in result.stderr
    result = invoke("predict", runs[0], photos / "data/a", "--with", runs[1])
    assert result.exit_code == 2 and "different classes" in result.stderr


def test_the_mean_is_of_probabilities() -> None:
    logits = [torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)) * 4 for seed in range(3)]
    expected = torch.stack([o.double().softmax(1) for o in logits]).mean(0)
    torch.testing.assert_close(log_mean_probability(logits).double().exp(), expected, rtol=1e-5, atol=1e-7)
    extreme = log_mean_probability([torch.tensor([[1000.0, 0.0]]), torch.tensor([[0.0, 1000.0]])])
    torch.testing.assert_close(extreme, torch.full((1, 2), 0.5).log().double())


# -- views


def test_crops_are_torchvisions() -> None:
    from torchvision.transforms.v2 import functional as F

    images = torch.randint(256, (2, 3, 19, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for views, reference, count in (("five_crop", F.five_crop, 5), ("ten_crop", F.ten_crop, 10)):
        found = views_of(images, 16, 20, views)
        assert len(found) == count
        assert all(torch.equal(one, other) for one, other in zip(found, reference(images, [16, 20]), strict=True))
    same = views_of(images, 19, 24, "flip")
    assert torch.equal(same[0], images) and torch.equal(same[1].flip(3), images)
    assert views_of(images, 19, 24, "center_crop")[0] is images


def test_the_centre_of_the_larger_canvas_is_the_usual_view() -> None:
    from dltrain.data.images.decoding import place

    canvas = Canvas(28, 28, "crop", crop=0.875)
    larger = views_layout(canvas, "ten_crop")
    assert (larger.height, larger.width, larger.crop) == (32, 32, 1.0)
    image = torch.randint(256, (3, 50, 61), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    five = views_of(place(image, larger)[0][None], 28, 28, "five_crop")
    assert torch.equal(five[4][0], place(image, canvas)[0])
    exact = Canvas(32, 32)
    assert views_layout(exact, "five_crop") == exact
    padded = views_of(image[None, :, :32, :32], 32, 32, "five_crop")
    assert torch.equal(padded[4], image[None, :, :32, :32].float())
    assert torch.equal(padded[0][0, :, 2:, 2:], image[:, :30, :30].float())  # shifted by two pixels


@pytest.mark.parametrize("views", ["flip", "flip_shift", "five_crop", "ten_crop"])
def test_prediction_and_evaluation_see_the_same_views(views: str, photos: Path, runs: list[Path]) -> None:
    found = measured(runs[0], "--views", views, "--split", "train")
    assert found["views"] == views
    assert json.loads((runs[0] / f"eval/train-{views}.json").read_text())["loss"] == found["loss"]
    source = restore_predictor(Run(runs[0]).checkpoint("best")[1], "cpu").experiment.data.load().train
    rows = predicted(runs[0], *map(Path, source.names()), "--views", views)
    losses = [-np.log(row["probabilities"]["abc"[label]]) for row, label in zip(rows, source.targets, strict=True)]
    assert np.mean(losses) == pytest.approx(found["loss"], rel=1e-4)
    assert found["loss"] != measured(runs[0], "--split", "train")["loss"]


def test_views_of_images_without_a_margin(tmp_path: Path) -> None:
    experiment = arrays_experiment(write_arrays(tmp_path / "images.npz"), training__epochs=1)
    predictor = restore_predictor(trained(experiment).state_dict(), "cpu")
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    predictor.look("ten_crop", None)
    ten = predictor.outputs(images).float().softmax(1).cpu()
    mirrored = predictor.outputs(images.flip(3)).float().softmax(1).cpu()
    torch.testing.assert_close(ten, mirrored)
    torch.testing.assert_close(ten.sum(1), torch.ones(4))


# -- adaptation


def test_adapting_moves_nothing_but_statistics(photos: Path, runs: list[Path], tmp_path: Path) -> None:
    dark = tmp_path / "dark"
    for file in (photos / "data").rglob("*.png"):
        picture = np.asarray(Image.open(file)) // 3
        dark.mkdir(exist_ok=True)
        Image.fromarray(picture).save(dark / file.name)
    (dark / "broken.png").write_bytes(b"no image")
    output = tmp_path / "adapted.pt"
    result = invoke("adapt", runs[0], dark, "--output", output, "--batch-size", 40)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(output) and "broken.png" in result.stderr
    before, after = checkpoints.load(runs[0] / "checkpoints/best.pt"), checkpoints.load(output)
    assert after["about"]["adapted"] == {"from": str(runs[0] / "checkpoints/best.pt"), "images": 90}
    model = restore_predictor(before, "cpu").model
    parameters = {name for name, _ in model.named_parameters()}
    for name, tensor in before["average"].items():
        assert torch.equal(tensor, after["average"][name]) == (name in parameters), name
    assert all(torch.equal(tensor, after["model"][name]) for name, tensor in before["model"].items())
    measured(output)
    assert predicted(output, dark / "00.png") != predicted(runs[0], dark / "00.png")
    again = tmp_path / "again.pt"
    assert invoke("adapt", runs[0], dark, "-o", again, "--batch-size", 40).exit_code == 0
    assert all(torch.equal(t, checkpoints.load(again)["average"][n]) for n, t in after["average"].items())


@pytest.mark.parametrize("norm", ["batch_norm", "batch_renorm", "l1_batch_norm", "switchable_norm"])
def test_statistics_are_the_means_over_batches(norm: str, tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "images.npz")
    changes = {"training__epochs": 1, "model": {"name": "convnet", "widths": [6], "dropout": 0.5, "norm": norm}}
    predictor = restore_predictor(trained(arrays_experiment(arrays, **changes)).state_dict(), "cpu")
    draw = torch.Generator().manual_seed(0)
    batches = [torch.randint(256, (16, 3, 8, 8), generator=draw, dtype=torch.uint8) for _ in range(3)]
    [layer] = averaging_layers(predictor.model)
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    momentum, weights = layer.momentum, [p.clone() for p in predictor.model.parameters()]
    adapt_statistics(predictor, batches)
    handle.remove()
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    center = layer.running_mean if hasattr(layer, "running_mean") else layer.running_center
    torch.testing.assert_close(center, means, rtol=1e-5, atol=1e-6)
    if hasattr(layer, "running_var"):
        variances = torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0)
        torch.testing.assert_close(layer.running_var, variances, rtol=1e-5, atol=1e-6)
    assert layer.momentum == momentum and not any(module.training for module in predictor.model.modules())
    assert all(torch.equal(a, b) for a, b in zip(weights, predictor.model.parameters(), strict=True))


def test_adapting_agrees_with_torch(tmp_path: Path) -> None:
    """torch's own update_bn, which trains every layer: here without dropout."""
    from torch.optim.swa_utils import update_bn

    experiment = arrays_experiment(write_arrays(tmp_path / "images.npz"), training__epochs=1, model__dropout=0.0)
    state = trained(experiment).state_dict()
    ours, theirs = restore_predictor(state, "cpu"), restore_predictor(state, "cpu")
    batches = [torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8) for _ in range(3)]
    adapt_statistics(ours, batches)
    update_bn([theirs.pipeline.evaluate(images) for images in batches], theirs.model)
    for one, other in zip(ours.model.buffers(), theirs.model.buffers(), strict=True):
        if one.is_floating_point():
            torch.testing.assert_close(one, other)


def test_what_cannot_be_adapted(photos: Path, runs: list[Path], tmp_path: Path) -> None:
    for arguments, message in (
        ([runs[0], photos / "data", "-o", tmp_path / "adapted"], "must be a .pt file"),
        ([runs[0], photos / "data", "-o", tmp_path / "no/adapted.pt"], "there is no folder"),
        ([runs[0], photos / "data", "-o", runs[0] / "checkpoints/best.pt"], "exists already"),
        ([runs[0], tmp_path / "nothing", "-o", tmp_path / "adapted.pt"], "there is no file"),
    ):
        result = invoke("adapt", *arguments)
        assert result.exit_code == 2 and message in result.stderr
    (tmp_path / "plain.yaml").write_text(TEXT.format(root=photos / "data"))
    changes = ["model=softmax_regression", "training.epochs=1"]
    assert invoke("fit", tmp_path / "plain.yaml", *changes, "--runs", tmp_path).exit_code == 0
    result = invoke("adapt", tmp_path / "plain/001", photos / "data", "-o", tmp_path / "adapted.pt")
    assert result.exit_code == 2 and "no batch norm" in result.stderr


# -- several views in training, and weights of classes


VIEWS = [
    {"name": "random_crop", "padding": 1}, {"name": "auto_augment", "policy": "cifar10"},
    {"name": "aug_mix", "views": 3}, {"name": "cutout", "size": 3},
]  # fmt: skip


def test_a_training_with_jsd_is_the_same_on_every_path(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "images.npz")
    changes: dict[str, Any] = {"augmentation": VIEWS, "loss": {"name": "jsd"}, "training__epochs": 1}
    trainer = built(arrays_experiment(arrays, **changes))
    batch = next(trainer.parts.train.batches(0))
    inputs, targets = trainer.parts.pipeline.train(batch, 0)
    assert len(inputs) == len(targets) == 60
    trainer._train_step(batch, 0)
    assert trainer.metrics.examples == 20  # views are no examples
    finished = trained(arrays_experiment(arrays, **changes)).state_dict()
    assert finished["history"][-1]["train/loss"] > 0
    streamed = trained(arrays_experiment(arrays, **changes, data__loader="streaming", data__workers=0)).state_dict()
    assert all(torch.equal(tensor, streamed["model"][name]) for name, tensor in finished["model"].items())


def test_views_of_an_example_stay_in_one_part_of_a_batch(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "images.npz")
    changes: dict[str, Any] = {"augmentation": VIEWS, "loss": {"name": "jsd"}, "training__epochs": 1}
    changes |= {"model": {"name": "softmax_regression"}, "training__clip_norm": None}
    one, parts = (trained(arrays_experiment(arrays, **changes, training__accumulate=n)) for n in (1, 5))
    for a, b in zip(one.parts.model.parameters(), parts.parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation": VIEWS}, "makes 3 views of an example, and loss `cross_entropy` compares none"),
        ({"loss": "jsd", "augmentation": ["aug_mix"]}, "compares 3 views of an example, and no augmentation makes"),
        ({"loss": "jsd", "augmentation": [*VIEWS, "mixup"]}, "`mixup` cannot mix examples of which the network sees 3"),
        ({"loss": "jsd", "augmentation": [VIEWS[2], VIEWS[2]]}, "cannot make views of views"),
    ],
)
def test_views_and_loss_must_fit(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        arrays_experiment(tmp_path / "images.npz", **changes)


def test_balanced_weights_are_those_of_the_training_split(tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "images.npz")
    content = dict(np.load(arrays))
    kept = np.r_[np.flatnonzero(content["labels"] == 0)[:20], np.flatnonzero(content["labels"] > 0)]
    np.savez(arrays, **{key: values[kept] if len(values) == 150 else values for key, values in content.items()})
    loss = {"name": "cross_entropy", "class_weights": "balanced"}
    trainer = built(arrays_experiment(arrays, loss=loss, training__batch_size=10))
    weights = trainer.parts.task.loss.weights
    assert weights[0] > weights[1]
    assert weights[0] / weights[1] == pytest.approx(40 / 16, rel=0.15)  # of about four in five of 50 and of 20
    assert trainer.parts.task.reported.weights is None
    trained(arrays_experiment(arrays, loss=loss, training__batch_size=10, training__epochs=1))


# -- whitening


@pytest.mark.parametrize("kind", ["pca_whiten", "zca_whiten"])
def test_a_whitened_training_travels_in_its_checkpoint(kind: str, tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "images.npz")
    code, run = train(arrays, tmp_path, training__epochs=1, data__scaling=kind)
    assert code == 0
    content = json.loads((run.path / "result.json").read_text())["best"]
    found = measured(run.path, "--split", "validation")
    assert found["accuracy"] == content["validation/accuracy"]
    assert found["loss"] == pytest.approx(content["validation/loss"], rel=1e-6)
    assert measured(run.path, "--views", "ten_crop")["examples"] == 30
