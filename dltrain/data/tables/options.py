"""Words that say how rows are encoded: for sections, which import nothing heavy."""

from __future__ import annotations

from typing import Literal

Missing = Literal["error", "mean", "median", "indicator"]
RowScaling = Literal["none", "min_max", "standardize", "pca_whiten", "zca_whiten"]
