"""Which pictures look the same: copies that were compressed, resized, brightened or cut a little at their edges.

    pixels -> 32x32 thumbnail -> its 16x16 lowest frequencies, in grey -> a 64-bit hash, and what two are compared by

The hash finds the pairs that may be copies, and the frequencies decide. Distinct pictures of plain things (a digit, a
shirt from the front, a colour) differ as little as copies of a photo do, so those have to be the same more closely.
Pictures with a side below 32 pixels are not compared at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations

import numpy as np
from PIL import Image

SIDE = 32
KEPT = 16
"""Of the 32 frequencies of a thumbnail in each direction, how many are kept."""
BAND = 12
"""How many of these two pictures are compared by."""
FIELDS = 4
"""Fields of a picture in each direction, of 8x8 pixels of its thumbnail."""
SKETCH = np.dtype([
    ("waves", "<f2", (KEPT, KEPT)), ("detail", "<f2"), ("busy", "u1"), ("colours", "u1", (FIELDS, FIELDS, 3)),
])  # fmt: skip
"""waves: the lowest frequencies in grey (DCT-II). detail: the share of higher ones in all change between neighbouring
pixels. busy: how many fields are not of one grey. colours: the fields' means, RGB."""
FAINTEST = 3.0
"""Standard deviation of a thumbnail's grey, of 255, below which a picture is a plain colour."""
DISTANCE = 14
"""Of 64 bits, how many may differ in the hashes of copies."""
ALL_PAIRS = 10_000
"""Up to so many pictures, the hashes of all pairs are compared; of more, those that share two bytes in place."""
SAME, SAME_PLAIN = 0.96, 0.995
"""How much two pictures correlate to be copies: those with detail, and plain ones."""
LEAST_DETAIL, LEAST_WAVES, LEAST_BUSY = 0.4, 16.0, 12
"""Pictures with less detail, whose change lies in fewer frequencies, or with fewer fields that are busy, are plain."""
BUSY = 2.5
"""Standard deviation of a field's grey, of 255, from which it is busy."""
SAME_FIELDS, SAME_IN_FIELD = 14, 0.75
"""In how many of the 16 fields, at least, copies with detail correlate, and how much."""
CUTS = (0.0, 0.02, 0.04, 0.06)
"""Shares of height and width that may have been cut off at each edge."""
WORTH_CUTTING, WORTH_GOING_ON = 0.5, 0.75
"""How much two pictures correlate before cuts are tried, and after the first ones."""
COLOUR, COLOUR_SHARE = 8.0, 0.25
"""By how much, of 255, colours of copies may differ: so much, and so much of how colourful they are."""
ROWS, TOGETHER = 256, 4096
"""Pictures whose hashes are compared with all others at once, and pairs whose frequencies are."""


class Sets:
    """Things 0..count-1 in disjoint sets, at first each alone."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count)

    def roots(self, things: np.ndarray) -> np.ndarray:
        """What stands for the set of each thing (n,)."""
        found = self._parent[things]
        while not np.array_equal(above := self._parent[found], found):
            found = above
        self._parent[things] = found
        return np.asarray(found)

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Unite the sets of each pair. The smallest of a set stands for it."""
        for pair in zip(one.tolist(), other.tolist()):
            low, high = sorted(self.roots(np.array(pair)).tolist())
            self._parent[high] = low


def sketch(pixels: np.ndarray) -> np.ndarray:
    """The SKETCH, of shape (), of a picture (H, W, C) uint8 with C of 1 or 3; all 0 when it is not to be compared."""
    found = np.zeros((), SKETCH)
    if min(pixels.shape[:2]) < SIDE:
        return found
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    thumbnail = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    grey = thumbnail @ np.array([0.299, 0.587, 0.114], np.float32)
    waves = _cosines(SIDE) @ grey @ _cosines(SIDE).T
    changes = (waves * _frequencies(SIDE)) ** 2
    waves[0, 0] = 0
    if np.sqrt((waves**2).sum()) < FAINTEST * SIDE:
        return found
    found["waves"] = waves[:KEPT, :KEPT]
    found["detail"] = 1 - changes[:BAND, :BAND].sum() / changes.sum()
    found["busy"] = (grey.reshape(FIELDS, 8, FIELDS, 8).std((1, 3)) >= BUSY).sum()
    found["colours"] = thumbnail.reshape(FIELDS, 8, FIELDS, 8, 3).mean((1, 3)).round()
    return found


def comparable(sketches: np.ndarray) -> np.ndarray:
    """(N,) bool: whether there is enough in each picture to know it by."""
    return np.asarray(sketches["waves"].any((1, 2)))


def copies(sketches: np.ndarray, labels: np.ndarray, sets: Sets) -> Iterator[tuple[int, int]]:
    """Unite in `sets` what are copies of one another and have the same label; yield pairs with different ones.

    sketches: (N,) SKETCH; labels: (N,). Of three or more copies not every pair is yielded.
    """
    rows = np.flatnonzero(comparable(sketches))
    hashes, detailed = _hashes(sketches[rows]), _detailed(sketches[rows])
    torn = np.zeros(len(rows), dtype=bool)
    for one, other in _gathered(_candidates(hashes)):
        first, second = rows[one], rows[other]
        agree = labels[first] == labels[second]
        new = np.where(agree, sets.roots(first) != sets.roots(second), ~(torn[one] & torn[other]))
        one, other, agree = one[new], other[new], agree[new]
        same = _same(sketches[rows[one]], sketches[rows[other]], detailed[one] & detailed[other])
        one, other, agree = one[same], other[same], agree[same]
        sets.join(rows[one[agree]], rows[other[agree]])
        torn[one[~agree]] = torn[other[~agree]] = True
        yield from zip(rows[one[~agree]].tolist(), rows[other[~agree]].tolist())


def _candidates(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs whose hashes differ in at most DISTANCE bits, in parts; pairs may come twice.

    Of many pictures, only those of which two bytes in the same places are equal (Manku et al. 2007, WWW): any pair
    that differs in at most six bits is among them, and most of those that differ in a few more.
    """
    if len(hashes) <= ALL_PAIRS:
        for start in range(0, len(hashes), ROWS):
            apart = np.bitwise_count(hashes[start : start + ROWS, None] ^ hashes[None, start:])
            one, other = np.nonzero(apart <= DISTANCE)
            yield start + one[one < other], start + other[one < other]
        return
    octets = hashes.view(np.uint8).reshape(-1, 8).astype(np.uint16)
    for left, right in combinations(range(8), 2):
        key = octets[:, left] * 256 + octets[:, right]
        order = np.argsort(key, kind="stable")
        for step in range(1, len(order)):
            one = np.flatnonzero(key[order[step:]] == key[order[:-step]])
            if not len(one):
                break
            first, second = order[one], order[one + step]
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= DISTANCE
            yield first[near], second[near]


def _gathered(parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same pairs, TOGETHER at once."""
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    for part in parts:
        waiting.append(part)
        if sum(len(one) for one, _ in waiting) >= TOGETHER:
            yield from _cut_up(waiting)
            waiting = []
    yield from _cut_up(waiting)


def _cut_up(parts: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if parts:
        one, other = (np.concatenate(each) for each in zip(*parts))
        for start in range(0, len(one), TOGETHER):
            yield one[start : start + TOGETHER], other[start : start + TOGETHER]


def _hashes(sketches: np.ndarray) -> np.ndarray:
    """(N,) uint64: which of the 64 lowest frequencies are above their median (pHash: Zauner 2010, thesis)."""
    waves = sketches["waves"].astype(np.float32)
    lowest = np.concatenate([waves[:, :8, :8].reshape(-1, 64)[:, 1:], waves[:, 8:9, 0]], 1)
    bits = lowest > np.median(lowest, 1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _detailed(sketches: np.ndarray) -> np.ndarray:
    """(N,) bool: whether a picture is no plain one."""
    energy = _features(sketches["waves"].astype(np.float32)) ** 2
    spread = 1 / np.maximum((energy**2).sum(1), 1e-9)
    rich = (sketches["detail"] >= LEAST_DETAIL) & (sketches["busy"] >= LEAST_BUSY)
    return np.asarray(rich & (spread >= LEAST_WAVES))


def _same(one: np.ndarray, other: np.ndarray, detailed: np.ndarray) -> np.ndarray:
    """(n,) bool: whether pairs of sketches are of copies. detailed: (n,), whether neither picture is plain."""
    first, second = one["waves"].astype(np.float32), other["waves"].astype(np.float32)
    alike = _alike(first, second)
    cut = np.flatnonzero(detailed & (alike < SAME) & (alike >= WORTH_CUTTING))
    for whole, part in ((first, second), (second, first)) if len(cut) else ():
        fitted = _cut_to_fit(whole[cut], part[cut])
        better = (found := _alike(whole[cut], fitted)) > alike[cut]
        now = cut[better]
        alike[now] = found[better]
        kept = whole[now].copy()
        first[now], second[now] = kept, fitted[better]
    good = np.flatnonzero((alike >= np.where(detailed, SAME, SAME_PLAIN)) & _same_colours(one, other))
    same = np.zeros(len(one), dtype=bool)
    same[good] = ~detailed[good] | (_same_fields(first[good], second[good]) >= SAME_FIELDS)
    return same


def _alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n,) the correlation of pictures by their frequencies (n, 16, 16)."""
    return np.asarray((_features(one) * _features(other)).sum(1))


def _same_fields(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n,) how many of the fields correlate by themselves, of pictures by their frequencies (n, 16, 16)."""
    fields = []
    for waves in (one, other):
        pixels = (_cosines(KEPT).T @ waves @ _cosines(KEPT)).reshape(-1, FIELDS, 4, FIELDS, 4)
        pixels = pixels - pixels.mean((2, 4), keepdims=True)
        fields.append(pixels / np.maximum(np.sqrt((pixels**2).sum((2, 4), keepdims=True)), 1e-3))
    return np.asarray(((fields[0] * fields[1]).sum((2, 4)) >= SAME_IN_FIELD).sum((1, 2)))


def _same_colours(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n,) bool: whether the fields differ from grey in the same way; brightness has no part in it."""
    first, second = (s["colours"].astype(np.float32) - s["colours"].mean(-1, keepdims=True) for s in (one, other))
    apart, colourful = np.abs(first - second), np.maximum(np.abs(first), np.abs(second))
    return np.asarray(apart.mean((1, 2, 3)) <= COLOUR + COLOUR_SHARE * colourful.mean((1, 2, 3)))


def _cut_to_fit(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The frequencies `part` (n, 16, 16) of pictures after the cuts for which they correlate most with `whole`.

    First the best cut of height is sought, then that of width; once more for those that seem to fit.
    """
    target, cuts, fitted, left = _features(whole), _cuts(), part.copy(), np.arange(len(whole))
    columns = np.zeros(len(whole), dtype=np.int64)
    for _ in range(2):
        sideways = part @ cuts[columns].transpose(0, 2, 1)
        scores = [(target * _features(c @ sideways)).sum(1) for c in cuts]
        upright = cuts[np.argmax(scores, 0)] @ part
        scores = [(target * _features(upright @ c.T)).sum(1) for c in cuts]
        columns, fits = np.argmax(scores, 0), np.max(scores, 0) >= WORTH_GOING_ON
        fitted[left] = upright @ cuts[columns].transpose(0, 2, 1)
        left, target, part, columns = left[fits], target[fits], part[fits], columns[fits]
    return np.asarray(fitted)


def _features(waves: np.ndarray) -> np.ndarray:
    """(n, 144) of length 1: the lowest frequencies, each times itself, as natural pictures hold less of the higher."""
    weighted = (waves * _frequencies(KEPT))[:, :BAND, :BAND].reshape(-1, BAND * BAND)
    return np.asarray(weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-3))


@lru_cache
def _cosines(side: int) -> np.ndarray:
    """(side, side) float32: the orthonormal DCT-II of a column."""
    places = np.arange(side)
    rows = np.cos(np.pi * (2 * places[None] + 1) * places[:, None] / (2 * side)) * np.sqrt(2 / side)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, np.float32)


@lru_cache
def _frequencies(side: int) -> np.ndarray:
    """(side, side) float32: how many half waves each place of a DCT stands for."""
    places = np.arange(side)
    return np.asarray(np.hypot(places[:, None], places[None]), np.float32)


@lru_cache
def _cuts() -> np.ndarray:
    """(16, 16, 16) float32: what each pair of CUTS, and enlarging the rest, does to the frequencies of a column."""
    found = []
    for low in CUTS:
        for high in CUTS:
            places = np.clip((np.arange(SIDE) + 0.5) * (1 - low - high) + low * SIDE - 0.5, 0, SIDE - 1)
            before = np.minimum(places.astype(np.int64), SIDE - 2)
            rows = np.zeros((SIDE, SIDE))
            rows[np.arange(SIDE), before] = 1 - (places - before)
            rows[np.arange(SIDE), before + 1] += places - before
            found.append(_cosines(SIDE)[:KEPT] @ rows @ _cosines(SIDE)[:KEPT].T)
    return np.asarray(found, np.float32)
