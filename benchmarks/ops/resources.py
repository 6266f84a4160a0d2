"""Registers, spills and shared memory of every Triton kernel, for GPUs that need not be there.

The public ops run on CPU tensors, forward and backward, at the shapes of the presets, and every launch is compiled and
not run. The figures are read from the binary with the cuobjdump that Triton brings along.

The figures do not say how fast a kernel is.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import triton
import tyro
from tqdm import tqdm
from triton.runtime.jit import JITFunction

from ... import kernels
from ...cli.console import exit_code
from ...disk import written
from ...model.config import ElectraConfig
from ...ops.registry import OPS
from ...processor import default_threads
from ..measure import check_writable, markdown
from . import resources_calls
from .launches import Launch, compiling

# kB of shared memory that a block may have: CUDA C++ Programming Guide, "Technical Specifications per Compute
# Capability".
SHARED_LIMITS = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
MARK = "resources"  # the name of the table in kernels/README.md


@dataclass(frozen=True)
class Kernel:
    """The resources that one compiled kernel takes.

    Attributes:
        name: the name of its function.
        flags: its constexprs that are true.
        arch: the architecture; 90 is sm_90.
        dtype: the type of the op's tensors.
        sizes: the networks whose shapes give this kernel.
        registers: registers of a thread.
        spills: bytes of a thread's local memory, where registers go that do not fit.
        shared: bytes of shared memory of a block.
        wgmma: how many of Hopper's matrix instructions there are; None on others, and without a product of matrices.
        digest: a hash of the source and everything that went into the compilation.
    """

    name: str
    flags: tuple[str, ...]
    arch: int
    dtype: str
    sizes: tuple[str, ...]
    registers: int
    spills: int
    shared: int
    warps: int
    stages: int
    wgmma: int | None
    digest: str = field(default="", compare=False)

    @property
    def faults(self) -> list[str]:
        """The faults of the kernel, one per line."""
        limit, found = SHARED_LIMITS[self.arch], []
        if self.spills:
            found.append(f"spills {self.spills} bytes")
        if self.shared > 1024 * limit:
            found.append(f"takes {self.shared / 1024:.1f} kB of shared memory, and there are {limit}")
        where = " ".join((*self.flags, self.dtype, ", ".join(self.sizes)))
        return [f"{self.name} ({where}) on sm_{self.arch} {fault}" for fault in found]


@contextmanager
def compiling_for(arch: int, dtype: str = "", size: str = "") -> Iterator[list[Kernel]]:
    """Compiles for sm_`arch`; at its end the list has the kernels that were launched on CPU tensors within."""
    found: list[Kernel] = []
    launches: list[Launch] = []
    with compiling(arch, launches.append):
        yield found
    for launch in launches:
        compiled = launch.compiled
        found.append(Kernel(launch.name, launch.flags, arch, dtype, (size,), **figures(compiled), digest=compiled.hash))


@cache
def figures(compiled: Any) -> dict[str, int | None]:
    """The figures of a `triton.compiler.CompiledKernel`, by the names of `Kernel`."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def largest(resource: str) -> int:
        return max(int(number) for number in re.findall(rf"\b{resource}:(\d+)", usage))

    metadata = compiled.metadata
    has_wgmma = metadata.target.arch == 90 and "tt.dot" in compiled.asm["ttir"]
    return dict(
        registers=largest("REG"),
        spills=largest("STACK") + largest("LOCAL"),
        shared=metadata.shared,
        warps=metadata.num_warps,
        stages=metadata.num_stages,
        wgmma=compiled.asm["ptx"].count("wgmma.mma_async") if has_wgmma else None,
    )


def compile_ops(arch: int, dtype: str, size: str, config: ElectraConfig, ops: Iterable[str]) -> list[Kernel]:
    """Compiles what the ops launch for one network."""
    torch.set_num_threads(1)
    with compiling_for(arch, dtype, size) as found:
        for op in ops:
            try:
                resources_calls.run(op, config, DTYPES[dtype])
            except Exception as error:
                # The error goes on as text: not all of Triton's get from one process to another.
                raise RuntimeError(f"{op} at {size} in {dtype} for sm_{arch}: {error}") from error
    return list(dict.fromkeys(found))


def kernel_names() -> list[str]:
    """Every kernel of `electra_fast.kernels`, file by file."""
    modules = [importlib.import_module(m.name) for m in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}.")]
    return [
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, JITFunction) and name.endswith("_kernel") and value.__module__ == module.__name__
    ]


def merged(found: Iterable[Kernel]) -> list[Kernel]:
    """Kernels that are equal but for their sizes, as one."""
    sizes: dict[Kernel, list[str]] = {}
    for kernel in found:
        sizes.setdefault(replace(kernel, sizes=()), []).extend(kernel.sizes)
    return [replace(kernel, sizes=tuple(names)) for kernel, names in sizes.items()]


def table(found: Iterable[Kernel]) -> str:
    """One row for each kernel."""
    header = ("kernel", "with", "sm", "dtype", "sizes", "registers", "spills", "shared kB", "warps", "stages", "wgmma")
    rows = [
        (k.name, " ".join(k.flags), str(k.arch), k.dtype, ", ".join(k.sizes), str(k.registers), str(k.spills))
        + (_kb(k.shared), str(k.warps), str(k.stages), "" if k.wgmma is None else str(k.wgmma))
        for k in found
    ]
    return markdown(header, sorted(rows, key=lambda row: row[0]))


def summary(found: list[Kernel]) -> str:
    """A row for each kernel and width of its dtype, from the lowest to the highest over sizes and flags."""
    archs = sorted({k.arch for k in found})
    rows = []
    for name, bits in product(sorted({k.name for k in found}), (16, 32)):
        some = [k for k in found if k.name == name and DTYPES[k.dtype].itemsize * 8 == bits]
        if not some:
            continue
        by_arch = [[k for k in some if k.arch == arch] for arch in archs]

        def spread(kernels: Iterable[Kernel], value: Callable[[Kernel], Any], show: Callable[[Any], str] = str) -> str:
            values = {value(k) for k in kernels} - {None}
            return "–".join(dict.fromkeys((show(min(values)), show(max(values))))) if values else ""

        row = [f"`{name}`", f"{bits} bits"]
        row += [spread(kernels, lambda k: k.registers) for kernels in by_arch]
        row += [spread(some, lambda k: k.spills)]
        row += [spread(kernels, lambda k: k.shared, _kb) for kernels in by_arch]
        row += [spread(some, lambda k: k.warps), spread(some, lambda k: k.stages), spread(some, lambda k: k.wgmma)]
        rows.append(row)
    registers, shared = ([f"{what}, sm_{arch}" for arch in archs] for what in ("registers", "kB"))
    return markdown(("kernel", "dtype", *registers, "spills", *shared, "warps", "stages", "wgmma"), rows)


def _kb(n_bytes: int) -> str:
    return f"{n_bytes / 1024:.1f}"


def replace_table(path: Path, text: str, name: str = MARK) -> None:
    """Replaces what is between the markers of this name in a file."""
    before, _, after = _parted(path, name)
    with written(path) as file:
        file.write(f"{before}\n{text}\n{after}")


def written_table(path: Path, name: str = MARK) -> str:
    """The text between the markers of this name in a file."""
    return _parted(path, name)[1]


def _parted(path: Path, name: str) -> tuple[str, str, str]:
    """What is before the table of a file, with its marker; the table; and what is after it, with the other marker."""
    begin, end = (f"<!-- {name}: {side} -->" for side in ("begin", "end"))
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    table, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{path} must hold the markers {begin} and {end}, one after the other")
    return before + begin, table, end + after


@dataclass(kw_only=True)
class Resources:
    """Compile every kernel, and show registers, spills and shared memory; needs no GPU.

    Exit code 1: a kernel spills, takes more shared memory than there is, or is launched by no op.
    """

    arch: tuple[int, ...] = (80, 90, 100)
    """Architectures: 90 is sm_90."""
    sizes: tuple[str, ...] = ("small", "base", "large")
    """Presets, each with its generator."""
    dtypes: tuple[str, ...] = tuple(DTYPES)
    """Types of the ops' tensors."""
    ops: tuple[str, ...] = tuple(OPS)
    """The ops whose kernels to compile."""
    write: Path | None = None
    """Put a summary into this file, between its two markers."""

    def run(self) -> None:
        self._check()
        found = self.compile()
        print(table(found))
        faults = [fault for kernel in found for fault in kernel.faults]
        if set(self.ops) == set(OPS) and set(self.dtypes) != {"fp32"}:  # attention's short kernels are not for fp32
            launched = {kernel.name for kernel in found}
            faults += [f"{name} is launched by no op" for name in kernel_names() if name not in launched]
        if self.write is not None:
            replace_table(self.write, f"Triton {triton.__version__}; {', '.join(self.sizes)}.\n\n{summary(found)}")
        if faults:
            raise SystemExit("\n".join(faults))

    def compile(self) -> list[Kernel]:
        """All kernels, from as many processes as there are cores."""
        shapes = {name: config for size in self.sizes for name, config in resources_calls.networks(size).items()}
        jobs = [
            (arch, dtype, size, config, self.ops)
            for dtype, (size, config), arch in product(self.dtypes, shapes.items(), self.arch)
        ]
        with ProcessPoolExecutor(default_threads(), get_context("spawn")) as pool:
            done = pool.map(compile_ops, *zip(*jobs, strict=True))
            return merged(kernel for job in tqdm(done, total=len(jobs), disable=None) for kernel in job)

    def _check(self) -> None:
        for name, known in (("arch", SHARED_LIMITS), ("dtypes", DTYPES), ("ops", OPS)):
            given = getattr(self, name)
            if not given or not set(given) <= set(known):
                expected = ", ".join(map(str, known))
                raise ValueError(f"{name} must be among {expected}, got {' '.join(map(str, given)) or 'none'}")
        check_writable(self.write)


if __name__ == "__main__":
    sys.exit(exit_code("resources", lambda: tyro.cli(Resources, config=(tyro.conf.FlagCreatePairsOff,)).run()))
