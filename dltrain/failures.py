"""What a person is told when a training fails: what happened, what is safe, and what to do next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from dltrain.config import ConfigError
from dltrain.distributed import is_loss
from dltrain.reports import NonFiniteError
from dltrain.runs import Run, unwritable

if TYPE_CHECKING:
    from dltrain.experiment import Experiment
    from dltrain.trainer import Trainer


def explain(error: Exception, run: Run, trainer: Trainer, experiment: Experiment) -> str:
    """The message for an error that ended a training."""
    kept = f"the last good checkpoint is {run.last}" if run.last.exists() else "no checkpoint had been written yet"
    again = f"  dltrain fit {shlex.quote(str(run.path / 'experiment.yaml'))}"
    if isinstance(error, NonFiniteError):
        return "\n".join([f"{error}\n{kept}", *_advice_on_divergence(run, experiment, again)])
    if is_loss(error):
        again_at_once = trainer.parts.group.restarts_left
        how = ["all are started again from there"] if again_at_once else _resuming(run)
        return "\n".join(["another process of this training has ended", kept, *how])
    if is_out_of_memory(error):
        return "\n".join([*_advice_on_memory(experiment, trainer, again), kept, *_resuming(run)])
    if isinstance(error, ConfigError):  # a damaged image, found when its batch was due
        return "\n".join([*(diagnostic.render() for diagnostic in error.diagnostics), kept, *_resuming(run)])
    if isinstance(error, OSError):
        return "\n".join([str(unwritable(error, run.path)), kept, *_resuming(run)])
    first = (str(error).strip().splitlines() or [""])[0]
    reason = f"training failed: {type(error).__name__}: {first}\nthe traceback is in {run.path / 'log.txt'}"
    if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return "\n".join([reason, kept, *_advice_on_compiler(again)])
    return "\n".join([reason, kept, *_resuming(run)])


def resume_command(run: Run, plugins: dict[str, str]) -> str:
    """The command that continues a run."""
    words = ["dltrain", "resume", str(run.path)]
    for path in plugins:
        words += ["--plugin", path]
    return shlex.join(words)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the device or on the host."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def _resuming(run: Run) -> list[str]:
    return [f"to go on from there: {resume_command(run, run.read_json('environment.json').get('plugins', {}))}"]


def _advice_on_divergence(run: Run, experiment: Experiment, again: str) -> list[str]:
    """Resuming would repeat the very same steps, so something has to change."""
    lr: float = experiment.optimizer.lr
    lines = ["a resume would repeat it exactly; one of these usually helps:", f"{again} optimizer.lr={lr / 10:g}"]
    if experiment.training.clip_norm is None:
        lines.append(f"{again} training.clip_norm=1")
    if experiment.schedule.warmup is None:
        lines.append(f"{again} schedule.warmup='{{epochs: 1}}'")
    if run.last.exists():
        lines.append(f"each can start from that checkpoint's weights: initialize_from={shlex.quote(str(run.last))}")
    return lines


def _advice_on_compiler(again: str) -> list[str]:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return [
        "torch.compile failed; its cache may hold a file that a killed process left half-written:",
        f"  rm -r {shlex.quote(cache_dir())}",
        "or train without it:",
        f"{again} training.compile=false",
    ]


def _advice_on_memory(experiment: Experiment, trainer: Trainer, again: str) -> list[str]:
    training, decisions = experiment.training, trainer.about["decisions"]
    batch, parts = training.batch_size, training.accumulate
    lines = [f"out of memory with {batch // parts} images at a time on {trainer.parts.device}; what takes less:"]
    more = next((n for n in range(2 * parts, batch + 1) if batch % n == 0), None)
    if more is not None:
        lines.append(f"{again} training.accumulate={more}  # the same batch in parts of {batch // more}")
    if decisions["precision"]["value"] == "float32" and trainer.parts.device.type == "cuda":
        lines.append(f"{again} training.precision=bfloat16  # about half the memory for activations")
    if batch > 1:
        lr = experiment.optimizer.lr * (batch // 2) / batch
        lines.append(f"{again} training.batch_size={batch // 2} optimizer.lr={lr:g}  # lr scaled along")
    if decisions["loader"]["value"] == "resident":
        lines.append(f"{again} data.loader=streaming  # keeps the images off the device")
    return lines
