"""Speed of every op beside eager torch, compiled torch and the best public kernel, in one run.

Every provider is held against the reference in fp64 on the very inputs that are timed (electra_fast.ops.testing); one
that is wrong gets no time. Times are of the device, with a cold cache, providers in turn (benchmarks/gpu.py), and are
set against what the device can do at best, measured in the same run, for the least work of the op (cases.py).
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import torch
from tqdm import tqdm

from ...ops.contracts.library import IS_INTERPRETED
from ...ops.registry import OPS
from ...ops.testing import poisoned, repair_interpreter
from ...pretraining.recipes import PRESETS
from ...processor import default_threads
from .. import OURS
from ..gpu import Ceilings, device_names, milliseconds_in_turn, peak_bytes, record
from ..measure import append_rows, check_writable, machine, markdown, quantiles, quantiles_cell, ratio, ratio_cell
from .case import Case, Key, Provider
from .cases import LISTS, case_keys, make_case

EAGER, COMPILED = "torch eager", "torch.compile"
PEERS = ("eager", "compile", "kernels")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NO_GPU = "the Triton kernels need a CUDA GPU, and torch sees none; --device cpu runs the torch providers"

Row = dict[str, Any]


@dataclass(kw_only=True)
class OpsBench:
    """Measure every op beside eager and compiled torch, and public kernels."""

    sizes: tuple[str, ...] = ("base", "small", "large")
    """Networks whose shapes to take: tiny, small, base, large."""
    ops: tuple[str, ...] = tuple(OPS)
    """The ops to measure."""
    against: tuple[str, ...] = PEERS
    """Peers: eager torch, torch.compile of it, the best public kernels."""
    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Type of parameters and activations."""
    tokens: int = 16384
    """Tokens of a batch, of which 15 % are masked."""
    device: Literal["cuda", "cpu"] = "cuda"
    """A CPU runs the torch providers; ours is compared there, not timed, and only with TRITON_INTERPRET=1."""
    seconds: float = 180.0
    """When to stop: what has not begun by then is left out."""
    json: Path | None = None
    """Append one row a provider and case to this JSONL file."""

    def run(self) -> None:
        self._check()
        if IS_INTERPRETED:
            repair_interpreter()
        begin = time.perf_counter()
        device, dtype = torch.device(self.device), DTYPES[self.dtype]
        keys = list(case_keys(self.ops, self.sizes, self.tokens, dtype, device))
        if device.type == "cuda":
            compile_in_parallel(keys, self.against, self.seconds / 2)
        ceilings = Ceilings.measure(device, dtype)
        about = machine("torch", "triton") | device_names(device)
        about |= {
            "copy_gb_per_second": round(ceilings.bytes_per_second / 1e9, 1),
            "product_tflop_per_second": round(ceilings.flops_per_second / 1e12, 2),
        }
        print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
        rows: list[Row] = []
        left_out = []
        try:
            for key in tqdm(keys, disable=None):
                if time.perf_counter() - begin > self.seconds:
                    left_out.append(key.name)
                    continue
                new = measure(key, self.against, ceilings)
                rows += new
                if self.json is not None:
                    append_rows(self.json, (row | about for row in new))
        finally:
            print(table(rows))
        if left_out:
            print(f"left out after {self.seconds:g} s: {', '.join(left_out)}")
        if self.json is not None:
            print(f"{len(rows)} rows: {self.json}")
        bad = [row for row in rows if row["provider"] == OURS and row["status"].startswith(("wrong", "failed"))]
        if bad:
            raise SystemExit(f"electra_fast has no time for {len(bad)} of {len(rows)} rows: it is wrong, or fails")

    def _check(self) -> None:
        for name, known in (("sizes", PRESETS), ("ops", OPS), ("against", PEERS)):
            given = getattr(self, name)
            if not set(given) <= set(known) or (not given and name != "against"):
                raise ValueError(f"{name} must be among {', '.join(known)}, got {' '.join(given) or 'none'}")
        if self.tokens < 2 or self.seconds <= 0:
            raise ValueError(f"tokens must be at least 2 and seconds above 0, got {self.tokens} and {self.seconds:g}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(NO_GPU)
        check_writable(self.json)


def providers_of(case: Case, against: tuple[str, ...]) -> list[Provider]:
    """Who is measured on a case, ours first."""
    op = OPS[case.key.op]

    def ours(**kwargs: Any) -> Any:
        return op.triton(**kwargs)  # imported here, where a failure is reported

    providers = [Provider(OURS, ours, is_seeded=True)]
    if "eager" in against:
        providers.append(Provider(EAGER, op.torch, is_recordable=case.is_recordable))
    if "compile" in against and case.key.op not in LISTS:  # hundreds of tensors compile for minutes
        compiled = torch.compile(op.torch, dynamic=False)
        providers.append(Provider(COMPILED, compiled, is_recordable=case.is_recordable))
    return providers + (list(case.peers) if "kernels" in against else [])


def measure(key: Key, against: tuple[str, ...], ceilings: Ceilings) -> list[Row]:
    """The rows of one case: every direction and provider."""
    torch.compiler.reset()  # else, after some shapes of one function, torch.compile gives up and runs it eagerly
    case = make_case(key)
    providers = providers_of(case, against)
    return [row for direction in case.costs for row in measure_direction(case, direction, providers, ceilings)]


def measure_direction(case: Case, direction: str, providers: list[Provider], ceilings: Ceilings) -> list[Row]:
    """A row for each provider."""
    key, cost = case.key, case.costs[direction]
    is_cuda = key.device.type == "cuda"
    least, bound = ceilings.least_seconds(cost.n_bytes, cost.n_flops)
    rows: dict[str, Row] = {}
    runs: dict[str, Callable[[], object]] = {}
    for provider in providers:
        rows[provider.name] = row = {"provider": provider.name, **check(case, direction, provider)}
        row["is_replayed"] = is_cuda and provider.is_recordable
        if row["status"] != "right" or (provider.is_seeded and not is_cuda):
            continue
        try:
            run = case.run(provider, direction)
            row["peak_mb"] = round(peak_bytes(run) / 1e6, 1) if is_cuda else None
            runs[provider.name] = record(run) if row["is_replayed"] else run
        except Exception as error:
            row["status"] = failure(error)
    times = milliseconds_in_turn(runs, key.device, seconds=0.3) if runs else {}
    for name, milliseconds in times.items():
        seconds = quantiles(milliseconds)[1] / 1e3
        rows[name] |= {
            "milliseconds": [float(f"{q:.4g}") for q in quantiles(milliseconds)],
            "gb_per_second": round(cost.n_bytes / seconds / 1e9, 2),
            "tflop_per_second": round(cost.n_flops / seconds / 1e12, 3),
            "percent_of_ceiling": round(100 * least / seconds, 1),
            "ratio": round(ratio(milliseconds, times[OURS]), 3) if OURS in times else None,
        }
    shared = {
        "bench": "ops",
        "op": key.op,
        "size": key.size,
        "dtype": str(key.dtype).removeprefix("torch."),
        "tokens": key.tokens,
        "length": key.length,
        "direction": direction,
        "bytes": cost.n_bytes,
        "flops": cost.n_flops,
        "bound": bound,
    }
    untimed = dict.fromkeys(
        ("milliseconds", "gb_per_second", "tflop_per_second", "percent_of_ceiling", "ratio", "peak_mb")
    )
    return [shared | untimed | row for row in rows.values()]


def check(case: Case, direction: str, provider: Provider) -> Row:
    """{"status": "right", or what is wrong or stands in the way; "error_ratio": the largest of `testing.Error`s}"""
    if provider.is_seeded and case.key.device.type == "cpu" and not IS_INTERPRETED:
        return {"status": "needs a CUDA GPU, or TRITON_INTERPRET=1", "error_ratio": None}
    try:
        with poisoned() if provider.is_seeded else nullcontext():
            errors = case.errors(provider, direction)
    except AssertionError as error:
        return {"status": f"wrong: {_first_line(error)}", "error_ratio": None}
    except Exception as error:
        return {"status": failure(error), "error_ratio": None}
    wrong = [error.name for error in errors if not error.is_within]
    largest = max((e.ratio if math.isfinite(e.ratio) else math.inf for e in errors), default=0.0)
    return {
        "status": f"wrong: {', '.join(wrong)}" if wrong else "right",
        "error_ratio": round(largest, 3) if math.isfinite(largest) else None,
    }


def failure(error: Exception) -> str:
    """The status of a provider that fails."""
    return f"failed: {type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200]


def compile_in_parallel(keys: list[Key], against: tuple[str, ...], seconds: float) -> None:
    """Runs every case in other processes first, to fill the caches of Triton and torch.compile.

    Compiling takes one core several seconds a case, longer than all that is measured. What fails here fails again, and
    is reported, where it is measured; what is not done in time is compiled there.
    """
    n_workers = min(8, default_threads() // 2, len(keys))
    if n_workers < 2:
        return
    with multiprocessing.get_context("spawn").Pool(n_workers, _one_thread) as pool:
        pool.starmap_async(_compile, [(key, against) for key in keys], chunksize=1).wait(seconds)


def _one_thread() -> None:
    import torch._inductor.config

    torch.set_num_threads(1)
    torch._inductor.config.compile_threads = 1


def _compile(key: Key, against: tuple[str, ...]) -> None:
    torch.compiler.reset()
    case = make_case(key)
    for provider, direction in product(providers_of(case, against), case.costs):
        with suppress(Exception):
            case.errors(provider, direction)
            case.run(provider, direction)()


def table(rows: list[Row]) -> str:
    """A line for each row; the least work is bytes or operations, whichever binds.

    "launched" is what is not timed as a replayed CUDA graph.
    """
    lines = []
    for row in rows:
        case = " ".join(str(row[name]) for name in ("op", "size", "length") if row[name] is not None)
        provider = row["provider"]
        error = "" if row["error_ratio"] is None else f"{row['error_ratio']:.2f}"
        times = speed = percent = peak = theirs = ""
        if row["milliseconds"] is None:
            times = shorten(row["status"], 80)
        else:
            times = quantiles_cell(row["milliseconds"], "g")
            provider += "" if row["is_replayed"] else ", launched"
            is_memory = row["bound"] == "memory"
            speed = f"{row['gb_per_second']:.0f} GB/s" if is_memory else f"{row['tflop_per_second']:.1f} TFLOP/s"
            percent = f"{row['percent_of_ceiling']:.0f} %"
            peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
            theirs = ratio_cell(row, "{ratio:.2f} x")
        lines.append((case, row["direction"], provider, times, theirs, speed, percent, peak, error))
    header = ("op", "direction", "provider", "ms (20 / 50 / 80 %)", "ours", "least work", "of ceiling", "MB", "error")
    return markdown(header, lines)
