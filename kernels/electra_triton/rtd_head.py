"""The replaced-token head and its loss: one logit per token, from its hidden state.

    pre = hidden dense' + dense_bias;  z = gelu(pre) . w + c;  loss = sum of counts * bce(z, y) / sum of counts
    dz = dloss (sigmoid(z) - y) counts / sum of counts + dlogits;  dpre = dz w gelu'(pre)
    dhidden = dpre dense;  ddense = dpre' hidden;  ddense_bias = sum of dpre;  dw = sum of dz gelu(pre);  dc = sum of dz

Shapes: hidden [T, H]; dense [H, H]; dense_bias, w [H]; c [1]; labels, logits, z [T]; y is labels > 0, and counts is
labels >= 0.

Fused: a program holds BLOCK_ROWS tokens and goes over the columns of the dense layer; GELU, the product with w, the
logit and its loss follow in registers. The forward moves T H elements and a few numbers per token, where eager torch
moves 5 T H: the hidden activation is never written, before or after GELU. The backward computes pre again, and one
pass over it writes dpre in its place and sums three gradients in registers over all rows that a program visits. With
the vendor's GEMM for pre it moves 4 T H, where eager torch moves 6 T H and keeps 2 T H since the forward. The other
GEMMs are the vendor's, too. Sums over tokens are partial sums of each program, [P, 2], [P, 2, H] and [P], and one small
launch each way completes them: no atomics, the same bits in every run. The number of tokens that count stays on the
device.

Numerics: products accumulate in fp32, fp32 inputs without tf32. z is kept in fp32; the loss and its gradient are
computed from it before it is rounded to logits. The loss is max(z, 0) - z y + log(1 + exp(-|z|)), finite for every
finite z. If no token counts it is NaN, a mean over nothing.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gelu import gelu, gelu_derivative
from .launch import matmul
from .linear import column_sum_blocks, product, tile_sizes
from .partial_sums import sum_partials


@triton.jit(do_not_specialize=["n_rows"])
def rtd_head_fwd_kernel(
    hidden_ptr,  # [T, H]
    dense_weight_ptr,  # [H, H]
    dense_bias_ptr,  # [H]
    prediction_weight_ptr,  # [H]
    prediction_bias_ptr,  # [1]
    labels_ptr,  # [T], read where HAS_LABELS
    logits_ptr,  # [T]
    scores_ptr,  # [T] fp32: the logits before rounding, written where SAVE
    partial_ptr,  # [P, 2] fp32: sum of losses and number of tokens that count, written where HAS_LABELS
    n_rows,
    H: tl.constexpr,
    HAS_LABELS: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    row_mask = rows < n_rows
    scores = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    # Addresses are computed anew for each block of columns: keeping them would take more registers than there are.
    for first_col in tl.range(0, H, BLOCK_COLS, disable_licm=True):
        cols = first_col + tl.arange(0, BLOCK_COLS)
        col_mask = cols < H
        pre = product(hidden_ptr, dense_weight_ptr, rows, cols, n_rows, H, H, BLOCK_ROWS, BLOCK_COLS, BLOCK_K)
        pre += tl.load(dense_bias_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)[None, :]
        # Columns beyond the end have a weight of zero.
        weight = tl.load(prediction_weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
        scores += tl.sum(gelu(pre) * weight[None, :], axis=1)
    scores += tl.load(prediction_bias_ptr).to(tl.float32)
    tl.store(logits_ptr + rows, scores, mask=row_mask)
    if SAVE:
        tl.store(scores_ptr + rows, scores, mask=row_mask)
    if HAS_LABELS:
        labels = tl.load(labels_ptr + rows, mask=row_mask, other=-1)
        losses = tl.maximum(scores, 0.0) - tl.where(labels > 0, scores, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(scores)))
        partial = partial_ptr + tl.program_id(0) * 2
        tl.store(partial, tl.sum(tl.where(labels >= 0, losses, 0.0)))
        tl.store(partial + 1, tl.sum((labels >= 0).to(tl.float32)))


@triton.jit(do_not_specialize=["n_partial"])
def rtd_head_mean_kernel(
    partial_ptr,  # [P, 2] fp32: sum of losses and number of tokens that count
    loss_ptr,  # [] fp32
    sums_ptr,  # [2] fp32
    n_partial,
    BLOCK: tl.constexpr,
):
    losses = tl.zeros((BLOCK,), dtype=tl.float32)
    counts = tl.zeros((BLOCK,), dtype=tl.float32)
    for first in range(0, n_partial, BLOCK):
        rows = first + tl.arange(0, BLOCK)
        losses += tl.load(partial_ptr + rows * 2, mask=rows < n_partial, other=0.0)
        counts += tl.load(partial_ptr + rows * 2 + 1, mask=rows < n_partial, other=0.0)
    total, count = tl.sum(losses, axis=0), tl.sum(counts, axis=0)
    tl.store(sums_ptr, total)
    tl.store(sums_ptr + 1, count)
    tl.store(loss_ptr, tl.div_rn(total, count))


@triton.jit(do_not_specialize=["n_rows"])
def rtd_head_bwd_kernel(
    dloss_ptr,  # scalar fp32, read where HAS_LOSS
    dlogits_ptr,  # [T], read where HAS_LOGITS
    pre_ptr,  # [T, H], overwritten by dpre
    prediction_weight_ptr,  # [H]
    labels_ptr,  # [T], read where HAS_LOSS
    scores_ptr,  # [T] fp32, read where HAS_LOSS
    sums_ptr,  # [2] fp32: sum of losses and number of tokens that count, read where HAS_LOSS
    partial_ptr,  # [P, 2, H] fp32: gradients of dense_bias and prediction_weight, over the rows of a program
    partial_bias_ptr,  # [P] fp32: gradient of prediction_bias
    n_rows,
    H: tl.constexpr,
    HAS_LOSS: tl.constexpr,
    HAS_LOGITS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    cols = tl.program_id(0) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    col_mask = cols < H
    weight = tl.load(prediction_weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    ddense_bias = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    dweight = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    dbias = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    if HAS_LOSS:
        dloss = tl.load(dloss_ptr) / tl.load(sums_ptr + 1)

    for block in range(tl.program_id(1), tl.cdiv(n_rows, BLOCK_ROWS), tl.num_programs(1)):
        rows = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        row_mask = rows < n_rows
        mask = row_mask[:, None] & col_mask[None, :]
        offsets = rows.to(tl.int64)[:, None] * H + cols[None, :]
        pre = tl.load(pre_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        dscores = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
        if HAS_LOSS:
            labels = tl.load(labels_ptr + rows, mask=row_mask, other=-1)
            scores = tl.load(scores_ptr + rows, mask=row_mask, other=0.0)
            slopes = tl.sigmoid(scores) - (labels > 0).to(tl.float32)
            dscores += tl.where(labels >= 0, slopes * dloss, 0.0)
        if HAS_LOGITS:
            dscores += tl.load(dlogits_ptr + rows, mask=row_mask, other=0.0).to(tl.float32)
        dpre = dscores[:, None] * weight[None, :] * gelu_derivative(pre)
        ddense_bias += dpre
        dweight += dscores[:, None] * gelu(pre)
        dbias += dscores
        tl.store(pre_ptr + offsets, dpre, mask=mask)

    partial = partial_ptr + tl.program_id(1) * 2 * H + cols
    tl.store(partial, tl.sum(ddense_bias, axis=0), mask=col_mask)
    tl.store(partial + H, tl.sum(dweight, axis=0), mask=col_mask)
    if tl.program_id(0) == 0:
        tl.store(partial_bias_ptr + tl.program_id(1), tl.sum(dbias))


def _integers(labels: Tensor | None) -> Tensor | None:
    """Labels as numbers: Triton's booleans have a sign."""
    return labels.view(torch.int8) if labels is not None and labels.dtype == torch.bool else labels


def rtd_head_fwd(
    hidden: Tensor, dense_weight: Tensor, dense_bias: Tensor, prediction_weight: Tensor, prediction_bias: Tensor,
    labels: Tensor | None, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Computes hidden [T, H], labels [T] -> (loss, logits [T], z [T], sums [2]: the losses' sum and their number).

    Without labels the loss and the sums are empty; z is for the gradient of the loss, and empty without `save` too.
    """
    n_rows, h = hidden.shape
    sizes = tile_sizes(h, h, hidden.dtype)
    programs = triton.cdiv(n_rows, sizes["BLOCK_ROWS"])
    has_labels = labels is not None
    save = save and has_labels
    logits = hidden.new_empty(n_rows)
    scores = hidden.new_empty(n_rows if save else 0, dtype=torch.float32)
    partial = hidden.new_empty((programs if has_labels else 0, 2), dtype=torch.float32)
    if n_rows > 0:
        rtd_head_fwd_kernel[programs,](
            hidden, dense_weight, dense_bias, prediction_weight, prediction_bias, _integers(labels), logits, scores,
            partial, n_rows, H=h, HAS_LABELS=has_labels, SAVE=save, **sizes,
            # A tile of 256 columns is alone on its SM; without a bound some compilers spill below all registers.
            maxnreg=255 if sizes["BLOCK_COLS"] > 128 else None,
        )  # fmt: skip
    if not has_labels:
        return hidden.new_empty(0, dtype=torch.float32), logits, scores, hidden.new_empty(0, dtype=torch.float32)
    loss, sums = partial.new_empty(()), partial.new_empty(2)
    rtd_head_mean_kernel[1,](partial, loss, sums, programs, BLOCK=1024)
    return loss, logits, scores, sums


def rtd_head_bwd(
    dloss: Tensor | None, dlogits: Tensor | None, hidden: Tensor, dense_weight: Tensor, dense_bias: Tensor,
    prediction_weight: Tensor, labels: Tensor | None, scores: Tensor, sums: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Computes dloss (a scalar or None), dlogits ([T] or None) -> gradients.

    These are of hidden, of dense_weight, and of dense_bias, prediction_weight and prediction_bias as [2 H + 1].
    """
    n_rows, h = hidden.shape
    # pre takes the vendor's GEMM, then a pass over it: a tile of 128 x 256 with all sums in its epilogue would spill.
    dpre = matmul(hidden, dense_weight.T, plus=dense_bias)
    block_rows, block_cols, programs = column_sum_blocks(n_rows, h, hidden.device)
    partial = hidden.new_empty((programs, 2, h), dtype=torch.float32)
    partial_bias = hidden.new_empty((programs, 1), dtype=torch.float32)
    if n_rows > 0:
        rtd_head_bwd_kernel[triton.cdiv(h, block_cols), programs](
            dloss, dlogits, dpre, prediction_weight, _integers(labels), scores, sums, partial, partial_bias, n_rows,
            H=h, HAS_LOSS=dloss is not None, HAS_LOGITS=dlogits is not None,
            BLOCK_ROWS=block_rows, BLOCK_COLS=block_cols, num_warps=4,
        )  # fmt: skip
    dvectors = sum_partials(dense_weight.dtype, partial.view(programs, 2 * h), partial_bias)
    return matmul(dpre, dense_weight), matmul(dpre.T, hidden), dvectors
