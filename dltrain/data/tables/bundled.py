"""Tables that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from dltrain.data.tables.reading import Column, Table
from dltrain.data.tables.source import RowSource
from dltrain.data.targets import Classes, Real
from dltrain.data.types import RawDataset

TEST_SHARE = 0.2


def read_bundled(name: str) -> RawDataset:
    """iris, wine or breast_cancer with classes, diabetes (in its own units) with a number."""
    from sklearn import datasets

    options = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(**options)
    columns = {
        str(column): Column(str(column), numbers=values) for column, values in zip(bunch.feature_names, bunch.data.T)
    }
    table = Table(name, columns)
    if name == "diabetes":
        values = bunch.target.astype(np.float64)[:, None]
        return RawDataset(RowSource(table, values), None, None, Real(["progression"]), TEST_SHARE)
    target = Classes([str(each) for each in bunch.target_names])
    return RawDataset(RowSource(table, bunch.target.astype(np.int64)), None, None, target, TEST_SHARE)
