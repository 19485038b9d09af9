"""Pages of `dltrain report`, and pictures that a network confuses."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections import defaultdict
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
from evaluating import invoke
from PIL import Image

NASTY = ["<script>evil()<", 'b"&amp;', "plain"]
"""Names of class folders."""


def write_noise(base: Path) -> Path:
    """An experiment on grey noise in files of different sizes, of which a classifier errs; classes and files have names
    like markup."""
    draw = np.random.default_rng(0)
    for place, name in enumerate(NASTY):
        (base / "data" / name).mkdir(parents=True)
        for number in range(30):
            brightness = draw.normal(70 + 50 * place, 40)
            pixels = draw.normal(brightness, 30, (9 + number % 5, 10, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(base / "data" / name / f"<img src=x onerror=evil()>{number}.png")
    (base / "noise.yaml").write_text(
        f"data: {{name: image_folder, root: {base / 'data'}, size: 8, validation: 0.4, test: 0.2}}\n"
        "augmentation: [{name: random_resized_crop, scale: [0.5, 1.0]}, mixup]\n"
        "model: {name: mlp, hidden: [16]}\n"
        "training: {epochs: 12, batch_size: 8}\n"
    )
    return base / "noise.yaml"


def reported(*arguments: Any) -> str:
    """The page of runs."""
    done = invoke("report", *arguments)
    assert done.exit_code == 0, done.output
    return Path(done.stdout.strip()).read_text(encoding="utf-8")


def rows_of(table: Path) -> list[dict[str, str]]:
    """The lines of a CSV file."""
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def section(html: str, anchor: str) -> str:
    """What stands in a section of a page."""
    found = re.search(rf'<section id="{anchor}">(.*?)</section>', html, re.DOTALL)
    assert found is not None
    return found[1]


def pictures(html: str) -> list[bytes]:
    """The pixels of the images in a part of a page."""
    found = re.findall(r'<img[^>]*src="data:[^,]*base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB")).tobytes() for each in found]


def paths_by_pixels(rows: list[dict[str, str]]) -> dict[bytes, str]:
    """The files of a table of examples, by their pixels."""
    found = {np.asarray(Image.open(row["path"])).tobytes(): row["path"] for row in rows}
    assert len(found) == len(rows) > 24
    return found


def assert_cells_hold(html: str, rows: list[dict[str, str]]) -> None:
    """Every cell of the confusion matrix opens the pictures that a table names, the worst first."""
    names = [key.removeprefix("probability of ") for key in rows[0] if key.startswith("probability of ")]
    files, cells = paths_by_pixels(rows), defaultdict(list)
    for row in rows:  # the worst first, as they stand there
        cells[names.index(row["target"]), names.index(row["prediction"])].append(row["path"])
    assert sum(target != answer for target, answer in cells) >= 2, "the network must err for this test"
    opened = re.findall(r'<details id="cell-(\d+)-(\d+)"><summary>(.*?)</summary>(.*?)</details>', html, re.DOTALL)
    assert {(int(row), int(column)) for row, column, *_ in opened} == set(cells)
    assert {(int(r), int(c)) for r, c in re.findall(r'data-opens="cell-(\d+)-(\d+)"', html)} == set(cells)
    for row, column, title, inside in opened:
        there = cells[int(row), int(column)]
        assert [files[pixels] for pixels in pictures(inside)] == there[: 6 if row == column else 12]
        assert f": {len(there)}" in title and names[int(row)] in unescape(title)
