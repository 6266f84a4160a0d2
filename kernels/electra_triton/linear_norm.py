"""The end of both halves of a layer: y = LayerNorm(residual + dropout(x weight' + bias)).

    s = residual + dropout(x weight' + bias);  y = (s - mean(s)) * rstd(s) * norm_weight + norm_bias

Shapes: x [T, K]; weight [H, K]; residual, s, y [T, H]; bias, norm_weight, norm_bias [H]; mean, rstd [T] fp32.

Fused up to H = 256 in 16 bits, where a tile of 128 x 256 (64 x 256 before Hopper) holds whole rows: all of it is the
epilogue of the GEMM, which then moves T K + 3 T H elements (2 T H if no backward follows), where GEMM and norm apart
move 2 T H more. Wider rows, and fp32, whose products are exact, take the vendor's GEMM and the kernel of
`norm`.

Numerics: those of `norm`; the product and its bias are rounded once before dropout, as where they are two kernels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import has_wide_products, matmul, power_of_two
from .linear import product
from .norm import add_and_normalise, dropout_add_norm_fwd
from .philox import dropout_scalars

MAX_WIDTH = 256


@triton.jit(do_not_specialize=["n_rows"], do_not_specialize_on_alignment=["seed_ptr"])
def linear_norm_fwd_kernel(
    x_ptr,  # [T, K]
    weight_ptr,  # [H, K]
    bias_ptr,  # [H]
    residual_ptr,  # [T, H]
    norm_weight_ptr,  # [H]
    norm_bias_ptr,  # [H]
    seed_ptr,  # [1] int64
    y_ptr,  # [T, H]
    sum_ptr,  # [T, H], written where SAVE
    mean_ptr,  # [T] fp32, written where SAVE
    rstd_ptr,  # [T] fp32, written where SAVE
    n_rows,
    eps,
    threshold,
    scale,
    H: tl.constexpr,
    K: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = tl.arange(0, BLOCK_COLS)
    x = product(x_ptr, weight_ptr, rows, cols, n_rows, H, K, BLOCK_ROWS, BLOCK_COLS, BLOCK_K)
    x += tl.load(bias_ptr + cols, mask=cols < H, other=0.0).to(tl.float32)[None, :]
    # Two halves, rounded: all at once, or in fp32, would take more registers than there are. A thread has rows that are
    # 8 apart, so that these halves of every 16 rows need not move.
    HALF: tl.constexpr = BLOCK_ROWS // 2
    x = tl.permute(tl.reshape(x.to(y_ptr.dtype.element_ty), (HALF // 8, 2, 8, BLOCK_COLS)), (0, 2, 3, 1))
    first, second = tl.split(x)
    half_rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, HALF) // 8 * 16 + tl.arange(0, HALF) % 8
    for half in tl.static_range(2):
        x = tl.reshape(first if half == 0 else second, (HALF, BLOCK_COLS)).to(tl.float32)
        add_and_normalise(
            x, half_rows + 8 * half, residual_ptr, norm_weight_ptr, norm_bias_ptr, seed_ptr, y_ptr, sum_ptr, mean_ptr,
            rstd_ptr, n_rows, eps, threshold, scale, H, HAS_DROPOUT, SAVE, HALF, BLOCK_COLS,
        )  # fmt: skip


def linear_norm_fwd(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor, norm_weight: Tensor, norm_bias: Tensor,
    seed: Tensor | None, eps: float, dropout_p: float, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Computes x [T, K], residual [T, H] -> (y [T, H], sum [T, H], mean [T], rstd [T]).

    All but y are empty without `save`; they are those of `norm.dropout_add_norm_fwd`.
    """
    (n_rows, k), h = x.shape, len(weight)
    if h > MAX_WIDTH or x.dtype == torch.float32:
        out = matmul(x, weight.T, bias)
        return dropout_add_norm_fwd(out, residual, norm_weight, norm_bias, seed, eps, dropout_p, save)
    y = torch.empty_like(residual)
    summed = torch.empty_like(residual) if save else x.new_empty(0)
    mean, rstd = (x.new_empty(n_rows if save else 0, dtype=torch.float32) for _ in range(2))
    threshold, scale = dropout_scalars(dropout_p)
    # Where products read their operands from registers, 128 rows would take more of them than there are.
    block_rows = 128 if has_wide_products(x.device) else 64
    if n_rows > 0:
        linear_norm_fwd_kernel[triton.cdiv(n_rows, block_rows),](
            x, weight, bias, residual, norm_weight, norm_bias, seed, y, summed, mean, rstd, n_rows, eps, threshold,
            scale, H=h, K=k, HAS_DROPOUT=dropout_p > 0, SAVE=save, BLOCK_ROWS=block_rows, BLOCK_COLS=power_of_two(h),
            BLOCK_K=min(64, power_of_two(k)), num_warps=8, num_stages=3,
        )  # fmt: skip
    return y, summed, mean, rstd
