"""How long one provider takes from the start of a process to the first hidden states, and how much memory.

`python -m electra_fast.benchmarks.model.cold_start FOLDER PROVIDER DTYPE DEVICE THREADS` loads the model of a folder,
runs one sentence, then a batch of sentences, and prints when the first was done and its largest resident memory. The
files that a library needs, such as an ONNX graph, are there before; what it compiles when it runs is part of its start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from .peers import BY_NAME, Setup

_BATCHES = "batches.npz"
_LIMIT = 300.0  # seconds
# A first start has nothing compiled by an earlier one.
_ENVIRONMENT = {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}


def write_batches(folder: Path, ids: np.ndarray, mask: np.ndarray) -> None:
    """Leaves a batch in the folder for `cold_start`; its first row alone is the first sentence."""
    np.savez(folder / _BATCHES, ids=ids, mask=mask)


def cold_start(name: str, dtype: str, setup: Setup) -> tuple[float, float | None]:
    """(seconds to the first result, peak MB or None where the system does not tell), by a fresh process.

    Raises:
        RuntimeError: the process failed, or took over five minutes.
    """
    begin = time.time()
    told = tell(__name__, name, dtype, setup, _ENVIRONMENT)
    return told["time"] - begin, told["peak_mb"]


def tell(module: str, name: str, dtype: str, setup: Setup, environment: Mapping[str, str] | None = None) -> dict:
    """What a module tells of a provider, run as a fresh process; `told` reads its arguments there.

    Raises:
        RuntimeError: the process failed, or took over five minutes.
    """
    words = (setup.folder, name, dtype, setup.device, setup.threads)
    command = [sys.executable, "-P", "-m", module, *map(str, words)]
    variables = os.environ | (environment or {})
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=_LIMIT)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"the start of {name} took over {_LIMIT:g} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the start of {name} ended with exit code {done.returncode}: {last}"[:300])
    return json.loads(done.stdout.splitlines()[-1])


def told(arguments: Sequence[str]) -> tuple[str, str, Setup, np.ndarray, np.ndarray]:
    """(name, dtype, setup, ids, mask) in a process that `tell` has started."""
    folder, name, dtype, device, threads = arguments
    batches = np.load(Path(folder, _BATCHES))
    return name, dtype, Setup(Path(folder), device, int(threads)), batches["ids"], batches["mask"]


def resident_mb(field: Literal["VmRSS", "VmHWM"]) -> float | None:
    """The resident memory of this process in MB: now (VmRSS), or at its peak (VmHWM).

    It is read from /proc: on Linux `ru_maxrss` begins at the peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


def main(arguments: Sequence[str]) -> None:
    """Runs in the fresh process."""
    name, dtype, setup, ids, mask = told(arguments)
    provider = BY_NAME[name].make(setup, dtype)
    length = int(mask[0].sum())
    first = provider.run(*provider.inputs(ids[:1, :length].copy(), mask[:1, :length].copy()))
    done = time.time()
    del first
    provider.run(*provider.inputs(ids, mask))
    print(json.dumps({"time": done, "peak_mb": resident_mb("VmHWM")}))


if __name__ == "__main__":
    main(sys.argv[1:])
