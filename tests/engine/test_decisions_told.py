"""Every `auto` of an experiment is among the decisions of its run and of its plan, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from training import write_folder

from dltrain import Experiment, build
from dltrain.config import Section
from dltrain.planning.plan import plan

RESNET = """
data: {{name: arrays, path: {path}, validation: 0.2}}
model: {{name: resnet18}}
training: {{epochs: 1, batch_size: 10}}
"""


def says_auto(annotation: Any) -> bool:
    return annotation == "auto" or any(map(says_auto, get_args(annotation)))


def autos(section: type[Section]) -> set[str]:
    return {name for name, field in section.model_fields.items() if says_auto(field.annotation)}


def sections(value: Any) -> Iterator[Section]:
    """A section and those inside it."""
    if isinstance(value, Section):
        yield value
        for name in type(value).model_fields:
            yield from sections(getattr(value, name))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from sections(each)


def every(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for each in section.__subclasses__():
        yield from every(each)


def of_arrays(folder: Path, size: int, *, last: bool = False) -> Experiment:
    images = np.random.default_rng(0).integers(0, 256, (40, 3, size, size), dtype=np.uint8)
    np.savez(folder / "a.npz", images=images.transpose(0, 2, 3, 1) if last else images, labels=np.arange(40) % 2)
    return Experiment.parse(RESNET.format(path=folder / "a.npz"))


def of_folder(folder: Path) -> Experiment:
    write_folder(folder / "photos")
    return Experiment.parse(
        f"data: {{name: image_folder, root: {folder / 'photos'}, size: 8}}\nmodel: convnet\n"
        "training: {epochs: 1, batch_size: 8}\n"
    )


@pytest.mark.parametrize("which", ["arrays", "folder"])
def test_every_auto_is_decided_with_a_reason(which: str, tmp_path: Path) -> None:
    experiment = of_arrays(tmp_path, 8) if which == "arrays" else of_folder(tmp_path)
    decided = build(experiment, "cpu").about["decisions"]
    wanted = {name for section in sections(experiment) for name in autos(type(section))}
    assert wanted <= set(decided), wanted - set(decided)
    assert all(decided[name]["value"] != "auto" and decided[name]["reason"] for name in wanted)
    planned = plan(experiment, "cpu")["decisions"]
    assert {name: each["value"] for name, each in planned.items()} == {n: each["value"] for n, each in decided.items()}


def test_no_section_has_an_auto_that_no_run_decides(tmp_path: Path) -> None:
    """Of every entry of every catalogue, by the name of its field. What a search leaves open it decides itself."""
    import dltrain.cli  # noqa: F401

    wanted = {
        name for section in every(Section) if section.__module__.startswith("dltrain.") for name in autos(section)
        if not section.__module__.startswith("dltrain.search")
    }  # fmt: skip
    assert {"stem", "precision", "layout"} <= wanted
    two = Experiment.parse("data: breast_cancer\nmodel: logistic_regression\ntask: binary_classification\n")
    decided = {name for made in (of_arrays(tmp_path, 8), two) for name in build(made, "cpu").about["decisions"]}
    assert wanted <= decided


@pytest.mark.parametrize(("size", "stem"), [(64, "small"), (65, "large")])
def test_the_stem_that_a_photo_network_gets_and_what_it_costs(size: int, stem: str, tmp_path: Path) -> None:
    experiment = of_arrays(tmp_path, size)
    decided = plan(experiment, "cpu")["decisions"]["stem"]
    assert decided["value"] == stem
    if stem == "small":
        costs = [plan(experiment.override("model.stem", s), "cpu")["multiply_adds"] for s in ("small", "large")]
        assert f"it costs {costs[0] / costs[1]:.3g} times the multiply-adds of `stem: large`" in decided["reason"]
        assert costs[0] > 10 * costs[1]
    else:
        assert decided["reason"] == "images of 65x65 are larger than 64 pixels"


@pytest.mark.parametrize(("last", "layout"), [(True, "channels_last"), (False, "channels_first")])
def test_the_layout_is_what_the_file_has(last: bool, layout: str, tmp_path: Path) -> None:
    decided = build(of_arrays(tmp_path, 8, last=last), "cpu").about["decisions"]["layout"]
    assert decided["value"] == layout and ("8, 8, 3)" if last else "3, 8, 8)") in decided["reason"]


def test_the_number_of_threads_says_whose_choice_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    experiment = of_arrays(tmp_path, 8)
    assert plan(experiment, "cpu")["decisions"]["threads"]["reason"] == "OMP_NUM_THREADS in the environment"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert "default" in plan(experiment, "cpu")["decisions"]["threads"]["reason"]


def test_what_is_set_is_called_so(tmp_path: Path) -> None:
    experiment = of_arrays(tmp_path, 8).override_all({"model.stem": "large", "data.scaling": "min_max"})
    decided = plan(experiment, "cpu")["decisions"]
    for name, value in (("stem", "large"), ("scaling", "min_max")):
        assert decided[name] == {"value": value, "reason": "set in the experiment"}
