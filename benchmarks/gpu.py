"""Times on a device, by CUDA events with a cold cache, providers in turn; and what the device can do at best.

A small op takes longer to launch from Python than to compute, so what can be recorded is timed as a replay of a CUDA
graph, for every provider alike. On a CPU a clock takes the time, and no cache is flushed.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

_CACHE_BYTES = 1 << 28  # written between two runs: more than the second-level cache of any GPU
_MIN_ROUNDS, _MAX_ROUNDS = 5, 200
_WARMUP_RUNS = 3


def record(run: Callable[[], object]) -> Callable[[], None]:
    """A CUDA graph of one run, after some to warm up; calling the result replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARMUP_RUNS):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def milliseconds_in_turn(
    runs: Mapping[str, Callable[[], object]], device: torch.device, seconds: float
) -> dict[str, list[float]]:
    """The time of each run by itself, once a round; they take turns: A B A B ...

    Args:
        seconds: how long all rounds take together; there are at least five.
    """
    clock = _cuda_rounds if device.type == "cuda" else _cpu_rounds
    clock(runs, 1, device)  # to warm up
    start = time.perf_counter()
    clock(runs, 1, device)
    n_rounds = int(seconds / (time.perf_counter() - start))
    gc.collect()
    gc.disable()
    try:
        return clock(runs, min(max(n_rounds, _MIN_ROUNDS), _MAX_ROUNDS), device)
    finally:
        gc.enable()


def _cuda_rounds(
    runs: Mapping[str, Callable[[], object]], n_rounds: int, device: torch.device
) -> dict[str, list[float]]:
    cache = torch.empty(_CACHE_BYTES, dtype=torch.int8, device=device)
    events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in runs}
    for _ in range(n_rounds):
        for name, run in runs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            cache.zero_()  # and while it runs, the CPU gets ahead
            start.record()
            run()
            end.record()
            events[name].append((start, end))
    torch.cuda.synchronize()
    return {name: [start.elapsed_time(end) for start, end in pairs] for name, pairs in events.items()}


def _cpu_rounds(
    runs: Mapping[str, Callable[[], object]], n_rounds: int, device: torch.device
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(n_rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def peak_bytes(run: Callable[[], object]) -> int:
    """The most memory that a run takes beyond what is in use: its results, what it saves, what it needs meanwhile."""
    run()  # what it keeps for good is not its peak
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


@dataclass(frozen=True)
class Ceilings:
    """The rates that a device reached in this run.

    Attributes:
        bytes_per_second: read and written by a large copy.
        flops_per_second: floating-point operations of a large product of matrices in one dtype.
    """

    bytes_per_second: float
    flops_per_second: float

    def least_seconds(self, n_bytes: int, n_flops: int) -> tuple[float, str]:
        """The least time for so much work, and which limit binds: "memory" or "compute"."""
        memory, compute = n_bytes / self.bytes_per_second, n_flops / self.flops_per_second
        return (memory, "memory") if memory >= compute else (compute, "compute")

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype) -> Ceilings:
        """Copies, and multiplies matrices in `dtype`, for half a second."""
        n_bytes, n = (1 << 31, 8192) if device.type == "cuda" else (1 << 27, 1024)
        source = torch.empty(n_bytes, dtype=torch.int8, device=device).fill_(1)
        copy = partial(torch.empty_like(source).copy_, source)
        a, b = torch.randn(2, n, n, device=device).to(dtype)  # on zeros a product is faster than it ever will be
        times = milliseconds_in_turn({"copy": copy, "product": partial(torch.mm, a, b)}, device, 0.5)
        copy_s, product_s = (statistics.median(times[name]) / 1e3 for name in ("copy", "product"))
        return cls(2 * n_bytes / copy_s, 2 * n**3 / product_s)


def check_device(device: str) -> None:
    """Refuses "cuda" where torch sees no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda needs a CUDA GPU, and torch sees none")


def device_names(device: torch.device) -> dict[str, str | None]:
    """The name of the GPU and the version of its driver, None on a CPU."""
    if device.type != "cuda":
        return {"gpu": None, "driver": None}
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = None
    return {"gpu": torch.cuda.get_device_name(device), "driver": driver}
