"""The end of a backward: partial sums that programs have left, completed for several parameters in one launch.

    sums = [sum of first over its rows, sum of second over its rows]

Shapes: first [P, N], second [Q, M] fp32; sums [N + M] in the dtype of the parameters.

Fused: sums over rows, rounding, and both tensors. A half of a layer has two: the column sums of a pass over rows and
those of a product's tiles, so that all its vectors get their gradients by one launch, where eager torch takes a sum and
a cast each. Each row is read once.

Numerics: fp32 throughout, rounded once. Numbers are added in an order that depends on P and Q alone: no atomics, the
same bits in every run. Of no rows the sum is zero.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Few columns make many programs, many rows few iterations: each of them waits for memory.
BLOCK_ROWS, BLOCK_COLS = 256, 16


@triton.jit
def sum_columns(
    block,
    partial_ptr,  # [n_rows, N_COLS] fp32
    sums_ptr,  # [N_COLS]
    n_rows,
    N_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """Sums a block of columns over all rows."""
    rows = tl.arange(0, BLOCK_ROWS)
    cols = block * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    col_mask = cols < N_COLS
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    for first in range(0, n_rows, BLOCK_ROWS):
        mask = (first + rows < n_rows)[:, None] & col_mask[None, :]
        offsets = (first + rows).to(tl.int64)[:, None] * N_COLS + cols[None, :]
        total += tl.load(partial_ptr + offsets, mask=mask, other=0.0)
    tl.store(sums_ptr + cols, tl.sum(total, axis=0), mask=col_mask)


@triton.jit(do_not_specialize=["n_first", "n_second"])
def sum_partials_kernel(
    first_ptr,  # [n_first, FIRST_COLS] fp32
    second_ptr,  # [n_second, SECOND_COLS] fp32
    sums_ptr,  # [FIRST_COLS + SECOND_COLS]
    n_first,
    n_second,
    FIRST_COLS: tl.constexpr,
    SECOND_COLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    program = tl.program_id(0)
    FIRST_BLOCKS: tl.constexpr = (FIRST_COLS + BLOCK_COLS - 1) // BLOCK_COLS
    if program < FIRST_BLOCKS:
        sum_columns(program, first_ptr, sums_ptr, n_first, FIRST_COLS, BLOCK_ROWS, BLOCK_COLS)
    else:
        block = program - FIRST_BLOCKS
        sum_columns(block, second_ptr, sums_ptr + FIRST_COLS, n_second, SECOND_COLS, BLOCK_ROWS, BLOCK_COLS)


def sum_partials(dtype: torch.dtype, first: Tensor, second: Tensor | None = None) -> Tensor:
    """Sums first [P, N] and second [Q, M], fp32, over their rows -> [N + M] of `dtype`, or [N] without second."""
    if second is None:
        second = first[:, :0]
    (n_first, first_cols), (n_second, second_cols) = first.shape, second.shape
    sums = first.new_empty(first_cols + second_cols, dtype=dtype)
    programs = triton.cdiv(first_cols, BLOCK_COLS) + triton.cdiv(second_cols, BLOCK_COLS)
    sum_partials_kernel[programs,](
        first, second, sums, n_first, n_second, FIRST_COLS=first_cols, SECOND_COLS=second_cols,
        BLOCK_ROWS=BLOCK_ROWS, BLOCK_COLS=BLOCK_COLS, num_warps=8,
    )  # fmt: skip
    return sums
