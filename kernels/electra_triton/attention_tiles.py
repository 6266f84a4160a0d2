"""Loading, masking and dropout for both files of attention, and the questions that they ask about a device.

`attention_short` has the kernels for sequences that fit one tile, `attention` those for longer ones.
"""

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl

LN_2 = tl.constexpr(math.log(2))


def score_scale(d: int) -> float:
    """The factor log2(e) / sqrt(d), which makes scores for exp2 from the products."""
    return 1 / (math.log(2) * math.sqrt(d))


@triton.jit
def tile_offsets(n_rows, row_stride, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Offsets and mask, [ROWS, BLOCK_D] each, of a matrix [n_rows, D]."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    mask = rows[:, None] < n_rows
    if BLOCK_D != D:
        mask = mask & (columns[None, :] < D)
    return rows[:, None] * row_stride + columns[None, :], mask


@triton.jit
def load_tile(ptr, row_stride, n_rows, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Loads a tile [ROWS, BLOCK_D] of a matrix [n_rows, D], with zeros outside of the matrix."""
    offsets, mask = tile_offsets(n_rows, row_stride, ROWS, D, BLOCK_D)
    return tl.load(ptr + offsets, mask=mask, other=0.0)


@triton.jit
def store_tile(ptr, row_stride, n_rows, tile, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Stores a tile where `load_tile` loads one, rounded to the matrix's dtype."""
    offsets, mask = tile_offsets(n_rows, row_stride, ROWS, D, BLOCK_D)
    tl.store(ptr + offsets, tile.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def visible_keys(rows, keys, length, CAUSAL: tl.constexpr):
    """Marks the keys that each query may see, [ROWS, KEYS] bool; rows and keys are places in the sequence."""
    visible = keys[None, :] < length
    if CAUSAL:
        visible = visible & (keys[None, :] <= rows[:, None])
    return visible


@triton.jit
def is_kept(word, low, inverted):
    """Says in bits 15 and 31 whether the lower and the upper half of a word are at least the threshold.

    One subtraction serves both halves: with their highest bit set, and the threshold's cleared, neither borrows. In the
    highest bit, the majority of the difference, the half and the inverted threshold is the comparison of all 16 bits.
    """
    difference = (word | 0x80008000) - low
    return (difference & word) | (inverted & (difference | word))


@triton.jit
def draw_dropped(
    seed,  # scalar int64
    rows,  # [ROWS, 1] or [1, ROWS] int32, packed tokens of the queries
    groups,  # [1, GROUPS] or [GROUPS, 1] int32, groups of eight keys: their places in the sequence divided by 8
    head,  # scalar
    threshold,  # scalar int32, from dropout_scalars
):
    """The inverse of `philox.keep_mask`, eight keys per word: [ROWS, GROUPS] or [GROUPS, ROWS] uint32.

    The bits are the same, but drawn for tiles of scores in half of the instructions: one product of 64 bits replaces
    two of its halves, and one comparison serves two draws. The draw comes before the scores, so it needs few registers,
    and only one word goes from the thread that drew it to those that hold its eight scores.
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
    # This sum adds nothing up, but Triton moves layouts no further back than to here. Without it, all bits are drawn in
    # the layout of the scores, where four threads share the eight of a word, and each thread draws all eight.
    return tl.sum(~kept[None, :, :], axis=0)


@triton.jit
def negate_dropped(p, dropped, AXIS: tl.constexpr = 1):
    """Negates p [ROWS, KEYS] fp32, nowhere negative, where it is dropped.

    One tile is then both: max(p, 0) with dropout and |p| without. A tile of predicates would not fit the predicate
    registers.
    """
    lanes = tl.arange(0, 8)
    shifts = (lanes // 2 + 16 * (1 - lanes % 2)).to(tl.uint32)
    if AXIS == 1:
        signs = (dropped[:, :, None] << shifts[None, None, :]) & 0x80000000
    else:
        signs = (dropped[:, None, :] << shifts[None, :, None]) & 0x80000000
    return (p.to(tl.uint32, bitcast=True) ^ tl.reshape(signs, p.shape)).to(tl.float32, bitcast=True)


@lru_cache
def compute_major(device: torch.device) -> int:
    """The major compute capability of the device; a CPU counts as Hopper."""
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 9


def has_wide_products(device: torch.device) -> bool:
    """Whether products read their operands from shared memory, as on Hopper and Blackwell, and not from registers."""
    return compute_major(device) in (9, 10)
