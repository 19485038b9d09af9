"""Files of a run that fit their digests and hold something else: refused by name and field, never a traceback."""

from __future__ import annotations

import copy
import io
import json
import math
import random
import shutil
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rationing import only
from training import train
from typer.testing import CliRunner, Result

from dltrain import Experiment, build
from dltrain.cli import app
from dltrain.data.types import Canvas
from dltrain.runs import checkpoints
from dltrain.runs.stored_preprocessing import CanvasData

State = dict[str, Any]


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


@pytest.fixture(scope="module")
def whole(arrays: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """A run, and the state of a checkpoint in the middle of it, with an average and a loss that has begun."""
    code, run = train(arrays, tmp_path_factory.mktemp("forged"), training__epochs=2)
    assert code == 0
    trainer = build(Experiment.load(run.path / "experiment.yaml"), "cpu")
    trainer.about["plugins"] = {}
    trainer.settings = trainer.settings.__class__(**{**vars(trainer.settings), "progress_seconds": 0.0})
    for event in trainer.run():
        if event.step == trainer.settings.steps_per_epoch + 2:
            break
    checkpoints.save(trainer.state_dict(), run.last, run.best)
    return run.path, checkpoints.load(run.last)


@pytest.fixture
def run(whole: tuple[Path, State], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "run"))


@pytest.fixture
def state(whole: tuple[Path, State]) -> State:
    return copy.deepcopy({key: value for key, value in whole[1].items() if key != "format"})


def place_of(state: Any, where: str) -> tuple[Any, Any]:
    """The dict or list that holds a dotted field, and its key there; `|` stands for a dot in a name."""
    *parents, last = [int(part) if part.isdigit() else part.replace("|", ".") for part in where.split(".")]
    for part in parents:
        state = state[part]
    return state, last


def refused(result: Result, *words: str) -> str:
    """The message of a refused request."""
    text = " ".join((result.stderr + result.stdout).split())
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in (1, 2), text
    assert "Traceback" not in text and len(text) < 3000, text[:3000]
    for word in words:
        assert word in text, text
    return text


def no_traceback(result: Result) -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.stderr and len(result.stderr) < 5000


GONE = object()
DEEP: Any = []
LAUGHS: Any = ["ha"]
for _ in range(200):
    DEEP, LAUGHS = [DEEP], [LAUGHS, LAUGHS]
FORGED: list[tuple[str, Any]] = [
    ("about", GONE), ("about", []), ("about.experiment", GONE), ("about.experiment", 3), ("about.target.names", "abc"),
    ("about.target.names", ["0", "1", 2]), ("about.target.names", ["0", "0", "1"]), ("about.target.names", ["0"]),
    ("about.target", {"kind": "classes"}), ("about.target.kind", "pixels"), ("about.target.names.0", "x" * 10**6),
    ("about.preprocessing", GONE), ("about.preprocessing.shape", [3, 8]),
    ("about.preprocessing.shape", [3, -8, 8]), ("about.preprocessing.shape", [3, 10**9, 8]),
    ("about.preprocessing.train.height", "8"), ("about.preprocessing.train.rule", "wish"),
    ("about.preprocessing.evaluation.crop", math.nan), ("about.preprocessing.evaluation.height", 9),
    ("about.preprocessing.evaluation.white", 0), ("about.preprocessing.scaling.mean", [1.0]),
    ("about.preprocessing.scaling.mean.0", math.inf), ("about.preprocessing.scaling.std.0", 0.0),
    ("about.preprocessing.scaling.features", {"mean": torch.zeros(3), "std": torch.ones(3)}),
    ("about.preprocessing.scaling.whitening", {"kind": "pca_whiten"}), ("about.decisions", []),
    ("about.decisions.device.value", "abacus"), ("about.decisions.precision.value", "int3"),
    ("about.decisions.loader", GONE), ("about.decisions.workers.value", -1), ("about.decisions.threads.value", True),
    ("about.decisions.compile.value", "yes"), ("about.fingerprint", 5), ("step", -1), ("step", 1.5), ("step", "7"),
    ("step", 10**30), ("history", {}), ("history.0", []), ("history.0.step", 10**9), ("history.0.epoch", math.nan),
    ("history.0.lr", GONE), ("history.0.validation/loss", GONE), ("history.0.train/loss", "low"), ("model", GONE),
    ("model", []), ("model", DEEP), ("model", LAUGHS), ("about.decisions.device", LAUGHS), ("model.0|weight", GONE),
    ("model.0|weight", torch.zeros(2, 2)),
    ("model.0|weight", [1, 2]), ("model.1|num_batches_tracked", torch.zeros(())), ("model.more", torch.zeros(1)),
    ("average.1|bias", torch.full((6,), math.nan)), ("average.1|bias", torch.zeros(6, dtype=torch.int64)),
    ("average", "none"), ("optimizer", {}), ("optimizer.state", []), ("optimizer.param_groups", {}),
    ("scaler", {"scale": math.nan}), ("metrics.losses", torch.zeros(3, 3)), ("metrics.examples", "many"),
    ("epoch_seconds", [1.0]), ("epoch_seconds.0", math.nan), ("lookahead", 4),
]  # fmt: skip


@pytest.mark.parametrize(("where", "value"), FORGED, ids=[f"{n}-{where}" for n, (where, _) in enumerate(FORGED)])
def test_a_forged_checkpoint_is_refused_by_its_field(run: Path, state: State, where: str, value: Any) -> None:
    holder, key = place_of(state, where)
    if value is GONE:
        del holder[key]
    else:
        holder[key] = value
    checkpoints.save(state, run / "checkpoints/last.pt")
    name = where.split(".")[1 if where.startswith("about.") else 0]
    refused(invoke("resume", run), f"{run}/checkpoints/last.pt", name)
    if not where.startswith(("average", "model")):  # which of them an evaluation needs is its own matter
        checkpoints.save(state, run / "checkpoints/best.pt")
        refused(invoke("eval", run), f"{run}/checkpoints/best.pt", name)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("optimizer.param_groups.0.betas", "x"), ("optimizer.param_groups.0.momentum", [1]),
        ("optimizer.param_groups.0.params", []), ("optimizer.state", {99: {}, 0: {"momentum_buffer": "x"}}),
        ("optimizer.state.0.momentum_buffer", torch.zeros(3)), ("optimizer.state.0.momentum_buffer", torch.zeros(())),
        ("average", None), ("scaler", {"scale": 2.0}), ("unheard_of", {"x": torch.zeros(1)}),
    ],
)  # fmt: skip
def test_the_state_of_another_training_does_not_go_on(run: Path, state: State, where: str, value: Any) -> None:
    holder, key = place_of(state, where)
    holder[key] = value
    checkpoints.save(state, run / "checkpoints/last.pt")
    result = invoke("resume", run)
    if where.endswith("betas"):  # SGD has none, and does not look at it
        no_traceback(result)
    else:
        refused(result)


def leaves(values: Any, where: str = "") -> list[str]:
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    found = [f"{where}.{str(key).replace('.', '|')}".lstrip(".") for key, _ in inner]
    return found + [name for (_, value), place in zip(inner, list(found)) for name in leaves(value, place)]


JUNK: list[Any] = [
    GONE, None, True, -1, 10**25, 1e308, math.nan, "", "x" * 10**5, "\x1b[31mred", [], {}, [[]], {"a": {"b": [1]}},
    DEEP, LAUGHS,
    torch.zeros(0), torch.zeros(1, dtype=torch.bool), torch.tensor(math.inf), torch.zeros(1).expand(10**12),
    torch.zeros(2, 2, dtype=torch.complex64), torch.eye(3).to_sparse(), (1, 2),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_no_forged_checkpoint_gives_a_traceback(
    whole: tuple[Path, State], run: Path, seed: int, tmp_path: Path
) -> None:
    draw, sound = random.Random(seed), whole[1]
    places = leaves({key: value for key, value in sound.items() if key != "format"})
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    for _ in range(8):
        state = copy.deepcopy({key: value for key, value in sound.items() if key != "format"})
        holder, key = place_of(state, draw.choice(places))
        junk = draw.choice(JUNK)
        if junk is not GONE:
            holder[key] = junk
        else:
            del holder[key]
        checkpoints.save(state, run / "checkpoints/last.pt", run / "checkpoints/best.pt")
        commands: list[tuple[Any, ...]] = [("resume", run), ("eval", run), ("predict", run, tmp_path / "a.png")]
        no_traceback(invoke(*draw.choice(commands)))


def test_a_compressed_checkpoint_is_not_inflated(run: Path) -> None:
    """A member of 1 GB that takes 1 MB in the file."""
    last = run / "checkpoints/last.pt"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for _ in range(3):
            archive.writestr(f"archive/data/{_}", bytes(10**7))
    body = [content.getvalue()[:-2], checkpoints._COMMENT.to_bytes(2, "little")]
    last.write_bytes(b"".join([*body, checkpoints._PREFIX + checkpoints._digest(body)]))
    refused(invoke("resume", run), str(last), "a member of it is compressed")


ENVIRONMENTS: list[Any] = [
    [], 3, {"plugins": []}, {"plugins": {"a.py": 3}}, {"decisions": []}, {"decisions": {"device": "cpu"}},
    {"decisions": {"device": {"value": 3, "reason": ""}}}, {"decisions": {"devices": {"value": "4", "reason": ""}}},
    {"decisions": {"precision": {"value": "float8", "reason": ""}}}, {"launch": 3},
    {"decisions": {"device": {"value": "cpu", "reason": ""}}},
]  # fmt: skip


@pytest.mark.parametrize("content", ENVIRONMENTS, ids=map(str, ENVIRONMENTS))
def test_a_forged_environment_is_refused(run: Path, content: Any) -> None:
    (run / "environment.json").write_text(json.dumps(content))
    refused(invoke("resume", run), f"{run}/environment.json", "delete it")


DAMAGED = [b"{", b"\xff\xfe", b"[" * 10**5, b"", b"1" * 10**5, b"NaN", b"null"]


@pytest.mark.parametrize("content", only(DAMAGED[:3], DAMAGED))
@pytest.mark.parametrize("name", ["environment.json", "result.json", "experiment.yaml", "metrics.csv", "plan.json"])
def test_a_damaged_text_file_of_a_run_gives_no_traceback(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    no_traceback(invoke("resume", run))
    no_traceback(invoke("eval", run))


@pytest.mark.parametrize("content", [[], {"seconds": "long"}, {"time": []}, {"time": {"start": None}}, {"state": 3}])
def test_a_forged_result_is_written_anew(run: Path, content: Any) -> None:
    """It is a report: the checkpoint says how far the training is."""
    (run / "result.json").write_text(json.dumps(content))
    result = invoke("resume", run)
    assert result.exit_code == 0, result.stderr
    assert json.loads((run / "result.json").read_text())["state"] == "finished"


def test_forged_events_are_left_to_themselves(run: Path) -> None:
    """Records that are whole and no events, bytes of something else, and a folder in the place of a file."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    with (run / "events.out.tfevents.9.forged").open("wb") as file:
        RecordWriter(file).write(b"\xff\xff\xffno event")
    (run / "events.out.tfevents.8.junk").write_bytes(b"junk" * 99)
    (run / "events.out.tfevents.7.folder").mkdir()
    result = invoke("resume", run)
    assert result.exit_code == 0, result.stderr


def test_what_is_checked_is_what_is_stored() -> None:
    assert [field.name for field in fields(Canvas)] == list(CanvasData.model_fields)
