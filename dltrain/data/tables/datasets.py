"""Data sets that are tables: rows of numbers and categories, or pictures that a table names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import model_validator

from dltrain.config import ConfigError, Fraction, PathText, Positive, PositiveInt, reject
from dltrain.data.base import SET, Collected, Dataset
from dltrain.data.tables.options import Missing, RowScaling
from dltrain.data.targets import Classes, Labels, NoTarget, Real, TargetSpec
from dltrain.data.types import MAX_PIXELS, ImageFiles, ImageShape, InputSpec, Vector

if TYPE_CHECKING:
    import numpy as np

    from dltrain.data.augmentation.base import Augmentation
    from dltrain.data.pretrained import PretrainedInputs
    from dltrain.data.tables.reading import Table as ReadTable
    from dltrain.data.types import Preprocessing, RawDataset, Source, Splits

OF_ROWS = ("features", "categories", "missing")
OF_PICTURES = (
    "size", "interpolation", "loader", "workers", "image_root", "channels", "cache", "max_pixels", "on_error",
)  # fmt: skip
"""Options of a table that only rows, or only pictures, give something to do."""


def scaling_of_rows(scaling: str) -> dict[str, tuple[Any, str]]:
    """What `scaling` became, and why."""
    return {"scaling": ("standardize", "the usual one for rows") if scaling == "auto" else (scaling, SET)}


class Bundled(Dataset):
    """A small table that comes with scikit-learn; a fixed fifth is the test split."""

    scaling: Literal["auto", "none", "min_max", "standardize", "pca_whiten", "zca_whiten"] = "auto"
    """Of each column of numbers, measured on the training part: standardize (mean 0, standard deviation 1; auto does
    that), min_max (smallest to 0, largest to 1), none; pca_whiten and zca_whiten standardize and then make whole rows
    uncorrelated."""
    whitening_epsilon: Positive = 0.01
    """Added to the variances of pca_whiten and zca_whiten, of standardized numbers: more of it keeps noise small."""

    @property
    def inputs(self) -> type[InputSpec]:
        return Vector

    @property
    def known(self) -> bool:
        return True

    def chosen(self, preprocessing: Preprocessing, *, pretrained: bool) -> dict[str, tuple[Any, str]]:
        return scaling_of_rows(self.scaling)

    def parts(self, targets: type[TargetSpec]) -> RawDataset:
        from dltrain.data.tables.bundled import read_bundled

        return read_bundled(self.name)

    def preprocess(
        self, splits: Splits, augmentations: Sequence[Augmentation], pretrained: PretrainedInputs | None, *,
        rough: bool = False,
    ) -> Preprocessing:  # fmt: skip
        from dltrain.data.preprocessing import plan_rows

        return plan_rows(splits, "error", self.scaling, self.whitening_epsilon)


class Iris(Bundled):
    """150 iris flowers, 4 lengths and widths in cm, 3 species."""

    name: Literal["iris"] = "iris"
    source: ClassVar[str] = "Fisher 1936, The Use of Multiple Measurements in Taxonomic Problems"


class Wine(Bundled):
    """178 wines, 13 chemical measurements, 3 cultivars."""

    name: Literal["wine"] = "wine"
    source: ClassVar[str] = "Aeberhard & Forina 1992, UCI Wine"


class BreastCancer(Bundled):
    """569 tumours, 30 measurements of cell nuclei; malignant or benign."""

    name: Literal["breast_cancer"] = "breast_cancer"
    source: ClassVar[str] = "Wolberg, Street, Mangasarian 1995, UCI Breast Cancer Wisconsin (Diagnostic)"


class Diabetes(Bundled):
    """442 patients, 10 measurements; a number that says how far diabetes has come in a year."""

    name: Literal["diabetes"] = "diabetes"
    source: ClassVar[str] = "Efron, Hastie, Johnstone, Tibshirani 2004, Least Angle Regression"

    @property
    def targets(self) -> type[TargetSpec]:
        return Real


class Table(Collected):
    """A CSV file (comma, semicolon, tab or | between the values, gzipped or not) or a Parquet file.

    Columns of numbers are scaled; those of words become one number for each word of the training part, 1 where a row
    has it: a word that training had not is all zeros, and counted. With `image` the inputs are pictures, and the table
    says what is to be learned of each.
    """

    name: Literal["table"] = "table"
    path: PathText
    """The file, relative to the working directory."""
    target: str | list[str] | None
    """The column to learn, or several, or null for none. Words, true and false, and few whole numbers are classes,
    other columns numbers; several columns of 0 and 1 are labels. `task` can say something else."""
    features: list[str] | None = None
    """The columns that the network sees; null: all others."""
    categories: list[str] = []
    """Columns of numbers that are names: each becomes a category."""
    image: str | None = None
    """A column of paths of image files, which are what the network sees in place of `features`."""
    image_root: PathText | None = None
    """The folder that those paths are relative to; null: that of the table."""
    split: str | None = None
    """A column that says train, validation or test of each row. What it does not say is divided as usual."""
    group: str | None = None
    """A column that says which rows belong together (a patient, a day): none of a group stands in two splits."""
    test: Fraction = 0.2
    """Share of the rows, of every class, that is the test split when no `split` column says it."""
    header: bool = True
    """Whether the first line of a text names the columns; else they are column_1, column_2 and so on."""
    missing: Missing = "error"
    """What is done with empty cells (also ?, NA, NaN): error; mean or median of the training part; indicator, the mean,
    and one more number that says so. Where a word is missing, all its numbers are 0, with indicator one more is 1."""
    channels: Literal[1, 3] = 3
    """Of pictures. 3: all as RGB; 1: all as grey."""
    cache: bool | PathText = False
    """Of pictures: decode and resize them once, as for data `image_folder`."""
    max_pixels: PositiveInt = MAX_PIXELS
    """Pictures with more pixels are refused, as they may be made to fill the memory."""
    on_error: Literal["fail", "skip"] = "fail"
    """What is done with pictures that cannot be read, as for data `image_folder`."""

    @model_validator(mode="after")
    def _each_option_has_something_to_do(self) -> Table:
        for option in OF_ROWS if self.image is not None else OF_PICTURES:
            if option in self.model_fields_set and getattr(self, option) != type(self).model_fields[option].default:
                why = "`image` gives pictures" if self.image is not None else "the table gives rows, and no `image`"
                raise reject(option, f"`{option}` does nothing: {why}")
        if self.image is None and self.scaling.startswith("featurewise_"):
            raise reject("scaling", f"`{self.scaling}` is of pictures; of rows `{self.scaling[12:]}` is of each column")
        return self

    @model_validator(mode="after")
    def _each_column_has_one_part(self) -> Table:
        parts = {"image": self.image, "split": self.split, "group": self.group}
        if not self.target_columns and self.target is not None:
            raise reject("target", "`target` lists no column; write null when there is nothing to learn")
        taken: dict[str, str] = {}
        for part, names in {"target": self.target_columns, **{k: [v] for k, v in parts.items() if v}}.items():
            for name in names:
                if name in taken:
                    both = f"`{taken[name]}`" if taken[name] != part else "it twice"
                    raise reject(part, f"column `{name}` is named by {both}; each column has one part")
                taken[name] = part
        for index, name in enumerate(self.features or ()):
            if name in taken:
                raise reject(f"features.{index}", f"column `{name}` is the `{taken[name]}`, and cannot be a feature")
        return self

    @property
    def target_columns(self) -> list[str]:
        """The names of the columns to learn."""
        return [self.target] if isinstance(self.target, str) else list(self.target or ())

    @property
    def inputs(self) -> type[InputSpec]:
        return Vector if self.image is None else ImageShape

    @property
    def gives_shares(self) -> bool:
        return super().gives_shares and (self.image is not None or self.scaling == "min_max")

    @property
    def known_channels(self) -> int | None:
        return None if self.image is None else self.channels

    @property
    def has_validation(self) -> bool:
        return self.takes_validation or self.split is not None

    @property
    def targets(self) -> type[TargetSpec]:
        """What the file shows, if it is there."""
        return self._kinds()[0]

    def targets_for(self, wanted: tuple[type[TargetSpec], ...]) -> type[TargetSpec] | None:
        return next((kind for kind in self._kinds() if issubclass(kind, wanted)), None)

    def _kinds(self) -> tuple[type[TargetSpec], ...]:
        from dltrain.data.tables.columns import kinds_in

        if not self.target_columns:
            return (NoTarget,)
        try:
            about = Path(self.path).stat()
            stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
            return kinds_in(self.path, stamp, self._words(), self.header, tuple(self.target_columns))
        except (ConfigError, OSError, ValueError):  # `parts` says what is wrong
            return (Classes, Real, Labels) if len(self.target_columns) == 1 else (Real, Labels)

    def _table(self) -> ReadTable:
        from dltrain.data.tables.reading import read_table

        return read_table(self.path, self._words(), header=self.header)

    def _words(self) -> frozenset[str]:
        """The columns that are words, whatever they hold."""
        return frozenset((*self.categories, *(name for name in (self.image, self.split, self.group) if name)))

    def parts(self, targets: type[TargetSpec]) -> RawDataset:
        from dltrain.data.tables.columns import read_groups, read_splits, read_target
        from dltrain.data.tables.encoding import keyed
        from dltrain.data.tables.parts import divided

        with keyed("path"):
            table = self._table()
        with keyed("target"):
            target, values = read_target(table, self.target_columns, targets)
        with keyed("group"):
            group = read_groups(table, self.group) if self.group is not None else None
        with keyed("features" if self.image is None else "image"):
            source = self._source(table, values, group)
        with keyed("split"):
            splits = read_splits(table, self.split) if self.split is not None else None
            return divided(source, target, splits, self.test)

    def _source(self, table: ReadTable, targets: np.ndarray, group: np.ndarray | None) -> Source:
        from dltrain.data.tables.parts import picture_source, row_source

        if self.image is not None:
            return picture_source(table.column(self.image), table, targets, group, self._files())
        others = {*self.target_columns, self.split, self.group}
        features = self.features or [name for name in table.columns if name not in others]
        return row_source(table, features, targets, group)

    def _files(self) -> ImageFiles:
        """Where the pictures lie, and how they are read; none of them yet."""
        from dltrain.data.loading.resources import cache_folder

        root = self.image_root if self.image_root is not None else str(Path(self.path).parent)
        return ImageFiles(root, [], self.channels, cache_folder(self.cache), self.max_pixels)

    def preprocess(
        self, splits: Splits, augmentations: Sequence[Augmentation], pretrained: PretrainedInputs | None, *,
        rough: bool = False,
    ) -> Preprocessing:  # fmt: skip
        if self.image is not None:
            return super().preprocess(splits, augmentations, pretrained, rough=rough)
        from dltrain.data.preprocessing import plan_rows

        return plan_rows(splits, self.missing, cast(RowScaling, self.scaling), self.whitening_epsilon)

    def chosen(self, preprocessing: Preprocessing, *, pretrained: bool) -> dict[str, tuple[Any, str]]:
        if self.image is None:
            return scaling_of_rows(self.scaling)
        return super().chosen(preprocessing, pretrained=pretrained)

    @property
    def contradict(self) -> bool:
        """Rows of few columns may well be equal and have different targets."""
        return self.image is not None

    def _sound(self, parts: RawDataset) -> RawDataset:
        from dltrain.data.images.soundness import sound

        return sound(parts, self.on_error)

    def read(self) -> RawDataset:
        return self.parts(self.targets)
