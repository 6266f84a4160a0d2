"""Limits on the use of the machine: cores, torch's threads, instruction sets of the C++ extensions, memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# The fastest come first. A processor has some of them; "scalar" runs on every one.
INSTRUCTION_SETS = ("avx512", "avx2", "neon", "scalar")


def fastest_allowed() -> str:
    """The fastest instruction set that C++ may use if the processor has it: the environment's ELECTRA_FAST_ISA.

    The default is the first of `INSTRUCTION_SETS`. With the variable a machine runs the code of a lesser one.

    Raises:
        ValueError: an instruction set that is not known.
    """
    name = os.environ.get("ELECTRA_FAST_ISA") or INSTRUCTION_SETS[0]
    if name not in INSTRUCTION_SETS:
        raise ValueError(f"ELECTRA_FAST_ISA must be one of {', '.join(INSTRUCTION_SETS)}, got {name!r}")
    return name


@contextmanager
def cpu_threads(n_threads: int | None) -> Iterator[None]:
    """Lets torch compute on `n_threads` threads within; None changes nothing."""
    import torch  # not above: the tokenizer works without torch

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_threads() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """The bytes of this machine's memory; where the system does not tell, more than any machine has."""
    names = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
    if not all(name in getattr(os, "sysconf_names", ()) for name in names):
        return 1 << 60
    n_pages, page_size = map(os.sysconf, names)
    return n_pages * page_size
