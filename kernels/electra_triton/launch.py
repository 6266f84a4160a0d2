"""Helpers of the launchers: sizes of blocks and grids, kinds of GPU, and the vendor's products with sums in fp32."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
import triton
from torch import Tensor


def power_of_two(n: int, at_least: int = 16) -> int:
    """The next power of two, which is the width of a block for n columns."""
    return max(at_least, triton.next_power_of_2(n))


@lru_cache
def n_programs(device: torch.device, waves: int = 2) -> int:
    """The number of programs that keep a device busy: the grid of kernels that loop, and their rows of partial sums."""
    if device.type == "cpu":  # Triton's interpreter
        return 4
    return waves * torch.cuda.get_device_properties(device).multi_processor_count


@lru_cache
def compute_major(device: torch.device) -> int:
    """The major compute capability of the device; a CPU counts as Hopper."""
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 9


def has_wide_products(device: torch.device) -> bool:
    """Whether products read their operands from shared memory, as on Hopper and Blackwell, and not from registers."""
    return compute_major(device) in (9, 10)


def matmul_fp32(a: Tensor, b: Tensor, total: Tensor | None = None) -> Tensor:
    """The product a @ b, accumulated and returned in fp32 whatever the inputs are: [M, K] x [K, N] -> [M, N].

    With `total`, [M, N] fp32, it is added to that in its place.
    """
    if a.is_cuda and a.dtype != torch.float32:
        if total is None:
            return torch.mm(a, b, out_dtype=torch.float32)
        return torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    return a.float() @ b.float() if total is None else total.addmm_(a.float(), b.float())


def matmul(a: Tensor, b: Tensor, plus: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """The product a @ b, or plus + a @ b: [M, K] x [K, N] -> [M, N] of the inputs' dtype; summed in fp32, rounded once.

    `plus` is [M, N], or [N] as a bias is. The result is written to `out`, if it is given.
    """
    if not a.is_cuda:
        product = a.float() @ b.float()
        product = (product if plus is None else plus.float() + product).to(a.dtype)
        return product if out is None else out.copy_(product)
    with _sums_in_fp32(a.dtype):
        return torch.mm(a, b, out=out) if plus is None else torch.addmm(plus, a, b, out=out)


_REDUCED = {
    torch.bfloat16: "allow_bf16_reduced_precision_reduction",
    torch.float16: "allow_fp16_reduced_precision_reduction",
}


@contextmanager
def _sums_in_fp32(dtype: torch.dtype) -> Iterator[None]:
    """Keeps the vendor from adding the parts of a product in 16 bits, which it may do by default where K is split."""
    settings, name = torch.backends.cuda.matmul, _REDUCED.get(dtype)
    if name is None or not getattr(settings, name):
        yield
        return
    setattr(settings, name, False)
    try:
        yield
    finally:
        setattr(settings, name, True)
