"""Attention, out = dropout(softmax(q k' / sqrt(D))) v within each packed sequence and head, as in FlashAttention.

Shapes: qkv [T, 3, A, D], queries, keys and values as one GEMM leaves them, read where they are; cu_seqlens [B + 1]
int32, the ends of the sequences in T; out [T, A, D]; lse [A, T] fp32, log2 of the softmax's denominators.

Fused: everything between qkv and out, without a copy per operand and without padding. Sequences up to 128 tokens of
16 bits go to `attention_short`; the kernels here take any length. The forward holds a block of queries and walks over
the keys with a running maximum and sum. The backward has a kernel for each block of queries, which walks over the keys
and sums dq, and one for each block of keys, which walks over the queries and sums dk and dv: 7 products instead of 5,
no atomics and the same bits in every run. The first leaves delta = sum(dout * out) to the second. Both also sum their
gradients over the tokens that they hold, for the biases of the product that made qkv; those of the keys' bias are zero,
since it moves all scores of a query alike. Causal walks end, or begin, at the diagonal; only blocks that the mask or
the end of the sequence cuts are masked, in a loop of their own.

The forward moves 4 T H elements of HBM, the backward 13 T H: both of its kernels read qkv and dout, one reads out.
Dropout's bits are drawn once, in the forward, and are an eighth of a byte for each score: L / 16 D of T H elements.
Blocks of one sequence and head are neighbours in the grid, so that the data they share stays in L2. Beyond 128 tokens
arithmetic takes longer than memory: exp2 and, with dropout, the forward's integer work.

Numerics: scores, softmax and sums in fp32; probabilities and their gradients are rounded to the operands' dtype for
their products, as in every flash kernel; fp32 operands are multiplied as they are (ieee), in small blocks. A dropout's
mask is `philox.keep_mask` with rows of packed tokens and columns of places in the sequence. Results do not depend on
what a sequence is packed with, but `max_seqlen` chooses the kernel. Head sizes up to 128; 64 is tuned.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch
from .attention_short import max_short, short_bwd, short_fwd
from .attention_tiles import (
    LN_2,
    as_words,
    draw_dropped,
    dropped_offsets,
    empty_dropped,
    load_dropped,
    load_tile,
    negate_dropped,
    score_scale,
    store_dropped,
    store_sums,
    store_tile,
    visible_keys,
)
from .launch import has_wide_products, power_of_two
from .philox import dropout_scalars


@triton.jit
def locate(cu_seqlens_ptr, n_blocks, A: tl.constexpr, BLOCK: tl.constexpr):
    """Locates a program: first token of its sequence, length of the sequence, head, first place of its block."""
    program = tl.program_id(0)
    sequence, head, block = program // n_blocks // A, program // n_blocks % A, program % n_blocks
    first_token = tl.load(cu_seqlens_ptr + sequence)
    length = tl.load(cu_seqlens_ptr + sequence + 1) - first_token
    return first_token.to(tl.int64), length, head, block * BLOCK


@triton.jit
def walk_keys(first_row, length, edge, CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """The range of keys that a block of queries walks over: those of uncut blocks or, with `edge`, of cut ones."""
    last = min(length, first_row + BLOCK_M) if CAUSAL else length
    uncut = (min(length, first_row + 1) if CAUSAL else length) // BLOCK_N * BLOCK_N
    return (uncut, last) if edge else (0, uncut)


@triton.jit(
    do_not_specialize=["n_blocks", "n_key_blocks", "n_tokens", "threshold"],
    do_not_specialize_on_alignment=["seed_ptr"],
)
def attention_fwd_kernel(
    qkv_ptr,  # [T, 3, A, D]
    cu_seqlens_ptr,  # [B + 1] int32
    seed_ptr,  # [1] int64
    out_ptr,  # [T, A, D]
    lse_ptr,  # [A, T] fp32, written if SAVE
    dropped_ptr,  # [A, blocks of keys, T, 4], written if SAVE
    n_blocks,  # blocks of queries in the longest sequence
    n_key_blocks,
    n_tokens,
    score_scale,
    threshold,
    keep_scale,
    A: tl.constexpr,
    D: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    first_token, length, head, first_row = locate(cu_seqlens_ptr, n_blocks, A, BLOCK_M)
    if first_row >= length:
        return
    rows = first_row + tl.arange(0, BLOCK_M)
    first_query = first_token + first_row
    k_ptr = qkv_ptr + first_token * (3 * A * D) + A * D + head * D
    q_ptr = qkv_ptr + first_query * (3 * A * D) + head * D
    q = load_tile(q_ptr, 3 * A * D, length - first_row, BLOCK_M, D, BLOCK_D)

    acc = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    row_max = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    row_sum = tl.zeros((BLOCK_M,), dtype=tl.float32)
    if HAS_DROPOUT:
        seed = tl.load(seed_ptr)
    for edge in tl.static_range(2):
        first, last = walk_keys(first_row, length, edge, CAUSAL, BLOCK_M, BLOCK_N)
        for first_key in range(first, last, BLOCK_N):
            keys = first_key + tl.arange(0, BLOCK_N)
            tile_ptr = k_ptr + tl.cast(first_key, tl.int64) * (3 * A * D)
            k = load_tile(tile_ptr, 3 * A * D, length - first_key, BLOCK_N, D, BLOCK_D)
            v = load_tile(tile_ptr + A * D, 3 * A * D, length - first_key, BLOCK_N, D, BLOCK_D)
            if HAS_DROPOUT:
                dropped = draw_dropped(seed, (first_token + rows).to(tl.int32), first_key, head, threshold, BLOCK_N)
                if SAVE:
                    block = first_key // BLOCK_N
                    offsets = dropped_offsets(first_query, block, n_key_blocks, n_tokens, head, BLOCK_M)
                    store_dropped(dropped_ptr, dropped, length - first_row, offsets)
            scores = tl.dot(q, tl.trans(k), input_precision="ieee")
            if edge:
                scores = tl.where(visible_keys(rows, keys, length, CAUSAL), scores, float("-inf"))
            new_max = tl.maximum(row_max, tl.max(scores, axis=1) * score_scale)
            p = tl.exp2(scores * score_scale - new_max[:, None])
            rescale = tl.exp2(row_max - new_max)
            row_max, row_sum = new_max, row_sum * rescale + tl.sum(p, axis=1)
            if HAS_DROPOUT:
                p = tl.maximum(negate_dropped(p, dropped, BLOCK_N), 0.0)
            acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None], input_precision="ieee")

    out_scale = keep_scale / row_sum
    out_ptr += (first_query * A + head) * D
    store_tile(out_ptr, A * D, length - first_row, acc * out_scale[:, None], BLOCK_M, D, BLOCK_D)
    if SAVE:
        lse_ptr += n_tokens.to(tl.int64) * head + first_token
        tl.store(lse_ptr + rows, row_max + tl.log2(row_sum), mask=rows < length)


@triton.jit(do_not_specialize=["n_blocks", "n_key_blocks", "n_tokens"])
def attention_bwd_queries_kernel(
    dout_ptr,  # [T, A, D]
    qkv_ptr,  # [T, 3, A, D]
    out_ptr,  # [T, A, D]
    lse_ptr,  # [A, T] fp32
    dropped_ptr,  # [A, blocks of keys, T, 4]
    cu_seqlens_ptr,  # [B + 1] int32
    dqkv_ptr,  # [T, 3, A, D], dq written
    sums_ptr,  # [B, blocks of keys, 3, A, D] fp32, sums of dq over as many queries written
    delta_ptr,  # [A, T] fp32, written
    n_blocks,  # blocks of queries in the longest sequence
    n_key_blocks,
    n_tokens,
    score_scale,
    keep_scale,
    A: tl.constexpr,
    D: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    first_token, length, head, first_row = locate(cu_seqlens_ptr, n_blocks, A, BLOCK_M)
    if first_row >= length:
        return
    rows = first_row + tl.arange(0, BLOCK_M)
    first_query = first_token + first_row
    k_ptr = qkv_ptr + first_token * (3 * A * D) + A * D + head * D
    q_ptr = qkv_ptr + first_query * (3 * A * D) + head * D
    q = load_tile(q_ptr, 3 * A * D, length - first_row, BLOCK_M, D, BLOCK_D)
    offset = (first_query * A + head) * D
    dout = load_tile(dout_ptr + offset, A * D, length - first_row, BLOCK_M, D, BLOCK_D)
    out = load_tile(out_ptr + offset, A * D, length - first_row, BLOCK_M, D, BLOCK_D)
    # Gradients are multiplied by keep_scale at the end, so delta is divided by it here; at p = 1, keep_scale and all
    # gradients are zero.
    delta = tl.sum(dout.to(tl.float32) * out.to(tl.float32), axis=1) / tl.maximum(keep_scale, 1.0)
    row_offsets = n_tokens.to(tl.int64) * head + first_token + rows
    tl.store(delta_ptr + row_offsets, delta, mask=rows < length)
    lse = tl.load(lse_ptr + row_offsets, mask=rows < length, other=float("inf"))

    dq = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    for edge in tl.static_range(2):
        first, last = walk_keys(first_row, length, edge, CAUSAL, BLOCK_M, BLOCK_N)
        for first_key in range(first, last, BLOCK_N):
            keys = first_key + tl.arange(0, BLOCK_N)
            tile_ptr = k_ptr + tl.cast(first_key, tl.int64) * (3 * A * D)
            k = load_tile(tile_ptr, 3 * A * D, length - first_key, BLOCK_N, D, BLOCK_D)
            v = load_tile(tile_ptr + A * D, 3 * A * D, length - first_key, BLOCK_N, D, BLOCK_D)
            if HAS_DROPOUT:
                block = first_key // BLOCK_N
                offsets = dropped_offsets(first_query, block, n_key_blocks, n_tokens, head, BLOCK_M)
                dropped = load_dropped(dropped_ptr, length - first_row, offsets)
            p = tl.exp2(tl.dot(q, tl.trans(k), input_precision="ieee") * score_scale - lse[:, None])
            if edge:
                p = tl.where(visible_keys(rows, keys, length, CAUSAL), p, 0.0)
            dp = tl.dot(dout, tl.trans(v), input_precision="ieee")
            if HAS_DROPOUT:
                p = negate_dropped(p, dropped, BLOCK_N)
                ds = tl.maximum(p, 0.0) * dp - tl.abs(p) * delta[:, None]
            else:
                ds = p * (dp - delta[:, None])
            dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")

    dqkv_ptr += (first_query * 3 * A + head) * D
    dq *= score_scale * LN_2 * keep_scale
    store_tile(dqkv_ptr, 3 * A * D, length - first_row, dq, BLOCK_M, D, BLOCK_D)
    PARTS: tl.constexpr = BLOCK_M // BLOCK_N
    sums = tl.sum(tl.reshape(dq, (PARTS, BLOCK_N, BLOCK_D)), axis=1)
    parts, columns = tl.arange(0, PARTS), tl.arange(0, BLOCK_D)
    row = tl.cast(tl.program_id(0) // n_blocks // A, tl.int64) * n_key_blocks + first_row // BLOCK_N
    sums_ptr += (row + parts)[:, None] * (3 * A * D) + head * D + columns[None, :]
    tl.store(sums_ptr, sums, mask=(first_row + parts * BLOCK_N < length)[:, None] & (columns < D)[None, :])


@triton.jit(do_not_specialize=["n_blocks", "n_tokens"])
def attention_bwd_keys_kernel(
    dout_ptr,  # [T, A, D]
    qkv_ptr,  # [T, 3, A, D]
    lse_ptr,  # [A, T] fp32
    delta_ptr,  # [A, T] fp32
    dropped_ptr,  # [A, blocks of keys, T, 4]
    cu_seqlens_ptr,  # [B + 1] int32
    dqkv_ptr,  # [T, 3, A, D], dk and dv written
    sums_ptr,  # [B, blocks of keys, 3, A, D] fp32, sums of dk and dv written, past the end also those of dq
    n_blocks,  # blocks of keys in the longest sequence
    n_tokens,
    score_scale,
    keep_scale,
    A: tl.constexpr,
    D: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    first_token, length, head, first_key = locate(cu_seqlens_ptr, n_blocks, A, BLOCK_N)
    sequence = tl.program_id(0) // n_blocks // A
    sums_ptr += (tl.cast(sequence, tl.int64) * n_blocks + first_key // BLOCK_N) * (3 * A * D) + head * D
    nothing = tl.zeros((16, BLOCK_D), dtype=tl.float32)
    store_sums(sums_ptr + A * D, nothing, 0, D)
    if first_key >= length:
        store_sums(sums_ptr, nothing, 0, D)
        store_sums(sums_ptr + 2 * A * D, nothing, 0, D)
        return
    keys = first_key + tl.arange(0, BLOCK_N)
    q_ptr = qkv_ptr + first_token * (3 * A * D) + head * D
    k_ptr = q_ptr + tl.cast(first_key, tl.int64) * (3 * A * D) + A * D
    k = load_tile(k_ptr, 3 * A * D, length - first_key, BLOCK_N, D, BLOCK_D)
    v = load_tile(k_ptr + A * D, 3 * A * D, length - first_key, BLOCK_N, D, BLOCK_D)
    dout_ptr += (first_token * A + head) * D
    row_offset = n_tokens.to(tl.int64) * head + first_token

    dk = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    dv = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    # The diagonal cuts the first blocks of queries. The end of the sequence needs no mask: queries past it have an
    # infinite sum and probabilities of zero, and the gradients of keys past it are not stored.
    begin = first_key // BLOCK_M * BLOCK_M if CAUSAL else 0
    uncut = tl.cdiv(first_key + BLOCK_N - 1, BLOCK_M) * BLOCK_M if CAUSAL else 0
    for edge in tl.static_range(1 if CAUSAL else 0, -1, -1):
        first, last = (begin, min(uncut, length)) if edge else (uncut, length)
        for first_row in range(first, last, BLOCK_M):
            rows = first_row + tl.arange(0, BLOCK_M)
            tile_ptr = q_ptr + tl.cast(first_row, tl.int64) * (3 * A * D)
            q = load_tile(tile_ptr, 3 * A * D, length - first_row, BLOCK_M, D, BLOCK_D)
            tile_ptr = dout_ptr + tl.cast(first_row, tl.int64) * (A * D)
            dout = load_tile(tile_ptr, A * D, length - first_row, BLOCK_M, D, BLOCK_D)
            lse = tl.load(lse_ptr + row_offset + rows, mask=rows < length, other=float("inf"))
            delta = tl.load(delta_ptr + row_offset + rows, mask=rows < length, other=0.0)
            if HAS_DROPOUT:
                block, first_query = first_key // BLOCK_N, first_token + first_row
                offsets = dropped_offsets(first_query, block, n_blocks, n_tokens, head, BLOCK_M)
                dropped = tl.trans(load_dropped(dropped_ptr, length - first_row, offsets))
            p = tl.exp2(tl.dot(k, tl.trans(q), input_precision="ieee") * score_scale - lse[None, :])
            if edge:
                p = tl.where(keys[:, None] <= rows[None, :], p, 0.0)
            dp = tl.dot(v, tl.trans(dout), input_precision="ieee")
            if HAS_DROPOUT:
                p = negate_dropped(p, dropped, BLOCK_N, AXIS=0)
                kept = tl.maximum(p, 0.0)
                ds = kept * dp - tl.abs(p) * delta[None, :]
            else:
                kept = p
                ds = p * (dp - delta[None, :])
            dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
            dv = tl.dot(kept.to(q.dtype), dout, dv, input_precision="ieee")

    dqkv_ptr += (((first_token + first_key) * 3 + 1) * A + head) * D
    dk *= score_scale * LN_2 * keep_scale
    store_tile(dqkv_ptr, 3 * A * D, length - first_key, dk, BLOCK_N, D, BLOCK_D)
    dv *= keep_scale
    store_tile(dqkv_ptr + A * D, 3 * A * D, length - first_key, dv, BLOCK_N, D, BLOCK_D)
    store_sums(sums_ptr + 2 * A * D, dv, length - first_key, D)


def _blocks(kernel: str, qkv: Tensor, has_dropout: bool, causal: bool) -> dict[str, int | None]:
    """Blocks of queries and keys, warps, stages and registers of the kernel "fwd", "queries" or "keys".

    All three have the same blocks of keys, by which dropout's bits are stored.
    """
    is_small = qkv.shape[-1] <= 64
    if qkv.dtype == torch.float32:
        # Dropout's bits take registers, and causal walks, because they are two loops.
        m, n, warps, stages = (
            (32 if is_small and not has_dropout else 16),
            16,
            4,
            1 if kernel == "keys" and causal else 2,
        )
    elif not has_wide_products(qkv.device):
        m, n, warps, stages = 64, 32, 4, 2
    elif kernel == "keys":
        # Causal walks take more registers, because they are two loops.
        m, n, warps, stages = (64, 64, 4, 2) if is_small and not causal else (32, 64, 4, 1)
    elif kernel == "fwd" and is_small and (has_dropout or causal):
        m, n, warps, stages = 64, 64, 4, 2
    else:
        m, n, warps, stages = 128, 64, 8, 2
    # Left to choose, some compilers give these too few registers, and spill.
    is_bound = kernel == "fwd" and qkv.dtype != torch.float32 and (has_dropout or not causal)
    registers = 255 if is_bound and launch.compute_major(qkv.device) == 10 else None
    return {"BLOCK_M": m, "BLOCK_N": n, "num_warps": warps, "num_stages": stages, "maxnreg": registers}


def _is_short(qkv: Tensor, max_seqlen: int) -> bool:
    """Whether the kernels of `attention_short` take these sequences."""
    return max_seqlen <= max_short(qkv.device) and qkv.shape[-1] <= 64 and qkv.dtype != torch.float32


def attention_fwd(
    qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, seed: Tensor | None, dropout_p: float, causal: bool, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes qkv [T, 3, A, D], its last dimension contiguous -> (out [T, A, D], lse [A, T], dropout's bits).

    Without `save` all but out are empty; so are dropout's bits without dropout.
    """
    n_tokens, _, n_heads, d = qkv.shape
    out = qkv.new_empty(n_tokens, n_heads, d)
    lse = qkv.new_empty((n_heads, n_tokens) if save else 0, dtype=torch.float32)
    dropped = empty_dropped(qkv, max_seqlen, save and dropout_p > 0)
    if n_tokens == 0:
        return out, lse, dropped
    threshold, keep_scale = dropout_scalars(dropout_p)
    scalars = (n_tokens, score_scale(d), threshold, keep_scale)
    constants = {"A": n_heads, "D": d, "CAUSAL": causal, "HAS_DROPOUT": dropout_p > 0, "SAVE": save}
    if _is_short(qkv, max_seqlen):
        short_fwd(qkv, cu_seqlens, max_seqlen, seed, out, lse, dropped, scalars, constants)
        return out, lse, dropped
    blocks = _blocks("fwd", qkv, dropout_p > 0, causal)
    n_blocks, n_key_blocks = (triton.cdiv(max_seqlen, blocks[name]) for name in ("BLOCK_M", "BLOCK_N"))
    attention_fwd_kernel[n_blocks * n_heads * (len(cu_seqlens) - 1),](
        qkv, cu_seqlens, seed, out, lse, as_words(dropped, blocks["BLOCK_N"]), n_blocks, n_key_blocks, *scalars,
        **constants, **blocks, BLOCK_D=power_of_two(d),
    )  # fmt: skip
    return out, lse, dropped


def attention_grads(
    dout: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, dropped: Tensor, cu_seqlens: Tensor, max_seqlen: int,
    dropout_p: float, causal: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Computes the gradient of qkv, [T, 3, A, D] contiguous, and sums over some of its tokens each, [P, 3, A, D] fp32.

    dout, out: [T, A, D] contiguous; lse, dropped: of the forward.
    """
    n_tokens, _, n_heads, d = qkv.shape
    dqkv = qkv.new_empty(qkv.shape)
    if n_tokens == 0:
        return dqkv, qkv.new_empty(qkv.shape, dtype=torch.float32)
    scalars = (n_tokens, score_scale(d), dropout_scalars(dropout_p)[1])
    constants = {"A": n_heads, "D": d, "CAUSAL": causal, "HAS_DROPOUT": dropout_p > 0}
    if _is_short(qkv, max_seqlen):
        return dqkv, short_bwd(dout, qkv, lse, dropped, cu_seqlens, max_seqlen, dqkv, scalars, constants)
    delta = torch.empty_like(lse)
    blocks = _blocks("queries", qkv, dropout_p > 0, causal)
    n_blocks, n_key_blocks = (triton.cdiv(max_seqlen, blocks[name]) for name in ("BLOCK_M", "BLOCK_N"))
    n_sequences, constants["BLOCK_D"] = len(cu_seqlens) - 1, power_of_two(d)
    sums = qkv.new_empty((n_sequences * n_key_blocks, *qkv.shape[1:]), dtype=torch.float32)
    dropped = as_words(dropped, blocks["BLOCK_N"])
    attention_bwd_queries_kernel[n_blocks * n_heads * n_sequences,](
        dout, qkv, out, lse, dropped, cu_seqlens, dqkv, sums, delta, n_blocks, n_key_blocks, *scalars, **constants,
        **blocks,
    )  # fmt: skip
    attention_bwd_keys_kernel[n_key_blocks * n_heads * n_sequences,](
        dout, qkv, lse, delta, dropped, cu_seqlens, dqkv, sums, n_key_blocks, *scalars, **constants,
        **_blocks("keys", qkv, dropout_p > 0, causal),
    )  # fmt: skip
    return dqkv, sums


def attention_bwd(*arguments: Any) -> Tensor:
    """The gradient of qkv; arguments as for `attention_grads`."""
    return attention_grads(*arguments)[0]
