"""Each promise of the contract, and each of its demands, has a test here that is named after it.

The long proofs are elsewhere: exact resume by SIGKILL in test_resume, interruptions in test_signals, failures in
test_failures, damaged files in test_checkpoints, the loop in test_trainer.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import (
    arrays_experiment,
    assert_same_state,
    built,
    scalars,
    table,
    trained,
    write_arrays,
    write_experiment,
)
from typer.testing import CliRunner

from dltrain import Experiment, Run, Trainer, build
from dltrain.cli import app
from dltrain.commands.fit import fit, resume
from dltrain.console.display import Display
from dltrain.data.base import Dataset
from dltrain.data.random import Draws, derive_seed
from dltrain.data.sources import ArraySource
from dltrain.data.types import Splits
from dltrain.engine.decisions import Decision, configure_torch
from dltrain.engine.predictor import restore_predictor
from dltrain.errors import RunError
from dltrain.runs import checkpoints
from dltrain.runs.checkpoints import CheckpointError
from dltrain.runs.recorders.base import About
from dltrain.runs.recorders.tensorboard import TensorBoard
from dltrain.runs.recording import Recordings
from dltrain.runs.reports import NonFiniteError


def fitted(experiment: Experiment, folder: Path) -> Run:
    code, run = fit(experiment, None, "cpu", Display(quiet=True), runs=folder)
    assert code == 0
    return run


# -- 1. A wrong file never starts; a right file says before training what it will do.


def test_a_wrong_file_never_starts(arrays: Path, tmp_path: Path) -> None:
    changes = {"data.name": "arrays", "data.path": str(arrays), "optimizer.momentun": 0.9}
    done = CliRunner().invoke(app, ["fit", str(write_experiment(tmp_path, changes)), "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 2 and "momentum" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_right_file_says_what_it_will_do_and_every_downgrade(arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    trainer = build(arrays_experiment(arrays, training__compile=True), "cpu")
    for name in ("device", "loader", "precision", "channels_last", "compile", "workers", "threads"):
        assert trainer.summary[name].endswith(")") and " (" in trainer.summary[name]  # the reason
    assert "96 train" in trainer.summary["data"] and "5 epochs of 5 steps" in trainer.summary["training"]
    assert trainer.about["decisions"]["compile"]["value"] is False
    (warning,) = [note.text for note in trainer.notes if note.level == "warning"]
    assert "not compiled" in warning and "no C++ compiler" in warning


# -- 2. Same YAML + seed + machine = same weights, interrupted or not.


def test_same_yaml_and_seed_give_the_same_weights_interrupted_or_not(arrays: Path, tmp_path: Path) -> None:
    experiment = arrays_experiment(arrays, training__epochs=2)
    whole = trained(experiment)
    checkpoints.save(trained(experiment, until=3).state_dict(), tmp_path / "at.pt")
    state = checkpoints.load(tmp_path / "at.pt")
    continued = build(experiment, "cpu", state)
    continued.load_state_dict(state)
    list(continued.run())
    assert_same_state(whole.state_dict(), continued.state_dict())


def test_every_auto_is_decided_once_with_its_reason_and_reused_on_resume(
    arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = arrays_experiment(arrays)
    first = trained(experiment, until=1)
    decided = first.about["decisions"]
    assert {"precision", "channels_last", "compile", "threads", "loader", "workers"} < set(decided)
    assert all(decision["reason"] for decision in decided.values())

    def again(*_: Any) -> None:
        raise AssertionError("decided a second time")

    for place in ("decide", "choose_loader", "choose_workers"):
        monkeypatch.setattr(f"dltrain.engine.resolve.{place}", again)
    decided = {**decided, "precision": {"value": "bfloat16", "reason": "as it was then"}}
    state = {**first.state_dict(), "about": {**first.about, "decisions": decided}}
    assert build(experiment, "cpu", state).about["decisions"] == decided
    assert build(experiment, "cpu", None, decided).about["decisions"] == decided  # no checkpoint yet


def test_a_run_without_a_checkpoint_resumes_from_step_0_with_its_decisions(arrays: Path, tmp_path: Path) -> None:
    experiment = arrays_experiment(arrays, training__epochs=1)
    run = fitted(experiment, tmp_path)
    before = checkpoints.load(run.last)
    shutil.rmtree(run.last.parent)
    facts = run.read_json("environment.json")
    facts["decisions"]["workers"]["reason"] = "as it was then"
    run.write_json("environment.json", facts)
    run.last.parent.mkdir()
    code, _ = resume(str(run.path), None, Display(quiet=True))
    after = checkpoints.load(run.last)
    assert code == 0 and after["about"]["decisions"]["workers"]["reason"] == "as it was then"
    after["about"], before["about"] = {}, {}
    assert_same_state(before, after)


def test_cudnn_autotunes_only_without_determinism(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: None)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda _: None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    decisions = {"threads": Decision(1, ""), "device": Decision("cuda:0", ""), "compile": Decision(False, "")}
    for deterministic in (False, True):
        configure_torch(decisions, deterministic=deterministic)
        assert torch.backends.cudnn.benchmark is not deterministic


def test_all_training_batches_have_one_shape(arrays: Path) -> None:
    """96 examples in batches of 20: the last batch of an epoch takes its missing examples from the next."""
    trainer = built(arrays_experiment(arrays, training__epochs=2))
    shapes: list[tuple[int, ...]] = []
    trainer.parts.model.register_forward_pre_hook(
        lambda model, inputs: shapes.append(tuple(inputs[0].shape)) if model.training else None
    )
    list(trainer.run())
    assert set(shapes) == {(10, 3, 8, 8)} and len(shapes) == 20  # two parts a step


def test_a_last_batch_of_one_breaks_nothing(tmp_path: Path) -> None:
    """Batch norm on vectors refuses a batch of one: 97 training and 25 validation examples in batches of 24."""
    data = write_arrays(tmp_path / "a.npz", examples=152)
    model = {"name": "mlp", "hidden": [8], "norm": "batch_norm"}
    experiment = arrays_experiment(
        data, model=model, training__batch_size=24, training__epochs=2, data__validation=25, data__test=0.2
    )
    trainer = built(experiment)
    assert len(trainer.parts.train.source) % 24 == 1 and trainer.parts.validation is not None
    assert len(trainer.parts.validation.source) % 24 == 1
    list(trainer.run())
    assert trainer.finished


def test_the_saved_state_is_complete(arrays: Path) -> None:
    trainer = trained(arrays_experiment(arrays, training__precision="float16"), until=7)
    state = trainer.state_dict()
    assert state["step"] == 7 and len(state["history"]) == 1 and "validation/loss" in state["history"][0]
    assert int(state["metrics"]["examples"]) == 2 * 20  # of the two steps since the epoch's end
    for part in ("model", "average", "optimizer", "scaler"):
        assert state[part], part
    assert state["optimizer"]["state"][0]["momentum_buffer"].abs().sum() > 0


def test_early_stopping_and_best_are_functions_of_the_history(arrays: Path, tmp_path: Path) -> None:
    stopping = {"patience": 1, "metric": "validation/loss", "minimum_change": 100.0}
    experiment = arrays_experiment(arrays, training__early_stopping=stopping)
    whole = trained(experiment)
    assert whole.step == 10  # stopped
    fresh = build(experiment, "cpu")
    fresh.load_state_dict(whole.state_dict())
    assert fresh.finished and list(fresh.run()) == []


def test_two_processes_cannot_resume_one_run(tmp_path: Path) -> None:
    first, second = Run.create(tmp_path / "run"), Run(tmp_path / "run")
    with pytest.raises(RunError, match="is being trained by another process"):
        second.lock()
    first.close()
    second.lock()
    second.close()


def test_no_duplicates_after_a_resume(arrays: Path, tmp_path: Path) -> None:
    run = fitted(arrays_experiment(arrays, training__epochs=3), tmp_path)
    history = checkpoints.load(run.last)["history"]
    before = scalars(run.path)
    for _ in range(2):  # what a resume begins with
        recordings = Recordings([TensorBoard()])
        recordings.start(About(run.path, "tiny", {"seed": 0}, ["loss", "accuracy"], {}), history, history[-1]["step"])
        recordings.close("finished")
    assert scalars(run.path) == before and len(list(run.path.glob("events.*"))) == 3
    assert [row["epoch"] for row in table(run.path)] == ["1", "2", "3"]


def test_randomness_is_a_function_of_seed_and_step_per_position_in_the_batch(arrays: Path) -> None:
    assert 0 <= derive_seed(2**70, 3, "x") < 2**32 and derive_seed(1, 23) != derive_seed(12, 3)
    draws = [Draws(5, 9, torch.device("cpu")).uniform(20) for _ in range(2)]
    assert torch.equal(*draws)
    trainer = built(arrays_experiment(arrays))
    batch = next(trainer.parts.train.batches(4))
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # whatever the process drew before
        results.append(trainer.parts.pipeline.train(batch, 4)[0])
    assert torch.equal(*results)
    assert not torch.equal(results[0], trainer.parts.pipeline.train(batch, 5)[0])


def test_no_non_finite_weights_are_saved(arrays: Path) -> None:
    trainer = trained(arrays_experiment(arrays), until=2)
    with torch.no_grad():
        next(trainer.parts.model.parameters())[0] = torch.nan
    with pytest.raises(NonFiniteError, match="the weights became infinite or not a number in step 1"):
        trainer.state_dict()


def test_the_first_bad_step_is_kept_on_the_device_and_read_before_every_save(arrays: Path) -> None:
    trainer = trained(arrays_experiment(arrays), until=2)
    loss = trainer.parts.task.loss
    batches = trainer.parts.train.batches(2)
    for step in (2, 3, 4):
        factor = torch.nan if step == 3 else 1.0
        trainer.parts.task.loss = lambda x, y, f=factor: loss(x, y) * f  # type: ignore[assignment, misc]
        trainer._train_step(next(batches), step)
    with pytest.raises(NonFiniteError, match="the loss became infinite or not a number in step 3") as caught:
        trainer.state_dict()
    assert caught.value.lr == trainer.parts.learning_rate(3)


# -- 3. Test data takes no part in training, model selection or search.


class Forbidden(ArraySource):
    """Examples that must not be looked at: only their number is known."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the test split's `{name}` was read")


def test_test_data_takes_no_part_in_training(arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = arrays_experiment(arrays, training__epochs=1)
    whole = trained(experiment)
    load = Dataset.load

    def guarded(self: Dataset, *arguments: Any) -> Splits:
        splits = load(self, *arguments)
        assert splits.test is not None
        return replace(splits, test=Forbidden(len(splits.test)))

    monkeypatch.setattr(Dataset, "load", guarded)
    run = fitted(experiment, tmp_path)
    assert_same_state(whole.state_dict()["model"], checkpoints.load(run.last)["model"])


def test_other_test_data_gives_the_same_weights(tmp_path: Path) -> None:
    data = dict(np.load(write_arrays(tmp_path / "a.npz")))
    models = []
    for name, value in (("dark", 0), ("bright", 255)):
        test = {"test_images": np.full((9, 3, 8, 8), value, np.uint8), "test_labels": np.arange(9) % 3}
        np.savez(tmp_path / f"{name}.npz", **data, **test)
        models.append(trained(arrays_experiment(tmp_path / f"{name}.npz", training__epochs=1)).state_dict()["model"])
    assert_same_state(*models)


def test_the_split_does_not_know_the_seed_and_moves_little_as_the_data_grows(tmp_path: Path) -> None:
    def validation(examples: int, seed: int) -> set[bytes]:
        path = write_arrays(tmp_path / f"{examples}.npz", examples=150)
        data = dict(np.load(path))
        np.savez(path, images=data["images"][:examples], labels=data["labels"][:examples])
        part = arrays_experiment(path, seed=seed).data.load().validation
        assert part is not None
        return set(part.keys())

    assert validation(150, 0) == validation(150, 1)
    assert len(validation(150, 0) & validation(141, 0)) >= 0.8 * len(validation(141, 0))


def test_overriding_a_name_keeps_what_the_new_choice_has_and_says_what_is_dropped(arrays: Path) -> None:
    experiment = arrays_experiment(arrays).override("optimizer.name", "adamw")
    assert (experiment.optimizer.lr, experiment.optimizer.weight_decay) == (0.05, 0.001)
    assert any("momentum" in note and "dropped" in note for note in map(str, experiment.notes))


# -- 4. A checkpoint is self-contained and safe to open.


def test_a_checkpoint_is_self_contained(tmp_path: Path) -> None:
    """Evaluation takes its preprocessing, classes and experiment from the file, whatever has become of the data."""
    data = write_arrays(tmp_path / "a.npz")
    trainer: Trainer = trained(arrays_experiment(data, training__epochs=1))
    checkpoints.save(trainer.state_dict(), tmp_path / "alone.pt")
    images = trainer.parts.train.source.images  # type: ignore[union-attr]
    data.unlink()
    predictor = restore_predictor(checkpoints.load(tmp_path / "alone.pt"), "cpu")
    sample = torch.from_numpy(images[:16])
    assert torch.equal(predictor.pipeline.evaluate(sample), trainer.parts.pipeline.evaluate(sample))
    assert predictor.preprocessing.to_dict() == trainer.about["preprocessing"]
    assert predictor.target.to_dict() == trainer.about["target"]
    network = trainer.parts.average.model
    with torch.no_grad():
        expected = network(trainer.parts.pipeline.evaluate(sample)).softmax(1)
    assert torch.equal(predictor.outputs(sample).float().softmax(1).cpu(), expected)


def test_a_damaged_checkpoint_is_refused(arrays: Path, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoints.save(trained(arrays_experiment(arrays), until=1).state_dict(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    torch.load(path, weights_only=True)  # torch alone does not notice
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoints.load(path)


def test_code_never_comes_from_data(arrays: Path, tmp_path: Path) -> None:
    plugin, marker = tmp_path / "parts.py", tmp_path / "imported"
    plugin.write_text(f"open({str(marker)!r}, 'w')")
    for key in ("plugin", "plugins"):  # neither a YAML file ...
        changes = {"data.name": "arrays", "data.path": str(arrays), key: [str(plugin)]}
        done = CliRunner().invoke(app, ["check", str(write_experiment(tmp_path, changes))])
        assert done.exit_code == 2
    trainer = trained(arrays_experiment(arrays), until=1)  # ... nor a checkpoint names what is imported
    trainer.about["plugins"] = {str(plugin): "0" * 64}
    checkpoints.save(trainer.state_dict(), tmp_path / "at.pt")
    restore_predictor(checkpoints.load(tmp_path / "at.pt"), "cpu")
    assert not marker.exists()


def test_plugins_are_recorded_with_path_and_hash(arrays: Path, tmp_path: Path) -> None:
    plugins = {"parts.py": "f" * 64}
    experiment = arrays_experiment(arrays, training__epochs=1)
    _, run = fit(experiment, None, "cpu", Display(quiet=True), runs=tmp_path, plugins=plugins)
    assert run.read_json("environment.json")["plugins"] == plugins
    assert checkpoints.load(run.last)["about"]["plugins"] == plugins


# -- 5. The fast path is the default path.


def test_the_fast_path_is_the_default_path(arrays: Path) -> None:
    text = f"data: {{name: arrays, path: {arrays}}}\nmodel: softmax_regression\ntraining: {{batch_size: 16}}"
    decided = build(Experiment.parse(text, "plain"), "cpu").about["decisions"]
    assert decided["loader"]["value"] == "resident" and "in memory already" in decided["loader"]["reason"]
