"""The kind `Dataset`: where examples and targets come from, and how they are read, divided and preprocessed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, model_validator

from dltrain.config import Choice, Fraction, NonNegativeInt, Positive, PositiveInt, reject
from dltrain.data.fold import Fold
from dltrain.data.targets import Classes, TargetSpec
from dltrain.data.types import Copies, ImageShape, ImageSource, InputSpec, Splits
from dltrain.errors import Note

if TYPE_CHECKING:
    from dltrain.data.augmentation.base import Augmentation
    from dltrain.data.pretrained import PretrainedInputs
    from dltrain.data.types import Canvas, Preprocessing, RawDataset, Source

NOT_OFFERED = "dltrain trains on images and on rows of tables: see image_folder, arrays and table"
"""For who brings something else."""


SET = "set in the experiment"


class Dataset(Choice):
    """Examples with targets. An entry's `read` gives its parts; `load` divides them by the common rule."""

    kind: ClassVar[str] = "datasets"
    not_offered: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("text", "texts", "json", "jsonl", "audio", "video", "time_series"), NOT_OFFERED),
        **dict.fromkeys(
            ("tables", "tabular", "csv", "tsv", "parquet", "excel", "dataframe"),
            "CSV and Parquet files are data `table`",
        ),
    }

    name: str
    """Which data set."""
    validation: Fraction | NonNegativeInt = 0.1
    """What validation takes from the training part: a share below 1, or a number of examples; 0 for none.
    Of every class it takes the examples with the lowest content hash, whatever the seed."""
    fold: Fold | None = None
    """Which part of a cross-validation this is; then `validation` does nothing. {number: 1, of: 5}: the first of five
    equal parts of the training part is the validation split. `dltrain fit --folds 5` sets it."""

    balance: Literal["classes"] | Annotated[float, Field(gt=0, le=1)] | None = None
    """How often an epoch draws the examples of each class; it keeps its number of steps, and no evaluation is balanced.
    null: each example once. classes: all classes equally often, so that rare ones are seen again, and of frequent ones
    a part, another in each epoch. A number p between: a class of n examples in proportion to n^(1 - p); 0.5 is
    square-root sampling (https://arxiv.org/abs/1910.09217), 1 the same as classes."""

    scaling: str
    """How the values of inputs are scaled."""

    @property
    @abstractmethod
    def inputs(self) -> type[InputSpec]:
        """What it gives, as its options say it."""

    @property
    def gives_shares(self) -> bool:
        """Whether all values of the training inputs lie in 0..1."""
        return self.scaling == "min_max"

    @property
    def targets(self) -> type[TargetSpec]:
        """What its examples are to be answered with, as its options say it."""
        return Classes

    def targets_for(self, wanted: tuple[type[TargetSpec], ...]) -> type[TargetSpec] | None:
        """Which of the targets that a task learns it gives; None where it has no such."""
        return self.targets if issubclass(self.targets, wanted) else None

    @property
    def balance_power(self) -> float:
        """`balance` as a number: 0 for none, 1 for `classes`."""
        return 1.0 if self.balance == "classes" else self.balance or 0.0

    @property
    def loading(self) -> tuple[Literal["auto", "resident", "streaming"], int | Literal["auto"]]:
        """The loader that is asked for, and how many processes are to decode for it."""
        return "auto", 0

    def chosen(self, preprocessing: Preprocessing, *, pretrained: bool) -> dict[str, tuple[Any, str]]:
        """What its options `auto` became, and why, for the decisions that a run records. pretrained: whether the
        network begins with weights that expect something."""
        return {}

    @property
    def known_channels(self) -> int | None:
        """Channels of the images, where that is known without reading them."""
        return None

    @property
    def has_validation(self) -> bool:
        """Whether there can be a validation split, as far as is known without the data."""
        return self.takes_validation

    @property
    def takes_validation(self) -> bool:
        """Whether a validation split is taken from the training part, unless the data brings one."""
        return self.validation != 0 or self.fold is not None

    @abstractmethod
    def parts(self, targets: type[TargetSpec]) -> RawDataset:
        """The examples, with such targets: one of those that `targets_for` gives. Raises ConfigError when they are
        missing or unfit."""

    @abstractmethod
    def preprocess(
        self, splits: Splits, augmentations: Sequence[Augmentation], pretrained: PretrainedInputs | None, *,
        rough: bool = False,
    ) -> Preprocessing:  # fmt: skip
        """What becomes of its examples before a network sees them, measured on the training split alone.

        rough: without the statistics of images, which spares a pass over all of them.
        """

    def load(self, like: str | None = None, targets: tuple[type[TargetSpec], ...] = (TargetSpec,)) -> Splits:
        """The training, validation and test splits.

        like: the fingerprint of the run that they are for: what an earlier version divided, is divided as there.
        targets: those that the task learns. Raises ConfigError when the data is missing or unfit, a split would lack a
        class, or images contradict.
        """
        from dltrain.data.splitting import divide

        parts = self._sound(self.parts(self.targets_for(targets) or self.targets))
        splits = divide(
            parts, self.validation, self.treatment, known=self.known, contradict=self.contradict, like=like,
            fold=(self.fold.number, self.fold.of) if self.fold is not None else None,
        )  # fmt: skip
        idle = self._idle(parts) if like is None else []  # a run's own file sets every option
        return replace(splits, notes=(*idle, *parts.notes, *splits.notes), skipped=parts.skipped)

    def _sound(self, parts: RawDataset) -> RawDataset:
        """The parts, without what cannot be read. Raises ConfigError naming it, when it is not to be skipped."""
        return parts

    def _idle(self, parts: RawDataset) -> list[Note]:
        """Notes on shares that were set, and that the data leaves nothing to do."""
        notes = []
        if "validation" in self.model_fields_set and parts.validation is not None:
            notes.append(f"`validation: {self.validation}` does nothing: the data brings its validation split")
        share = getattr(self, "test", 0)
        if "test" in self.model_fields_set and parts.test is not None:
            notes.append(f"`test: {share}` does nothing: the data brings its test split")
        elif "test" in self.model_fields_set and share and not parts.test_share:
            notes.append(
                f"`test: {share}` does nothing: beside train/, a test/ folder is the test split, and there is none"
            )
        return [Note("warning", "setting_unused", note) for note in notes]

    def given(self, target: TargetSpec) -> dict[str, tuple[Source, TargetSpec]]:
        """The splits that the data brings, by name, each with what its targets are; undivided data is `train`.

        target: of the network that will answer. Raises ConfigError when the data is missing or unfit.
        """
        parts = self.parts(self.targets_for((type(target),)) or self.targets)
        return {name: (source, parts.target) for name, source in parts.given().items()}

    @property
    def treatment(self) -> Copies:
        """What is done with copies of images."""
        return "together"

    @property
    def contradict(self) -> bool:
        """Whether equal examples with different targets are a mistake of the data."""
        return not self.known

    @property
    def known(self) -> bool:
        """Whether the data set is always the same, with the copies and the mistakes that it is known for."""
        return True


class ImageDataset(Dataset):
    """Images with labels. An entry's `read` gives its parts."""

    scaling: Literal[
        "auto", "none", "min_max", "standardize", "featurewise_min_max", "featurewise_standardize", "pca_whiten",
        "zca_whiten",
    ] = "auto"  # fmt: skip
    """Input scaling per channel, measured on the training part: standardize (mean 0, standard deviation 1),
    min_max (smallest to 0, largest to 1), none (0..255 to 0..1), or auto: as the pretrained weights
    expect, else standardize. Of each feature (a pixel's channel), over all training images: featurewise_standardize
    and featurewise_min_max; one that never varies becomes 0. Of whole small images: zca_whiten (uncorrelated values
    of variance 1, as close to the image as can be) and pca_whiten (the same turned to the main axes, for networks
    that look at no neighbours)."""
    whitening_epsilon: Positive = 0.01
    """Added to the variances of pca_whiten and zca_whiten, of values in 0..1: more of it keeps noise small."""
    size: PositiveInt | list[PositiveInt] | None = None
    """Side of the model's square input in pixels, or [height, width]. Null: what pretrained weights expect,
    else the images' own size, else (for files) 224."""
    interpolation: Literal["auto", "nearest", "bilinear", "bicubic", "lanczos"] = "auto"
    """How images are resized, with antialiasing; auto: as the pretrained weights expect, else bilinear."""
    loader: Literal["auto", "resident", "streaming"] = "auto"
    """resident: decoded once and kept on the device; streaming: read batch by batch; auto: resident when
    the images fit into half of the free memory."""
    workers: NonNegativeInt | Literal["auto"] = "auto"
    """Processes that decode files for the streaming loader; 0 decodes in the main process."""

    @model_validator(mode="after")
    def _size_is_a_pair(self) -> ImageDataset:
        if isinstance(self.size, list) and len(self.size) != 2:
            raise reject("size", f"`size` is one number or [height, width], not a list of {len(self.size)}")
        return self

    @property
    def inputs(self) -> type[InputSpec]:
        return ImageShape

    @property
    def gives_shares(self) -> bool:
        return self.scaling in ("none", "min_max")

    @property
    def loading(self) -> tuple[Literal["auto", "resident", "streaming"], int | Literal["auto"]]:
        return self.loader, self.workers

    def chosen(self, preprocessing: Preprocessing, *, pretrained: bool) -> dict[str, tuple[Any, str]]:
        canvas: Canvas = preprocessing.evaluation
        scaling = "standardize", "no pretrained weights expect another"
        if self.scaling != "auto":
            scaling = self.scaling, SET
        elif pretrained:
            scaling = "pretrained", "the mean and the deviation that the network's weights expect"
        why = "as the pretrained weights expect" if pretrained else "the usual one"
        why = why if self.interpolation == "auto" else SET
        if canvas.rule == "exact":
            why += "; the images keep their size"
        return {"scaling": scaling, "interpolation": (canvas.interpolation, why)}

    @abstractmethod
    def read(self) -> RawDataset:
        """The images and labels. Raises ConfigError when they are missing or unfit."""

    def parts(self, targets: type[TargetSpec]) -> RawDataset:
        return self.read()

    def preprocess(
        self, splits: Splits, augmentations: Sequence[Augmentation], pretrained: PretrainedInputs | None, *,
        rough: bool = False,
    ) -> Preprocessing:  # fmt: skip
        from dltrain.data.preprocessing import plan_preprocessing

        dataset = self.model_copy(update={"scaling": "none"}) if rough else self
        return plan_preprocessing(dataset, cast(ImageSource, splits.train), augmentations, pretrained)


class Collected(ImageDataset):
    """Images of the user's own, among which there may be copies."""

    copies: Copies = "together"
    """Copies of an image, equal or compressed, resized, brightened or cut a little: together, none stands in another
    split than the others; drop, one of them stays (of copies of given test and validation images none does);
    allow, they count as different images. One image with two labels is an error, with `allow` a warning."""

    @property
    def treatment(self) -> Copies:
        return self.copies

    @property
    def known(self) -> bool:
        return False
