"""The kind `Dataset`: where images and labels come from, and how they are read and divided."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dltrain.config import Choice, ConfigError, Fraction, NonNegativeInt, PathText, Positive, PositiveInt, reject
from dltrain.data.targets import Classes, TargetSpec
from dltrain.data.types import MAX_PIXELS, Copies, ImageShape, InputSpec, Splits
from dltrain.errors import Note

if TYPE_CHECKING:
    from dltrain.data.types import RawDataset, Source
IMAGES_ONLY = "dltrain trains on images: class folders of image files, or arrays of pixels in an .npz file"
"""For who brings something else."""


class Dataset(Choice):
    """Images with labels. An entry's `read` gives its parts; `load` divides them by the common rule."""

    kind: ClassVar[str] = "datasets"
    inputs: ClassVar[type[InputSpec]] = ImageShape
    """What it gives."""
    not_offered: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("table", "tables", "tabular", "csv", "tsv", "parquet", "excel", "dataframe", "text", "texts", "json", "jsonl",
         "audio", "video", "time_series"), IMAGES_ONLY,
    )  # fmt: skip

    name: str
    """Which data set."""
    validation: Fraction | NonNegativeInt = 0.1
    """What validation takes from the training part: a share below 1, or a number of examples; 0 for none.
    Of every class it takes the examples with the lowest content hash, whatever the seed."""
    balance: Literal["classes"] | Annotated[float, Field(gt=0, le=1)] | None = None
    """How often an epoch draws the examples of each class; it keeps its number of steps, and no evaluation is balanced.
    null: each example once. classes: all classes equally often, so that rare ones are seen again, and of frequent ones
    a part, another in each epoch. A number p between: a class of n examples in proportion to n^(1 - p); 0.5 is
    square-root sampling (https://arxiv.org/abs/1910.09217), 1 the same as classes."""
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
    def _size_is_a_pair(self) -> Dataset:
        if isinstance(self.size, list) and len(self.size) != 2:
            raise reject("size", f"`size` is one number or [height, width], not a list of {len(self.size)}")
        return self

    @property
    def targets(self) -> type[TargetSpec]:
        """What its examples are to be answered with, as its options say it."""
        return Classes

    @property
    def balance_power(self) -> float:
        """`balance` as a number: 0 for none, 1 for `classes`."""
        return 1.0 if self.balance == "classes" else self.balance or 0.0

    @property
    def known_channels(self) -> int | None:
        """Channels of the images, where that is known without reading them."""
        return None

    @property
    def has_validation(self) -> bool:
        """Whether there can be a validation split, as far as is known without the data."""
        return self.validation != 0

    @abstractmethod
    def read(self) -> RawDataset:
        """The images and labels. Raises ConfigError when they are missing or unfit."""

    def load(self, like: str | None = None) -> Splits:
        """The training, validation and test splits.

        like: the fingerprint of the run that they are for: what an earlier version divided, is divided as there.
        Raises ConfigError when the data is missing or unfit, a split would lack a class, or images contradict.
        """
        from dltrain.data.splitting import divide

        parts = self._sound(self.read())
        splits = divide(parts, self.validation, self.treatment, known=self.known, like=like)
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

    def given(self, names: Sequence[str]) -> dict[str, tuple[Source, TargetSpec]]:
        """The splits that the data brings, by name, each with what its targets are; undivided data is `train`.

        names: of the classes, the numbers or the labels that the network knows. Raises ConfigError when the data is
        missing or unfit.
        """
        parts = self.read()
        return {name: (source, parts.target) for name, source in parts.given().items()}

    @property
    def treatment(self) -> Copies:
        """What is done with copies of images."""
        return "together"

    @property
    def known(self) -> bool:
        """Whether the data set is always the same, with the copies and the mistakes that it is known for."""
        return True


class Digits(Dataset):
    """1,797 handwritten digits, 1x8x8, that come with scikit-learn; a fixed fifth is the test split."""

    name: Literal["digits"] = "digits"
    source: ClassVar[str] = "Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits"

    @property
    def known_channels(self) -> int:
        return 1

    def read(self) -> RawDataset:
        from dltrain.data.readers import read_digits

        return read_digits()


class Published(Dataset):
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


class Collected(Dataset):
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
        if self.validation != 0:
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

    def given(self, names: Sequence[str]) -> dict[str, tuple[Source, TargetSpec]]:
        from dltrain.data.folders.folders import given_splits
        from dltrain.data.images.soundness import require_sound
        from dltrain.data.loading.resources import cache_folder

        found = given_splits(self.root, names, self.channels, cache_folder(self.cache), self.max_pixels)
        for source, _ in found.values():
            require_sound(source)
        return {name: (source, Classes(classes)) for name, (source, classes) in found.items()}

    def _sound(self, parts: RawDataset) -> RawDataset:
        from dltrain.data.images.soundness import sound

        return sound(parts, self.on_error)


class Arrays(Collected):
    """A NumPy .npz file with `images` (uint8) and `labels` (0, 1, ...), or `targets` instead of these.

    `images` is (N, H, W), (N, H, W, C) or (N, C, H, W). `targets` are numbers, float (N,) or (N, n), or say which
    labels an image has, bool or 0 and 1 (N, K). Optional in it are `test_images` with `test_labels` or `test_targets`
    (otherwise `test` of the examples are held out), and the names: `classes` of the labels, `names` of the targets.
    """

    name: Literal["arrays"] = "arrays"
    path: PathText
    """The .npz file, relative to the working directory."""
    layout: Literal["auto", "channels_first", "channels_last"] = "auto"
    """Where four-dimensional images have their channels; auto: in the dimension that is at most 4."""
    test: Fraction = 0.2
    """Share of the examples, of every class, that is the test split when the file has no test images."""

    @property
    def targets(self) -> type[TargetSpec]:
        from dltrain.data.arrays import targets_of

        return targets_of(self.path)

    def read(self) -> RawDataset:
        from dltrain.data.arrays import read_arrays

        return read_arrays(self.path, self.layout, self.test)


class Synthetic(Dataset):
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
