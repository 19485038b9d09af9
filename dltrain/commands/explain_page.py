"""What `explain` found, as it is kept: an overlay of each image, explain.json, and one page that opens anywhere."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from dltrain.engine.explaining.hiding import RANDOM, Hidden
from dltrain.evidence.pages import render
from dltrain.runs.checkpoints import write_atomically
from dltrain.runs.run import unwritable

TEMPLATE = Path(__file__).parent / "templates" / "explain.html"
PAGE, DATA = "explain.html", "explain.json"
SIDE = 224
"""Pixels of the shorter side of a picture, at least."""
MOST = 200
"""Images on a page; the folder has all."""
OURS = re.compile(r"\d{4}-[\w.-]*\.png")
STOPS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=np.float32)
"""Of the colour map inferno, whose lightness rises evenly, at 0, 1/4, ... 1."""
STRENGTH = 0.7
"""How much of a pixel is the colour of the map, where the map is 1."""


@dataclass(frozen=True)
class Explained:
    """An image with its map (H, W) of `asked`. pixels: (C, H, W) uint8. hidden: None where the map is 0 everywhere.
    answer: what the network says, None of numbers."""

    name: str
    index: int | None
    truth: str | None
    answer: str | None
    asked: str
    pixels: np.ndarray
    map: np.ndarray
    hidden: Hidden | None

    def title(self) -> str:
        """What it is, and what is said of it: `test 3: says `dog`, is `cat``."""
        said = [f"says {self.answer}"] if self.answer is not None else []
        said += [f"is {self.truth}"] if self.truth is not None else []
        said += [f"map of {self.asked}"] if self.answer != self.asked else []
        return f"{self.name}: {', '.join(said)}"

    def effect(self) -> str:
        """What hiding changes, in words."""
        if self.hidden is None:
            return f"no place of the map speaks for {self.asked}: nothing was hidden"
        hidden, what = self.hidden, "probability" if self.hidden.falls else "value"
        change = f"{what} {hidden.before:.3g}, {hidden.after:.3g} with the region hidden"
        drops = f"{hidden.drop:+.3g}, of random regions {hidden.random_drops.mean():+.3g}"
        verdict = f"more than {'all' if hidden.beyond_chance else f'{hidden.beats} of'} {RANDOM}"
        return f"{change}; {'drop' if hidden.falls else 'change'} {drops} in the mean: {verdict}"

    def line(self) -> str:
        """For the terminal."""
        return f"{self.title()}; {self.effect()}"

    def plain(self) -> dict[str, Any]:
        """Plain values."""
        found: dict[str, Any] = {"name": self.name}
        if self.index is not None:
            found["index"] = self.index
        found |= {"truth": self.truth, "answer": self.answer, "target": self.asked}
        if self.hidden is None:
            return found | {"value": None, "drop": None, "random_drops": [], "beyond_chance": None}
        drops = self.hidden.random_drops
        return found | {
            "value": self.hidden.before, "value_when_hidden": self.hidden.after,
            "hidden_share": float(self.hidden.region.mean()), "drop": self.hidden.drop,
            "random_drop_mean": float(drops.mean()), "random_drops": drops.tolist(),
            "beyond_chance": self.hidden.beyond_chance,
        }  # fmt: skip


@dataclass(frozen=True)
class Story:
    """All that was explained. about: how, as plain values. are_probabilities: whether what falls are these."""

    images: Sequence[Explained]
    about: dict[str, Any]
    are_probabilities: bool


def summary(story: Story) -> list[str]:
    """What the maps are worth, in sentences."""
    hidden = [each.hidden for each in story.images if each.hidden is not None]
    empty = len(story.images) - len(hidden)
    lines = []
    if hidden:
        drop = float(np.mean([each.drop for each in hidden]))
        chance = float(np.mean([each.random_drops.mean() for each in hidden]))
        beyond = sum(each.beyond_chance for each in hidden)
        what = "lowers the probability by" if story.are_probabilities else "moves the number by"
        share = f"{100 * story.about['share']:.3g} %"
        lines.append(
            f"Hiding the most important {share} of the pixels {what} {drop:.3g} in the mean, a random region of the "
            f"same shape by {chance:.3g}."
        )
        count = f"{beyond} of {len(hidden)} images"
        lines.append(f"On {count} it matters more than every one of {RANDOM} random regions.")
        if 2 * beyond < len(hidden):
            lines.append("So most of these maps do not show what the answer rests on: do not read them as reasons.")
    if empty:
        lines.append(f"Of {empty} images the map is 0 everywhere: no place of that layer speaks for the answer.")
    return lines


def write_story(folder: Path, story: Story, about: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Write the folder; the path of its page, and the content of its JSON. Pictures of an earlier call are removed.

    Raises RunError when it cannot be written.
    """
    pictures = [overlay(each) for each in story.images]
    names = [f"{number:04d}-{_file_name(each.name)}.png" for number, each in enumerate(story.images, start=1)]
    found = [{**each.plain(), "picture": name} for each, name in zip(story.images, names, strict=True)]
    content = {**about, **story.about, "summary": summary(story), "page": str(folder / PAGE), "images": found}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in _earlier(folder) - {*names}:
            (folder / old).unlink(missing_ok=True)
        for name, picture in zip(names, pictures, strict=True):
            write_atomically(folder / name, _png(picture))
        write_atomically(folder / DATA, (json.dumps(content, indent=2) + "\n").encode())
        shown = page(story, content, pictures)
        write_atomically(folder / PAGE, shown.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise unwritable(error, folder) from None
    return folder / PAGE, content


def page(story: Story, content: dict[str, Any], pictures: Sequence[Image.Image]) -> str:
    """The page: HTML without references to anything outside of it."""
    figures = [
        {
            "title": each.title(), "effect": each.effect(), "image": _url(_rgb(each.pixels)), "overlay": _url(picture),
            "beyond": each.hidden is not None and each.hidden.beyond_chance,
        }
        for each, picture in zip(story.images[:MOST], pictures, strict=False)
    ]  # fmt: skip
    return render(
        TEMPLATE, content=content, figures=figures, summary=summary(story), more=max(len(story.images) - MOST, 0),
        percent=f"{100 * story.about['share']:.3g}",
    )  # fmt: skip


# -- pictures


def overlay(each: Explained) -> Image.Image:
    """The image under the colours of its map, the hidden region within a line, white outside and black inside."""
    pixels = np.asarray(_rgb(each.pixels), dtype=np.float32)
    places = np.linspace(0, 1, len(STOPS))
    colours = np.stack([np.interp(each.map, places, stops) for stops in STOPS.T], axis=-1)
    weight = STRENGTH * each.map[..., None]
    mixed = Image.fromarray((pixels * (1 - weight) + colours * weight).round().astype(np.uint8))
    factor = max(-(-SIDE // min(mixed.size)), 1)
    large = mixed.resize((mixed.width * factor, mixed.height * factor), Image.Resampling.NEAREST)
    if each.hidden is None:
        return large
    region = Image.fromarray(each.hidden.region.astype(np.uint8) * 255).resize(large.size, Image.Resampling.NEAREST)
    thin = 2 * max(min(large.size) // 224, 1) + 1
    inner = region.filter(ImageFilter.MinFilter(thin))
    core = inner.filter(ImageFilter.MinFilter(thin))
    drawn = np.array(large)
    whole, middle, rest = (np.asarray(mask) > 0 for mask in (region, inner, core))
    drawn[whole & ~middle] = 255
    drawn[middle & ~rest] = 0
    return Image.fromarray(drawn)


def _rgb(pixels: np.ndarray) -> Image.Image:
    """(C, H, W) uint8 as a picture: of one channel grey, of three their colours, of others their mean."""
    channels = pixels if len(pixels) == 3 else np.repeat(pixels.mean(0, keepdims=True).astype(np.uint8), 3, axis=0)
    return Image.fromarray(np.ascontiguousarray(channels.transpose(1, 2, 0)))


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _url(picture: Image.Image) -> str:
    """A picture within the page: a PNG, or a JPEG where that is large."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88)
    png, jpeg = _png(picture), file.getvalue()
    kind, content = ("jpeg", jpeg) if len(png) > 20_000 and len(jpeg) < len(png) else ("png", png)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(name).stem)[:60] or "image"


def _earlier(folder: Path) -> set[str]:
    """The pictures that an earlier call says it wrote there."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        told = [str(each["picture"]) for each in json.loads((folder / DATA).read_text())["images"]]
        return {name for name in told if OURS.fullmatch(name)}
    return set()
