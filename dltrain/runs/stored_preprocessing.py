"""What a checkpoint holds of how examples are preprocessed, as data: types, shapes and ranges. See `stored`."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from dltrain.data.types import Interpolation

Side = Annotated[int, Field(ge=1, le=65535)]
Text = Annotated[str, Field(max_length=10_000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class StoredData(BaseModel):
    """What every part is: of exactly these types, and with more fields than are known."""

    model_config = ConfigDict(strict=True, extra="allow", arbitrary_types_allowed=True)


class CanvasData(StoredData):
    """A Canvas."""

    height: Side
    width: Side
    rule: Literal["exact", "crop", "fit"]
    interpolation: Interpolation
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    white: Annotated[int, Field(ge=1, le=65535)] | None = None
    max_pixels: Annotated[int, Field(ge=1)] = 1


class WhiteningData(StoredData):
    """A Whitening."""

    kind: Literal["pca_whiten", "zca_whiten"]
    mean: Tensor
    axes: Tensor
    deviations: Tensor


class FeaturesData(StoredData):
    """The Features of a scaling."""

    mean: Tensor
    std: Tensor


class ScalingData(StoredData):
    """A Scaling."""

    mean: list[Annotated[float, Field(allow_inf_nan=False)]]
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    whitening: WhiteningData | None = None
    features: FeaturesData | None = None


class FeatureData(StoredData):
    """A Feature of an encoding."""

    column: Text
    categories: list[Text] | None
    filling: Finite | None
    indicator: bool
    mean: Finite
    std: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RowWhiteningData(StoredData):
    """A RowWhitening."""

    mean: Tensor
    matrix: Tensor


class EncodingData(StoredData):
    """An Encoding, whose parts fit together."""

    features: Annotated[list[FeatureData], Field(min_length=1)]
    whitening: RowWhiteningData | None

    @model_validator(mode="after")
    def _fits(self) -> EncodingData:
        if (whitening := self.whitening) is not None:
            each = (1 + f.indicator if f.categories is None else len(f.categories) for f in self.features)
            size = sum(each)
            require_tensor(whitening.mean, (size,), "whitening.mean")
            require_tensor(whitening.matrix, (size, size), "whitening.matrix")
        return self


class RowPreprocessingData(StoredData):
    """A RowPreprocessing."""

    encoding: EncodingData


class ImagePreprocessingData(StoredData):
    """An ImagePreprocessing, whose parts fit together."""

    shape: Annotated[list[Side], Field(min_length=3, max_length=3)]
    train: CanvasData
    evaluation: CanvasData
    scaling: ScalingData

    @model_validator(mode="after")
    def _fits(self) -> ImagePreprocessingData:
        scaling, shape = self.scaling, tuple(self.shape)
        if (self.evaluation.height, self.evaluation.width) != shape[1:]:
            raise ValueError(f"evaluation must be of the shape's size, {shape[1]}x{shape[2]}")
        if not len(scaling.mean) == len(scaling.std) == shape[0]:
            raise ValueError(f"scaling must have a mean and a std for each of {shape[0]} channels")
        if (whitening := scaling.whitening) is not None:
            size = math.prod(shape)
            require_tensor(whitening.mean, (size,), "scaling.whitening.mean")
            require_tensor(whitening.axes, (size, size), "scaling.whitening.axes")
            require_tensor(whitening.deviations, (size,), "scaling.whitening.deviations", positive=True)
        if (features := scaling.features) is not None:
            require_tensor(features.mean, shape, "scaling.features.mean")
            require_tensor(features.std, shape, "scaling.features.std", positive=True)
        return self


def require_tensor(tensor: Tensor, shape: tuple[int, ...], name: str, *, positive: bool = False) -> None:
    if tuple(tensor.shape) != shape or not tensor.is_floating_point():
        raise ValueError(f"{name} must be float {shape}")
    if not bool(tensor.isfinite().all()) or (positive and bool((tensor <= 0).any())):
        raise ValueError(f"{name} must be finite{' and above 0' if positive else ''}")
