"""Several processes that train together: the same weights as one process, whoever is lost on the way."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from forking import Child, Zygote, until
from learning import write_targets
from rationing import some
from training import result, scalars, table, write_experiment, write_folder
from typer.testing import CliRunner

from dltrain.cli import app
from dltrain.data.random import Draws
from dltrain.data.types import Share
from dltrain.runs import checkpoints

NORM_FREE = {"model": {"name": "convnet", "widths": [6, 8], "norm": None}}
"""What floating-point numbers allow to be equal: statistics of batches would amplify their last digits."""


SLOW = """
import time
from dltrain.engine import seeding
from dltrain.runs import keeping
keeping.PAUSE = 0.0
seed = seeding.seed_layers
seeding.seed_layers = lambda *where: time.sleep(0.02) or seed(*where)
"""
"""Setup of a process whose steps take a while, and each of whose epochs is written."""


def start(zygote: Zygote, folder: Path, *arguments: object, restarts: int = 0, setup: str = "") -> list[Child]:
    """Two processes of one command, in the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2,
        "TORCHELASTIC_RUN_ID": folder.name, "TORCHELASTIC_RESTART_COUNT": restarts,
    }  # fmt: skip
    children = []
    for rank in range(2):
        own = {key: str(value) for key, value in {**environment, "RANK": rank, "LOCAL_RANK": rank}.items()}
        output = folder / f"output{rank}-{time.monotonic_ns()}"
        words = f"import os; os.environ.update({own})\n{setup}"
        children.append(zygote.start(*arguments, output=output, cwd=folder, setup=words))
    return children


def together(zygote: Zygote, folder: Path, *arguments: object, **how: Any) -> list[Child]:
    children = start(zygote, folder, *arguments, **how)
    assert [child.wait() for child in children] == [0, 0], "\n".join(child.text for child in children)
    return children


def weights(folder: Path, runs: str) -> Mapping[str, torch.Tensor]:
    return checkpoints.load(folder / runs / "tiny/001/checkpoints/last.pt")["model"]


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []


@pytest.fixture(scope="module")
def uninterrupted(zygote: Zygote, arrays: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, torch.Tensor]:
    """The weights that two processes make of EVERYTHING when nothing is in their way."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    experiment = write_experiment(folder, {"data.name": "arrays", "data.path": str(arrays)})
    together(zygote, folder, "fit", experiment, "--runs", "one")
    return weights(folder, "one")


def test_two_processes_that_look_at_their_layers_make_the_same_weights(
    uninterrupted: Mapping[str, torch.Tensor], zygote: Zygote, arrays: Path, tmp_path: Path
) -> None:
    watch = {"training.watch": {"every": 6}}
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays), **watch})
    together(zygote, tmp_path, "fit", experiment, "--runs", "one")
    assert_same(weights(tmp_path, "one"), uninterrupted)
    looks = [step for step, _ in scalars(tmp_path / "one/tiny/001")["watch/update/0"]]
    assert looks[:4] == [1, 6, 12, 18] and looks == sorted(set(looks))


def both(zygote: Zygote, arrays: Path, folder: Path, changes: Mapping[str, Any]) -> Path:
    """Train alone in `one`, together in `two`; the experiment."""
    experiment = write_experiment(folder, {"data.name": "arrays", "data.path": str(arrays), **changes})
    assert zygote.run("fit", experiment, "--runs", "one", output=folder / "alone", cwd=folder) == 0
    together(zygote, folder, "fit", experiment, "--runs", "two")
    return experiment


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"augmentation": ["alternating_flip", "color_jitter", {"name": "aug_mix"}, "random_erasing"],
         "training.batch_size": 40},
        {"training.accumulate": 5, "data.loader": "streaming", "data.balance": 0.5, "optimizer.sam": {"rho": 0.05}},
        pytest.param(
            {"model.initialization": "lsuv", "optimizer": {"name": "adam", "lr": 0.003}, "training.clip_norm": None},
            marks=pytest.mark.slow,
        ),
        {"model": {"name": "convnet", "widths": [6, 8], "norm": "group_norm"}, "training.batch_size": "all"},
        {"training.progressive_size": {"delay": 0.2, "multiple_of": 1}, "evaluation": {"views": "flip_shift"}},
        {"loss": {"name": "cross_entropy", "class_weights": [1.0, 9.0, 0.3]}, "training.accumulate": 5},
        pytest.param(
            {"gradient": {"name": "spsa", "perturbation": 0.01}, "training.accumulate": 5}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"model": {"name": "autoencoder", "activation": "sigmoid", "contractive": 0.01, "tied": True},
             "loss": "mse"}, marks=pytest.mark.slow,
        ),
    ],
    ids=["plain", "augmented", "accumulated", "lsuv", "all", "growing", "weighted", "spsa", "contractive"],
)  # fmt: skip
def test_two_processes_make_the_weights_of_one(
    changes: dict[str, Any], zygote: Zygote, arrays: Path, tmp_path: Path
) -> None:
    kept = ["horizontal_flip", {"name": "random_crop", "padding": 1}, {"name": "rand_augment", "operations": 1}]
    both(zygote, arrays, tmp_path, {**NORM_FREE, "augmentation": kept, "training.epochs": 2, **changes})
    one, two = weights(tmp_path, "one"), weights(tmp_path, "two")
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    for alone, shared in zip(table(tmp_path / "one/tiny/001"), table(tmp_path / "two/tiny/001"), strict=True):
        for column in (name for name in alone if name.startswith(("train/", "validation/"))):
            assert float(shared[column]) == pytest.approx(float(alone[column]), abs=1e-4), column


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        pytest.param("regression", "numbers", marks=pytest.mark.slow),
        pytest.param("binary_classification", "classes", marks=pytest.mark.slow),
        ("multilabel", "labels"),
    ],
)
def test_two_processes_measure_what_one_does(task: str, kind: str, zygote: Zygote, tmp_path: Path) -> None:
    """Ranks are of the whole split, whose last batch is padded: 30 examples in batches of 20."""
    data = write_targets(tmp_path / "data.npz", kind)
    early = {"training.early_stopping": {"patience": 4, "metric": "validation/loss"}, "augmentation": []}
    loss = {} if task == "regression" else {"loss": {"name": "binary_cross_entropy", "pos_weight": "balanced"}}
    changes = {"task": task, "loss": "mse", **loss, **early, "training.epochs": 2, **NORM_FREE}
    both(zygote, data, tmp_path, changes)
    one, two = (table(tmp_path / runs / "tiny/001") for runs in ("one", "two"))
    for alone, shared in zip(one, two, strict=True):
        measured = [name for name in alone if name.startswith(("train/", "validation/"))]
        assert len(measured) > 6
        for name in measured:
            assert float(shared[name]) == pytest.approx(float(alone[name]), rel=2e-3, abs=1e-4), name
    states = [checkpoints.load(tmp_path / runs / "tiny/001/checkpoints/last.pt") for runs in ("one", "two")]
    assert ("task" in states[0]) == ("task" in states[1]) == (task != "regression")
    if task != "regression":
        torch.testing.assert_close(*(s["task"]["thresholds"] for s in states), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("norm", "equal"), [("sync_batch_norm", True), ("batch_norm", False)])
def test_synchronised_statistics_are_those_of_the_whole_batch(
    norm: str, equal: bool, zygote: Zygote, arrays: Path, tmp_path: Path
) -> None:
    model = {"name": "convnet", "widths": [6, 8], "norm": norm}
    once = {"model": model, "augmentation": [], "training.epochs": None, "training.steps": 1, "training.accumulate": 1}
    both(zygote, arrays, tmp_path, once)
    one, two = weights(tmp_path, "one"), weights(tmp_path, "two")
    assert equal == all(torch.allclose(two[name], tensor, rtol=1e-4, atol=1e-5) for name, tensor in one.items())


def test_one_process_alone_writes_and_speaks(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    first, second = together(zygote, tmp_path, "fit", experiment)
    assert first.text.endswith("runs/tiny/001\n") and second.text == ""
    assert re.search(r"devices +2 \(each takes 10 images of a batch\)", first.text)
    run = tmp_path / "runs/tiny/001"
    assert [path.name for path in run.parent.iterdir()] == ["001"] and result(run)["state"] == "finished"
    assert len(list(run.glob("events.out.*"))) == 1


def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(
    uninterrupted: Mapping[str, torch.Tensor], zygote: Zygote, arrays: Path, tmp_path: Path
) -> None:
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    children = start(zygote, tmp_path, "fit", experiment, "--runs", "two", setup=SLOW)
    last = tmp_path / "two/tiny/001/checkpoints/last.pt"
    until(last.exists, 60, lambda: children[0].text)
    for child in children:
        child.kill(signal.SIGTERM)
    assert [child.wait() for child in children] == [143, 143]
    step = checkpoints.load(last)["step"]
    assert f"interrupted at step {step}; to go on: dltrain resume two/tiny/001" in children[0].text
    assert not any("Traceback" in child.text for child in children)
    together(zygote, tmp_path, "resume", "two/tiny/001")
    assert step < 30
    assert_same(weights(tmp_path, "two"), uninterrupted)


@pytest.mark.parametrize("lost", some([1, 0], 2))
def test_after_a_loss_all_start_again_and_go_on(
    lost: int, uninterrupted: Mapping[str, torch.Tensor], zygote: Zygote, arrays: Path, tmp_path: Path
) -> None:
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    children = start(zygote, tmp_path, "fit", experiment, "--runs", "two", setup=SLOW)
    until((tmp_path / "two/tiny/001/checkpoints/last.pt").exists, 60, lambda: children[0].text)
    children[lost].kill(signal.SIGKILL)
    assert [children[lost].wait(), children[1 - lost].wait()] == [-signal.SIGKILL, 1]
    if lost == 1:
        assert "another process of this training has ended\nthe last good checkpoint is two/" in children[0].text
        assert "to go on from there: dltrain resume two/tiny/001" in children[0].text
    again = together(zygote, tmp_path, "fit", experiment, "--runs", "two", restarts=1)
    assert "continuing at step" in again[0].text
    assert [path.name for path in (tmp_path / "two/tiny").iterdir()] == ["001"]
    assert_same(weights(tmp_path, "two"), uninterrupted)


def test_another_number_of_devices_continues_with_a_warning(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    together(zygote, tmp_path, "fit", experiment, "training.epochs=1")
    output = tmp_path / "alone"
    (tmp_path / "runs/tiny/001/result.json").write_text("{}")
    assert zygote.run("resume", "runs/tiny/001", "--devices", 1, output=output, cwd=tmp_path) == 0
    assert "warning: the run began on 2 devices; on 1 it is continued, but not bit-exactly" in output.read_text()


def test_a_batch_that_cannot_be_shared_is_an_error_at_its_key(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    changes = {"data.name": "arrays", "data.path": str(arrays), "training.batch_size": 25, "training.accumulate": 1}
    children = start(zygote, tmp_path, "fit", write_experiment(tmp_path, changes))
    assert children[0].wait() == 2
    children[1].kill(signal.SIGTERM)  # as torchrun does
    assert children[1].wait() != 0
    assert "2 devices cannot share a batch of 25 evenly" in children[0].text and "batch_size: 24" in children[0].text
    assert "batch_size" not in children[1].text and not (tmp_path / "runs").exists()


def test_a_divergence_is_told_once(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    changes = {"data.name": "arrays", "data.path": str(arrays), "optimizer.lr": 1e30, "training.clip_norm": None}
    children = start(zygote, tmp_path, "fit", write_experiment(tmp_path, {**NORM_FREE, **changes}))
    assert [child.wait() for child in children] == [1, 1]
    assert "optimizer.lr=" in children[0].text and children[1].text == ""
    assert result(tmp_path / "runs/tiny/001")["state"] == "failed"


def test_a_folder_is_read_by_all(zygote: Zygote, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos")
    changes = {"data.name": "image_folder", "data.root": str(tmp_path / "photos"), "data.size": 12, "data.workers": 0}
    loader = {"data.loader": "streaming", "augmentation": [{"name": "random_resized_crop"}], "training.epochs": 1}
    together(zygote, tmp_path, "fit", write_experiment(tmp_path, {**changes, **loader, "training.batch_size": 8}))


PAGE = (REPOSITORY / "docs/running.md").read_text()
ALONE, *LAUNCHED = re.search(r"<!-- devices -->\n```\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
"""The commands of the page: one that starts the processes itself, and those by which torchrun does."""


FORKING = (
    "import sys, forking, torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler as handler\n"
    "handler.Popen = forking.Forked\n"
)
"""Setup of a launcher whose processes are forks of it: they need not import torch anew."""


def test_the_command_starts_the_processes_and_replaces_a_lost_one(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    dies = tmp_path / "dies.py"
    dies.write_text(
        "import os, signal\nfrom typing import Literal\nfrom dltrain.engine import trainer\n"
        "from dltrain.tasks.losses import CrossEntropy\n"
        "class Mine(CrossEntropy):\n    name: Literal['mine'] = 'mine'\n"
        "finish = trainer.Trainer.finish_epoch\ndef lose(self):\n"
        "    if os.environ.get('TORCHELASTIC_RESTART_COUNT') == '0' and self.step > 6 and os.environ['RANK'] == '1':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return finish(self)\ntrainer.Trainer.finish_epoch = lose\n"
    )
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    _, *words = ALONE.replace("experiments/digits.yaml", str(experiment)).replace(" 4", " 2").split()
    done = zygote.capture(*words, "--device", "cpu", "--plugin", dies, cwd=tmp_path, setup=FORKING)
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "runs/tiny/001"
    assert "all are started again from there" in done.stderr and re.search("continuing at step [5-9],", done.stderr)
    assert result(tmp_path / "runs/tiny/001")["state"] == "finished" and "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_command_starts_cold_processes(arrays: Path, tmp_path: Path) -> None:
    """Nothing is forked, nothing imported before: as users start it."""
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays), "training.epochs": 1})
    words = ALONE.replace("experiments/digits.yaml", str(experiment)).replace(" 4", " 2").split()
    command = [sys.executable, "-m", *words, "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "runs/tiny/001" and result(tmp_path / "runs/tiny/001")["state"] == "finished"


@pytest.mark.parametrize("command", [pytest.param(LAUNCHED[0], marks=pytest.mark.slow), *LAUNCHED[1:]])
def test_the_commands_of_the_docs(command: str, zygote: Zygote, tmp_path: Path) -> None:
    """torchrun on one machine is what it is on several, but for how its processes find one another."""
    shutil.copytree(REPOSITORY / "experiments", tmp_path / "experiments")
    command = command.replace("host1:29400", "localhost:0").replace("--nnodes 2", "--nnodes 1")
    command = command.replace("torchrun", "-m torch.distributed.run").replace(" 4", " 2")
    words = [*command.split(), "--device", "cpu", "training.epochs=1", "training.limit_batches=2"]
    done = zygote.capture(cwd=tmp_path, setup=f"{FORKING}sys.exit(forking.run_program(*{words}))")
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "runs/digits/001"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda:0"], "write --device cuda, not cuda:0"),
        (["--device", "cuda"], "--devices 99: this machine has"),
    ],
)
@pytest.mark.gpu
def test_devices_that_are_not_there(
    options: list[str], message: str, zygote: Zygote, arrays: Path, tmp_path: Path
) -> None:
    experiment = write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    output = tmp_path / "output"
    assert zygote.run("fit", experiment, "--devices", 99, *options, output=output) == 2
    assert message in output.read_text()


def test_draws_of_a_part_are_a_part_of_the_draws() -> None:
    cpu = torch.device("cpu")
    whole = Draws(3, 5, cpu, 12)
    parts = [Draws(3, 5, cpu, 6, Share(index, 2)) for index in range(2)]
    for draw in (
        lambda draws, count: draws.uniform(count),
        lambda draws, count: draws.integers(9, 2, count),
        lambda draws, count: draws.normal(count, 3, 4),
        lambda draws, count: draws.host.chance(0.5, 4, count),
    ):
        expected = draw(whole, 12)
        dim = expected.shape.index(12)
        assert torch.equal(torch.cat([draw(part, 6) for part in parts], dim), expected)
    assert parts[0].uniform(3).equal(parts[1].uniform(3))  # of no example


@pytest.mark.parametrize("size", [2, 4])
def test_parts_make_up_an_evaluation(size: int) -> None:
    rows = torch.arange(8)
    for valid in range(9):
        found = [Share(index, size).of(rows)[: Share(index, size).valid(valid, 8)] for index in range(size)]
        assert torch.cat(found).tolist() == list(range(valid))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is not set, and MASTER_PORT is not set"),
        ({"RANK": "first", "WORLD_SIZE": "2", **dict.fromkeys(("MASTER_ADDR", "MASTER_PORT"), "1")}, "RANK='first'"),
        ({"RANK": "2", "WORLD_SIZE": "2", **dict.fromkeys(("MASTER_ADDR", "MASTER_PORT"), "1")}, "none has RANK=2"),
        ({"RANK": "-1", "WORLD_SIZE": "2", **dict.fromkeys(("MASTER_ADDR", "MASTER_PORT"), "1")}, "is not a number"),
        ({"RANK": "0", "WORLD_SIZE": "many"}, "WORLD_SIZE='many' is not a number"),
    ],
)  # fmt: skip
def test_an_environment_that_was_left_over_is_said(
    given: dict[str, str], words: str, arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    for options in ((), ("--devices", "2")):
        result = CliRunner().invoke(
            app, ["fit", str(tmp_path / "tiny.yaml"), "--runs", str(tmp_path / "runs"), "--device", "cpu", *options]
        )
        assert result.exit_code == 2 and words in result.stderr, result.stderr
        assert "to train alone: unset RANK WORLD_SIZE" in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("given", [{"RANK": "0"}, {"WORLD_SIZE": "4"}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_a_process_that_stands_alone_trains_alone(
    given: dict[str, str], arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays), "training.epochs": 1})
    words = ["fit", str(tmp_path / "tiny.yaml"), "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    assert CliRunner().invoke(app, words).exit_code == 0


def test_whoever_waits_for_the_others_says_so(zygote: Zygote, arrays: Path, tmp_path: Path) -> None:
    write_experiment(tmp_path, {"data.name": "arrays", "data.path": str(arrays)})
    setup = "import dltrain.engine.distributed as d; d.SOON = 0.2"
    first, second = start(zygote, tmp_path, "fit", "tiny.yaml", "--device", "cpu", setup=setup)
    second.kill(signal.SIGKILL)
    first.wait_for("for the other processes: this one has RANK=0 of 2")
    first.kill(signal.SIGKILL)
