"""Every `auto` is decided here, once, with its reason; a resume uses what was decided."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltrain.data.loading.resources import keep_freed_memory
from dltrain.experiment.training import Training

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dltrain.data.types import InputSpec


@dataclass(frozen=True)
class Decision:
    """What an automatic setting became, and why."""

    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{str(self.value).lower() if isinstance(self.value, bool) else self.value} ({self.reason})"


Decisions = dict[str, Decision]

CPU_COMPILE_WORK = 2e13
GPU_COMPILE_WORK = 1e15
"""Multiply-adds of a whole training above which compiling is repaid. On 2 cores, CIFAR ResNet-20 compiles in
32 s and then takes 0.84 of the time (288 -> 343 images/s), so it pays from about 200 s of training."""
LARGE_NETWORK = 2e7
"""Multiply-adds an image above which compiling pays on a CPU: LeNet (7e5) and convnet (1e7) take 1.04 and 1.01
times as long compiled (in bfloat16 convnet 1.25), ResNet-20 (4e7) 0.84 times. In NHWC LeNet and ResNet-20 are faster
(1.1 and 1.2 times; of eleven networks one is not)."""
BFLOAT16_WORK = 6e7
"""Multiply-adds of a batch's forward pass above which a CPU with units for bfloat16 matrices (Intel's AMX) is faster
with them: on 2 cores 1.2 to 2.4 times for convnet, ResNets, ResNeXts, DenseNet, SqueezeNet, NiN and VGG, 1.0 to 1.2
times for GoogLeNet and AlexNet. In batches of 128 LeNet takes 1.19 times as many images of 32x32x3 (8e7) and 1.04 times
as many of 28x28 (5e7), and MLPs gain 1.1 to 1.35 times (9e7 to 5e8); in batches of 32 they lose, as each step converts
the weights: 0.94, 0.88 and 0.8 times. With depthwise convolutions 0.25 to 0.8 times."""
SMALL_STEP = 5e7
"""Multiply-adds of a batch's forward pass below which one thread is about as fast as two on a quiet CPU, and many times
as fast beside a busy program, where two wait for each other (benchmarks/README.md, busy)."""
CLIP_NORM = 1.0
"""The norm to which longer gradients are cut by default; what it does for which network: benchmarks/README.md."""
COMPILED_SHAPES = 32
"""How many forms of a network torch may compile before it runs it uncompiled; its own limit is 8."""
PURE = "pure_"
"""What the names of precisions begin with in which weights are kept too."""


def pick_device(requested: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1` or `mps` as a device. Raises ValueError when it is not there."""
    import torch

    if requested == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(requested)
    except RuntimeError:
        raise ValueError(f"`{requested}` is not a device; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ValueError(f"there is no device {requested}: this machine has {count} CUDA GPUs")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("there is no device mps on this machine")
    if device.type not in ("cpu", "mps"):
        raise ValueError(f"`{requested}` is not a device that dltrain trains on; use auto, cpu, cuda or mps")
    return device


def count_devices(requested: str) -> int | None:
    """How many GPUs of this machine `auto` or `cuda` may take; None on a CPU, which any number of processes share."""
    import torch

    device = pick_device(requested)
    return None if device.type == "cpu" else torch.cuda.device_count() if device.type == "cuda" else 1


def decide(
    training: Training,
    device: torch.device,
    network: nn.Module,
    multiply_adds: int,
    images: float,
    *,
    line_search: bool = False,
    compares_losses: bool = False,
    compilable: bool = True,
) -> Decisions:
    """Precision, memory format, compile and threads for a training of `network` over `images` images in all.

    multiply_adds: of one image's forward pass. line_search: whether the optimizer compares losses of one batch.
    compares_losses: whether the gradient is a difference of such. compilable: whether torch can compile the passes.
    """
    work = 3.0 * multiply_adds * images  # the backward pass costs about twice the forward pass
    compiled = _compile(training, device, multiply_adds, work)
    if not compilable:
        compiled = Decision(False, "torch compiles no forward-mode derivatives")
    return {
        "device": Decision(str(device), device_name(device)),
        "precision": _precision(training, device, network, multiply_adds, line_search, compares_losses),
        "channels_last": _channels_last(training, device),
        "clip_norm": clip_norm(training, line_search=line_search),
        "compile": compiled,
        "graph": _graph(training, device, compiled),
        "threads": _threads(training, device, multiply_adds * training.micro_batch),
    }


def threads_of_environment() -> int | None:
    """The number of threads that OMP_NUM_THREADS asks for; None when it says nothing that can be followed."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(given) if given.isascii() and given.isdigit() and 0 < int(given) <= 65536 else None


def continue_threads(began: Decision) -> Decision:
    """How many threads a run goes on with: the environment stands above the run, and the run above the machine, since
    their number decides last digits."""
    asked = threads_of_environment()
    if asked is None or asked == began.value:
        return began
    return Decision(asked, f"OMP_NUM_THREADS in the environment; the run had {began.value}")


def _threads(training: Training, device: torch.device, work: int) -> Decision:
    """work: multiply-adds of a batch's forward pass."""
    from dltrain.engine.torch_threads import TORCH_THREADS

    threads = TORCH_THREADS.default
    if threads == threads_of_environment():
        return Decision(threads, "OMP_NUM_THREADS in the environment")
    if training.threads == "probe":
        return Decision(threads, "torch's default; `fit` on a CPU times steps with one thread, too, and may take that")
    if training.threads != "auto":
        return Decision(training.threads, "set in the experiment")
    if device.type == "cpu" and threads > 1 and work < SMALL_STEP:
        small = f"a step of {work:.1e} multiply-adds gains little from {threads}, which lose much beside busy programs"
        return Decision(1, f"{small}; torch's default from {SMALL_STEP:.0e} on")
    return Decision(threads, "torch's default on this machine, unless the program has set it")


def clip_norm(training: Training, *, line_search: bool) -> Decision:
    """The largest norm of the gradient that a training allows, or None; a function of the experiment alone."""
    if training.clip_norm != "auto":
        return Decision(training.clip_norm, "set in the experiment")
    if line_search:
        return Decision(None, "the optimizer takes the gradient as it is")
    return Decision(CLIP_NORM, "long first steps kill networks without norms")


def device_name(device: torch.device) -> str:
    """The name of the hardware."""
    import platform

    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def dtype_of(precision: str) -> torch.dtype:
    """The type that a decided precision computes in."""
    import torch

    dtype: torch.dtype = getattr(torch, precision.removeprefix(PURE))
    return dtype


def autocast_of(dtype: torch.dtype, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """What a forward pass runs in to compute in `dtype`; nothing for float32."""
    import torch

    return nullcontext if dtype == torch.float32 else partial(torch.autocast, device.type, dtype=dtype)


def _precision(
    training: Training, device: torch.device, network: nn.Module, multiply_adds: int, line_search: bool,
    compares_losses: bool,
) -> Decision:  # fmt: skip
    import torch

    if training.precision.startswith(PURE):
        why = "set in the experiment: convolutions and linear layers keep their weights in it, norms stay in float32"
        return Decision(training.precision, why)
    if training.precision != "auto":
        return Decision(training.precision, "set in the experiment")
    if compares_losses:
        return Decision("float32", "the gradient is a difference of losses that 16 bits cannot tell apart")
    if line_search:
        return Decision("float32", "the optimizer compares losses that differ by less than 16 bits can tell")
    if device.type == "cpu":
        return _cpu_precision(network, multiply_adds * training.micro_batch)
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return Decision("bfloat16", "the GPU has bfloat16 units")
    reason = "the GPU has no bfloat16 units" if device.type == "cuda" else "reduced precision is slower on this device"
    return Decision("float32", reason)


def _cpu_precision(network: nn.Module, work: int) -> Decision:
    import torch

    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions do not say
    if not capabilities.get("amx_bf16"):
        return Decision("float32", "the CPU has no bfloat16 units")
    if work < BFLOAT16_WORK:
        return Decision("float32", f"a step is too small to gain from the CPU's bfloat16 units: {work:.1e} of "
                                   f"{BFLOAT16_WORK:.0e} multiply-adds")  # fmt: skip
    for module in network.modules():
        if isinstance(module, torch.nn.modules.conv._ConvNd) and module.groups == module.in_channels > 1:
            return Decision("float32", "depthwise convolutions are slower in bfloat16 on CPUs")
    return Decision("bfloat16", "the CPU has bfloat16 units")


def _channels_last(training: Training, device: torch.device) -> Decision:
    if training.channels_last != "auto":
        return Decision(training.channels_last, "set in the experiment")
    if device.type == "cuda":
        return Decision(True, "tensor cores read NHWC")
    return Decision(True, "convolutions and pools are faster in NHWC")


def _compile(training: Training, device: torch.device, multiply_adds: int, work: float) -> Decision:
    missing = _missing_to_compile(device)
    if training.compile != "auto":
        if training.compile and missing is not None:
            return Decision(False, f"asked for, but there is no {missing} on this machine")
        return Decision(training.compile, "set in the experiment")
    threshold = GPU_COMPILE_WORK if device.type == "cuda" else CPU_COMPILE_WORK
    if device.type not in ("cpu", "cuda"):
        return Decision(False, f"not supported on {device.type}")
    if work < threshold:
        return Decision(False, f"training is too short to repay it: {work:.1e} of {threshold:.0e} multiply-adds")
    if device.type == "cpu" and multiply_adds < LARGE_NETWORK:
        return Decision(False, f"no gain for a network of {multiply_adds / 1e6:.3g}M multiply-adds")
    if missing is not None:
        return Decision(False, f"there is no {missing} on this machine")
    return Decision(True, f"repaid by {work:.1e} multiply-adds")


def _graph(training: Training, device: torch.device, compiled: Decision) -> Decision:
    if device.type != "cuda":
        return Decision(False, f"{device.type} has none")
    if training.graph == "auto":
        return Decision(False, "only when it is asked for, as long as its gain has not been measured")
    if training.graph and not compiled.value:
        return Decision(False, "it is recorded from the compiled network, and the network is not compiled")
    return Decision(training.graph, "set in the experiment")


def _missing_to_compile(device: torch.device) -> str | None:
    """What torch.compile needs and this machine lacks: a GPU's kernels are launched by compiled code too."""
    if device.type == "cuda" and find_spec("triton") is None:
        return "Triton"
    if not any(shutil.which(name) for name in ("g++", "clang++", "cl")):
        return "C++ compiler"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.is_file() else f"{header} (package python3-dev)"


def count_multiply_adds(network: nn.Module, shape: InputSpec) -> int:
    """Multiply-adds of one image's forward pass, counted by running it once in evaluation mode."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    was_training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(shape.example(1))
    network.train(was_training)
    return int(counter.get_total_flops()) // 2


def configure_torch(decisions: Decisions, *, deterministic: bool) -> None:
    """Set torch's process-wide switches to what was decided, so that the same run gives the same numbers."""
    import torch

    from dltrain.engine.torch_threads import TORCH_THREADS

    TORCH_THREADS.set(decisions["threads"].value)
    if decisions["device"].value == "cpu":
        keep_freed_memory()
    if decisions["compile"].value:  # once for each size of images and batches, in training and in evaluation
        import torch._dynamo

        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_SHAPES)
    if str(decisions["device"].value).startswith("cuda"):
        # cuBLAS is deterministic only with a fixed workspace, which it reads when it starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = not deterministic
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.set_float32_matmul_precision("highest" if deterministic else "high")
        torch.backends.cudnn.allow_tf32 = not deterministic
