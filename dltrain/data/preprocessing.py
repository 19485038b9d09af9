"""How images become the model's input: decided once, stored in the checkpoint, used by every command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, cast

import numpy as np

from dltrain.data.augmentation.base import Augmentation
from dltrain.data.images.depth import depth_of
from dltrain.data.loading.scaling import OF_WHOLE_IMAGES, Scaling, ScalingKind
from dltrain.data.pretrained import PretrainedInputs
from dltrain.data.tables.encoding import Encoding, keyed
from dltrain.data.tables.options import Missing, RowScaling
from dltrain.data.tables.source import RowSource
from dltrain.data.types import Canvas, ImageShape, ImageSource, Interpolation, Preprocessing, Splits, Vector
from dltrain.errors import Note

FOLDER_SIZE = 224
"""Pixels, when neither `data.size` nor pretrained weights say (Krizhevsky et al. 2012 and since)."""
CANVAS_RATIO = 2
"""Random resized crops cut from the whole image, shrunk until its longer side is this many times the size:
a crop of a quarter of the area or more is then never enlarged beyond what the file holds."""
CENTRE_CROP = 0.875
"""Share of the shorter side that evaluation keeps after training on random resized crops (224 of 256)."""


def preprocessing_from(values: dict[str, Any]) -> Preprocessing:
    """What `to_dict` of either kind wrote."""
    return RowPreprocessing.from_dict(values) if "encoding" in values else ImagePreprocessing.from_dict(values)


@dataclass(frozen=True)
class RowPreprocessing:
    """The encoding of rows of a table, which scales them, too."""

    encoding: Encoding
    remarks: list[Note] = field(default_factory=list, compare=False)

    @property
    def shape(self) -> Vector:
        """One number for each of the encoding."""
        return Vector(len(self.encoding.names))

    @property
    def train(self) -> Encoding:
        return self.encoding

    @property
    def evaluation(self) -> Encoding:
        return self.encoding

    @property
    def scaling(self) -> Scaling:
        return Scaling.done()

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for the checkpoint."""
        return {"encoding": self.encoding.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RowPreprocessing:
        """What `to_dict` wrote."""
        return cls(Encoding.from_dict(values["encoding"]))


@dataclass(frozen=True)
class ImagePreprocessing:
    """The model's input shape, the canvas of training and of evaluation images, and the scaling."""

    shape: ImageShape
    train: Canvas
    evaluation: Canvas
    scaling: Scaling
    remarks: list[Note] = field(default_factory=list, compare=False)
    """What was found about the values of the images when this was decided; not stored."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        return {
            "shape": [self.shape.channels, self.shape.height, self.shape.width], "train": asdict(self.train),
            "evaluation": asdict(self.evaluation), "scaling": self.scaling.to_dict(),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImagePreprocessing:
        """What `to_dict` wrote."""
        return cls(ImageShape(*values["shape"]), Canvas(**values["train"]), Canvas(**values["evaluation"]),
                   Scaling.from_dict(values["scaling"]))  # fmt: skip


class ImageOptions(Protocol):
    """What a data section says of its images; see `ImageDataset`."""

    @property
    def size(self) -> int | list[int] | None: ...

    @property
    def interpolation(self) -> Interpolation | Literal["auto"]: ...

    @property
    def scaling(self) -> ScalingKind | Literal["auto"]: ...

    @property
    def whitening_epsilon(self) -> float: ...


def plan_preprocessing(
    dataset: ImageOptions,
    source: ImageSource,
    augmentations: Sequence[Augmentation],
    pretrained: PretrainedInputs | None,
) -> ImagePreprocessing:
    """Sizes and scaling: from the data section, else from the pretrained weights, else from the data itself.

    source: the training split; the scaling's statistics are of it alone.
    """
    native, channels = source.native, source.channels
    size = _size(dataset, native, pretrained)
    interpolation: Interpolation = "bilinear"
    if dataset.interpolation != "auto":
        interpolation = dataset.interpolation
    elif pretrained is not None:
        interpolation = pretrained.interpolation
    crops = bool(augmentations) and augmentations[0].name == "random_resized_crop"
    if native == size:
        evaluation = train = Canvas(*size, rule="exact", interpolation=interpolation)
    else:
        share = pretrained.crop if pretrained is not None else CENTRE_CROP if crops and native is None else 1.0
        evaluation = train = Canvas(*size, rule="crop", interpolation=interpolation, crop=share)
        if crops and native is not None:
            train = Canvas(*native, rule="exact", interpolation=interpolation)
        elif crops:
            height, width = size
            train = Canvas(CANVAS_RATIO * height, CANVAS_RATIO * width, rule="fit", interpolation=interpolation)
    remarks: list[Note] = []
    if source.files is not None:
        depth = depth_of(source.files)
        white, limit = depth.white, source.files.max_pixels
        train, evaluation = (replace(canvas, white=white, max_pixels=limit) for canvas in (train, evaluation))
        remarks += depth.remarks
    if dataset.scaling == "auto" and pretrained is not None:
        scaling = _pretrained_scaling(pretrained, channels)
    else:
        kind: ScalingKind = "standardize" if dataset.scaling == "auto" else dataset.scaling
        seen = evaluation if kind in OF_WHOLE_IMAGES else train  # those are of images of the model's size
        scaling = Scaling.fit(kind, source, seen, dataset.whitening_epsilon)
    return ImagePreprocessing(ImageShape(channels, *size), train, evaluation, scaling, [*remarks, *scaling.remarks])


def plan_rows(
    splits: Splits, missing: Missing, scaling: RowScaling | Literal["auto"], epsilon: float
) -> RowPreprocessing:
    """The encoding of rows, fitted on the training split. See `Encoding.fitted`; auto standardizes."""
    table = cast(RowSource, splits.train).table
    kind = "standardize" if scaling == "auto" else scaling
    with keyed("features"):
        encoding = Encoding.fitted(table, np.arange(len(table)), missing, kind, epsilon)
    remarks = [
        Note(
            "warning", "constant", f"column `{column.name}` has one value alone in the training part: it tells nothing"
        )
        for column in table.columns.values()
        if column.has_one_value
    ]
    for name, source in (("validation", splits.validation), ("test", splits.test)):
        if source is not None:
            remarks += [Note("info", "unseen", f"{name}: {text}") for text in source.unlike(encoding)]
    return RowPreprocessing(encoding, remarks)


def _size(
    dataset: ImageOptions, native: tuple[int, int] | None, pretrained: PretrainedInputs | None
) -> tuple[int, int]:
    if isinstance(dataset.size, int):
        return dataset.size, dataset.size
    if dataset.size is not None:
        return dataset.size[0], dataset.size[1]
    if pretrained is not None:
        return pretrained.size
    return native or (FOLDER_SIZE, FOLDER_SIZE)


def _pretrained_scaling(pretrained: PretrainedInputs, channels: int) -> Scaling:
    """The weights' mean and std; their average over the channels when the data has another number of them."""
    mean, std = list(pretrained.mean), list(pretrained.std)
    if len(mean) != channels:
        mean, std = [sum(mean) / len(mean)] * channels, [sum(std) / len(std)] * channels
    return Scaling([255 * m for m in mean], [255 * s for s in std])
