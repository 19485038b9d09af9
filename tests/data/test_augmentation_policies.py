"""Policies of operations: their operations and ranges are torchvision's, and every example has its own."""

import math

import pytest
import torch
from torch import Tensor

from dltrain.data.augmentation.impl import policies as kernels_policies
from dltrain.data.augmentation.policies import AugMix, AutoAugment, RandAugment, TrivialAugment
from dltrain.data.random import Draws
from dltrain.data.types import ImageShape
from dltrain.testing.augmentations import CPU, context, pictures, run


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


LABELS = {"autocontrast": "AutoContrast"}


def label(name: str) -> str:
    """What torchvision calls an operation."""
    return LABELS.get(name, "".join(part.title() for part in name.split("_")))


def test_ranges_are_those_of_torchvision():
    from torchvision.transforms import v2

    for ours, reference in (
        (WIDE, v2.TrivialAugmentWide()),
        (kernels_policies.Ranges(0.3, (150 / 331 * 64, 150 / 331 * 48), 30.0, 0.9, 4), v2.RandAugment()),
    ):
        for name, row in zip(kernels_policies.NAMES, ours.magnitudes(31)):
            values, signed = reference._AUGMENTATION_SPACE[label(name)]
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
    result = run(entry, image.expand(count, -1, -1, -1)).inputs
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


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_learned_policies_are_those_of_torchvision(policy: str):
    from torchvision.transforms import v2

    reference = v2.AutoAugment(v2.AutoAugmentPolicy(policy))
    ours = AutoAugment(policy=policy).build(context(ImageShape(3, 40, 48))).keywords["policy"]
    assert len(reference._policies) == len(ours.operations) == 25
    for pair, operations, magnitudes, probabilities in zip(
        reference._policies, ours.operations, ours.magnitudes, ours.probabilities
    ):
        for (name, chance, level), operation, magnitude, probability in zip(
            pair, operations, magnitudes, probabilities
        ):
            found = kernels_policies.NAMES[int(operation)]
            assert probability.item() == pytest.approx(chance)
            if name == "Invert":  # solarized from 0 on
                assert (found, magnitude.item()) == ("solarize", 0)
                continue
            assert label(found) == name
            space = reference._AUGMENTATION_SPACE[name][0](10, 40, 48)
            if space is None:
                continue
            expected = float(space[level])
            expected = {"Posterize": 8 - expected, "Solarize": 255 * expected}.get(name, expected)
            expected = math.trunc(expected) if name.startswith("Translate") else expected
            assert magnitude.item() == pytest.approx(expected, rel=1e-6)


def test_auto_augment_does_each_pair_with_its_probabilities():
    count, shape = 4000, ImageShape(3, 16, 16)
    image = pictures(1, shape)
    transform = AutoAugment(policy="cifar10").build(context(shape))
    policy = transform.keywords["policy"]
    result = run(AutoAugment(policy="cifar10"), image.expand(count, -1, -1, -1)).inputs
    expected: dict[bytes, float] = {}
    for pair, magnitudes, chances in zip(policy.operations, policy.magnitudes, policy.probabilities):
        for bits in range(4):  # which of the two are done
            done = [bool(bits & 1), bool(bits & 2)]
            share = math.prod(float(c) if d else 1 - float(c) for c, d in zip(chances, done)) / 25
            ways = [(image, share)]
            for which, magnitude, does in zip(pair, magnitudes, done):
                if not does:
                    continue
                signs = (1, -1) if kernels_policies.SIGNED[which] else (1,)
                ways = [
                    (
                        policy_operation(kernels_policies.NAMES[int(which)], made, sign * magnitude.view(1)),
                        p / len(signs),
                    )
                    for made, p in ways
                    for sign in signs
                ]
            for made, p in ways:
                key = made.numpy().tobytes()
                expected[key] = expected.get(key, 0) + p
    seen: dict[bytes, int] = {}
    for made in result:
        seen[made.numpy().tobytes()] = seen.get(made.numpy().tobytes(), 0) + 1
    assert set(seen) <= {key for key, p in expected.items() if p > 0}
    for key, p in expected.items():
        assert abs(seen.get(key, 0) / count - p) < 5 * math.sqrt(p * (1 - p) / count) + 1e-9


def test_aug_mix_mixes_chains_of_torchvisions_operations():
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional as F

    shape = ImageShape(3, 30, 36)
    chains = AugMix().build(context(shape)).keywords["chains"]
    for index, row in enumerate(chains.table):
        values = v2.AugMix._AUGMENTATION_SPACE.get(label(kernels_policies.NAMES[index]))
        assert (values is not None) == (index in chains.operations)
        if values is None or values[0](10, 30, 36) is None:
            continue
        expected, name = values[0](10, 30, 36).float(), kernels_policies.NAMES[index]
        expected = {"posterize": 8 - (expected + 4), "solarize": 255 * expected}.get(name, expected)
        torch.testing.assert_close(row, expected.trunc() if name.startswith("translate") else expected)
    few = AugMix(all_operations=False).build(context(shape)).keywords["chains"].operations
    assert {label(kernels_policies.NAMES[i]) for i in few} == set(v2.AugMix._PARTIAL_AUGMENTATION_SPACE)
    images = pictures(2, shape)
    turned = kernels_policies.perform(
        images, torch.tensor([[5, 5]]), torch.tensor([[10.0, -7.0]]), kernels_policies.smooth_warp
    )
    theirs = torch.stack(
        [F.rotate(i, a, interpolation=v2.InterpolationMode.BILINEAR) for i, a in zip(images, (10, -7))]
    )
    assert (turned.int() - theirs.int()).abs().max() <= 1


def test_aug_mix_stays_near_and_its_shares_sum_to_one():
    images = torch.full((64, 3, 16, 16), 120, dtype=torch.uint8)
    mixed = run(AugMix(all_operations=False, severity=1), images).inputs  # weakest: posterize, solarize do nothing
    torch.testing.assert_close(mixed, images.float(), rtol=0, atol=1e-3)
    image = pictures(1, ImageShape(3, 16, 16))
    far = run(AugMix(severity=10, depth=3), image.expand(64, -1, -1, -1)).inputs - image
    near = run(AugMix(severity=1), image.expand(64, -1, -1, -1)).inputs - image
    assert near.abs().mean() < far.abs().mean()


def test_views_lie_side_by_side_and_begin_with_the_example():
    images = pictures(6, ImageShape(3, 16, 16))
    batch = run(AugMix(views=3), images)
    assert batch.inputs.shape == (18, 3, 16, 16)
    assert torch.equal(batch.inputs[::3], images.float())
    assert batch.targets.tolist() == [label for label in range(6) for _ in range(3)]
    assert batch.indices.tolist() == [100 + place for place in range(6) for _ in range(3)]
    assert not torch.equal(batch.inputs[1::3], batch.inputs[2::3])
    one = AugMix().build(context(ImageShape(3, 16, 16))).keywords["chains"].mixed(images, Draws(0, 0, CPU))
    assert torch.equal(batch.inputs[1::3], one)
