"""Limits on the use of the machine: cores, torch's threads, instruction sets of the C++ extensions, memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

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
    """The bytes of memory that this process may use: the machine's, or its cgroup's (a container's), if fewer.

    Where the system does not tell, these are more than any machine has.
    """
    names = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
    if not all(name in getattr(os, "sysconf_names", ()) for name in names):
        return 1 << 60
    n_pages, page_size = map(os.sysconf, names)
    return min([n_pages * page_size, *_memory_limits()])


def _memory_limits(root: Path = Path("/")) -> Iterator[int]:
    """The limits of this process's cgroups and of those around them, of both versions; `root` is for tests."""
    try:
        groups = os.fsdecode((root / "proc/self/cgroup").read_bytes()).splitlines()
    except OSError:  # not on Linux
        return
    for group in groups:
        controllers, _, path = group.partition(":")[2].partition(":")
        if controllers == "":
            mount, file = "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be the host's, and its own limit lies at the mount.
        inner = PurePosixPath(path.lstrip("/"))
        for directory in (inner, *inner.parents):
            with suppress(OSError, ValueError):  # none, or "max"
                yield int((root / mount / directory / file).read_text())
