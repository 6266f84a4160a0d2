"""Helpers of the launchers: sizes of blocks and grids, and products with an fp32 result."""

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
    if device.type != "cuda":
        return 4
    return waves * torch.cuda.get_device_properties(device).multi_processor_count


def matmul_fp32(a: Tensor, b: Tensor) -> Tensor:
    """The product a @ b, accumulated and returned in fp32 whatever the inputs are: [M, K] x [K, N] -> [M, N]."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()
