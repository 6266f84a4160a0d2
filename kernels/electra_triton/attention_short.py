"""Attention for sequences that fit one tile, up to 128 tokens of 16 bits: most of ELECTRA's training has only these.

    out = dropout(softmax(q k' / sqrt(D))) v  within each sequence and head; shapes as in `attention`

A tile holds all scores of a sequence and head. So the forward needs no running softmax, and the backward gets dq, dk
and dv from one tile: it computes sum(dout * out) as a row sum of the tile, and reads no output. The forward moves 4 T H
elements, the backward 7 T H; eager torch also writes and reads the [A, S, S] scores several times. Both should be bound
by memory, unless the dropout's integer work holds up the forward: `draw_dropped` therefore saves instructions, and the
backward loads the bits. The forward has two programs on an SM of Hopper. The backward's two score tiles fill the
registers: it takes several heads in turn. The compiler copies the next one's operands at the end of a turn, though, and
waits for them at the beginning of the next, so that no work hides these loads (LOG.md).
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch
from .attention_tiles import (
    LN_2,
    as_words,
    draw_dropped,
    dropped_offsets,
    load_dropped,
    load_tile,
    negate_dropped,
    store_dropped,
    store_sums,
    store_tile,
    visible_keys,
)
from .launch import power_of_two


@triton.jit(do_not_specialize=["n_tokens", "threshold"], do_not_specialize_on_alignment=["seed_ptr"])
def short_fwd_kernel(
    qkv_ptr,  # [T, 3, A, D]
    cu_seqlens_ptr,  # [B + 1] int32
    seed_ptr,  # [1] int64
    out_ptr,  # [T, A, D]
    lse_ptr,  # [A, T] fp32, written if SAVE
    dropped_ptr,  # [A, T, 4], written if SAVE
    n_tokens,
    score_scale,
    threshold,
    keep_scale,
    A: tl.constexpr,
    D: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    sequence, head = tl.program_id(0) // A, tl.program_id(0) % A
    first_token = tl.load(cu_seqlens_ptr + sequence)
    length = tl.load(cu_seqlens_ptr + sequence + 1) - first_token
    if length == 0:
        return
    places = tl.arange(0, BLOCK)
    q_ptr = qkv_ptr + first_token.to(tl.int64) * (3 * A * D) + head * D
    q = load_tile(q_ptr, 3 * A * D, length, BLOCK, D, BLOCK_D)
    k = load_tile(q_ptr + A * D, 3 * A * D, length, BLOCK, D, BLOCK_D)
    v = load_tile(q_ptr + 2 * A * D, 3 * A * D, length, BLOCK, D, BLOCK_D)

    if HAS_DROPOUT:
        dropped = draw_dropped(tl.load(seed_ptr), first_token + places, 0, head, threshold, BLOCK)
        if SAVE:
            store_dropped(dropped_ptr, dropped, length, dropped_offsets(first_token, 0, 1, n_tokens, head, BLOCK))
    scores = tl.dot(q, tl.trans(k))
    if CAUSAL or length < BLOCK:
        scores = tl.where(visible_keys(places, places, length, CAUSAL), scores, float("-inf"))
    row_max = tl.max(scores, axis=1) * score_scale
    p = tl.exp2(scores * score_scale - row_max[:, None])
    row_sum = tl.sum(p, axis=1)
    out_scale = 1.0 / row_sum
    if HAS_DROPOUT:
        p = tl.maximum(negate_dropped(p, dropped, BLOCK), 0.0)
        out_scale *= keep_scale
    out = tl.dot(p.to(v.dtype), v) * out_scale[:, None]
    store_tile(out_ptr + (first_token.to(tl.int64) * A + head) * D, A * D, length, out, BLOCK, D, BLOCK_D)
    if SAVE:
        lse_ptr += n_tokens.to(tl.int64) * head + first_token
        tl.store(lse_ptr + places, row_max + tl.log2(row_sum), mask=places < length)


@triton.jit(do_not_specialize=["n_tokens"])
def short_bwd_kernel(
    dout_ptr,  # [T, A, D]
    qkv_ptr,  # [T, 3, A, D]
    lse_ptr,  # [A, T] fp32
    dropped_ptr,  # [A, T, 4]
    cu_seqlens_ptr,  # [B + 1] int32
    dqkv_ptr,  # [T, 3, A, D]
    sums_ptr,  # [B, 3, A, D] fp32: sums of dqkv over the tokens of a sequence
    n_tokens,
    score_scale,
    keep_scale,
    A: tl.constexpr,
    D: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HEADS: tl.constexpr,  # heads per program; divides A
    STAGES: tl.constexpr,
):
    sequence, first_head = tl.program_id(0), tl.program_id(1)
    first_token = tl.load(cu_seqlens_ptr + sequence)
    length = tl.load(cu_seqlens_ptr + sequence + 1) - first_token
    places = tl.arange(0, BLOCK)
    ds_scale = score_scale * LN_2
    if HAS_DROPOUT:  # ds is made twice as large
        ds_scale *= 0.5 * keep_scale
    qkv_ptr += first_token.to(tl.int64) * (3 * A * D)
    dout_ptr += first_token.to(tl.int64) * A * D
    dqkv_ptr += first_token.to(tl.int64) * 3 * A * D
    sums_ptr += sequence.to(tl.int64) * 3 * A * D

    for head in tl.range(first_head, A, A // HEADS, num_stages=STAGES, disable_licm=True):
        q_ptr = qkv_ptr + head * D
        q = load_tile(q_ptr, 3 * A * D, length, BLOCK, D, BLOCK_D)
        k = load_tile(q_ptr + A * D, 3 * A * D, length, BLOCK, D, BLOCK_D)
        v = load_tile(q_ptr + 2 * A * D, 3 * A * D, length, BLOCK, D, BLOCK_D)
        dout = load_tile(dout_ptr + head * D, A * D, length, BLOCK, D, BLOCK_D)
        # Rows past the end get an infinite sum, so their probabilities and everything computed from them are zero.
        row_ptr = lse_ptr + n_tokens.to(tl.int64) * head + first_token + places
        lse = tl.load(row_ptr, mask=places < length, other=float("inf"))

        # Scores of keys past the end are zero; without the minimum, a very negative sum would make exp2 infinite.
        p = tl.exp2(tl.minimum(tl.dot(q, tl.trans(k)) * score_scale - lse[:, None], 0.0))
        if CAUSAL:
            p = tl.where(visible_keys(places, places, length, CAUSAL), p, 0.0)
        dq_ptr, dq_sum_ptr = dqkv_ptr + head * D, sums_ptr + head * D
        if HAS_DROPOUT:
            dropped = load_dropped(dropped_ptr, length, dropped_offsets(first_token, 0, 1, n_tokens, head, BLOCK))
            p = negate_dropped(p, dropped, BLOCK)
            kept = tl.maximum(p, 0.0)
        else:
            kept = p
        dv = tl.dot(tl.trans(kept.to(q.dtype)), dout) * keep_scale
        store_tile(dq_ptr + 2 * A * D, 3 * A * D, length, dv, BLOCK, D, BLOCK_D)
        store_sums(dq_sum_ptr + 2 * A * D, dv, length, D)

        # p + |p| is 2 max(p, 0), computed anew: kept from above, that tile would hold registers that dp needs.
        dp = tl.dot(dout, tl.trans(v))
        ds = (p + tl.abs(p)) * dp if HAS_DROPOUT else p * dp
        ds = (ds - tl.abs(p) * tl.sum(ds, axis=1)[:, None]).to(q.dtype)
        dk = tl.dot(tl.trans(ds), q) * ds_scale
        store_tile(dq_ptr + A * D, 3 * A * D, length, dk, BLOCK, D, BLOCK_D)
        dq = tl.dot(ds, k) * ds_scale
        store_tile(dq_ptr, 3 * A * D, length, dq, BLOCK, D, BLOCK_D)
        store_sums(dq_sum_ptr, dq, length, D)
        store_sums(dq_sum_ptr + A * D, tl.zeros((16, BLOCK_D), tl.float32), 0, D)


def max_short(device: torch.device) -> int:
    """The longest sequence for these kernels: beyond it registers spill, and the kernels for longer ones do better."""
    return 128 if launch.has_wide_products(device) else 64


def short_fwd(
    qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, seed: Tensor | None, out: Tensor, lse: Tensor, dropped: Tensor,
    scalars: tuple, constants: dict,
) -> None:  # fmt: skip
    """Launches what `attention_fwd` prepares, for sequences up to `max_short`."""
    _, _, n_heads, d = qkv.shape
    block = power_of_two(max_seqlen)
    short_fwd_kernel[(len(cu_seqlens) - 1) * n_heads,](
        qkv, cu_seqlens, seed, out, lse, as_words(dropped, block), *scalars, **constants,
        BLOCK=block, BLOCK_D=power_of_two(d), num_warps=block // 16,
    )  # fmt: skip


def short_bwd(
    dout: Tensor, qkv: Tensor, lse: Tensor, dropped: Tensor, cu_seqlens: Tensor, max_seqlen: int, dqkv: Tensor,
    scalars: tuple, constants: dict,
) -> Tensor:  # fmt: skip
    """Launches what `attention_grads` prepares, for sequences up to `max_short`, and returns its sums."""
    _, _, n_heads, d = qkv.shape
    block = power_of_two(max_seqlen)
    # The largest tile leaves a program alone on its SM, which then takes several heads. Blackwell lacks the registers
    # for it, and every device lacks them for causal attention.
    loads_ahead = block == 128 and launch.compute_major(qkv.device) == 9 and not constants["CAUSAL"]
    heads = math.gcd(n_heads, 4) if loads_ahead else 1
    sums = qkv.new_empty((len(cu_seqlens) - 1, *qkv.shape[1:]), dtype=torch.float32)
    short_bwd_kernel[len(cu_seqlens) - 1, n_heads // heads](
        dout, qkv, lse, as_words(dropped, block), cu_seqlens, dqkv, sums, *scalars, **constants,
        BLOCK=block, BLOCK_D=power_of_two(d), HEADS=heads, STAGES=2 if heads > 1 else 1, num_warps=block // 16,
    )  # fmt: skip
    return sums
