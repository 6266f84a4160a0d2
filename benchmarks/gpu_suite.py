"""`make gpu`: the tests on a GPU, then the benchmarks (gpu_bench.py), one after the other whatever becomes of them.

Each step is a process of its own, for what one kernel does to the GPU must not end the others, and has a time limit,
for time on a GPU is dear. Its output is shown and goes to a log. No step needs tyro.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_GRACE = 15.0  # seconds from the interrupt to the kill: pytest shows what failed meanwhile


@dataclass(frozen=True)
class Step:
    """One process: the arguments of Python, and the seconds it may take."""

    name: str
    arguments: tuple[str, ...]
    limit: float


def steps(tests: Path, out: Path) -> list[Step]:
    """All steps; what is measured goes to *.jsonl in `out`."""
    # The kernels' tests, and further modules that use a GPU where there is one.
    chosen = sorted((tests / "kernels").glob("test_*.py"))
    further = [path for path in sorted(tests.rglob("test_*.py")) if tests / "kernels" not in path.parents]
    chosen += [path for path in further if "cuda.is_available()" in path.read_text("utf-8")]
    n_workers = max(1, min(12, (os.cpu_count() or 1) * 3 // 4))  # most of the time is compiling
    options = ("-n", n_workers, "-m", "not slow", "-p", "no:cacheprovider", "--tb", "short", "--durations", 10)
    options += ("--continue-on-collection-errors",)

    def bench(name: str) -> tuple[str, ...]:
        return "-m", "electra_fast.benchmarks.gpu_bench", name, str(out / f"{name}.jsonl")

    return [
        Step("tests", ("-m", "pytest", *map(str, (*chosen, *options))), 150),
        Step("ops", bench("ops"), 145),
        Step("model", bench("model"), 95),
        Step("pretrain", bench("pretrain"), 90),
    ]


def run(step: Step, log: Path) -> str:
    """Runs a step and says how it went: "ok", or why not."""
    begin, is_late = time.perf_counter(), threading.Event()
    command = [sys.executable, "-u", *step.arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )

    def interrupt() -> None:
        is_late.set()
        process.send_signal(signal.SIGINT)

    timers = [
        threading.Timer(step.limit, interrupt),
        threading.Timer(step.limit + _GRACE, os.killpg, (process.pid, signal.SIGKILL)),
    ]
    for timer in timers:
        timer.start()
    try:
        with log.open("w", encoding="utf-8") as file:
            for line in process.stdout:
                print(line, end="", flush=True)
                file.write(line)
        code = process.wait()
    finally:
        for timer in timers:
            timer.cancel()
    took = f"{time.perf_counter() - begin:.0f} s"
    if is_late.is_set():
        return f"over its limit of {step.limit:.0f} s, {took}"
    return f"ok, {took}" if code == 0 else f"exit code {code}, {took}"


def main(out: Path, logs: Path) -> int:
    """0 where every step went well."""
    results = {}
    for step in steps(Path("tests"), out):
        print(f"== {step.name}", flush=True)
        results[step.name] = run(step, logs / f"{step.name}.log")
    for name, result in results.items():
        print(f"{name:<8}{result}", flush=True)
    return 0 if all(result.startswith("ok") for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
