"""The mean of the values that count: the generator's loss and accuracy over the slots in use.

    mean = sum of values where counts / n,  n = max(1, sum of counts);  dvalues = dmean / n where counts, else 0

Shapes: values [N] fp32 or bool; counts [N] bool; mean, n [] fp32.

Fused: one program reads values and counts once and leaves both scalars, where eager torch takes six launches; another
launch is the backward, where torch takes two. N is the number of masked tokens, some thousands: a launch takes longer
than reading them.

Numerics: sums in fp32, the count in int32. The order of addition depends on N alone. What does not count may be NaN.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096


@triton.jit(do_not_specialize=["n_values"])
def masked_mean_kernel(
    value_ptr,  # [N]
    count_ptr,  # [N] bool
    mean_ptr,  # [] fp32
    n_ptr,  # [] fp32
    n_values,
    BLOCK: tl.constexpr,
):
    sums = tl.zeros((BLOCK,), dtype=tl.float32)
    n_counted = tl.zeros((BLOCK,), dtype=tl.int32)
    for first in range(0, n_values, BLOCK):
        at = first + tl.arange(0, BLOCK)
        counts = tl.load(count_ptr + at, mask=at < n_values, other=0) != 0
        sums += tl.load(value_ptr + at, mask=counts, other=0).to(tl.float32)
        n_counted += counts.to(tl.int32)
    n = tl.maximum(tl.sum(n_counted, axis=0), 1).to(tl.float32)
    tl.store(mean_ptr, tl.div_rn(tl.sum(sums, axis=0), n))
    tl.store(n_ptr, n)


@triton.jit(do_not_specialize=["n_values"])
def masked_mean_bwd_kernel(
    dmean_ptr,  # [] fp32
    n_ptr,  # [] fp32
    count_ptr,  # [N] bool
    dvalue_ptr,  # [N] fp32
    n_values,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n_values
    counts = tl.load(count_ptr + at, mask=mask, other=0) != 0
    share = tl.div_rn(tl.load(dmean_ptr), tl.load(n_ptr))
    tl.store(dvalue_ptr + at, tl.where(counts, share, 0.0), mask=mask)


def masked_mean_fwd(values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Computes values, counts [N] -> (mean [], n [])."""
    mean, n = (counts.new_empty((), dtype=torch.float32) for _ in range(2))
    # Triton's booleans have a sign.
    values = values.view(torch.int8) if values.dtype == torch.bool else values
    masked_mean_kernel[1,](values, counts, mean, n, len(values), BLOCK=_BLOCK, num_warps=8)
    return mean, n


def masked_mean_bwd(dmean: Tensor, n: Tensor, counts: Tensor) -> Tensor:
    """Computes dmean [], n [], counts [N] -> the gradient of values, [N]."""
    dvalues = counts.new_empty(len(counts), dtype=torch.float32)
    if len(counts) > 0:
        masked_mean_bwd_kernel[triton.cdiv(len(counts), 512),](dmean, n, counts, dvalues, len(counts), BLOCK=512)
    return dvalues
