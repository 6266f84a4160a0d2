"""The second half of a layer: y = LayerNorm(hidden + dropout(gelu(hidden inner' + b) outer' + c)).

    pre = hidden inner' + b;  z = gelu(pre);  s = hidden + dropout(z outer' + c);  y = LayerNorm(s)
    ds, dx = backward of `norm`;  dpre = (dx outer) gelu'(pre);  dhidden = ds + dpre inner
    douter = dx' z;  dinner = dpre' hidden;  db = sum of dpre over the tokens;  dc = sum of dx over them

Shapes: hidden, s, y, dx [T, H]; inner [F, H]; outer [H, F]; pre, z, dpre [T, F]; b [F]; c [H].

Fused: the forward is the product of `linear` with GELU and that of `linear_norm` with LayerNorm. In the backward, GELU'
and the sum of b's gradient are the epilogue of the product dx outer; c's gradient comes from the pass of `norm`, which
holds dx; and the last product adds to the residual's gradient. So the products of the backward move 5 T H + 5 T F
elements, where the same ops one after the other move 8 T H + 7 T F: they write the first product and read it again, and
read dx and dpre once more for the biases, and all of the sum of two gradients of hidden. z is kept: computed again, it
would be written again, for the product of douter reads it. One launch completes the gradients of all four vectors.

Numerics: products accumulate in fp32, fp32 inputs without tf32. The gradient of z is not rounded before GELU'.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gelu import gelu_derivative
from .launch import matmul
from .linear import linear_gelu_fwd, product, tile, tile_sizes
from .linear_norm import linear_norm_fwd
from .norm import dropout_add_norm_partial_bwd
from .partial_sums import sum_partials


@triton.jit(do_not_specialize=["n_rows"])
def gelu_bwd_kernel(
    dx_ptr,  # [T, H]
    weight_ptr,  # [H, F]
    pre_ptr,  # [T, F]
    dpre_ptr,  # [T, F]
    partial_ptr,  # [blocks of rows, F] fp32: column sums of dpre
    n_rows,
    F: tl.constexpr,
    H: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row_block, col_block = tile(tl.program_id(0), n_rows, F, BLOCK_ROWS, BLOCK_COLS)
    rows = row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = col_block * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    dgelu = product(dx_ptr, weight_ptr, rows, cols, n_rows, F, H, BLOCK_ROWS, BLOCK_COLS, BLOCK_K, INNER_FIRST=True)
    # A half of the columns after the other: both at once would take the registers of a second program.
    HALF: tl.constexpr = BLOCK_COLS // 2
    first, second = tl.split(tl.permute(tl.reshape(dgelu, (BLOCK_ROWS, 2, HALF)), (0, 2, 1)))
    for half in tl.static_range(2):
        cols = col_block * BLOCK_COLS + half * HALF + tl.arange(0, HALF)
        mask = (rows < n_rows)[:, None] & (cols < F)[None, :]
        offsets = rows.to(tl.int64)[:, None] * F + cols[None, :]
        # The derivative at -100 is zero: rows beyond the end add nothing to the sums.
        pre = tl.load(pre_ptr + offsets, mask=mask, other=-100.0).to(tl.float32)
        dpre = (first if half == 0 else second) * gelu_derivative(pre)
        tl.store(dpre_ptr + offsets, dpre, mask=mask)
        tl.store(partial_ptr + row_block.to(tl.int64) * F + cols, tl.sum(dpre, axis=0), mask=cols < F)


def gelu_bwd(dx: Tensor, weight: Tensor, pre: Tensor) -> tuple[Tensor, Tensor]:
    """Computes dx [T, H], weight [H, F], pre [T, F] -> dpre [T, F] and partial sums [P, F] of it for `partial_sums`."""
    (n_rows, f), h = pre.shape, len(weight)
    sizes = tile_sizes(f, h, dx.dtype) | {"num_warps": 8}  # in fp32 too, where four would spill
    row_blocks = triton.cdiv(n_rows, sizes["BLOCK_ROWS"])
    dpre, partial = torch.empty_like(pre), pre.new_empty((row_blocks, f), dtype=torch.float32)
    if dx.dtype != torch.float32 and sizes["BLOCK_COLS"] <= 128:
        sizes["maxnreg"] = 128  # two programs on an SM: one multiplies while the other computes the derivative
    if n_rows > 0:
        programs = row_blocks * triton.cdiv(f, sizes["BLOCK_COLS"])
        gelu_bwd_kernel[programs,](dx, weight, pre, dpre, partial, n_rows, F=f, H=h, **sizes)
    return dpre, partial


def feed_forward_block_fwd(
    hidden: Tensor, inner_weight: Tensor, inner_bias: Tensor, outer_weight: Tensor, outer_bias: Tensor,
    norm_weight: Tensor, norm_bias: Tensor, seed: Tensor | None, eps: float, dropout_p: float, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Computes hidden [T, H] -> (y [T, H], pre [T, F], z [T, F], sum [T, H], mean [T], rstd [T]).

    All but y are for the backward, and empty without `save`.
    """
    inner, pre = linear_gelu_fwd(hidden, inner_weight, inner_bias, save)
    y, *saved = linear_norm_fwd(
        inner, outer_weight, outer_bias, hidden, norm_weight, norm_bias, seed, eps, dropout_p, save
    )
    return y, pre, inner if save else hidden.new_empty(0), *saved


def feed_forward_block_bwd(
    dy: Tensor, hidden: Tensor, inner_weight: Tensor, outer_weight: Tensor, norm_weight: Tensor, seed: Tensor | None,
    pre: Tensor, inner: Tensor, summed: Tensor, mean: Tensor, rstd: Tensor, dropout_p: float, wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Computes dy [T, H] -> gradients of hidden, of inner_weight, of outer_weight, and of all vectors as [3 H + F].

    `wanted` says of hidden, inner_weight, inner_bias and outer_weight whether somebody wants the gradient; those of
    tensors that nobody wants are empty. The vectors are norm_weight, norm_bias, outer_bias and inner_bias, and without
    the last [3 H] where none of the first three is wanted.
    """
    wants_hidden, wants_inner, _, wants_outer = wanted
    dx, dhidden, sums_of_rows = dropout_add_norm_partial_bwd(dy, summed, mean, rstd, norm_weight, seed, dropout_p)
    dpre, sums_of_dpre = gelu_bwd(dx, outer_weight, pre) if any(wanted[:3]) else (None, None)
    douter = matmul(dx.T, inner) if wants_outer else dy.new_empty(0)
    dinner = matmul(dpre.T, hidden) if wants_inner else dy.new_empty(0)
    # In place, so after the others: without dropout dx is the same tensor.
    dhidden = matmul(dpre, inner_weight, dhidden, out=dhidden) if wants_hidden else dy.new_empty(0)
    return dhidden, dinner, douter, sum_partials(dy.dtype, sums_of_rows, sums_of_dpre)
