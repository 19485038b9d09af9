"""What the machine has to spare, and what that means for the data path: each choice comes with its numbers."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dltrain.data.types import Source

if TYPE_CHECKING:
    import torch

MOST_WORKERS = 16
"""Decoding processes beyond which more do not pay: each takes about 300 MB and seconds to start."""
UNKNOWN_MEMORY = 4 * 10**9
"""Bytes assumed to be free where the operating system does not say."""


def choose_loader(
    source: Source, layout: Any, device: torch.device, requested: Literal["auto", "resident", "streaming"]
) -> tuple[Literal["resident", "streaming"], str]:
    """The loader for a split, and the reason. resident when the examples fit into half of the free memory."""
    if requested != "auto":
        return requested, "set in the experiment"
    need = source.bytes_on(layout)
    if device.type == "cpu" and source.lies_on(layout):
        return "resident", f"{size(need)} of {source.words} are in memory already"
    free = free_memory(device)
    where = "on the GPU" if device.type == "cuda" else "in memory"
    numbers = f"{size(need)} of {source.words}, {size(free)} free {where}"
    return ("resident" if need <= free / 2 else "streaming"), numbers


def choose_workers(source: Source, requested: int | Literal["auto"]) -> tuple[int, str]:
    """How many processes decode for the streaming loader, and the reason."""
    if source.in_memory:
        return 0, f"the {source.words} are in memory; there is nothing to decode"
    if source.files is not None and source.files.cache is not None:
        return 0, "the images are decoded once, into the cache"
    if requested != "auto":
        return requested, "set in the experiment"
    cores = usable_cores()
    return min(cores, MOST_WORKERS), f"{cores} cores to use"


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_folder(cache: bool | str) -> Path | None:
    """Where `cache` puts packs of decoded images."""
    if isinstance(cache, str):
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dltrain") if cache else None


def crowded(threads: int) -> str | None:
    """What to say of other processes that compute now, if `threads` of this one do not find a core each; None on quiet
    machines and where the system does not say (it does on Linux).

    A thread that has lost its core lets all others of its step wait: two threads beside one busy process train small
    networks at a quarter of the speed of one thread (benchmarks/README.md, busy). dltrain says so and leaves the choice
    to the user, since the number of threads decides last digits.
    """
    if threads == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    samples = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for _ in range(10):
            samples.append(int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1)  # without this one
            time.sleep(0.01)
    others = statistics.median(samples) if samples else 0
    if others < 1 or others + threads <= usable_cores():
        return None
    return (
        f"{others:.0f} other processes or threads compute on this machine, and {threads} threads of this training will "
        f"wait for each other: training.threads={max(usable_cores() - round(others), 1)} may be many times as "
        "fast, with other last digits (training.threads=probe tries it)"
    )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """For loops over single images on a CPU, and Python threads that begin in it: each torch operation takes one core.
    On pieces this small, several threads wait for each other longer than they work, above all on shared cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Let the C library keep memory that is freed for what is wanted next (glibc only; see mallopt(3)).

    By default it returns large blocks to the system, and every step asks for them again and waits until they have
    been cleared, page by page: thousands of times, up to a fifth of a step on a CPU. The peak of memory grows, as
    blocks fit less well into what is kept (by 1, 6 and 20 % with three networks). Whoever sets MALLOC_... in the
    environment decides instead.
    """
    import ctypes

    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        # M_MMAP_THRESHOLD, the bytes from which a block is not of the heap; before glibc 2.35, 32 MB at most.
        if mallopt(-3, 2**30) or mallopt(-3, 2**25):
            mallopt(-1, -1)  # M_TRIM_THRESHOLD: never shrink the heap


def free_memory(device: torch.device) -> int:
    """Free bytes on a CUDA device; else of main memory, within the limit of a container."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return free_main_memory()


def free_main_memory() -> int:
    """Free bytes of main memory, within the limit of a container."""
    found = [amount for amount in (_available(), _left_in_container()) if amount is not None]
    return min(found, default=UNKNOWN_MEMORY)


def _available() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):  # macOS: half of all memory
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _left_in_container() -> int | None:
    """What cgroups leave of their limit."""
    base = Path("/sys/fs/cgroup")
    for limit, used in (("memory.max", "memory.current"),
                        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):  # fmt: skip
        with contextlib.suppress(OSError, ValueError):  # "max" stands for no limit
            return max(int((base / limit).read_text()) - int((base / used).read_text()), 0)
    return None


def size(count: float) -> str:
    """Bytes for people: `153.6 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
