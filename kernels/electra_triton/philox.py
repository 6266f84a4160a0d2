"""Dropout masks from counter-based random numbers.

Philox 4x32 with 7 rounds (Salmon et al. 2011; the fewest that pass BigCrush) turns a key and a counter into 128 bits.
The key is the 64-bit seed; the counter is (column // 8, row, head, 0), so a call serves eight neighbouring columns with
16 bits each: an element is dropped if its 16 bits are below round(65536 p). A backward draws the same bits again from
the same seed; attention alone, which draws one for each score, stores them. `electra_fast.ops.philox` is this file in
torch, bit for bit.

A seed is a tensor [1] int64 on the device: a CUDA graph that draws it with torch's generator draws another at each
replay.
"""

import triton
import triton.language as tl


@triton.jit
def keep_mask(
    seed,  # scalar int64
    rows,  # [ROWS] int32, row numbers of the whole tensor
    first_column,  # scalar, a multiple of 8
    head,  # scalar, 0 where there are no heads
    threshold,  # scalar int32, from dropout_scalars
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,  # a power of two, at least 8
):
    """The mask of the elements that stay, [ROWS, COLUMNS] bool."""
    GROUPS: tl.constexpr = COLUMNS // 8
    zeros = tl.zeros((ROWS, GROUPS), dtype=tl.uint32)
    groups = first_column // 8 + tl.arange(0, GROUPS)
    word0, word1, word2, word3 = tl.philox(
        seed,
        (zeros + groups[None, :]).to(tl.uint32),
        (zeros + rows[:, None]).to(tl.uint32),
        (zeros + head).to(tl.uint32),
        zeros,
        7,
    )
    # Each join appends a dimension of two: [ROWS, GROUPS, word // 2, word % 2, half of the word].
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3))
    lanes = tl.join(words & 0xFFFF, words >> 16)
    return tl.reshape(lanes, (ROWS, COLUMNS)).to(tl.int32) >= threshold


def dropout_scalars(p: float) -> tuple[int, float]:
    """The (threshold, scale) that the kernels take in place of a dropout rate."""
    threshold = round(p * 65536)
    return threshold, 65536 / (65536 - threshold) if threshold < 65536 else 0.0
