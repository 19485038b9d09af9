"""`explain`: which part of an image speaks for an answer, and whether hiding it changes the answer more than chance.

images, or the worst errors of a split -> a map of each, and what hiding changes -> pictures, explain.json, a page
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltrain.commands.compare import side_of
from dltrain.commands.evaluate import digest_of_keys, find_checkpoint, measured_part
from dltrain.commands.explain_page import Explained, Story, summary, write_story
from dltrain.commands.predict import Failures, decoded, image_files, require_files
from dltrain.commands.resuming import where_it_lies_now
from dltrain.config import ConfigError
from dltrain.console.display import Display
from dltrain.console.streams import print_result, say
from dltrain.data.loading.views import central
from dltrain.data.types import ImageShape
from dltrain.engine.explaining.hiding import RANDOM, filling, hide
from dltrain.engine.explaining.maps import Mapper, Method, require_library
from dltrain.engine.predictor import Predictor, restore_predictor
from dltrain.errors import RequestError, RunError
from dltrain.runs.run import Run
from dltrain.tasks.outcomes import TARGET

BATCH = 16
"""Images whose maps are drawn at a time."""
FOLDER = "explain"


@dataclass(frozen=True)
class Asked:
    """What is asked for. errors: so many of the worst errors of `split`; None: the images at `paths`. target: the name
    that maps are of; None: the one that is answered. share: of the pixels, that are hidden."""

    paths: Sequence[Path] = ()
    errors: int | None = None
    split: str = "test"
    method: Method = "gradcam"
    target: str | None = None
    share: float = 0.2


@dataclass(frozen=True)
class _Subject:
    """An image to explain. pixels: (C, H, W) uint8, as the network sees it. truth: what is right, if that is known."""

    name: str
    pixels: Tensor
    truth: str | None = None
    index: int | None = None


def explain_run(
    path: str, asked: Asked, output: Path | None, device: str, display: Display, *, as_json: bool
) -> int:  # fmt: skip
    """Explain the answers of a run or checkpoint at `path`, write what was found, and print a summary. The exit code
    is 1 when files could not be read, which are named on stderr.

    output: the folder; by default `explain` in the run.
    Raises RunError for a network, task or data without maps, RequestError for a name that it does not know.
    """
    require_library()
    run, given = Run.open(path)
    file, state = find_checkpoint(run, given, "best")
    predictor = restore_predictor(state, device, file)
    _require_pictures(predictor)
    predictor.look("center_crop", None)
    target = _place_of(asked.target, predictor)
    failures = Failures()
    if asked.errors is None:
        subjects = _of_files(asked.paths, predictor, failures)
    else:
        subjects = _of_errors(path, run, predictor, state, asked, device, display)
    own = (run.path / "experiment.yaml").is_file()
    folder = output or (run.path / FOLDER if own else Path(FOLDER))
    story = _explained(subjects, predictor, asked, target, display)
    if story is None:
        return _nothing(asked, failures, as_json=as_json)
    about = {"run": path, "checkpoint": str(file), "step": state["step"]}
    about |= {"split": asked.split} if asked.errors is not None else {}
    page, content = write_story(folder, story, about)
    if as_json:
        print_result(json.dumps(content, ensure_ascii=False))
    else:
        print_result("\n".join([*(each.line() for each in story.images), "", *summary(story), f"page: {page}"]))
    return failures.told()


def _nothing(asked: Asked, failures: Failures, *, as_json: bool) -> int:
    """What is said where there is no image to explain."""
    if as_json:
        print_result(json.dumps({"images": []}))
    elif asked.errors is not None:
        print_result(f"there is no error on the {asked.split} split: nothing to explain")
    return failures.told()


def _require_pictures(predictor: Predictor) -> None:
    """Raise RunError for a network whose inputs are no pictures."""
    if not isinstance(predictor.preprocessing.shape, ImageShape):
        raise RunError(f"explain draws maps of images, and the network takes {predictor.preprocessing.shape}")
    if predictor.experiment.data.scaling == "pca_whiten":
        raise RunError("with `data.scaling: pca_whiten` the network sees components and no places of a picture")


def _place_of(name: str | None, predictor: Predictor) -> int | None:
    """Where the targets have a name. Raises RequestError for one that they have not."""
    names = list(predictor.target.names)
    if name is not None and name not in names:
        shown = ", ".join(f"`{each}`" for each in names[:8]) + (" ..." if len(names) > 8 else "")
        raise RequestError(f"--target: there is no `{name}` among the {predictor.target.kind}: {shown}")
    return None if name is None else names.index(name)


# -- the images


def _of_files(paths: Sequence[Path], predictor: Predictor, failures: Failures) -> Iterator[list[_Subject]]:
    target = predictor.layout, require_files(predictor)
    for batch in decoded(image_files(paths), [target], BATCH):
        found = []
        for path, future in batch:
            failures.total += 1
            try:
                [image] = future.result()
            except ConfigError as error:
                failures.count += 1
                say(error.diagnostics[0].message)
                continue
            found.append(_Subject(str(path), central(image[None], predictor.preprocessing.shape)[0]))
        if found:
            yield found


def _of_errors(
    path: str, run: Run, predictor: Predictor, state: dict[str, Any], asked: Asked, device: str, display: Display
) -> Iterator[list[_Subject]]:
    """The examples that a split's table calls wrong, those with the largest losses first; where answers are not just
    right or wrong, those with the largest losses."""
    side = side_of(path, "A", asked.split, device, display)
    experiment = where_it_lies_now(run, predictor.experiment)
    marks = [state["about"]["fingerprint"]]
    source, _, _ = measured_part(experiment.data, experiment, asked.split, predictor.target, marks, display)
    if digest_of_keys(source) != side.digest:
        raise RunError(f"the {asked.split} split is not the one that was measured: `dltrain eval` measures it anew")
    right = side.table.outcomes.right
    table = side.table if right is None else side.table.at(np.flatnonzero(~right))
    worst = table.worst_first()
    worst = worst.at(np.arange(min(len(worst), asked.errors or 0)))
    where = source.where().get("path")
    truths = worst.outcomes.columns().get(TARGET)
    for start in range(0, len(worst), BATCH):
        places = worst.index[start : start + BATCH]
        images, _ = source.load(places, predictor.layout)
        yield [
            _Subject(
                str(where[place]) if where is not None else f"{asked.split} {place}", pixels,
                None if truths is None else str(truths[start + number]), place,
            )
            for number, (place, pixels) in enumerate(
                zip(places.tolist(), central(images, predictor.preprocessing.shape), strict=True)
            )
        ]  # fmt: skip


# -- the maps


def _explained(
    subjects: Iterator[list[_Subject]], predictor: Predictor, asked: Asked, target: int | None, display: Display
) -> Story | None:
    """The maps of all, and what hiding changes; None where there is no image."""
    mapper: Mapper | None = None
    names, found, words = list(predictor.target.names), list[Explained](), ""
    fill = torch.zeros(1)
    for batch in subjects:
        images = torch.stack([each.pixels for each in batch]).to(predictor.device)
        inputs = predictor.pipeline.evaluate(images)
        if mapper is None:
            mapper = Mapper(predictor, inputs[:1], asked.method)
            fill, words = filling(predictor, images)
        with torch.no_grad():
            answers = mapper.readings(inputs).answers
        chosen = answers if target is None else torch.full_like(answers, target)
        maps = mapper.maps(inputs, chosen)
        for each, map_, answer, name in zip(batch, maps, answers.tolist(), chosen.tolist(), strict=True):
            hidden = hide(predictor, mapper, each.pixels, map_, name, fill, asked.share, len(found))
            found.append(
                Explained(each.name, each.index, each.truth, names[answer] if mapper.are_probabilities else None,
                          names[name], each.pixels.cpu().numpy(), map_, hidden)
            )  # fmt: skip
            display.waiting(f"{len(found)} images explained")
    display.stop()
    if mapper is None:
        return None
    about = {
        "method": asked.method, "layer": mapper.places.name, "places": list(mapper.places.size), "share": asked.share,
        "hidden_by": words, "random_regions": RANDOM, "seed": predictor.experiment.seed,
    }  # fmt: skip
    return Story(found, about, mapper.are_probabilities)
