"""Attention of sequences that fit one tile, up to 128 tokens of 16 bits: what most of ELECTRA's training sees.

    out = dropout(softmax(q k' / sqrt(D))) v  within each sequence and head; shapes as in `attention`

A tile holds all scores of a sequence and head, so the forward needs no running softmax, and the backward has dq, dk and
dv of one tile: it computes sum(dout * out) as a row sum of the tile, and reads no output. Forward moves 4 T H elements,
backward 7 T H; eager torch also writes and reads the [A, S, S] scores several times. Both should wait for memory, if
the dropout's integer work does not hold them up: that is why `draw_dropped` counts instructions. The forward has two
programs on an SM of Hopper; the backward, whose two score tiles fill the registers, takes several heads in turn and
loads the next one while it works.

The helpers that longer sequences need too are here.
"""

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import power_of_two
from .philox import dropout_scalars

LN_2 = tl.constexpr(math.log(2))


def score_scale(d: int) -> float:
    """log2(e) / sqrt(d): what makes scores of the products, for exp2."""
    return 1 / (math.log(2) * math.sqrt(d))


@triton.jit
def tile_offsets(n_rows, row_stride, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """(offsets, mask) [ROWS, BLOCK_D] of a matrix [n_rows, D]."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    mask = rows[:, None] < n_rows
    if BLOCK_D != D:
        mask = mask & (columns[None, :] < D)
    return rows[:, None] * row_stride + columns[None, :], mask


@triton.jit
def load_tile(ptr, row_stride, n_rows, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """[ROWS, BLOCK_D] of a matrix [n_rows, D], zeros outside of it."""
    offsets, mask = tile_offsets(n_rows, row_stride, ROWS, D, BLOCK_D)
    return tl.load(ptr + offsets, mask=mask, other=0.0)


@triton.jit
def store_tile(ptr, row_stride, n_rows, tile, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Stores what `load_tile` loads, rounded to the matrix's dtype."""
    offsets, mask = tile_offsets(n_rows, row_stride, ROWS, D, BLOCK_D)
    tl.store(ptr + offsets, tile.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def visible_keys(rows, keys, length, CAUSAL: tl.constexpr):
    """[ROWS, KEYS] bool: the keys that a query may see; all are places in the sequence."""
    visible = keys[None, :] < length
    if CAUSAL:
        visible = visible & (keys[None, :] <= rows[:, None])
    return visible


@triton.jit
def is_kept(word, low, inverted):
    """Bits 15 and 31: whether the lower and the upper half of a word are at least the threshold.

    Both at once: the halves with their highest bit set, less the threshold without it, need no borrow; the majority of
    the difference, the half and the inverse of the threshold is in the highest bit the comparison of all 16.
    """
    difference = (word | 0x80008000) - low
    return (difference & word) | (inverted & (difference | word))


@triton.jit
def draw_dropped(
    seed,  # scalar int64
    rows,  # [ROWS, 1] or [1, ROWS] int32, packed tokens of the queries
    groups,  # [1, GROUPS] or [GROUPS, 1] int32, eights of keys: their places in the sequence divided by 8
    head,  # scalar
    threshold,  # scalar int32, of dropout_scalars
):
    """[ROWS, GROUPS] or [GROUPS, ROWS] uint32: the inverse of `philox.keep_mask`, eight keys a word.

    The same bits in half of the instructions, made for tiles of scores: a product of 64 bits is one, where its halves
    are two, and a comparison takes two draws. Drawn before the scores it needs few registers, and only one word goes
    from the thread that drew it to those that hold its eight scores.
    """
    key0, key1 = (seed & 0xFFFFFFFF).to(tl.uint32), ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32)
    rows, groups = tl.broadcast(rows, groups)
    word0, word1, word3 = groups.to(tl.uint32), rows.to(tl.uint32), tl.zeros(rows.shape, dtype=tl.uint32)
    word2 = word3 + head
    for _ in tl.static_range(7):
        a, b = word0.to(tl.uint64) * 0xD2511F53, word2.to(tl.uint64) * 0xCD9E8D57
        word0, word1 = (b >> 32).to(tl.uint32) ^ word1 ^ key0, b.to(tl.uint32)
        word2, word3 = (a >> 32).to(tl.uint32) ^ word3 ^ key1, a.to(tl.uint32)
        key0, key1 = key0 + 0x9E3779B9, key1 + 0xBB67AE85

    low = ((threshold & 0x7FFF) * 0x10001).to(tl.uint32)
    inverted = ((threshold >> 15) - 1).to(tl.uint32)
    kept = is_kept(word0, low, inverted)
    kept = (kept & 0x80008000) | ((is_kept(word1, low, inverted) >> 1) & 0x7FFF7FFF)
    kept = (kept & 0xC000C000) | ((is_kept(word2, low, inverted) >> 2) & 0x3FFF3FFF)
    kept = (kept & 0xE000E000) | ((is_kept(word3, low, inverted) >> 3) & 0x1FFF1FFF)
    # A sum over nothing: Triton moves layouts no further back than to here. Without it all is drawn in the layout of
    # the scores, where four threads share the eight of a word, and each draws all of them.
    return tl.sum(~kept[None, :, :], axis=0)


@triton.jit
def negate_dropped(p, dropped, AXIS: tl.constexpr = 1):
    """p [ROWS, KEYS] fp32, nowhere negative, with the other sign where it is dropped.

    So one tile is both: max(p, 0) is dropped out, |p| is not. A tile of predicates would not fit their registers.
    """
    lanes = tl.arange(0, 8)
    shifts = (lanes // 2 + 16 * (1 - lanes % 2)).to(tl.uint32)
    if AXIS == 1:
        signs = (dropped[:, :, None] << shifts[None, None, :]) & 0x80000000
    else:
        signs = (dropped[:, None, :] << shifts[None, :, None]) & 0x80000000
    return (p.to(tl.uint32, bitcast=True) ^ tl.reshape(signs, p.shape)).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["n_tokens", "threshold"], do_not_specialize_on_alignment=["seed_ptr"])
def short_fwd_kernel(
    qkv_ptr,  # [T, 3, A, D]
    cu_seqlens_ptr,  # [B + 1] int32
    seed_ptr,  # [1] int64
    out_ptr,  # [T, A, D]
    lse_ptr,  # [A, T] fp32, written where SAVE
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
        groups = tl.arange(0, BLOCK // 8)[None, :]
        dropped = draw_dropped(tl.load(seed_ptr), first_token + places[:, None], groups, head, threshold)
    scores = tl.dot(q, tl.trans(k))
    if CAUSAL or length < BLOCK:
        scores = tl.where(visible_keys(places, places, length, CAUSAL), scores, float("-inf"))
    row_max = tl.max(scores, axis=1) * score_scale
    p = tl.exp2(scores * score_scale - row_max[:, None])
    row_sum = tl.sum(p, axis=1)
    out_scale = 1.0 / row_sum
    if HAS_DROPOUT:
        p = tl.maximum(negate_dropped(p, dropped), 0.0)
        out_scale *= keep_scale
    out = tl.dot(p.to(v.dtype), v) * out_scale[:, None]
    store_tile(out_ptr + (first_token.to(tl.int64) * A + head) * D, A * D, length, out, BLOCK, D, BLOCK_D)
    if SAVE:
        lse_ptr += n_tokens.to(tl.int64) * head + first_token
        tl.store(lse_ptr + places, row_max + tl.log2(row_sum), mask=places < length)


@triton.jit(do_not_specialize=["n_tokens", "threshold"], do_not_specialize_on_alignment=["seed_ptr"])
def short_bwd_kernel(
    dout_ptr,  # [T, A, D]
    qkv_ptr,  # [T, 3, A, D]
    lse_ptr,  # [A, T] fp32
    cu_seqlens_ptr,  # [B + 1] int32
    seed_ptr,  # [1] int64
    dqkv_ptr,  # [T, 3, A, D]
    n_tokens,
    score_scale,
    threshold,
    keep_scale,
    A: tl.constexpr,
    D: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HEADS: tl.constexpr,  # of a program; divides A
    STAGES: tl.constexpr,
):
    sequence, first_head = tl.program_id(0), tl.program_id(1)
    first_token = tl.load(cu_seqlens_ptr + sequence)
    length = tl.load(cu_seqlens_ptr + sequence + 1) - first_token
    if length == 0:
        return
    places = tl.arange(0, BLOCK)
    ds_scale = score_scale * LN_2
    if HAS_DROPOUT:  # ds is made twice as large
        ds_scale *= 0.5 * keep_scale
    qkv_ptr += first_token.to(tl.int64) * (3 * A * D)
    dout_ptr += first_token.to(tl.int64) * A * D
    dqkv_ptr += first_token.to(tl.int64) * 3 * A * D

    for head in tl.range(first_head, A, A // HEADS, num_stages=STAGES, disable_licm=True):
        q_ptr = qkv_ptr + head * D
        q = load_tile(q_ptr, 3 * A * D, length, BLOCK, D, BLOCK_D)
        k = load_tile(q_ptr + A * D, 3 * A * D, length, BLOCK, D, BLOCK_D)
        v = load_tile(q_ptr + 2 * A * D, 3 * A * D, length, BLOCK, D, BLOCK_D)
        dout = load_tile(dout_ptr + head * D, A * D, length, BLOCK, D, BLOCK_D)
        # Rows past the end get an infinite sum: their probabilities, and all that comes of them, are zero.
        row_ptr = lse_ptr + n_tokens.to(tl.int64) * head + first_token + places
        lse = tl.load(row_ptr, mask=places < length, other=float("inf"))

        if HAS_DROPOUT:
            groups = tl.arange(0, BLOCK // 8)[None, :]
            dropped = draw_dropped(tl.load(seed_ptr), first_token + places[:, None], groups, head, threshold)
        # Keys past the end have zeros for scores, that a very negative sum would make infinite.
        p = tl.exp2(tl.minimum(tl.dot(q, tl.trans(k)) * score_scale - lse[:, None], 0.0))
        if CAUSAL:
            p = tl.where(visible_keys(places, places, length, CAUSAL), p, 0.0)
        dq_ptr = dqkv_ptr + head * D
        if HAS_DROPOUT:
            p = negate_dropped(p, dropped)
            kept = tl.maximum(p, 0.0)
        else:
            kept = p
        dv = tl.dot(tl.trans(kept.to(q.dtype)), dout) * keep_scale
        store_tile(dq_ptr + 2 * A * D, 3 * A * D, length, dv, BLOCK, D, BLOCK_D)

        # The sum is 2 max(p, 0), but no tile that lives on from above in registers that dp needs.
        dp = tl.dot(dout, tl.trans(v))
        ds = (p + tl.abs(p)) * dp if HAS_DROPOUT else p * dp
        ds = (ds - tl.abs(p) * tl.sum(ds, axis=1)[:, None]).to(q.dtype)
        dk = tl.dot(tl.trans(ds), q) * ds_scale
        store_tile(dq_ptr + A * D, 3 * A * D, length, dk, BLOCK, D, BLOCK_D)
        dq = tl.dot(ds, k) * ds_scale
        store_tile(dq_ptr, 3 * A * D, length, dq, BLOCK, D, BLOCK_D)


@lru_cache
def generation(device: torch.device) -> int:
    """The device's major compute capability, Hopper's for a CPU."""
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 9


def has_wide_products(device: torch.device) -> bool:
    """Whether products read their operands from shared memory, as on Hopper and Blackwell, and not from registers."""
    return generation(device) in (9, 10)


def max_short(device: torch.device) -> int:
    """The longest sequence of these kernels: beyond it registers spill, and those for longer ones do better."""
    return 128 if has_wide_products(device) else 64


def short_fwd(
    qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, seed: Tensor | None, dropout_p: float, causal: bool, save: bool
) -> tuple[Tensor, Tensor]:
    """`attention_fwd` for sequences up to `max_short`."""
    n_tokens, _, n_heads, d = qkv.shape
    block = power_of_two(max_seqlen)
    out = qkv.new_empty(n_tokens, n_heads, d)
    lse = qkv.new_empty((n_heads, n_tokens) if save else 0, dtype=torch.float32)
    threshold, keep_scale = dropout_scalars(dropout_p)
    if n_tokens > 0:
        short_fwd_kernel[(len(cu_seqlens) - 1) * n_heads,](
            qkv, cu_seqlens, seed, out, lse, n_tokens, score_scale(d), threshold, keep_scale,
            A=n_heads, D=d, CAUSAL=causal, HAS_DROPOUT=dropout_p > 0, SAVE=save, BLOCK=block, BLOCK_D=power_of_two(d),
            num_warps=block // 16,
        )  # fmt: skip
    return out, lse


def short_bwd(
    dout: Tensor, qkv: Tensor, lse: Tensor, cu_seqlens: Tensor, max_seqlen: int, seed: Tensor | None,
    dropout_p: float, causal: bool,
) -> Tensor:  # fmt: skip
    """`attention_bwd` for sequences up to `max_short`."""
    n_tokens, _, n_heads, d = qkv.shape
    block = power_of_two(max_seqlen)
    # The largest tile leaves a program alone on its SM: it loads the next head's operands while it works on this one's.
    # Blackwell has not the registers for it, and none has them for causal attention.
    heads = math.gcd(n_heads, 4) if block == 128 and generation(qkv.device) == 9 and not causal else 1
    dqkv = qkv.new_empty(qkv.shape)
    threshold, keep_scale = dropout_scalars(dropout_p)
    if n_tokens > 0:
        short_bwd_kernel[len(cu_seqlens) - 1, n_heads // heads](
            dout, qkv, lse, cu_seqlens, seed, dqkv, n_tokens, score_scale(d), threshold, keep_scale,
            A=n_heads, D=d, CAUSAL=causal, HAS_DROPOUT=dropout_p > 0, BLOCK=block, BLOCK_D=power_of_two(d),
            HEADS=heads, STAGES=2 if heads > 1 else 1, num_warps=block // 16,
        )  # fmt: skip
    return dqkv
