"""All data sets that a YAML file can name."""

from dltrain.data.base import Dataset
from dltrain.data.datasets import Arrays, Digits, ImageFolder, Synthetic
from dltrain.data.tables.datasets import Table

__all__ = ["Arrays", "Dataset", "Digits", "ImageFolder", "Synthetic", "Table"]
