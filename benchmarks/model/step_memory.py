"""How much memory one provider's training steps take at their peak, in a fresh process.

`python -m electra_fast.benchmarks.model.step_memory FOLDER PROVIDER DTYPE DEVICE THREADS` imports what the provider
needs, makes its network and some steps, and prints the largest resident memory beyond that of the imports: weights,
gradients, moments, and what a step needs besides. A compiler's work counts, too. On a GPU it is the most that tensors
take.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence

from .cold_start import resident_mb, tell, told
from .peers import Setup

_STEPS = 3  # the moments of AdamW are there from the second on


def step_peak_mb(name: str, dtype: str, setup: Setup) -> float | None:
    """The peak in MB, None where the system does not tell. The batch is that of `write_batches` in the folder.

    Raises:
        RuntimeError: the process failed, or took over five minutes.
    """
    return tell(__name__, name, dtype, setup)["peak_mb"]


def main(arguments: Sequence[str]) -> None:
    """Runs in the fresh process."""
    import torch

    from .train_peers import TRAIN_TABLE

    name, dtype, setup, ids, mask = told(arguments)
    (entry,) = (entry for entry in TRAIN_TABLE if entry.name == name)
    for module in entry.modules:
        importlib.import_module(module)
    torch.optim.AdamW([torch.zeros(1)])  # the first one imports torch's compiler, and with transformers that is done
    before = resident_mb("VmRSS")
    provider = entry.make(setup, dtype)
    inputs = provider.inputs(ids, mask)
    for _ in range(_STEPS):
        provider.run(*inputs)
    if setup.device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e6
    else:
        peak = before and resident_mb("VmHWM") - before
    print(json.dumps({"peak_mb": peak}))


if __name__ == "__main__":
    main(sys.argv[1:])
