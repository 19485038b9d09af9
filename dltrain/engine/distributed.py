"""Several processes that train one model, each on its device: what they say to one another, and who starts them.

    fit --devices 4  ->  launch: torch's elastic agent starts 4 processes of the same command, anew when one is lost
    torchrun -m dltrain fit ...  starts them itself, on several machines too
    each process  ->  joined() -> Group -> build, Trainer, Run

Every process has its share of every batch. Gradients are averaged by DistributedDataParallel, so all hold the same
weights; the first process alone writes files. Imports torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dltrain.config import ConfigError, Diagnostic
from dltrain.console.streams import say
from dltrain.data.types import Share
from dltrain.errors import DltrainError

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: one may read the data much more slowly."""


class LostProcessError(DltrainError):
    """Another process has ended, so that this one cannot go on."""


@dataclass(eq=False)
class Group:
    """The processes that train together. Alone, nothing is ever sent."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """The place among those on this machine."""
    local_size: int = 1
    """How many there are on this machine."""
    launch: str = ""
    """What names the command that started all of them, their successors after a loss included."""
    restarts: int = 0
    """How often they were started again."""
    restarts_left: int = 0
    """How often they would be started again yet."""

    def __post_init__(self) -> None:
        self._asked: tuple[Tensor, Any] | None = None

    @property
    def share(self) -> Share:
        """This process's share of every batch."""
        return Share(self.rank, self.size)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process: of several, each takes the GPU of its place on its machine."""
        if self.size == 1 or not (name.startswith("cuda") or (name == "auto" and torch.cuda.is_available())):
            return name
        if self.local_rank < torch.cuda.device_count():
            torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in some process."""
        if self.size == 1:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.uint8)
        with _losses():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def first_said(self, flag: bool) -> bool:
        """What the first process gave at the call before: the same in all of them, and nobody waits for it."""
        if self.size == 1:
            return flag
        with _losses():
            answer = False
            if self._asked is not None:
                said, sending = self._asked
                sending.wait()
                answer = bool(said)
            said = torch.tensor(flag)
            self._asked = said, dist.broadcast(said, 0, async_op=True)
        return answer

    def leave(self, code: int) -> None:
        """End this process with the others; at once when the command has failed, as they may never come so far.

        What is under way between threads of the connection would trip over an interpreter that is taken down.
        """
        if self.size == 1:
            return
        if not code:
            if self._asked is not None:
                self._asked[1].wait()
            with _losses():
                dist.barrier()
            dist.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        self._each(tensors, dist.all_reduce)

    def copy(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the first process's."""
        self._each(tensors, lambda tensor: dist.broadcast(tensor, 0))

    def joined(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor (n, ...) with the rows of all processes, which may have different numbers of them: those of the
        first, then those of the second, and so on."""
        if self.size == 1:
            return list(tensors)
        found = []
        with _losses():
            for tensor in tensors:
                counts = [torch.zeros(1, dtype=torch.int64, device=tensor.device) for _ in range(self.size)]
                dist.all_gather(counts, torch.tensor([len(tensor)], device=tensor.device))
                sizes = [int(count) for count in counts]
                padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
                padded[: len(tensor)] = tensor
                parts = [torch.empty_like(padded) for _ in sizes]
                dist.all_gather(parts, padded)
                found.append(torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]))
        return found

    def _each(self, tensors: Iterable[Tensor], send: Any) -> None:
        if self.size > 1:
            with _losses():
                for tensor in tensors:
                    send(tensor)

    def broadcast(self, value: T) -> T:
        """The first process's value, which may be any that can be pickled."""
        if self.size == 1:
            return value
        values = [value]
        with _losses():
            dist.broadcast_object_list(values, 0)
        return values[0]

    def wrapped(self, model: nn.Module, device: torch.device, *, unused: bool) -> nn.Module:
        """The model whose backward pass averages gradients over all processes; its weights are the first one's.

        unused: whether some weights take no part in some steps.
        """
        if self.size == 1:
            return model
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            model, device_ids=ids, gradient_as_bucket_view=True, find_unused_parameters=unused
        )


ALONE = Group()


@contextlib.contextmanager
def _losses() -> Iterator[None]:
    """An error of the connection as LostProcessError."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        raise LostProcessError(str(error).splitlines()[0]) from error


def is_loss(error: BaseException) -> bool:
    """Whether the error says that another process has ended."""
    text = str(error)
    told = isinstance(error, RuntimeError) and dist.is_initialized() and ("gloo" in text or "NCCL" in text)
    return isinstance(error, (LostProcessError, dist.DistError)) or told


NUMBERS = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS"
)  # fmt: skip
"""What torchrun tells a process in numbers."""
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
"""Where the processes meet."""
SOON = 20
"""Seconds in which processes that are started together have met."""


def is_started_together() -> bool:
    """Whether torchrun, or something that sets the same environment, has started this process.

    Raises ConfigError when the environment says so in part, or what cannot be: a variable that was left over would let
    the process wait for others that never come.
    """
    given = {name: os.environ[name] for name in (*NUMBERS, *ADDRESS) if name in os.environ}
    if "RANK" not in given or given.get("WORLD_SIZE", "1") == "1":
        return False
    wrong = [f"{name}={given[name]!r} is not a number" for name in NUMBERS if not given.get(name, "0").isdecimal()]
    if not wrong and int(given["RANK"]) >= int(given["WORLD_SIZE"]):
        wrong = [f"of WORLD_SIZE={given['WORLD_SIZE']} processes none has RANK={given['RANK']}"]
    wrong += [f"{name} is not set" for name in ADDRESS if name not in given]
    if wrong:
        note = "to train alone: unset RANK WORLD_SIZE; together: torchrun, or dltrain fit --devices N"
        message = f"the environment is that of one of several processes, but {', and '.join(wrong)}"
        raise ConfigError([Diagnostic(message, notes=(note,))])
    return True


@contextlib.contextmanager
def _waiting_said(given: dict[str, int]) -> Iterator[None]:
    """Say what is waited for when the other processes do not come soon: the environment may be left over."""
    place = ":".join(os.environ.get(name, "") for name in ADDRESS)
    text = f"waiting at {place} for the other processes: this one has RANK={given['RANK']} of {given['WORLD_SIZE']}; "
    timer = threading.Timer(SOON, say, [text + "to train alone: unset RANK WORLD_SIZE"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def joined() -> Iterator[Group]:
    """This process's group, as the environment that torchrun sets describes it, joined until the end of the block."""
    if not is_started_together():
        yield ALONE
        return
    given = {name: int(value) for name, value in os.environ.items() if name in NUMBERS}
    restarts = given.get("TORCHELASTIC_RESTART_COUNT", 0)
    group = Group(
        rank=given["RANK"], size=given["WORLD_SIZE"], local_rank=given.get("LOCAL_RANK", given["RANK"]),
        local_size=given.get("LOCAL_WORLD_SIZE", given["WORLD_SIZE"]),
        launch=os.environ.get("TORCHELASTIC_RUN_ID", ""), restarts=restarts,
        restarts_left=given.get("TORCHELASTIC_MAX_RESTARTS", 0) - restarts,
    )  # fmt: skip
    with _losses(), _waiting_said(given):
        store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))  # type: ignore[attr-defined]
        # Processes that are started again meet in the same store, where the addresses of the first ones still are.
        store = dist.PrefixStore(f"start{restarts}", store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield group
    except Exception:
        if not group.leads:  # the first most likely says the same, and its end is the end of this process
            time.sleep(3)
        raise


def launch(arguments: Sequence[str], devices: int, max_restarts: int) -> int:
    """Run `dltrain ARGUMENTS` in `devices` processes that train together; the exit code.

    When one is lost all are started again, up to `max_restarts` times; they go on from the last checkpoint.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the processes say themselves what is wrong
    with tempfile.TemporaryDirectory() as logs:
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=devices, run_id=uuid.uuid4().hex, max_restarts=max_restarts,
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", logs_specs=DefaultLogsSpecs(log_dir=logs),
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)("-m", "dltrain", *arguments)
        except ChildFailedError as error:
            codes = [failure.exitcode for failure in error.failures.values()]
            return max(codes) if max(codes) > 0 else 128 - min(codes)
        except SignalException as error:
            return 128 + error.sigval
    return 0
