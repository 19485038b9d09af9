"""`targets` of an .npz file: numbers or labels, told apart by their type; and what is wrong with them."""

from __future__ import annotations

import numpy as np

from dltrain.config import ConfigError, Diagnostic
from dltrain.data.targets import Labels, Real, TargetSpec


def target_of(dtype: np.dtype[np.generic]) -> type[TargetSpec] | None:
    """What targets of a type are: fractions are numbers, true and false or integers say which labels an example has."""
    if dtype.kind == "f":
        return Real
    return Labels if dtype.kind in "biu" else None


def named(path: str, targets: np.ndarray, names: list[str] | None) -> TargetSpec:
    """What the targets of the training part are. names: those that the file gives.

    Raises ConfigError for targets that are neither numbers nor labels, and for other names than one for each.
    """
    spec = target_of(targets.dtype)
    if spec is None or targets.ndim > 2:
        raise _error(path, f"`targets` cannot be {targets.dtype} of shape {targets.shape}", _FORMS)
    if spec is Labels and targets.ndim != 2:
        raise _error(path, f"`targets` are {targets.dtype} of shape {targets.shape}, not (N, K)", _FORMS, *_as_others())
    count = 1 if targets.ndim == 1 else targets.shape[1]
    if count == 0:
        raise _error(path, f"`targets` of shape {targets.shape} hold nothing to learn", _FORMS)
    if names is not None and len(names) != count:
        raise _error(path, f"`names` are {len(names)}, and `targets` have {count} columns: {targets.shape}")
    found = names or (["target"] if count == 1 and spec is Real else [str(column) for column in range(count)])
    return Real(found) if spec is Real else Labels(found)


def values(path: str, name: str, targets: np.ndarray, spec: TargetSpec, count: int, of: str) -> np.ndarray:
    """Targets as a source holds them: (N, n) float64 or (N, K) bool. name: of the array. count: how many examples there
    are; of: `images` or `inputs`.

    Raises ConfigError, which names the row and the column, for what is no number or no yes or no.
    """
    if target_of(targets.dtype) is not type(spec):
        kind = f"`{name}` are {targets.dtype}, and `targets` are {spec.kind}"
        raise _error(path, kind, "both must be of one kind")
    rows = targets[:, None] if targets.ndim == 1 else targets
    if rows.ndim != 2 or rows.shape != (count, len(spec.names)) or not count:
        shapes = f"{targets.shape}, with {count} {of} and {len(spec.names)} {spec.kind}"
        one = "image" if of == "images" else "row of `inputs`"
        raise _error(path, f"`{name}` must have a row for each {one}, and are of shape {shapes}")
    if isinstance(spec, Labels):
        if (place := _first(~np.isin(rows, (0, 1)))) is not None:
            wrong = f"`{name}[{place[0]}, {place[1]}]` is {rows[place]}, and must be 0 or 1: whether it has the label"
            raise _error(path, f"{wrong} `{spec.names[place[1]]}`", *_as_others())
        return rows.astype(bool)
    if (place := _first(~np.isfinite(rows))) is not None:
        many = int((~np.isfinite(rows)).any(1).sum())
        what = f"`{name}[{place[0]}, {place[1]}]`, `{spec.names[place[1]]}`, is {rows[place]}"
        raise _error(path, f"{what}: a target must be a number", f"{many:,} examples have none: leave them out")
    return rows.astype(np.float64)


_FORMS = "numbers are float (N,) or (N, n), labels are bool or 0 and 1 (N, K), with `names` for the columns"


def _as_others() -> tuple[str, str]:
    return "counts are numbers: targets.astype(float)", "one class for each image is called `labels`"


def _first(wrong: np.ndarray) -> tuple[int, int] | None:
    """Row and column of the first that is true."""
    places = np.argwhere(wrong)
    return (int(places[0, 0]), int(places[0, 1])) if len(places) else None


def _error(path: str, message: str, *notes: str) -> ConfigError:
    return ConfigError([Diagnostic(f"{path}: {message}", notes=notes)])
