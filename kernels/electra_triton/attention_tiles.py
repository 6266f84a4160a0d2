"""Loading, masking and dropout for both files of attention, and the questions that they ask about a device.

`attention_short` has the kernels for sequences that fit one tile, `attention` those for longer ones.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

LN_2 = tl.constexpr(math.log(2))

# The dtype of a word that has dropout's bits of so many keys: a quarter of them.
WORDS = {16: torch.int8, 32: torch.int8, 64: torch.int16, 128: torch.int32}


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
def store_sums(ptr, tile, n_rows, D: tl.constexpr):
    """Stores the sums of a tile's columns over its first n_rows rows, [D] fp32."""
    rows, columns = tl.arange(0, tile.shape[0]), tl.arange(0, tile.shape[1])
    sums = tl.sum(tl.where(rows[:, None] < n_rows, tile, 0.0), axis=0)
    tl.store(ptr + columns, sums, mask=columns < D)


@triton.jit
def visible_keys(rows, keys, length, CAUSAL: tl.constexpr):
    """Marks the keys that each query may see, [ROWS, KEYS] bool; rows and keys are places in the sequence."""
    visible = keys[None, :] < length
    if CAUSAL:
        visible = visible & (keys[None, :] <= rows[:, None])
    return visible


@triton.jit
def is_dropped(word, low, inverted):
    """Says in bits 15 and 31 whether the lower and the upper half of a word are below the threshold; others are 0.

    One subtraction serves both halves: with their highest bit set, and the threshold's cleared, neither borrows. In the
    highest bit, the majority of the difference, the half and the inverted threshold is the comparison of all 16 bits.
    """
    difference = (word | 0x80008000) - low
    return ~((difference & word) | (inverted & (difference | word))) & 0x80008000


@triton.jit
def draw_dropped(
    seed,  # scalar int64
    rows,  # [ROWS] int32, packed tokens of the queries
    first_key,  # scalar int32, a place in the sequence and a multiple of KEYS
    head,  # scalar
    threshold,  # scalar int32, from dropout_scalars
    KEYS: tl.constexpr,  # a power of two from 16 to 128
):
    """The inverse of `philox.keep_mask` as four words a row, [ROWS, 4] uint32.

    Word w has the keys 8 j + 2 w + e, e < 2, in its bits G e + G - 1 - j, where G = KEYS // 8. These are the keys whose
    scores one thread holds after a product of matrices, so a thread needs a single word of a row. One call of Philox
    draws a j of all four words. Two threads share a row and draw half of its calls each; the calls are a loop, not a
    dimension, so that no word leaves its thread before it is complete.
    """
    GROUPS: tl.constexpr = KEYS // 8
    low = ((threshold & 0x7FFF) * 0x10001).to(tl.uint32)
    inverted = ((threshold >> 15) - 1).to(tl.uint32)
    halves = (tl.arange(0, 2) * (GROUPS // 2)).to(tl.uint32)
    zeros = tl.zeros((rows.shape[0], 2), dtype=tl.uint32)
    groups, tokens = zeros + halves[None, :] + first_key // 8, zeros + rows[:, None].to(tl.uint32)
    dropped0, dropped1, dropped2, dropped3 = zeros, zeros, zeros, zeros
    for j in tl.static_range(GROUPS // 2):
        key0, key1 = (seed & 0xFFFFFFFF).to(tl.uint32), ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32)
        word0, word1, word2, word3 = groups + j, tokens, zeros + head, zeros
        for _ in tl.static_range(7):
            a, b = word0.to(tl.uint64) * 0xD2511F53, word2.to(tl.uint64) * 0xCD9E8D57
            word0, word1 = (b >> 32).to(tl.uint32) ^ word1 ^ key0, b.to(tl.uint32)
            word2, word3 = (a >> 32).to(tl.uint32) ^ word3 ^ key1, a.to(tl.uint32)
            key0, key1 = key0 + 0x9E3779B9, key1 + 0xBB67AE85
        dropped0 |= is_dropped(word0, low, inverted) >> j
        dropped1 |= is_dropped(word1, low, inverted) >> j
        dropped2 |= is_dropped(word2, low, inverted) >> j
        dropped3 |= is_dropped(word3, low, inverted) >> j
    words = tl.join(tl.join(dropped0, dropped2), tl.join(dropped1, dropped3)) >> halves[None, :, None, None]
    if GROUPS < 16:  # the bits from 31 and from 15 downwards become neighbours
        words = (words >> (32 - 2 * GROUPS)) | ((words & 0xFFFF) >> (16 - GROUPS))
    return tl.reshape(tl.sum(words, axis=1), (rows.shape[0], 4))


@triton.jit
def negate_dropped(p, dropped, KEYS: tl.constexpr, AXIS: tl.constexpr = 1):
    """Negates p, fp32 and nowhere negative, where it is dropped: p [ROWS, KEYS] and dropped [ROWS, 4] as drawn.

    With axis 0 both are transposed. One tile is then both: max(p, 0) with dropout and |p| without. A tile of predicates
    would not fit the predicate registers, and would be kept in bytes.
    """
    GROUPS: tl.constexpr = KEYS // 8
    shifts = 32 - GROUPS * (1 + tl.arange(0, 2)[None, None, :]) + tl.arange(0, GROUPS)[:, None, None]
    shifts = shifts.to(tl.uint32)
    if AXIS == 1:
        signs = (dropped[:, None, :, None] << shifts[None, :, :, :]) & 0x80000000
    else:
        signs = (dropped[None, :, None, :] << shifts[:, :, :, None]) & 0x80000000
    return (p.to(tl.uint32, bitcast=True) ^ tl.reshape(signs, p.shape)).to(tl.float32, bitcast=True)


@triton.jit
def dropped_offsets(first_token, key_block, n_key_blocks, n_tokens, head, ROWS: tl.constexpr):
    """Offsets of stored words, [ROWS, 4]: of the rows from a token on, in a matrix [A, key blocks, T, 4]."""
    first = (tl.cast(head, tl.int64) * n_key_blocks + key_block) * n_tokens + first_token
    return first * 4 + tl.arange(0, ROWS)[:, None] * 4 + tl.arange(0, 4)[None, :]


@triton.jit
def store_dropped(ptr, dropped, n_rows, offsets):
    """Stores words [ROWS, 4] of the first n_rows rows."""
    mask = tl.arange(0, dropped.shape[0])[:, None] < n_rows
    tl.store(ptr + offsets, dropped.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def load_dropped(ptr, n_rows, offsets):
    """Loads words [ROWS, 4] where `store_dropped` stores them; what is above their bits means nothing."""
    mask = tl.arange(0, offsets.shape[0])[:, None] < n_rows
    # A sum over one number adds nothing up, but Triton moves layouts no further back than to here: words are loaded in
    # rows, and the few of them go to the threads that hold the scores.
    return tl.sum(tl.load(ptr + offsets, mask=mask, other=0).to(tl.uint32)[None, :, :], axis=0)


def empty_dropped(qkv: Tensor, max_seqlen: int, save: bool) -> Tensor:
    """Memory for dropout's bits, of any kernel's blocks of keys: [A, T, bytes] uint8, empty unless `save`.

    A bit for each key, a number of keys that is a multiple of 128; in fp32 half of each byte is used.
    """
    n_tokens, _, n_heads, _ = qkv.shape
    n_bytes = triton.cdiv(max_seqlen, 128) * (32 if qkv.dtype == torch.float32 else 16)
    return qkv.new_empty((n_heads, n_tokens, n_bytes) if save else 0, dtype=torch.uint8)


def as_words(dropped: Tensor, keys: int) -> Tensor:
    """Dropout's bits as the words of a kernel that has so many keys in a block."""
    return dropped.view(WORDS[keys])
