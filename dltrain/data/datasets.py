"""Data sets of images, and of arrays: where examples and targets come from, and how they are read and divided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, model_validator

from dltrain.config import ConfigError, Fraction, PathText, PositiveInt, reject
from dltrain.data.base import SET, Collected, ImageDataset
from dltrain.data.tables.datasets import scaling_of_rows
from dltrain.data.tables.options import RowScaling
from dltrain.data.targets import Classes
from dltrain.data.types import MAX_PIXELS, ImageShape, InputSpec, Vector

if TYPE_CHECKING:
    from dltrain.data.augmentation.base import Augmentation
    from dltrain.data.pretrained import PretrainedInputs
    from dltrain.data.targets import TargetSpec
    from dltrain.data.types import Preprocessing, RawDataset, Source, Splits

OF_IMAGES = ("size", "interpolation", "loader", "workers", "layout")
"""Options of arrays that rows give nothing to do."""


class Digits(ImageDataset):
    """1,797 handwritten digits, 1x8x8, that come with scikit-learn; a fixed fifth is the test split."""

    name: Literal["digits"] = "digits"
    source: ClassVar[str] = "Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits"

    @property
    def known_channels(self) -> int:
        return 1

    def read(self) -> RawDataset:
        from dltrain.data.readers import read_digits

        return read_digits()


class Published(ImageDataset):
    """A data set that is read from files as published, and downloaded when they are not there."""

    root: PathText = "data"
    """Folder with the files, relative to the working directory; where downloads go."""
    download: bool = True
    """Download what is not there, with torchvision."""


class Idx(Published):
    """Grey 28x28 images in four IDX files, gzipped or not."""

    @property
    def known_channels(self) -> int:
        return 1

    def read(self) -> RawDataset:
        from dltrain.data.readers import read_idx_dataset

        return read_idx_dataset(self.name, self.root, self.download)


class MNIST(Idx):
    """Handwritten digits, 1x28x28: 60,000 for training, 10,000 for testing."""

    name: Literal["mnist"] = "mnist"
    source: ClassVar[str] = "LeCun, Bottou, Bengio, Haffner 1998"


class FashionMNIST(Idx):
    """Clothes, 1x28x28, 10 classes: 60,000 for training, 10,000 for testing."""

    name: Literal["fashion_mnist"] = "fashion_mnist"
    source: ClassVar[str] = "Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747"


class KMNIST(Idx):
    """Cursive Japanese characters, 1x28x28, 10 classes: 60,000 for training, 10,000 for testing."""

    name: Literal["kmnist"] = "kmnist"
    source: ClassVar[str] = "Clanuwat+ 2018, arXiv 1812.01718"


class Color(Published):
    """RGB images that torchvision reads, and checks by their MD5 sums."""

    @property
    def known_channels(self) -> int:
        return 3

    def read(self) -> RawDataset:
        from dltrain.data.readers import read_torchvision

        return read_torchvision(self.name, self.root, self.download)


class CIFAR10(Color):
    """Animals and vehicles, 3x32x32, 10 classes: 50,000 for training, 10,000 for testing."""

    name: Literal["cifar10"] = "cifar10"
    source: ClassVar[str] = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"


class CIFAR100(Color):
    """Objects, 3x32x32, 100 classes: 50,000 for training, 10,000 for testing."""

    name: Literal["cifar100"] = "cifar100"
    source: ClassVar[str] = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"


class SVHN(Color):
    """House number digits, 3x32x32: 73,257 for training, 26,032 for testing."""

    name: Literal["svhn"] = "svhn"
    source: ClassVar[str] = "Netzer+ 2011, Reading Digits in Natural Images with Unsupervised Feature Learning"


class STL10(Color):
    """Animals and vehicles, 3x96x96, 10 classes: 5,000 labelled for training, 8,000 for testing."""

    name: Literal["stl10"] = "stl10"
    source: ClassVar[str] = "Coates, Lee, Ng 2011, An Analysis of Single-Layer Networks"


class ImageFolder(Collected):
    """Image files in class folders, as `root/train/<class>/*.jpg` or as `root/<class>/*.jpg`.

    With train/, the folders val/ and test/ are the validation and test splits where they exist; Train/, training/,
    seg_train/ and the like are read, too. Class folders alone are divided: `test` of them becomes the test split.
    Files that are no images by their names are left out and counted, hidden ones are not. Class folders may hold
    folders.
    """

    name: Literal["image_folder"] = "image_folder"
    root: PathText
    """The folder, relative to the working directory."""
    test: Fraction = 0.2
    """Share of the images, of every class, that is the test split when there are class folders alone."""
    channels: Literal[1, 3] = 3
    """3: all images as RGB; 1: all as grey."""
    cache: bool | PathText = False
    """Decode and resize the files once, into a file that later epochs and trainings read: true puts it into
    $XDG_CACHE_HOME/dltrain (~/.cache/dltrain), a text names another folder. It is made anew when a file changes."""
    max_pixels: PositiveInt = MAX_PIXELS
    """Files with more pixels are refused, as they may be made to fill the memory; more lets large scans in."""
    on_error: Literal["fail", "skip"] = "fail"
    """What is done with files that cannot be read: fail, all are named and nothing is trained; skip, they are left out
    of the data set before it is divided, counted, and listed in the log and in environment.json."""

    @property
    def known_channels(self) -> int:
        return self.channels

    @property
    def has_validation(self) -> bool:
        if self.takes_validation:
            return True
        from dltrain.data.folders.layouts import layout_of

        root = Path(self.root)
        try:
            return not root.is_dir() or "validation" in layout_of(root).splits
        except (OSError, ValueError, ConfigError):  # `read` says what is wrong
            return True

    def read(self) -> RawDataset:
        from dltrain.data.folders.folders import read_folder
        from dltrain.data.loading.resources import cache_folder

        return read_folder(self.root, self.test, self.channels, cache_folder(self.cache), self.max_pixels)

    def given(self, target: TargetSpec) -> dict[str, tuple[Source, TargetSpec]]:
        from dltrain.data.folders.folders import given_splits
        from dltrain.data.images.soundness import require_sound
        from dltrain.data.loading.resources import cache_folder

        found = given_splits(self.root, target.names, self.channels, cache_folder(self.cache), self.max_pixels)
        for source, _ in found.values():
            require_sound(source)
        return {name: (source, Classes(classes)) for name, (source, classes) in found.items()}

    def _sound(self, parts: RawDataset) -> RawDataset:
        from dltrain.data.images.soundness import sound

        return sound(parts, self.on_error)


class Arrays(Collected):
    """A NumPy .npz file with `images` (uint8) or `inputs` (rows of numbers), and `labels` (0, 1, ...) or `targets`.

    `images` is (N, H, W), (N, H, W, C) or (N, C, H, W); `inputs` is (N, D), and is scaled as columns of a table are.
    `targets` are numbers, float (N,) or (N, n), or say which labels an example has, bool or 0 and 1 (N, K). Optional in
    it are `test_images` or `test_inputs` with `test_labels` or `test_targets` (otherwise `test` of the examples are
    held out), and the names: `classes` of the labels, `names` of the targets, `features` of the D numbers.
    """

    name: Literal["arrays"] = "arrays"
    path: PathText
    """The .npz file, relative to the working directory."""
    layout: Literal["auto", "channels_first", "channels_last"] = "auto"
    """Where four-dimensional images have their channels; auto: in the dimension that is at most 4."""
    test: Fraction = 0.2
    """Share of the examples, of every class, that is the test split when the file has no test examples."""

    @model_validator(mode="after")
    def _each_option_has_something_to_do(self) -> Arrays:
        fields = type(self).model_fields
        idle = [key for key in OF_IMAGES if getattr(self, key) != fields[key].default]
        if idle and self.inputs is Vector:
            raise reject(idle[0], f"`{idle[0]}` does nothing: {self.path} holds `inputs`, rows of numbers")
        if self.scaling.startswith("featurewise_") and self.inputs is Vector:
            raise reject("scaling", f"`{self.scaling}` is of pictures; of rows `{self.scaling[12:]}` is of each number")
        return self

    @property
    def inputs(self) -> type[InputSpec]:
        """What the file shows, if it is there."""
        from dltrain.data.arrays import holds_rows

        return Vector if holds_rows(self.path) else ImageShape

    @property
    def gives_shares(self) -> bool:
        return super().gives_shares and (self.scaling == "min_max" or self.inputs is ImageShape)

    @property
    def contradict(self) -> bool:
        """Rows of few numbers may well be equal and have different targets."""
        return self.inputs is ImageShape

    @property
    def targets(self) -> type[TargetSpec]:
        from dltrain.data.arrays import targets_of

        return targets_of(self.path)

    def targets_for(self, wanted: tuple[type[TargetSpec], ...]) -> type[TargetSpec] | None:
        """Of a file that is not there, whatever is wanted: reading it says so."""
        return super().targets_for(wanted) if Path(self.path).is_file() else wanted[0]

    def preprocess(
        self, splits: Splits, augmentations: Sequence[Augmentation], pretrained: PretrainedInputs | None, *,
        rough: bool = False,
    ) -> Preprocessing:  # fmt: skip
        if self.inputs is ImageShape:
            return super().preprocess(splits, augmentations, pretrained, rough=rough)
        from dltrain.data.preprocessing import plan_rows

        return plan_rows(splits, "error", cast(RowScaling, self.scaling), self.whitening_epsilon)

    def chosen(self, preprocessing: Preprocessing, *, pretrained: bool) -> dict[str, tuple[Any, str]]:
        from dltrain.data.arrays import layout_of

        if self.inputs is Vector:
            return scaling_of_rows(self.scaling)
        layout = (self.layout, SET) if self.layout != "auto" else layout_of(self.path)
        return {**super().chosen(preprocessing, pretrained=pretrained), "layout": layout}

    def read(self) -> RawDataset:
        from dltrain.data.arrays import read_arrays

        return read_arrays(self.path, self.layout, self.test)


class Synthetic(ImageDataset):
    """A pattern per class with noise, of any size, for benchmarks; a fixed fifth is the test split."""

    name: Literal["synthetic"] = "synthetic"
    examples: PositiveInt = 1000
    """Number of images, test split included."""
    classes: Annotated[int, Field(ge=2)] = 10
    """Number of classes."""
    shape: list[PositiveInt] = [3, 32, 32]
    """[channels, height, width]."""

    @model_validator(mode="after")
    def _possible(self) -> Synthetic:
        if len(self.shape) != 3:
            raise reject("shape", f"`shape` is [channels, height, width], not a list of {len(self.shape)}")
        if self.examples < 5 * self.classes:
            message = f"`examples` must be at least 5 for each of the {self.classes} classes, {5 * self.classes}"
            raise reject("examples", message)
        return self

    @property
    def known_channels(self) -> int:
        return self.shape[0]

    def read(self) -> RawDataset:
        from dltrain.data.readers import read_synthetic

        return read_synthetic(self.examples, self.classes, (self.shape[0], self.shape[1], self.shape[2]))
