"""Examples of a data set as an exported file takes them: as they lie in files and arrays, before anything is done."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dltrain.data.images.decoding import decode, place
from dltrain.data.images.opening import quietly
from dltrain.data.loading.resources import usable_cores
from dltrain.data.tables.encoding import Encoding
from dltrain.data.tables.reading import Column, Table
from dltrain.data.tables.source import RowSource
from dltrain.data.types import Canvas, ImageFiles, ImageSource, Source

Raw = dict[str, np.ndarray]
"""Inputs of a file by name, each (n, ...), of n examples that go through it together."""


def raw_of(source: Source, indices: np.ndarray, layout: Any) -> Iterator[Raw]:
    """The examples at `indices`, in this order: all together where they have one size, else one by one.

    layout: that of evaluation. Raises ConfigError naming a file that cannot be read.
    """
    if isinstance(layout, Encoding):
        yield raw_rows(cast(RowSource, source).table.at(indices), layout)
    elif source.files is not None:
        yield from _decoded(source.files.at(indices), layout)
    else:
        height, width = cast(ImageSource, source).native or (layout.height, layout.width)
        images = source.load(indices, Canvas(height, width))[0]
        yield {"images": images.permute(0, 2, 3, 1).numpy()}


def raw_rows(table: Table, encoding: Encoding) -> Raw:
    """`numbers` (N, F) float64 and `categories` (N, K) of words, of a table's rows; what there is none of is left out.

    Raises ConfigError, as `Encoding.encode`, for a row that the network cannot take.
    """
    encoding.encode(table)
    numbers, words = [], []
    for feature in encoding.features:
        column = table.column(feature.column)
        if feature.categories is not None:
            words.append(column.as_words().words)
        elif column.numbers is not None:
            numbers.append(column.numbers)
        else:  # a column without any value
            numbers.append(np.full(len(table), np.nan))
    found = {"numbers": numbers, "categories": [None if each is None else each.astype(object) for each in words]}
    return {name: np.stack(cast(list[np.ndarray], columns), axis=1) for name, columns in found.items() if columns}


def raw_image(path: str | Path, channels: int, canvas: Canvas, remarks: list[str] | None = None) -> np.ndarray:
    """(H, W, channels) uint8, in the file's own size. See `decode`."""
    return decode(path, channels, canvas, remarks, whole=True).permute(1, 2, 0).numpy()


def placed(raw: Raw, layout: Any) -> Tensor:
    """Raw examples in a layout of evaluation: (N, C, H, W) uint8, or (N, D) float32."""
    if isinstance(layout, Encoding):
        return layout.encode(table_of(raw, layout))
    return place(torch.from_numpy(raw["images"]).permute(0, 3, 1, 2), layout)[0]


def table_of(raw: Raw, encoding: Encoding) -> Table:
    """What `raw_rows` was given."""
    names = {"numbers": [each.column for each in encoding.features if each.categories is None],
             "categories": [each.column for each in encoding.features if each.categories is not None]}  # fmt: skip
    columns = {}
    for column, name in enumerate(names["numbers"]):
        columns[name] = Column(name, numbers=raw["numbers"][:, column])
    for column, name in enumerate(names["categories"]):
        columns[name] = Column(name, words=raw["categories"][:, column].astype(str))
    return Table("the rows", columns)


def _decoded(files: ImageFiles, canvas: Canvas) -> Iterator[Raw]:
    with quietly, ThreadPoolExecutor(usable_cores()) as pool:
        for image in pool.map(lambda path: raw_image(path, files.channels, canvas), files.full):
            yield {"images": image[None]}
