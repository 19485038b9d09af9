"""From the body of a request to an answer: an image is decoded and asked for, or rows are.

bytes of an image file, or JSON {"rows": [{column: value}]} -> inputs of the exported file -> plain values
"""

from __future__ import annotations

import json
import math
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from dltrain.data.images.opening import Unfit, checked, quietly
from dltrain.data.images.pixels import to_uint8
from dltrain.export.about import About
from dltrain.export.session import Session

MOST_ROWS = 10_000
"""Of a table, in one request."""


class WrongInputError(Exception):
    """What a client sent cannot be answered; the message says why. status: of HTTP."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


def answer(session: Session, body: bytes, max_pixels: int) -> dict[str, Any]:
    """What the file answers to a body. Raises WrongInputError for what is no image, or no rows, that it takes."""
    about = session.about
    names = [name for name in about.outputs if name not in ("outputs", "inputs", "reconstructions")]
    if about.inputs.kind == "rows":
        found = session.run(_rows(about, body), names)
        return {"answers": [_said(about, found, place) for place in range(len(next(iter(found.values()))))]}
    found = session.run({"images": _image(about, body, max_pixels)[None]}, names)
    return _said(about, found, 0)


def _image(about: About, body: bytes, max_pixels: int) -> np.ndarray:
    """(H, W, C) uint8, upright."""
    mode = {1: "L", 3: "RGB"}[about.inputs.channels]
    try:
        with quietly, Image.open(BytesIO(body)) as image:
            checked(image, max_pixels)
            ImageOps.exif_transpose(image, in_place=True)
            return to_uint8(image, mode, about.inputs.white)[0]
    except Unfit as error:
        large = "pixels" in str(error) and "more than" in str(error)
        text = str(error).replace(" of `data.max_pixels`", " that are taken")
        raise WrongInputError(f"the image {text}", 413 if large else 422) from None
    except Exception as error:  # decoders of damaged files raise whatever comes to their mind
        reason = "it is no image file" if type(error).__name__ == "UnidentifiedImageError" else str(error)[:200]
        raise WrongInputError(f"the image cannot be read: {reason}") from None


def _rows(about: About, body: bytes) -> dict[str, np.ndarray]:
    try:
        content = json.loads(body)
        rows = content["rows"]
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        message = 'the body must be JSON, {"rows": [{"COLUMN": VALUE, ...}, ...]}'
        raise WrongInputError(message, 400) from None
    if len(rows) > MOST_ROWS:
        raise WrongInputError(f"there are {len(rows):,} rows, and {MOST_ROWS:,} are answered at once", 413)
    inputs = about.inputs
    filled = {each["column"]: each["filling"] is not None for each in inputs.features}
    numbers = [[_number(row, name, place, filled[name]) for name in inputs.numbers] for place, row in enumerate(rows)]
    words = [[_word(row, name, place) for name in inputs.categories] for place, row in enumerate(rows)]
    found = {"numbers": np.array(numbers, np.float64), "categories": np.array(words, dtype=object)}
    return {name: values for name, values in found.items() if values.size}


def _number(row: dict[str, Any], name: str, place: int, filled: bool) -> float:
    value = _value(row, name, place)
    if value is None or value == "":
        if not filled:
            raise WrongInputError(f"row {place + 1} has no value in column `{name}`; in training every row had one")
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise WrongInputError(f"row {place + 1}: column `{name}` must be a number")
    return float(value)


def _word(row: dict[str, Any], name: str, place: int) -> str:
    value = _value(row, name, place)
    return "" if value is None else value.strip() if isinstance(value, str) else f"{value:.12g}"


def _value(row: dict[str, Any], name: str, place: int) -> Any:
    if name not in row:
        raise WrongInputError(f"row {place + 1} has no column `{name}`")
    value = row[name]
    if isinstance(value, (dict, list)):
        raise WrongInputError(f"row {place + 1}: column `{name}` must be a number or a word")
    return value


def _said(about: About, found: dict[str, np.ndarray], place: int) -> dict[str, Any]:
    """One example's answer, as `predict` writes it."""
    names, said = about.names, dict[str, Any]()
    probabilities = found["probabilities"][place].tolist() if "probabilities" in found else []
    if "class" in found:
        best = int(found["class"][place])
        said |= {"class": names[best], "probability": probabilities[best]}
    if "labels" in found:
        said["labels"] = [name for name, yes in zip(names, found["labels"][place].tolist(), strict=True) if yes]
    if probabilities:
        said["probabilities"] = dict(zip(names, probabilities, strict=True))
    if "values" in found:
        said |= dict(zip(names, found["values"][place].tolist(), strict=True))
    if "mse" in found:
        said["mse"] = float(found["mse"][place])
    return said
