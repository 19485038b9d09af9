"""The contract of augmentations, and what a test of one needs: pictures, batches, and one augmentation run on them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from dltrain.data.augmentation import Augmentation
from dltrain.data.augmentation.base import AugmentationContext
from dltrain.data.random import Draws
from dltrain.data.targets import Classes
from dltrain.data.types import Batch, ImageShape
from dltrain.testing.contract import Contract

CPU = torch.device("cpu")
SHAPES = {"rgb": ImageShape(3, 16, 16), "grey": ImageShape(1, 16, 16), "wide": ImageShape(3, 12, 18)}


def context(shape: ImageShape, seed: int = 0, **changes: Any) -> AugmentationContext:
    """What an augmentation is built from, for 10 classes."""
    channels = shape.channels
    spread = torch.eye(channels) * 0.06 + 0.01
    target, changes = Classes(list("0123456789")), {"covariance": spread, **changes}
    return AugmentationContext(shape, target, seed, torch.zeros(channels), torch.ones(channels), **changes)


def pictures(count: int, shape: ImageShape, seed: int = 0) -> Tensor:
    """Smooth uint8 images (count, C, H, W), all different."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, shape.channels, 4, 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (shape.height, shape.width), mode="bilinear") * 255
    return (fine + torch.rand(fine.shape, generator=generator) * 20).clamp(0, 255).to(torch.uint8)


def batch_of(images: Tensor, epoch: int = 0) -> Batch:
    """A batch of these images, with the classes 0, 1, ..., 9, 0, ..."""
    count = len(images)
    return Batch(images, torch.arange(count) % 10, torch.arange(count) + 100, torch.full((count,), epoch))


def run(entry: Augmentation, images: Tensor, step: int = 0, seed: int = 0, **changes: Any) -> Batch:
    """What an augmentation makes of a batch of these images."""
    shape = ImageShape(*images.shape[1:])
    return entry.build(context(shape, **changes))(batch_of(images, epoch=step), Draws(seed, step, CPU))


def moved(batch: Batch, device: torch.device | str) -> Batch:
    """The batch on another device."""
    return Batch(*(getattr(batch, field).to(device) for field in ("inputs", "targets", "indices", "epochs")))


class MetaDraws(Draws):
    """Draws without values: anything that would wait for the device raises on them."""

    def __init__(self) -> None:
        super().__init__(0, 0, CPU)
        self.device = torch.device("meta")

    def uniform(self, *size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.empty(size, device="meta")

    def normal(self, *size: int) -> Tensor:
        return torch.empty(size, device="meta")

    def integers(self, high: int, *size: int) -> Tensor:
        return torch.empty(size, dtype=torch.int64, device="meta")


every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


class AugmentationContract(Contract):
    """An augmentation keeps its input and the shape, is a function of seed and step, and never waits for the device."""

    kind = Augmentation
    only_colors: ClassVar[Collection[str]] = ()
    """Those that do nothing to grey images."""
    by_epoch: ClassVar[Collection[str]] = ()
    """Those that depend on the experiment's seed and the epoch, not on the draws of the step."""
    any_values: ClassVar[Collection[str]] = ()
    """Those whose pixels may leave 0..255."""
    rounds_twice: ClassVar[Collection[str]] = ()
    """Those that round bytes more than once, as the library that they follow does."""

    def images(self, name: str, shape: ImageShape, count: int = 8) -> Tensor:
        """Images as the augmentation gets them: pixels, or scaled values."""
        images = pictures(count, shape)
        return images if self.parse(name).stage == "pixels" else images / 64 - 2

    @every_shape
    def test_keeps_shape_and_input_and_is_a_function_of_seed_and_step(self, name: str, shape: ImageShape) -> None:
        entry, images = self.parse(name), self.images(name, shape)
        before = images.clone()
        first, again, later, other = (run(entry, images, step, seed) for step, seed in ((3, 0), (3, 0), (4, 0), (3, 1)))
        assert torch.equal(images, before), "it writes into its input"
        assert first.inputs.shape == images.shape
        assert first.inputs.dtype in (images.dtype, torch.float32)
        assert torch.equal(first.inputs, again.inputs)
        if not (name in self.only_colors and shape.channels == 1):
            assert not torch.equal(first.inputs, later.inputs)
            assert name in self.by_epoch or not torch.equal(first.inputs, other.inputs)
        if entry.stage == "pixels" and name not in self.any_values:
            assert first.inputs.min() >= 0 and first.inputs.max() <= 255.01
        if entry.mixing is not None:
            assert first.targets.shape == (8, 10) and first.targets.dtype == torch.float32
            torch.testing.assert_close(first.targets.sum(1), torch.ones(8))
        else:
            assert torch.equal(first.targets, torch.arange(8))

    def test_differs_between_examples(self, name: str) -> None:
        images = self.images(name, SHAPES["rgb"], 1).expand(32, -1, -1, -1)
        if self.parse(name).stage == "batch":
            images = images + torch.arange(32).view(-1, 1, 1, 1)
        result = run(self.parse(name), images).inputs
        assert len({image.numpy().tobytes() for image in result}) >= 2

    def test_an_example_does_not_depend_on_the_others_in_its_batch(self, name: str) -> None:
        entry = self.parse(name)
        if entry.stage == "batch":
            pytest.skip("mixes examples")
        images = self.images(name, SHAPES["wide"])
        others = images.flip(0).clone()
        others[2] = images[2]
        for step in range(4):
            one, other = run(entry, images, step).inputs[2], run(entry, others, step).inputs[2]
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)

    @every_shape
    def test_uint8_and_float_mean_the_same(self, name: str, shape: ImageShape) -> None:
        entry = self.parse(name)
        if entry.stage != "pixels":
            pytest.skip("scaled images are float")
        images = pictures(8, shape)
        from_bytes, from_floats = run(entry, images).inputs, run(entry, images.float()).inputs
        tolerance = 1.01 if name in self.rounds_twice else 1e-3
        torch.testing.assert_close(from_bytes.float(), from_floats.float(), rtol=0, atol=tolerance)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    def test_never_waits_for_the_device(self, name: str, dtype: torch.dtype) -> None:
        entry = self.parse(name)
        if entry.stage != "pixels" and dtype == torch.uint8:
            pytest.skip("scaled images are float")
        batch = moved(batch_of(torch.zeros(8, 3, 16, 16, dtype=dtype)), "meta")
        result = entry.build(context(SHAPES["rgb"]))(batch, MetaDraws())
        assert result.inputs.device.type == "meta" and result.inputs.shape == (8, 3, 16, 16)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_never_waits_for_a_gpu(self, name: str) -> None:
        device = torch.device("cuda")
        batch = moved(batch_of(self.images(name, SHAPES["rgb"])), device)
        transform = self.parse(name).build(context(SHAPES["rgb"]))
        transform(batch, Draws(0, 0, device))  # kernels load, pinned memory is allocated
        draws = Draws(0, 1, device)
        torch.cuda.set_sync_debug_mode("error")
        try:
            result = transform(batch, draws)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert result.inputs.shape == batch.inputs.shape
