"""Write the tables of torchvision's and timm's networks into the package. Run after upgrading either.

First line: the library and its version. Then a line per network: its name and the tags of its
pretrained weights, the default one first.
"""

from pathlib import Path

import timm
import torchvision
from torchvision import models

FOLDER = Path(__file__).parent.parent / "dltrain" / "models"


def torchvision_table() -> str:
    """Every classification network that torchvision lists."""
    lines = [f"# torchvision {torchvision.__version__.partition('+')[0]}"]
    for name in sorted(models.list_models(module=models)):
        weights = models.get_model_weights(name)
        tags = (
            [weights.DEFAULT.name, *sorted(w.name for w in weights if w is not weights.DEFAULT)] if len(weights) else []
        )
        lines.append(" ".join([name, *tags]))
    return "\n".join(lines) + "\n"


def timm_table() -> str:
    """Every network that timm lists."""
    tags: dict[str, list[str]] = {name: [] for name in sorted(timm.list_models())}
    for pretrained in sorted(timm.list_models(pretrained=True)):
        name, _, tag = pretrained.partition(".")
        if tag:
            tags[name].append(tag)
    lines = [f"# timm {timm.__version__}"]
    for name, found in tags.items():
        default = timm.get_pretrained_cfg(name).tag
        lines.append(" ".join([name, *sorted(found, key=lambda tag: (tag != default, tag))]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for library, text in (("torchvision", torchvision_table()), ("timm", timm_table())):
        (FOLDER / f"{library}_models.txt").write_text(text, encoding="utf-8")
