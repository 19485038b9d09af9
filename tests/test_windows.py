"""Moves done while the batch is gathered give the same pixels as the pipeline's own."""

from __future__ import annotations

import pytest
import torch

from dltrain import Experiment, build
from dltrain.data.windows import Windows, windows_for

DATA = "{name: synthetic, examples: 60, classes: 3, shape: [3, 12, 10], loader: %s}"


def trained(augmentation: str, loader: str) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], bool]:
    text = f"data: {DATA % loader}\naugmentation: {augmentation}\nmodel: mlp\ntraining: {{batch_size: 16}}"
    parts = build(Experiment.parse(text), "cpu").parts
    does_moves = parts.train.does_moves
    batches = parts.train.batches(0)
    seen = [parts.pipeline.train(next(batches), step) for step in range(7)]
    batches.close()
    parts.train.close()
    return seen, does_moves


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
    ours, does_moves = trained(augmentation, "resident")
    theirs, streaming_does = trained(augmentation, "streaming")
    assert (does_moves, streaming_does) == (taken_over, False)
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
    assert parts.pipeline.first_moves is not None
    images = torch.zeros(10, 3, 12, 10, dtype=torch.uint8)
    assert isinstance(windows_for(images, parts.pipeline.first_moves), Windows)
    monkeypatch.setattr("dltrain.data.windows.free_memory", lambda device: 1000)
    assert windows_for(images, parts.pipeline.first_moves) is None
