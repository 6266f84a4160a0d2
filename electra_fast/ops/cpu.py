"""The C++ of csrc/cpu: whether it runs on this processor, on whose threads, and which tensors it may read."""

from __future__ import annotations

import ctypes
import math
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..processor import INSTRUCTION_SETS, fastest_allowed

try:
    from .. import _cpu as extension
except ImportError as error:  # not built for this platform: torch serves
    extension, _MISSING = None, f"the extension electra_fast._cpu is not built: {error}"

_NONE = "neither AVX-512, nor AVX2 with FMA, nor NEON"


@cache
def share_threads() -> None:
    """Makes the extension use the threads of torch's ops; where torch has no OpenMP it starts its own."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
    with suppress(OSError, AttributeError):
        runtime = ctypes.CDLL(str(library))  # already loaded by torch; OpenMP's symbols are reachable through it
        extension.use_openmp(*(ctypes.cast(getattr(runtime, name), ctypes.c_void_p).value for name in names))


def obstacle() -> str | None:
    """The reason why this processor cannot run the C++; None where it can."""
    if extension is None:
        return _MISSING
    if extension.instructions(fastest_allowed()):
        return None
    if limited():
        return f"ELECTRA_FAST_ISA={fastest_allowed()} allows {_NONE}"
    return f"the processor has {_NONE}"


@cache
def warn_if_missing() -> None:
    """Warns once where the extension is not built, as it should be on every platform that has a wheel."""
    if extension is None:
        warnings.warn(f"models run on a CPU by torch, with the same results but slower: {_MISSING}", stacklevel=2)


def instructions() -> str:
    """The instruction set in use; raises RuntimeError where there is an `obstacle`."""
    if reason := obstacle():
        raise RuntimeError(reason)
    return extension.instructions(fastest_allowed()) + limited()


def limited() -> str:
    """The end of a message that names an instruction set: what limits it, or nothing."""
    allowed = fastest_allowed()
    return "" if allowed == INSTRUCTION_SETS[0] else f", limited by ELECTRA_FAST_ISA={allowed}"


def unfit(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> str | None:
    """What is wrong with a tensor that C++ is to read by its address, as numbers of `dtype` in a row; or None."""
    if tensor.dtype is not dtype or not tensor.is_cpu or tensor.layout is not torch.strided:
        name = {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(dtype, str(dtype))
        return f"must be in {name} on the CPU, got {tensor.dtype} on {tensor.device}"
    if tensor.shape != shape:
        return f"must have shape {tuple(shape)}, got {tuple(tensor.shape)}"
    if not tensor.is_contiguous() or tensor.is_neg():
        return "is not contiguous"
    if tensor.untyped_storage().nbytes() < tensor.storage_offset() * dtype.itemsize + tensor.nbytes:
        return "has less memory than its shape takes"
    return None


# Fresh pages take longer than the numbers that are written into them; below so many bytes an allocator has old ones.
_LARGE = 64 << 10


def room(like: Tensor, *shape: int) -> Tensor:
    """A tensor of a shape and a dtype like another one, with any values; large memory that is free stays with us."""
    n_bytes = math.prod(shape) * like.itemsize
    if n_bytes < _LARGE or type(like) is not Tensor or not like.is_cpu:  # shape rules ask for no memory
        return torch.empty(shape, dtype=like.dtype, device=like.device)  # in half the time of new_empty
    # In place, since autograd adds to no gradient that is a view.
    return torch.frombuffer(extension.Room(n_bytes), dtype=like.dtype).resize_(shape)
