"""out = dropout(LayerNorm(words[ids] + type_table[types] + position_table[positions])) project' + bias.

    s = words[ids] + type_table[types] + position_table[positions];  y = (s - mean(s)) * rstd(s) * weight + bias
    out = dropout(y), or with a projection  dropout(y) project_weight' + project_bias

Shapes: ids, types, positions [T] int32 or int64; words [V, E], or [T, E] where the caller brings vectors and no ids;
position_table [P, E]; type_table [N, E]; weight, bias [E]; project_weight [H, E]; project_bias [H]; mean, rstd [T]
fp32.

Fused: three gathers, two additions, LayerNorm, dropout and, up to E = 256 in bf16 and fp16, the projection, whose input
rows stay on chip; for wider rows, and in fp32 (no tensor cores), a vendor GEMM projects. The forward writes T H
elements, and T E more where a backward needs the rows before the projection; eager torch moves 16 T E before the
projection. Most gathered rows come from L2. The sum s is not saved: the backward gathers again, which costs less than
writing and reading it.

The backward reads T E of the incoming gradient (after a vendor GEMM where there is a projection), writes the gradient
of s once, and adds it up for the three tables in one segment sum, whose keys are rows of one tall table [P + N + V, E].
The gradient of s is stored in the dtype of the activations: eager torch rounds it there too, and it is read three
times. The gradients of weight and bias are partial sums of each program, as in `norm`: no atomics, the same bits in
every run.

Numerics: everything between load and store is in fp32; statistics take two passes over registers and are stored in
fp32.

Limits: ids are data on the device, so a wrong one cannot be refused; it makes its token NaN and writes nowhere.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .launch import matmul, n_programs, power_of_two
from .partial_sums import sum_partials
from .philox import dropout_scalars, keep_mask
from .segments import KEY_OF_ROW_0, key_dtype, sum_segments


@triton.jit
def _gather(table_ptr, ids, n_rows, cols, E: tl.constexpr):
    """Loads rows of a table, [ROWS, COLS] fp32: NaN where an id is outside of it, zero beyond E."""
    is_known = (ids >= 0) & (ids < n_rows)
    mask = is_known[:, None] & (cols < E)[None, :]
    other = tl.where(is_known, 0.0, float("nan")).to(table_ptr.dtype.element_ty)
    return tl.load(table_ptr + ids.to(tl.int64)[:, None] * E + cols[None, :], mask=mask, other=other[:, None]).to(
        tl.float32
    )


@triton.jit(do_not_specialize=["n_tokens", "n_words"], do_not_specialize_on_alignment=["seed_ptr"])
def embed_norm_project_fwd_kernel(
    ids_ptr,  # [T], or None: words are the tokens' own
    types_ptr,  # [T]
    positions_ptr,  # [T]
    words_ptr,  # [V, E], or [T, E]
    position_table_ptr,  # [P, E]
    type_table_ptr,  # [N, E]
    weight_ptr,  # [E]
    bias_ptr,  # [E]
    project_weight_ptr,  # [H, E], or None
    project_bias_ptr,  # [H], or None
    seed_ptr,  # [1] int64
    rows_ptr,  # [T, E], or None: not stored
    out_ptr,  # [T, H], written where there is a projection
    mean_ptr,  # [T] fp32, written where SAVE
    rstd_ptr,  # [T] fp32, written where SAVE
    n_tokens,
    n_words,
    n_positions,
    n_types,
    eps,
    threshold,
    scale,
    E: tl.constexpr,
    H: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    tokens = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = tl.arange(0, BLOCK_COLS)
    token_mask, col_mask = tokens < n_tokens, cols < E
    mask = token_mask[:, None] & col_mask[None, :]

    ids = tokens
    if ids_ptr is not None:
        ids = tl.load(ids_ptr + tokens, mask=token_mask, other=0)
    types = tl.load(types_ptr + tokens, mask=token_mask, other=0)
    positions = tl.load(positions_ptr + tokens, mask=token_mask, other=0)
    summed = _gather(words_ptr, ids, n_words, cols, E)
    summed += _gather(type_table_ptr, types, n_types, cols, E)
    summed += _gather(position_table_ptr, positions, n_positions, cols, E)
    mean = tl.sum(summed, axis=1) / E
    centred = tl.where(mask, summed - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / E + eps)
    if SAVE:
        tl.store(mean_ptr + tokens, mean, mask=token_mask)
        tl.store(rstd_ptr + tokens, rstd, mask=token_mask)

    weight = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    y = centred * rstd[:, None] * weight[None, :] + bias[None, :]
    if HAS_DROPOUT:
        keep = keep_mask(tl.load(seed_ptr), tokens, 0, 0, threshold, BLOCK_ROWS, BLOCK_COLS)
        y = tl.where(keep, y * scale, 0.0)
    y = y.to(words_ptr.dtype.element_ty)
    if rows_ptr is not None:
        tl.store(rows_ptr + tokens.to(tl.int64)[:, None] * E + cols[None, :], y, mask=mask)

    if project_weight_ptr is not None:
        for first in range(0, H, BLOCK_OUT):
            outs = first + tl.arange(0, BLOCK_OUT)
            out_mask = outs < H
            matrix = tl.load(
                project_weight_ptr + outs[None, :] * E + cols[:, None],
                mask=out_mask[None, :] & col_mask[:, None],
                other=0.0,
            )
            out = tl.dot(y, matrix)
            if project_bias_ptr is not None:
                out += tl.load(project_bias_ptr + outs, mask=out_mask, other=0.0).to(tl.float32)[None, :]
            to_out = out_ptr + tokens.to(tl.int64)[:, None] * H + outs[None, :]
            tl.store(to_out, out, mask=token_mask[:, None] & out_mask[None, :])


@triton.jit(do_not_specialize=["n_tokens", "n_words", "padding_idx"], do_not_specialize_on_alignment=["seed_ptr"])
def embed_norm_bwd_kernel(
    dy_ptr,  # [T, E], gradient of the normalised rows after dropout
    ids_ptr,  # [T], or None: words are the tokens' own
    types_ptr,  # [T]
    positions_ptr,  # [T]
    words_ptr,  # [V, E], or [T, E]
    position_table_ptr,  # [P, E]
    type_table_ptr,  # [N, E]
    weight_ptr,  # [E]
    mean_ptr,  # [T] fp32
    rstd_ptr,  # [T] fp32
    seed_ptr,  # [1] int64
    dsum_ptr,  # [T, E]
    keys_ptr,  # [2, T] or, with ids, [3, T]: rows in [positions | types | words | one that is not read]
    dtables_ptr,  # [positions | types | words | one that is not read, E]: zeros, for the segment sum
    partial_ptr,  # [programs, 2, E] fp32: gradients of weight and bias, over the tokens of a program
    n_tokens,
    n_words,
    n_positions,
    n_types,
    padding_idx,  # -1 for none
    threshold,
    scale,
    E: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    cols = tl.arange(0, BLOCK_COLS)
    col_mask = cols < E
    weight = tl.load(weight_ptr + cols, mask=col_mask, other=0.0).to(tl.float32)
    dweight = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    dbias = tl.zeros((BLOCK_ROWS, BLOCK_COLS), dtype=tl.float32)
    nobody = n_positions + n_types
    if ids_ptr is not None:
        nobody += n_words

    for block in range(tl.program_id(0), tl.cdiv(nobody + 1, BLOCK_ROWS), tl.num_programs(0)):
        table_rows = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        to_tables = dtables_ptr + table_rows.to(tl.int64)[:, None] * E + cols[None, :]
        tl.store(to_tables, tl.zeros_like(dbias), mask=(table_rows <= nobody)[:, None] & col_mask[None, :])

    for block in range(tl.program_id(0), tl.cdiv(n_tokens, BLOCK_ROWS), tl.num_programs(0)):
        tokens = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        token_mask = tokens < n_tokens
        mask = token_mask[:, None] & col_mask[None, :]
        offsets = tokens.to(tl.int64)[:, None] * E + cols[None, :]
        dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        if HAS_DROPOUT:
            keep = keep_mask(tl.load(seed_ptr), tokens, 0, 0, threshold, BLOCK_ROWS, BLOCK_COLS)
            dy = tl.where(keep, dy * scale, 0.0)

        types = tl.load(types_ptr + tokens, mask=token_mask, other=0)
        positions = tl.load(positions_ptr + tokens, mask=token_mask, other=0)
        ids = tokens
        if ids_ptr is not None:
            ids = tl.load(ids_ptr + tokens, mask=token_mask, other=0)
            learns = (ids >= 0) & (ids < n_words) & (ids != padding_idx)
            key = tl.where(learns, n_positions + n_types + ids, nobody) + KEY_OF_ROW_0
            tl.store(keys_ptr + 2 * n_tokens + tokens, key, mask=token_mask)
        is_known = (positions >= 0) & (positions < n_positions)
        tl.store(keys_ptr + tokens, tl.where(is_known, positions, nobody) + KEY_OF_ROW_0, mask=token_mask)
        is_known = (types >= 0) & (types < n_types)
        key = tl.where(is_known, n_positions + types, nobody) + KEY_OF_ROW_0
        tl.store(keys_ptr + n_tokens + tokens, key, mask=token_mask)

        summed = _gather(words_ptr, ids, n_words, cols, E)
        summed += _gather(type_table_ptr, types, n_types, cols, E)
        summed += _gather(position_table_ptr, positions, n_positions, cols, E)
        mean = tl.load(mean_ptr + tokens, mask=token_mask, other=0.0)
        rstd = tl.load(rstd_ptr + tokens, mask=token_mask, other=0.0)
        normal = tl.where(mask, (summed - mean[:, None]) * rstd[:, None], 0.0)
        dweight += dy * normal
        dbias += dy
        dnormal = dy * weight[None, :]
        mean_d = tl.sum(dnormal, axis=1) / E
        mean_dn = tl.sum(dnormal * normal, axis=1) / E
        dsum = (dnormal - mean_d[:, None] - normal * mean_dn[:, None]) * rstd[:, None]
        tl.store(dsum_ptr + offsets, dsum, mask=mask)

    partial = partial_ptr + tl.program_id(0) * 2 * E + cols
    tl.store(partial, tl.sum(dweight, axis=0), mask=col_mask)
    tl.store(partial + E, tl.sum(dbias, axis=0), mask=col_mask)


def embed_norm_project_fwd(
    ids: Tensor | None, types: Tensor, positions: Tensor, words: Tensor, position_table: Tensor, type_table: Tensor,
    weight: Tensor, bias: Tensor, project_weight: Tensor | None, project_bias: Tensor | None, seed: Tensor | None,
    eps: float, dropout_p: float, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Computes ids [T] -> (out [T, E] or, projected, [T, H]; rows projected, mean, rstd: empty without `save`)."""
    n_tokens, e = len(types), words.shape[1]
    projects = project_weight is not None
    fuses = projects and e <= 256 and words.dtype != torch.float32
    h = len(project_weight) if projects else e
    out = words.new_empty((n_tokens, h)) if fuses else None
    rows = words.new_empty((n_tokens, e)) if save or not fuses else None
    mean, rstd = (words.new_empty(n_tokens if save else 0, dtype=torch.float32) for _ in range(2))
    threshold, scale = dropout_scalars(dropout_p)
    block_cols = power_of_two(e)
    # A product needs enough rows for the tensor cores; without one, a thread has 32 elements.
    block_rows, n_warps = (64, max(4, block_cols // 32)) if fuses else (max(1, 4096 // block_cols), 4)
    if n_tokens > 0:
        embed_norm_project_fwd_kernel[triton.cdiv(n_tokens, block_rows),](
            ids, types, positions, words, position_table, type_table, weight, bias,
            project_weight if fuses else None, project_bias if fuses else None, seed, rows, out, mean, rstd,
            n_tokens, len(words), len(position_table), len(type_table), eps, threshold, scale,
            E=e, H=h, HAS_DROPOUT=dropout_p > 0, SAVE=save,
            BLOCK_ROWS=block_rows, BLOCK_COLS=block_cols, BLOCK_OUT=min(64, 8192 // block_cols), num_warps=n_warps,
        )  # fmt: skip
    if not projects:
        return rows, words.new_empty(0), mean, rstd
    if not fuses:
        out = F.linear(rows, project_weight, project_bias)
    return out, rows if save else words.new_empty(0), mean, rstd


def embed_norm_project_bwd(
    dout: Tensor, ids: Tensor | None, types: Tensor, positions: Tensor, words: Tensor, position_table: Tensor,
    type_table: Tensor, weight: Tensor, project_weight: Tensor | None, rows: Tensor, mean: Tensor, rstd: Tensor,
    seed: Tensor | None, dropout_p: float, padding_idx: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Computes dout -> gradients of five tensors.

    These are the tables [positions | types | words], `words` (empty with ids), weight and bias as [2, E],
    project_weight and project_bias (empty without a projection). Without ids the tables have no words.
    """
    n_tokens, e = len(types), words.shape[1]
    if project_weight is None:
        dy, dproject_weight, dproject_bias = dout, dout.new_empty(0), dout.new_empty(0)
    else:
        dy = matmul(dout, project_weight)
        dproject_weight, dproject_bias = matmul(dout.T, rows), dout.sum(0)
    block_cols = power_of_two(e)
    # A thread has 16 elements, 8 in fp32: partial sums and the addresses of three gathers take as many registers again.
    block_rows = max(1, 4096 // (block_cols * words.element_size()))
    programs = min(n_programs(dout.device, waves=4), triton.cdiv(n_tokens, block_rows))
    n_rows = len(position_table) + len(type_table) + (0 if ids is None else len(words))
    dsum = words.new_empty((n_tokens, e))
    dtables = (words.new_empty if n_tokens > 0 else words.new_zeros)((n_rows + 1, e))
    keys = types.new_empty((2 if ids is None else 3) * n_tokens, dtype=key_dtype(n_rows + 1))
    partial = dout.new_empty((programs, 2, e), dtype=torch.float32)
    threshold, scale = dropout_scalars(dropout_p)
    if n_tokens > 0:
        embed_norm_bwd_kernel[programs,](
            dy, ids, types, positions, words, position_table, type_table, weight, mean, rstd, seed,
            dsum, keys, dtables, partial, n_tokens, len(words), len(position_table), len(type_table), padding_idx,
            threshold, scale, E=e, HAS_DROPOUT=dropout_p > 0,
            BLOCK_ROWS=block_rows, BLOCK_COLS=block_cols, num_warps=4,
        )  # fmt: skip
    sum_segments(dsum, keys, dtables)
    dwords = dsum if ids is None else dsum.new_empty(0)
    dnorm = sum_partials(weight.dtype, partial.view(programs, 2 * e)).view(2, e)
    return dtables[:n_rows], dwords, dnorm, dproject_weight, dproject_bias
