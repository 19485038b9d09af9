"""What a person is told when a training fails: what happened, what is safe, and what to do next."""

from __future__ import annotations

import errno
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dltrain.config import ConfigError
from dltrain.data.loading.streaming import LostWorkerError
from dltrain.engine.distributed import is_loss
from dltrain.errors import RunError
from dltrain.runs.reports import NonFiniteError
from dltrain.runs.run import Failure, Run, unwritable

if TYPE_CHECKING:
    from dltrain.engine.trainer import Trainer
    from dltrain.experiment.experiment import Experiment


def judge(error: Exception, place: Path) -> Failure:
    """Whose failure an error is: the machine's, or the experiment's own. place: what was being written."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, NonFiniteError):
        return Failure("not a number", str(error))
    if isinstance(error, ConfigError):
        return Failure(_without_numbers(error.diagnostics[0].message), error.diagnostics[0].message)
    if isinstance(error, RunError):
        return Failure(error.fault or _without_numbers(str(error)), str(error), error.fault is not None)
    if is_out_of_memory(error):
        return Failure("memory", text, of_machine=True)
    if isinstance(error, OSError):
        return judge(unwritable(error, place), place)
    if is_loss(error):
        return Failure("lost process", str(error), of_machine=True)
    if is_lost_device(error):
        return Failure("device", text, of_machine=True)
    return Failure(type(error).__name__, text)


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
    if isinstance(error, LostWorkerError):
        return "\n".join([str(error), kept, *_resuming(run)])
    if is_out_of_memory(error):
        return "\n".join([*_advice_on_memory(experiment, trainer, again), kept, *_resuming(run)])
    if isinstance(error, ConfigError):  # a damaged image, found when its batch was due
        return "\n".join([*(diagnostic.render() for diagnostic in error.diagnostics), kept, *_resuming(run)])
    if isinstance(error, OSError):
        return "\n".join([str(unwritable(error, run.path)), kept, *_resuming(run)])
    reason = (
        f"training failed: {type(error).__name__}: {_first_line(error)}\nthe traceback is in {run.path / 'log.txt'}"
    )
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
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def is_lost_device(error: BaseException) -> bool:
    """Whether the GPU has failed, after which this process can no longer use it."""
    import torch

    kind = getattr(torch, "AcceleratorError", None)
    return (kind is not None and isinstance(error, kind)) or (
        isinstance(error, RuntimeError) and "CUDA error" in str(error)
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _without_numbers(text: str) -> str:
    """What equal mistakes with other values have in common."""
    return re.sub(r"[0-9][0-9.e+-]*", "#", text.splitlines()[0] if text else "")


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
    batch, parts, one = training.batch, training.accumulate, trainer.parts.shape.one
    lines = [f"out of memory with {batch // parts} {one}s at a time on {trainer.parts.device}; what takes less:"]
    more = next((n for n in range(2 * parts, batch + 1) if batch % n == 0), None)
    if more is not None:
        lines.append(f"{again} training.accumulate={more}  # the same batch in parts of {batch // more}")
    if decisions["precision"]["value"] == "float32" and trainer.parts.device.type == "cuda":
        lines.append(f"{again} training.precision=bfloat16  # about half the memory for activations")
    if batch > 1:
        lr = experiment.optimizer.lr * (batch // 2) / batch
        lines.append(f"{again} training.batch_size={batch // 2} optimizer.lr={lr:g}  # lr scaled along")
    if decisions["loader"]["value"] == "resident":
        lines.append(f"{again} data.loader=streaming  # keeps the {one}s off the device")
    return lines
