"""The first half of the feed-forward block, and the dense layer of the generator's head: y = gelu(x weight' + bias).

    pre = x weight' + bias;  y = gelu(pre);  dpre = dy gelu'(pre)
    dx = dpre weight;  dweight = dpre' x;  dbias = sum of dpre over the tokens

Shapes: x [T, H]; weight [F, H]; bias [F]; pre, y [T, F].

Fused: the bias and the activation are the epilogue of the GEMM, so that the forward moves T H + 2 T F elements (T H +
T F if no backward follows), where eager torch moves T H + 3 T F: it writes pre and reads it again. The backward moves
3 T F before its GEMMs: one pass reads dy and pre, writes dpre and sums dbias in registers over all rows that a program
visits; eager torch reads dpre once more. `partial_sums` completes dbias from [P, F]: no atomics, the same bits in every
run. The GEMMs of the backward are the vendor's.

Beside the tensor cores, the forward waits for L2, where a multiply-add reads 1 / BLOCK_ROWS + 1 / BLOCK_COLS elements,
and for the epilogue. If H is long, L2 decides: tiles of 128 x 256, one program per SM. If H is short, the epilogue
takes as long as the product: tiles of 128 x 128, two programs per SM, and one computes while the other writes. Programs
run in groups of 16 blocks of rows, so that those that run at the same time share rows and columns in L2.

Numerics: products accumulate in fp32, fp32 inputs without tf32. y is computed from pre as it is stored, so that the
backward is the derivative of what was computed; in 16 bits this also spares the epilogue registers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gelu import gelu, gelu_derivative
from .launch import matmul, n_programs, power_of_two
from .partial_sums import sum_partials


@triton.jit
def tile(program, n_rows, N_COLS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr):
    """The (block of rows, block of columns) of a program, in groups of 16 blocks of rows."""
    COL_BLOCKS: tl.constexpr = (N_COLS + BLOCK_COLS - 1) // BLOCK_COLS
    row_blocks = tl.cdiv(n_rows, BLOCK_ROWS)
    return tl.swizzle2d(program // COL_BLOCKS, program % COL_BLOCKS, row_blocks, COL_BLOCKS, 16)


@triton.jit
def product(
    x_ptr,  # [n_rows, H]
    weight_ptr,  # [N_COLS, H], or [H, N_COLS] where INNER_FIRST
    rows,  # [BLOCK_ROWS], may go beyond n_rows
    cols,  # [BLOCK_COLS], may go beyond N_COLS
    n_rows,
    N_COLS: tl.constexpr,
    H: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    INNER_FIRST: tl.constexpr = False,
):
    """The product x[rows] weight[cols]', [BLOCK_ROWS, BLOCK_COLS] fp32; beyond the end it has no meaning."""
    COL_STRIDE: tl.constexpr = 1 if INNER_FIRST else H
    INNER_STRIDE: tl.constexpr = N_COLS if INNER_FIRST else 1
    inner = tl.arange(0, BLOCK_K)
    # Reading the last row again is cheaper than a mask on every load.
    x_ptrs = x_ptr + tl.minimum(rows, n_rows - 1).to(tl.int64)[:, None] * H + inner[None, :]
    if N_COLS % BLOCK_COLS != 0:
        cols = tl.minimum(cols, N_COLS - 1)
    weight_ptrs = weight_ptr + cols[None, :] * COL_STRIDE + inner[:, None] * INNER_STRIDE
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    for first in range(0, H, BLOCK_K):
        if H % BLOCK_K == 0:
            x, weight = tl.load(x_ptrs + first), tl.load(weight_ptrs + first * INNER_STRIDE)
        else:
            x = tl.load(x_ptrs + first, mask=inner[None, :] < H - first, other=0.0)
            weight = tl.load(weight_ptrs + first * INNER_STRIDE, mask=inner[:, None] < H - first, other=0.0)
        total = tl.dot(x, weight, total, input_precision="ieee")
    return total


@triton.jit(do_not_specialize=["n_rows"])
def linear_gelu_fwd_kernel(
    x_ptr,  # [T, H]
    weight_ptr,  # [F, H]
    bias_ptr,  # [F]
    y_ptr,  # [T, F]
    pre_ptr,  # [T, F], written where SAVE
    n_rows,
    F: tl.constexpr,
    H: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row_block, col_block = tile(tl.program_id(0), n_rows, F, BLOCK_ROWS, BLOCK_COLS)
    rows = row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = col_block * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    pre = product(x_ptr, weight_ptr, rows, cols, n_rows, F, H, BLOCK_ROWS, BLOCK_COLS, BLOCK_K)
    pre += tl.load(bias_ptr + cols, mask=cols < F, other=0.0).to(tl.float32)[None, :]
    mask = (rows < n_rows)[:, None] & (cols < F)[None, :]
    offsets = rows.to(tl.int64)[:, None] * F + cols[None, :]
    pre = pre.to(y_ptr.dtype.element_ty)
    if SAVE:
        tl.store(pre_ptr + offsets, pre, mask=mask)
    tl.store(y_ptr + offsets, gelu(pre.to(tl.float32)), mask=mask)


@triton.jit(do_not_specialize=["n_rows"])
def linear_gelu_bwd_kernel(
    dy_ptr,  # [T, F]
    pre_ptr,  # [T, F]
    dpre_ptr,  # [T, F]
    partial_ptr,  # [P, F] fp32: gradient of bias, over the rows of a program
    n_rows,
    F: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    cols = tl.program_id(0) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    col_mask = cols < F
    dbias = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    for block in range(tl.program_id(1), tl.cdiv(n_rows, BLOCK_ROWS), tl.num_programs(1)):
        rows = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        mask = (rows < n_rows)[:, None] & col_mask[None, :]
        offsets = rows.to(tl.int64)[:, None] * F + cols[None, :]
        dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        pre = tl.load(pre_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        dpre = dy * gelu_derivative(pre)
        dbias += dpre
        tl.store(dpre_ptr + offsets, dpre, mask=mask)
    tl.store(partial_ptr + tl.program_id(1) * F + cols, tl.sum(dbias, axis=0), mask=col_mask)


def tile_sizes(n_cols: int, h: int, dtype: torch.dtype) -> dict[str, int]:
    """Sizes of blocks, warps and stages of a GEMM x [T, h] weight' -> [T, n_cols], as arguments of a launch."""
    if dtype == torch.float32:
        rows, cols, inner, n_warps = 64, 64, 32, 4
    else:
        rows, cols, inner, n_warps = 128, 256 if h >= 512 else 128, 64, 8
    return {
        "BLOCK_ROWS": rows, "BLOCK_COLS": min(cols, power_of_two(n_cols)), "BLOCK_K": min(inner, power_of_two(h)),
        "num_warps": n_warps, "num_stages": 3,
    }  # fmt: skip


def column_sum_blocks(n_rows: int, n_cols: int, device: torch.device) -> tuple[int, int, int]:
    """The (rows, columns) of a block, 32 elements per thread, and the number of programs for each block of columns.

    All programs together are four per SM, so that enough loads are under way.
    """
    rows, cols = 16, 256
    programs = max(1, n_programs(device, waves=4) // triton.cdiv(n_cols, cols))
    return rows, cols, min(programs, triton.cdiv(n_rows, rows))


def linear_gelu_fwd(x: Tensor, weight: Tensor, bias: Tensor, save: bool) -> tuple[Tensor, Tensor]:
    """Computes x [T, H] -> (y [T, F], pre [T, F]); pre is empty without `save`."""
    (n_rows, h), f = x.shape, len(weight)
    y = x.new_empty(n_rows, f)
    pre = torch.empty_like(y) if save else x.new_empty(0)
    sizes = tile_sizes(f, h, x.dtype)
    if n_rows > 0:
        programs = triton.cdiv(n_rows, sizes["BLOCK_ROWS"]) * triton.cdiv(f, sizes["BLOCK_COLS"])
        linear_gelu_fwd_kernel[programs,](x, weight, bias, y, pre, n_rows, F=f, H=h, SAVE=save, **sizes)
    return y, pre


def linear_gelu_bwd(dy: Tensor, pre: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes dy [T, F] -> gradients of x, weight and bias."""
    n_rows, f = dy.shape
    block_rows, block_cols, programs = column_sum_blocks(n_rows, f, dy.device)
    dpre = torch.empty_like(dy)
    partial = dy.new_empty((programs, f), dtype=torch.float32)
    if n_rows > 0:
        linear_gelu_bwd_kernel[triton.cdiv(f, block_cols), programs](
            dy, pre, dpre, partial, n_rows, F=f, BLOCK_ROWS=block_rows, BLOCK_COLS=block_cols, num_warps=4,
            maxnreg=168,  # three programs on an SM; without a bound some compilers spill at 80
        )  # fmt: skip
    return matmul(dpre, weight), matmul(dpre.T, x), sum_partials(weight.dtype, partial)
