"""Which folders are called like a training, validation or test split, in whatever spelling.

`Train`, `training`, `TrainSet`, `train_images`, `images-train2017` and `seg_train` are all `train`. What stands beside
the word for the split has to say nothing (`images`, `set`, a year), or be the same as in the name of another split
(`flowers_train`, `flowers_test`): a `bullet_train` alone is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Split = Literal["train", "validation", "test"]
WORDS: dict[str, Split] = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
IDLE = (
    "images?|imgs?|pictures?|pics?|photos?|samples?|data|datasets?|sets?|splits?|folders?|dirs?|files?|seg|raw|full|new"
)
"""Words beside that of the split that change nothing."""


def splits_among(names: Iterable[str]) -> dict[str, Split]:
    """Of these names of folders, those that are called like splits, and like which."""
    names = list(names)
    parts = {name: _parts(name) for name in names}
    found: dict[str, Split] = {}
    for name, part in parts.items():
        if part is None:
            continue
        split, beside = part
        others = {other[0] for other in parts.values() if other is not None and other[1] == beside}
        if not beside or len(others) > 1:
            found[name] = split
    return found


def _parts(name: str) -> tuple[Split, tuple[str, ...]] | None:
    """The split that a name has a word for, and its other words; None unless there is exactly one."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # TrainSet
    words = []
    for word in re.findall(r"[^\W\d_]+", apart.lower()):
        glued = re.fullmatch(rf"(?:{IDLE})?({'|'.join(WORDS)})(?:{IDLE})?", word)  # trainset, imagestrain
        words.append(glued[1] if glued else word)
    splits = [WORDS[word] for word in words if word in WORDS]
    if len(splits) != 1:
        return None
    return splits[0], tuple(word for word in words if word not in WORDS and not re.fullmatch(IDLE, word))
