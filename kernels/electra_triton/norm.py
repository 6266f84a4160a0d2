"""The end of both halves of a layer: y = LayerNorm(residual + dropout(x)).

    s = residual + dropout(x);  y = (s - mean(s)) * rstd(s) * weight + bias;  rstd = 1 / sqrt(var(s) + eps)

Shapes: x, residual, y [T, H]; weight, bias [H]; mean, rstd [T] fp32.

Fused: dropout, addition, statistics and affine map in one pass over several rows per program. The forward moves 4 T H
elements (3 if no backward follows), where eager torch moves 9: dropout reads x, writes it and a mask, the sum reads
two and writes one, LayerNorm reads one and writes one. The backward moves 4 T H (3 without dropout): it reads dy and s,
and writes the gradients of residual and x. Each program sums the gradients of weight and bias in registers over all
rows that it visits, and that of x, which is the gradient of the bias of the linear layer before it; `partial_sums`
completes these [P, 3, H]: no atomics, the same bits in every run.

Numerics: everything between load and store is in fp32; statistics take two passes over registers and are stored in
fp32. s is stored in the dtype of x. A row of equal values has variance 0 and gives the bias, also in fp16: eps is added
in fp32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import n_programs, power_of_two
from .partial_sums import sum_partials
from .philox import dropout_scalars, keep_mask


@triton.jit
def add_and_normalise(
    x,  # [BLOCK_ROWS, BLOCK_COLS] fp32; beyond column H it has no meaning
    rows,  # [BLOCK_ROWS], may go beyond n_rows
    residual_ptr,  # [T, H]
    weight_ptr,  # [H]
    bias_ptr,  # [H]
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
    HAS_DROPOUT: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """Writes LayerNorm(residual + dropout(x)) of some rows, and where SAVE what the backward needs."""
    cols = tl.arange(0, BLOCK_COLS)
    row_mask, col_mask = rows < n_rows, cols < H
    mask = row_mask[:, None] & col_mask[None, :]
    offsets = rows.to(tl.int64)[:, None] * H + cols[None, :]
    if HAS_DROPOUT:
        keep = keep_mask(tl.load(seed_ptr), rows, 0, 0, threshold, BLOCK_ROWS, BLOCK_COLS)
        x = tl.where(keep, x * scale, 0.0)
    summed = x + tl.load(residual_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if H < BLOCK_COLS:
        summed = tl.where(col_mask[None, :], summed, 0.0)
    if SAVE:
        tl.store(sum_ptr + offsets, summed, mask=mask)
    mean = tl.sum(summed, axis=1) / H
    centred = summed - mean[:, None]
    if H < BLOCK_COLS:
        centred = tl.where(col_mask[None, :], centred, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / H + eps)
    if SAVE:
        tl.store(mean_ptr + rows, mean, mask=row_mask)
        tl.store(rstd_ptr + rows, rstd, mask=row_mask)
    weight = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + offsets, centred * rstd[:, None] * weight[None, :] + bias[None, :], mask=mask)


@triton.jit(do_not_specialize=["n_rows"], do_not_specialize_on_alignment=["seed_ptr"])
def dropout_add_norm_fwd_kernel(
    x_ptr,  # [T, H]
    residual_ptr,
    weight_ptr,
    bias_ptr,
    seed_ptr,
    y_ptr,
    sum_ptr,
    mean_ptr,
    rstd_ptr,
    n_rows,
    eps,
    threshold,
    scale,
    H: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = tl.arange(0, BLOCK_COLS)
    mask = (rows < n_rows)[:, None] & (cols < H)[None, :]
    x = tl.load(x_ptr + rows.to(tl.int64)[:, None] * H + cols[None, :], mask=mask, other=0.0).to(tl.float32)
    add_and_normalise(
        x, rows, residual_ptr, weight_ptr, bias_ptr, seed_ptr, y_ptr, sum_ptr, mean_ptr, rstd_ptr, n_rows, eps,
        threshold, scale, H, HAS_DROPOUT, SAVE, BLOCK_ROWS, BLOCK_COLS,
    )  # fmt: skip


@triton.jit(do_not_specialize=["n_rows"], do_not_specialize_on_alignment=["seed_ptr"])
def dropout_add_norm_bwd_kernel(
    dy_ptr,  # [T, H]
    sum_ptr,  # [T, H]
    mean_ptr,  # [T] fp32
    rstd_ptr,  # [T] fp32
    weight_ptr,  # [H]
    seed_ptr,  # [1] int64
    dx_ptr,  # [T, H], written where HAS_DROPOUT
    dresidual_ptr,  # [T, H]
    partial_ptr,  # [P, 3, H] fp32: gradients of weight, of bias, and of x, over the rows of a program
    n_rows,
    threshold,
    scale,
    H: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    cols = tl.arange(0, BLOCK_COLS)
    col_mask = cols < H
    weight = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    dweight = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    dbias = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    dx_sum = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)

    for block in range(tl.program_id(0), tl.cdiv(n_rows, BLOCK_ROWS), tl.num_programs(0)):
        rows = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        row_mask = rows < n_rows
        mask = row_mask[:, None] & col_mask[None, :]
        offsets = rows.to(tl.int64)[:, None] * H + cols[None, :]
        dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        summed = tl.load(sum_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        mean = tl.load(mean_ptr + rows, mask=row_mask, other=0.0)
        rstd = tl.load(rstd_ptr + rows, mask=row_mask, other=0.0)

        normal = tl.where(mask, (summed - mean[:, None]) * rstd[:, None], 0.0)
        dweight += dy * normal
        dbias += dy
        dnormal = dy * weight[None, :]
        mean_d = tl.sum(dnormal, axis=1) / H
        mean_dn = tl.sum(dnormal * normal, axis=1) / H
        # Rows beyond the end have a deviation of zero, and columns beyond it are not stored.
        dx = (dnormal - mean_d[:, None] - normal * mean_dn[:, None]) * rstd[:, None]
        tl.store(dresidual_ptr + offsets, dx, mask=mask)
        if HAS_DROPOUT:
            keep = keep_mask(tl.load(seed_ptr), rows, 0, 0, threshold, BLOCK_ROWS, BLOCK_COLS)
            dx = tl.where(keep, dx * scale, 0.0)
            tl.store(dx_ptr + offsets, dx, mask=mask)
        dx_sum += dx

    partial = partial_ptr + tl.program_id(0) * 3 * H + cols
    tl.store(partial, tl.sum(dweight, axis=0), mask=col_mask)
    tl.store(partial + H, tl.sum(dbias, axis=0), mask=col_mask)
    tl.store(partial + 2 * H, tl.sum(dx_sum, axis=0), mask=col_mask)


def _block(h: int, elements: int) -> tuple[int, int, int]:
    """The (rows, columns, warps) of a block with so many elements, where that is at least a row."""
    cols = power_of_two(h)
    return max(1, elements // cols), cols, 4 if cols <= 4096 else 16


def dropout_add_norm_fwd(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, seed: Tensor | None, eps: float, dropout_p: float,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Computes x, residual [T, H] -> (y [T, H], sum [T, H], mean [T], rstd [T]); all but y are empty without `save`."""
    n_rows, h = x.shape
    block_rows, block_cols, n_warps = _block(h, 4096)
    y = torch.empty_like(x)
    summed = torch.empty_like(x) if save else x.new_empty(0)
    mean, rstd = (x.new_empty(n_rows if save else 0, dtype=torch.float32) for _ in range(2))
    threshold, scale = dropout_scalars(dropout_p)
    if n_rows > 0:
        dropout_add_norm_fwd_kernel[triton.cdiv(n_rows, block_rows),](
            x, residual, weight, bias, seed, y, summed, mean, rstd, n_rows, eps, threshold, scale,
            H=h, HAS_DROPOUT=dropout_p > 0, SAVE=save, BLOCK_ROWS=block_rows, BLOCK_COLS=block_cols, num_warps=n_warps,
        )  # fmt: skip
    return y, summed, mean, rstd


def dropout_add_norm_bwd(
    dy: Tensor, summed: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, seed: Tensor | None, dropout_p: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes dy [T, H] -> gradients of x, residual, and weight and bias as [2, H].

    Without dropout that of x is empty: it is residual's.
    """
    h = dy.shape[1]
    dx, dresidual, partial = dropout_add_norm_partial_bwd(dy, summed, mean, rstd, weight, seed, dropout_p)
    if dropout_p == 0:
        dx = dy.new_empty(0)
    return dx, dresidual, sum_partials(weight.dtype, partial).view(3, h)[:2]


def dropout_add_norm_partial_bwd(
    dy: Tensor, summed: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, seed: Tensor | None, dropout_p: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes dy [T, H] -> gradients of x, residual, and partial sums [P, 3 H] for `partial_sums`.

    Without dropout the first two are one tensor. The sums over P are the gradients of weight and bias and the column
    sums of x's gradient.
    """
    n_rows, h = dy.shape
    # Half as many elements for a thread as in the forward, which holds no sums over rows: four programs fit an SM.
    block_rows, block_cols, n_warps = _block(h, 2048)
    dresidual = torch.empty_like(dy)
    dx = torch.empty_like(dy) if dropout_p > 0 else dresidual
    programs = min(n_programs(dy.device, waves=4), triton.cdiv(n_rows, block_rows))
    partial = dy.new_empty((programs, 3 * h), dtype=torch.float32)
    threshold, scale = dropout_scalars(dropout_p)
    if n_rows > 0:
        dropout_add_norm_bwd_kernel[programs,](
            dy, summed, mean, rstd, weight, seed, dx, dresidual, partial, n_rows, threshold, scale,
            H=h, HAS_DROPOUT=dropout_p > 0, BLOCK_ROWS=block_rows, BLOCK_COLS=block_cols, num_warps=n_warps,
        )  # fmt: skip
    return dx, dresidual, partial
