"""What this process may use of the processor: cores, torch's threads, instruction sets of the C++ extensions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# The fastest first. A processor has some of them; "scalar" is what every compiler makes.
INSTRUCTION_SETS = ("avx512", "avx2", "neon", "scalar")


def fastest_allowed() -> str:
    """The fastest instruction set that C++ may use where the processor has it: the environment's ELECTRA_FAST_ISA.

    Without it that is the first of `INSTRUCTION_SETS`. With it a machine runs what a lesser one would.

    Raises:
        ValueError: an instruction set that is not known.
    """
    name = os.environ.get("ELECTRA_FAST_ISA") or INSTRUCTION_SETS[0]
    if name not in INSTRUCTION_SETS:
        raise ValueError(f"ELECTRA_FAST_ISA must be one of {', '.join(INSTRUCTION_SETS)}, got {name!r}")
    return name


@contextmanager
def cpu_threads(n_threads: int | None) -> Iterator[None]:
    """Torch computes on so many threads within; None changes nothing."""
    import torch  # not above: the tokenizer does without

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
