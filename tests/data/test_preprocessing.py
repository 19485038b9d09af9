"""How images become the model's input: sizes, canvases and scaling, from the data, the YAML or pretrained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photos import make_photos

from dltrain import Experiment, build
from dltrain.data.base import Dataset
from dltrain.data.loading import scaling
from dltrain.data.loading.scaling import Scaling
from dltrain.data.preprocessing import ImagePreprocessing, plan_preprocessing
from dltrain.data.pretrained import PretrainedInputs
from dltrain.data.sources import ArraySource, FileSource
from dltrain.data.types import Canvas, ImageFiles, ImageShape, Source
from dltrain.engine.predictor import restore_predictor

WEIGHTS = PretrainedInputs(
    mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), size=(64, 64), crop=0.9, interpolation="bicubic"
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> FileSource:
    root = make_photos(tmp_path_factory.mktemp("photos"))
    paths = sorted(str(p.relative_to(root)) for p in root.rglob("*.jpg"))
    return FileSource(ImageFiles(str(root), paths), np.zeros(len(paths), np.int64))


@pytest.fixture(scope="module")
def arrays() -> ArraySource:
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32)).astype(np.uint8)
    return ArraySource(images, np.zeros(20, np.int64))


def plan(
    source: Source, pretrained: PretrainedInputs | None = None, crop: bool = False, **options: Any
) -> ImagePreprocessing:
    dataset = Dataset.parse({"name": "image_folder", "root": "x", **options})
    augmentation = Experiment.parse("{data: digits, model: mlp, augmentation: [random_resized_crop]}").augmentation
    return plan_preprocessing(dataset, source, augmentation if crop else [], pretrained)  # type: ignore[arg-type]


def test_arrays_keep_their_size(arrays: ArraySource) -> None:
    found = plan(arrays)
    assert found.shape == ImageShape(3, 32, 32)
    assert found.train == found.evaluation
    assert found.evaluation.rule == "exact"


def test_size_and_interpolation_of_the_data_section(arrays: ArraySource) -> None:
    found = plan(arrays, size=[20, 24], interpolation="nearest")
    assert found.shape == ImageShape(3, 20, 24)
    assert (found.train.rule, found.train.interpolation, found.train.crop) == ("crop", "nearest", 1.0)


def test_files_are_224_by_default(photos: FileSource) -> None:
    assert plan(photos, scaling="none").shape == ImageShape(3, 224, 224)


def test_random_resized_crops_cut_from_the_whole_image(photos: FileSource) -> None:
    found = plan(photos, crop=True, size=32, scaling="none")
    assert (found.train.rule, found.train.height) == ("fit", 64)
    assert (found.evaluation.rule, found.evaluation.height, found.evaluation.crop) == ("crop", 32, 0.875)


def test_random_resized_crops_of_arrays_cut_from_the_original(arrays: ArraySource) -> None:
    found = plan(arrays, crop=True, size=16)
    assert (found.train.rule, found.train.height) == ("exact", 32)
    assert found.evaluation.height == 16


def test_pretrained_weights_bring_their_preprocessing(photos: FileSource) -> None:
    found = plan(photos, WEIGHTS)
    assert found.shape == ImageShape(3, 64, 64)
    assert (found.evaluation.crop, found.evaluation.interpolation) == (0.9, "bicubic")
    assert found.scaling.mean == [127.5, 102.0, 76.5]
    assert found.scaling.std == pytest.approx([51.0, 76.5, 102.0])


def test_what_the_experiment_sets_wins_over_pretrained_weights(photos: FileSource) -> None:
    found = plan(photos, WEIGHTS, size=48, scaling="none", interpolation="bilinear")
    assert found.shape.height == 48
    assert found.evaluation.interpolation == "bilinear"
    assert found.scaling.std == [255.0] * 3


def test_grey_images_take_the_mean_of_the_pretrained_channels(arrays: ArraySource) -> None:
    grey = ArraySource(arrays.images[:, :1], arrays.targets)
    assert plan(grey, WEIGHTS).scaling.mean == pytest.approx([102.0])


def test_the_statistics_are_of_the_training_part_alone(arrays: ArraySource) -> None:
    pixels = arrays.images.astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1)
    found = plan(arrays)
    assert found.scaling.mean == pytest.approx(pixels.mean(1).tolist(), rel=1e-12)
    assert found.scaling.std == pytest.approx(pixels.std(1).tolist(), rel=1e-9)


def test_plain_values_and_back(photos: FileSource) -> None:
    found = plan(photos, WEIGHTS, crop=True)
    assert ImagePreprocessing.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_prediction_from_a_checkpoint_sees_what_validation_saw(loader: str, tmp_path: Path) -> None:
    root = make_photos(tmp_path / "photos")
    text = f"""
    data: {{name: image_folder, root: {root}, size: 24, validation: 6, loader: {loader}, workers: 0}}
    augmentation: [random_resized_crop, horizontal_flip]
    model: {{name: convnet, widths: [4, 8]}}
    training: {{epochs: 1, batch_size: 6, average: {{name: ema, decay: 0.5}}}}
    """
    trainer = build(Experiment.parse(text), "cpu")
    list(trainer.run())
    predictor = restore_predictor(trainer.state_dict(), "cpu")
    assert trainer.parts.validation is not None
    for batch, _ in trainer.parts.validation.evaluation_batches():
        trainer.parts.average.model.eval()
        with torch.no_grad():
            seen = trainer.parts.average.model(trainer.parts.pipeline.evaluate(batch.inputs)).softmax(1)
        assert torch.equal(predictor.outputs(batch.inputs).float().softmax(1).cpu(), seen)
    trainer.close()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "window", "mirrored"])
def test_images_are_scaled_alike_wherever_they_lie(layout: str, channels_last: bool, dtype: torch.dtype) -> None:
    scaling = Scaling([120.0, 110.0, 100.0], [60.0, 61.0, 62.0])
    whole = torch.randint(0, 256, (4, 3, 9, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(dtype)
    images = {
        "NCHW": whole,
        "NHWC": whole.contiguous(memory_format=torch.channels_last),
        "window": whole[:, :, 1:7, 2:],
        "mirrored": whole.contiguous(memory_format=torch.channels_last)[:, :, :, 1:].flip(3),
    }[layout]
    before = images.clone()
    found = scaling.apply(images, channels_last=channels_last)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (scaling.mean, scaling.std))
    torch.testing.assert_close(found, (images.float() - mean) / std)
    assert torch.equal(images, before)
    assert found.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def test_a_source_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainings of a search share their data. Another size, or another source, is another matter."""
    draw = np.random.default_rng(0)
    source, same = (ArraySource(draw.integers(0, 255, (20, 1, 8, 8), np.uint8), np.arange(20)) for _ in range(2))
    looked: list[int] = []
    measure = scaling._measured
    monkeypatch.setattr(scaling, "_measured", lambda *each: (looked.append(1), measure(*each))[1])
    canvas = Canvas(8, 8, "exact")
    first, second = (Scaling.fit("standardize", source, canvas) for _ in range(2))
    assert first == second and len(looked) == 1
    Scaling.fit("standardize", source, Canvas(4, 4, "crop"))
    assert Scaling.fit("standardize", same, canvas) != first and len(looked) == 3
