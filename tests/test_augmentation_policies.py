"""RandAugment and TrivialAugment: their operations and ranges are torchvision's, and every example has its own."""

import math

import pytest
import torch
from augmenting import pictures, run
from torch import Tensor

from dltrain.data import kernels_policies
from dltrain.data.augmentations import RandAugment, TrivialAugment
from dltrain.data.base import ImageShape


def reference_operation(name: str, image: Tensor, magnitude: float) -> Tensor:
    """The operation as torchvision's RandAugment runs it."""
    from torchvision.transforms.v2 import functional as F

    slope = math.degrees(math.atan(magnitude))
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    table = {
        "identity": lambda: image,
        "shear_x": lambda: F.affine(image, **{**still, "shear": [slope, 0.0]}, center=[0, 0]),
        "shear_y": lambda: F.affine(image, **{**still, "shear": [0.0, slope]}, center=[0, 0]),
        "translate_x": lambda: F.affine(image, **{**still, "translate": [int(magnitude), 0]}),
        "translate_y": lambda: F.affine(image, **{**still, "translate": [0, int(magnitude)]}),
        "rotate": lambda: F.rotate(image, magnitude),
        "brightness": lambda: F.adjust_brightness(image, 1 + magnitude),
        "color": lambda: F.adjust_saturation(image, 1 + magnitude),
        "contrast": lambda: F.adjust_contrast(image, 1 + magnitude),
        "sharpness": lambda: F.adjust_sharpness(image, 1 + magnitude),
        "posterize": lambda: F.posterize(image, 8 - int(magnitude)),
        "solarize": lambda: F.solarize(image, magnitude),
        "autocontrast": lambda: F.autocontrast(image),
        "equalize": lambda: F.equalize(image),
    }
    return table[name]()


def policy_operation(name: str, images: Tensor, magnitudes: Tensor) -> Tensor:
    index = kernels_policies.NAMES.index(name)
    operation = kernels_policies.OPERATIONS[int(kernels_policies.GROUP[index])]
    if operation is kernels_policies.warp:
        which = torch.full((len(images),), index)
        return operation(images, kernels_policies.warp_matrices(which, magnitudes, *images.shape[2:]))
    return operation(images, magnitudes)


WIDE = kernels_policies.Ranges(0.99, (32.0, 32.0), 135.0, 0.99, 6)


@pytest.mark.parametrize("name", kernels_policies.NAMES)
@pytest.mark.parametrize("shape", [ImageShape(3, 34, 48), ImageShape(1, 32, 32)], ids=str)
def test_operations_agree_with_torchvision(name: str, shape: ImageShape):
    levels = WIDE.magnitudes(31)[kernels_policies.NAMES.index(name)]
    signed = kernels_policies.SIGNED[kernels_policies.NAMES.index(name)]
    magnitudes = torch.cat([levels, -levels]) if signed else levels
    images = pictures(len(magnitudes), shape)
    images[0], images[1] = 77, images[1] // 8  # a constant and a dark image
    ours = policy_operation(name, images, magnitudes)
    theirs = torch.stack([reference_operation(name, i, m.item()) for i, m in zip(images, magnitudes)])
    assert ours.dtype == torch.uint8
    difference = (ours.int() - theirs.int()).abs()
    if name in ("shear_x", "shear_y", "rotate"):  # points midway between two pixels may fall to either
        assert (difference > 0).float().mean() < 0.003
    else:
        assert difference.max() <= (0 if name in ("translate_x", "translate_y", "posterize", "equalize") else 1)


def test_ranges_are_those_of_torchvision():
    from torchvision.transforms import v2

    for ours, reference in (
        (WIDE, v2.TrivialAugmentWide()),
        (kernels_policies.Ranges(0.3, (150 / 331 * 64, 150 / 331 * 48), 30.0, 0.9, 4), v2.RandAugment()),
    ):
        for name, row in zip(kernels_policies.NAMES, ours.magnitudes(31)):
            label = {"autocontrast": "AutoContrast"}.get(name, "".join(part.title() for part in name.split("_")))
            values, signed = reference._AUGMENTATION_SPACE[label]
            expected = values(31, 48, 64)
            assert signed == bool(kernels_policies.SIGNED[kernels_policies.NAMES.index(name)])
            if expected is None:
                continue
            expected = expected.float()
            if name == "posterize":
                expected = 8 - expected
            elif name == "solarize":
                expected = expected * 255
            elif name.startswith("translate"):
                expected = expected.trunc()
            torch.testing.assert_close(row, expected)


@pytest.mark.parametrize("name", ["rand_augment", "trivial_augment"])
def test_policies_give_each_example_an_operation_of_its_own(name: str):
    count, shape = 1500, ImageShape(3, 16, 16)
    image = pictures(1, shape)
    entry = RandAugment(operations=1, magnitude=17) if name == "rand_augment" else TrivialAugment(bins=2)
    result = run(entry, image.expand(count, -1, -1, -1)).images
    reach = 150 / 331 * 16
    table = kernels_policies.Ranges(0.3, (reach, reach), 30.0, 0.9, 4).magnitudes(31)[:, 17:18]
    table = table if name == "rand_augment" else WIDE.magnitudes(2)
    candidates: dict[bytes, set[str]] = {}
    for operation, row in zip(kernels_policies.NAMES, table):
        signs = (1, -1) if kernels_policies.SIGNED[kernels_policies.NAMES.index(operation)] else (1,)
        for magnitude in (sign * value for value in row for sign in signs):
            made = policy_operation(operation, image, magnitude.view(1))
            candidates.setdefault(made.numpy().tobytes(), set()).add(operation)
    seen = [candidates[made.numpy().tobytes()] for made in result]  # KeyError: not one of the operations
    for operation in kernels_policies.NAMES:
        alone = sum(found == {operation} for found in seen)
        assert alone < count / 14 * 1.5 and any(operation in found for found in seen)
