"""Moves done while the batch is gathered give the same pixels as the pipeline's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training import write_folder

from dltrain import Experiment, build
from dltrain.data.augmentation.impl.windows import Windows, windows_for

DATA = "{name: synthetic, examples: 60, classes: 3, shape: [3, 12, 10], loader: %s}"


def trained(augmentation: str, loader: str, data: str = DATA) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], bool]:
    text = f"data: {data % loader}\naugmentation: {augmentation}\nmodel: mlp\ntraining: {{batch_size: 16}}"
    parts = build(Experiment.parse(text), "cpu").parts
    does_first = parts.train.does_first
    batches = parts.train.batches(0)
    seen = [parts.pipeline.train(next(batches), step) for step in range(7)]
    batches.close()
    parts.train.close()
    return seen, does_first


@pytest.mark.parametrize(
    ("augmentation", "taken_over"),
    [
        ("[random_crop, horizontal_flip]", True),
        ("[horizontal_flip, {name: random_crop, padding: 3}]", True),
        ("[horizontal_flip, vertical_flip, translate, horizontal_flip]", True),
        ("[alternating_flip, {name: random_crop, padding: 2}, cutout]", True),
        ("[vertical_flip]", True),
        ("[{name: random_crop, padding: 2, fill: reflect}]", False),
        ("[random_crop, translate]", False),
        ("[rotation, horizontal_flip]", False),
        ("[]", False),
    ],
)
def test_resident_and_streaming_see_the_same_pixels(augmentation: str, taken_over: bool) -> None:
    ours, does_first = trained(augmentation, "resident")
    theirs, streaming_does = trained(augmentation, "streaming")
    assert (does_first, streaming_does) == (taken_over, False)
    for (images, labels), (expected, expected_labels) in zip(ours, theirs, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize(
    ("augmentation", "taken_over"),
    [
        ("[random_resized_crop, horizontal_flip]", True),
        ("[{name: random_resized_crop, scale: [0.3, 1.0]}, color_jitter, random_resized_crop]", True),
        ("[horizontal_flip, random_resized_crop]", False),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_cut_the_boxes_that_the_pipeline_would(
    augmentation: str, taken_over: bool, workers: int, tmp_path: Path
) -> None:
    write_folder(tmp_path / "photos")
    folder = f"{{name: image_folder, root: {tmp_path}/photos, size: 12, loader: %s, workers: {workers}}}"
    ours, does_first = trained(augmentation, "streaming", folder)
    theirs, _ = trained(augmentation, "resident", folder)
    assert does_first == taken_over
    for (images, labels), (expected, expected_labels) in zip(ours, theirs, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_no_store_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = build(
        Experiment.parse(
            f"data: {DATA % 'streaming'}\naugmentation: [random_crop]\nmodel: mlp\ntraining: {{batch_size: 8}}"
        ),
        "cpu",
    ).parts
    assert parts.pipeline.first is not None
    images = torch.zeros(10, 3, 12, 10, dtype=torch.uint8)
    assert isinstance(windows_for(images, parts.pipeline.first), Windows)
    monkeypatch.setattr("dltrain.data.augmentation.impl.windows.free_memory", lambda device: 1000)
    assert windows_for(images, parts.pipeline.first) is None
