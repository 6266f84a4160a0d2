"""The launches of Triton kernels where no GPU is: compiled for one, and recorded instead of run.

A driver tells Triton of a GPU, and there is none. Within `compiling` every launch compiles its kernel, is noted with
its arguments and its grid, and leaves it at that. Tensors that kernels would have written hold anything meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from ...kernels import launch
from ...ops.contracts import library


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        name: the name of the kernel's function.
        compiled: the `triton.compiler.CompiledKernel`.
        arguments: the function's arguments by name, constexprs too.
        grid: programs along the three axes.
    """

    name: str
    compiled: Any
    arguments: dict[str, Any]
    grid: tuple[int, int, int]

    @property
    def n_programs(self) -> int:
        return math.prod(self.grid)

    @property
    def flags(self) -> tuple[str, ...]:
        """Constexprs that are true."""
        return tuple(name for name, value in self.arguments.items() if value is True and name.isupper())


class TargetDriver:
    """The part of Triton's driver that a compilation asks for.

    The device has the architecture's number, as Triton keeps what it has compiled by device.
    """

    def __init__(self, arch: int):
        self.arch = arch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiling(arch: int, note: Callable[[Launch], object]) -> Iterator[None]:
    """Compiles for sm_`arch`, and gives to `note` instead of running, what is launched on tensors of any device within.

    Raises:
        ValueError: TRITON_INTERPRET=1 is set.
    """
    if triton.knobs.runtime.interpret:
        raise ValueError("TRITON_INTERPRET=1 is set, and Triton's interpreter compiles nothing: unset it")
    run = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, grid: Any, **kwargs: Any) -> Any:
        compiled = run(self, *args, grid=grid, **kwargs | {"warmup": True})
        known = dict(zip(self.arg_names, args, strict=False))
        known |= {name: value for name, value in kwargs.items() if name in self.arg_names}
        axes = tuple(grid(known) if callable(grid) else grid)
        # Autograd copies a gradient that somebody else holds, too: what is kept are views.
        kept = {name: x.detach() if isinstance(x, torch.Tensor) else x for name, x in known.items()}
        note(Launch(self.__name__, compiled, kept, (*axes, 1, 1)[:3]))
        return compiled

    driver.set_active(TargetDriver(arch))
    try:
        # The ops take other tensors than CUDA's for the interpreter only; here no launch reaches a device either.
        with (
            mock.patch.object(library, "IS_INTERPRETED", True),
            mock.patch.object(launch, "compute_major", lambda device: arch // 10),
            mock.patch.object(JITFunction, "run", compile_only),
        ):
            yield
    finally:
        driver.set_active(None)  # the next who asks gets the machine's own
