"""`make gpu`: in eight minutes the tests and benchmarks that need a GPU (gpu_bench.py), what matters most first.

Each step is a process of its own, for what one kernel does to the GPU must not end the others, and has a time limit,
for time on a GPU is dear. Its output is shown and goes to a log, line by line, and its rows are appended one by one: so
they are there however the suite ends. No step needs tyro.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SECONDS = 480.0  # of all steps, with what was built before
_GRACE = 12.0  # seconds from the interrupt to the kill: pytest shows what failed meanwhile
_LEAST = 15.0  # seconds that a step needs to begin at all
# Tests that hold every kernel against its reference: errors in bfloat16, bits of dropout, integers.
QUICK = "(within_the_budget and bfloat16) or draws_the_bits or of_the_reference or by_the_reference"


@dataclass(frozen=True)
class Step:
    """One process: the arguments of Python, and the seconds it may take."""

    name: str
    arguments: tuple[str, ...]
    limit: float


def steps(tests: Path, out: Path) -> list[Step]:
    """All steps, in the order of what they tell; what is measured goes to *.jsonl in `out`."""
    kernels = sorted((tests / "kernels").glob("test_*.py"))
    # Modules beside them that use a GPU where there is one.
    further = [path for path in sorted(tests.rglob("test_*.py")) if tests / "kernels" not in path.parents]
    further = [path for path in further if "cuda.is_available()" in path.read_text("utf-8")]
    n_workers = max(1, min(12, (os.cpu_count() or 1) * 3 // 4))  # most of the time is compiling
    options = ("-n", n_workers, "-p", "no:cacheprovider", "--tb", "short", "--durations", 10)
    options += ("--continue-on-collection-errors", "-m", "not slow")

    def pytest(*arguments: object) -> tuple[str, ...]:
        return "-m", "pytest", *map(str, arguments)

    def bench(name: str, rows: str) -> tuple[str, ...]:
        return "-m", "electra_fast.benchmarks.gpu_bench", name, str(out / f"{rows}.jsonl")

    return [
        Step("kernels", pytest(*kernels, *options, "-k", QUICK), 75),
        Step("small", bench("small", "pretrain"), 100),
        Step("base", bench("base", "pretrain"), 105),
        Step("ops", bench("ops", "ops"), 110),
        Step("tests", pytest(*kernels, *further, *options, "-k", f"not ({QUICK})"), 150),
        Step("model", bench("model", "model"), 95),
    ]


def run(step: Step, log: Path, limit: float | None = None) -> str:
    """Runs a step and says how it went: "ok", or why not.

    Args:
        limit: seconds, where fewer are left than the step's own.
    """
    begin, limit = time.perf_counter(), step.limit if limit is None else min(limit, step.limit)
    process = subprocess.Popen(
        [sys.executable, "-u", *step.arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    with log.open("w", encoding="utf-8", buffering=1) as file:
        # A process that hangs in the driver outlives its kill, and keeps the pipe open: nobody waits for its end.
        reader = threading.Thread(target=_copy, args=(process.stdout, file), daemon=True)
        reader.start()
        try:
            how = _wait(process, limit)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its workers, too
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            reader.join(_GRACE)
    return f"{how}, {time.perf_counter() - begin:.0f} s"


def _wait(process: subprocess.Popen, limit: float) -> str:
    """Waits for a process to end; interrupts it after its limit, then kills it."""
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(limit)
        return "ok" if code == 0 else f"exit code {code}"
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
        return f"over its limit of {limit:.0f} s"
    os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
        return f"over its limit of {limit:.0f} s, killed"
    return f"over its limit of {limit:.0f} s, cannot be killed"


def _copy(lines: IO[str], file: IO[str]) -> None:
    with suppress(ValueError):  # the file was closed before a process that cannot be killed
        for line in lines:
            print(line, end="", flush=True)
            file.write(line)


def main(out: Path, logs: Path, started: float | None = None) -> int:
    """Runs all steps; 0 where every one went well.

    Args:
        started: when the eight minutes began, as `time.time()` tells it; by default now.
    """
    deadline = (time.time() if started is None else started) + SECONDS
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    results: dict[str, str] = {}
    try:
        for step in steps(Path("tests"), out):
            left = deadline - time.time() - _GRACE
            print(f"== {step.name}", flush=True)
            results[step.name] = "not finished"
            results[step.name] = "left out, no time" if left < _LEAST else run(step, logs / f"{step.name}.log", left)
            print(f"== {step.name}: {results[step.name]}", flush=True)
    finally:
        summary = "".join(f"{name:<8}{result}\n" for name, result in results.items())
        print(summary, end="", flush=True)
        (logs / "summary.log").write_text(summary, encoding="utf-8")
    return 0 if all(result.startswith("ok") for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:])))
