"""The gradient of embedding tables, without atomics: out[k] = sum of the rows x[t] of all tokens t with key k.

Shapes: x [T, E]; keys [n T]; out [K, E]. Key i belongs to token i % T, so that several lookups of one token (its word,
its position, its type) are one sum into one tall table. Rows without a token stay what they are: the caller, who has a
kernel before this one, fills out with zeros there.

The keys are sorted once, stably, as int16 where 65,536 rows are enough: two passes of a radix sort. Equal keys are then
neighbours, a segment. Phase 1: a program takes 256 sorted keys, 32 at a time, and adds equal neighbours by a product
with the 0/1 matrix "same key"; a segment that such a block leaves unfinished is carried into the next. A segment within
one program goes straight to its row of out. If a segment spans several programs, each leaves its part in `parts`, in
fp32. Phase 2: the program in which such a segment begins adds the parts in blocks of 64, so that a segment of n tokens
(every token is of type 0, every seventh is [MASK]) costs n / 16384 steps in sequence, not n.

Moved: n T E elements read, up to K E written, and two fp32 rows per 256 keys. The order of addition depends on the keys
alone: the same bits in every run.

Numerics: products of x with 0 and 1 are exact, sums in fp32, one rounding at the end. A token that is not finite spoils
the sums of the keys that lie in its block of 32, as 0 times infinity is no number.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import power_of_two

# The lowest key is this one, so that 16 signed bits hold 65,536 of them.
KEY_OF_ROW_0 = tl.constexpr(-32768)


@triton.jit
def _row_at(keys_ptr, at, n_keys):
    """The table rows of the sorted keys at these places; -1 before the first and after the last."""
    inside = (at >= 0) & (at < n_keys)
    return tl.where(inside, tl.load(keys_ptr + at, mask=inside, other=0).to(tl.int32) - KEY_OF_ROW_0, -1)


@triton.jit(do_not_specialize=["n_tokens", "n_keys"])
def sum_within_chunks_kernel(
    x_ptr,  # [T, E]
    keys_ptr,  # [n T] int16 or int32, sorted
    order_ptr,  # [n T] int64: where the sorted keys were
    out_ptr,  # [K, E]
    parts_ptr,  # [chunks, 2, E] fp32: part of the segment that began before the chunk, and of the one that runs on
    n_tokens,
    n_keys,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    chunk = tl.program_id(0)
    cols = tl.program_id(1) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    col_mask = cols < E
    start = chunk * CHUNK
    row_before = _row_at(keys_ptr, start - 1, n_keys)
    parts = parts_ptr + chunk.to(tl.int64) * 2 * E + cols

    carry = tl.zeros((BLOCK_COLS,), dtype=tl.float32)
    for first in range(start, start + CHUNK, BLOCK_KEYS):
        at = first + tl.arange(0, BLOCK_KEYS)
        row = _row_at(keys_ptr, at, n_keys)
        token = tl.load(order_ptr + at, mask=at < n_keys, other=0) % n_tokens
        mask = (at < n_keys)[:, None] & col_mask[None, :]
        x = tl.load(x_ptr + token.to(tl.int64)[:, None] * E + cols[None, :], mask=mask, other=0.0)
        is_same = tl.where(row[:, None] == row[None, :], 1.0, 0.0)
        sums = tl.dot(is_same.to(x.dtype), x, input_precision="ieee")
        sums += tl.where(row == _row_at(keys_ptr, first - 1, n_keys), 1.0, 0.0)[:, None] * carry[None, :]

        is_end = (row >= 0) & (row != _row_at(keys_ptr, at + 1, n_keys))
        began_before = row == row_before
        to_table = out_ptr + row.to(tl.int64)[:, None] * E + cols[None, :]
        tl.store(to_table, sums, mask=(is_end & ~began_before)[:, None] & col_mask[None, :])
        to_parts = tl.broadcast_to(parts[None, :], (BLOCK_KEYS, BLOCK_COLS))
        tl.store(to_parts, sums, mask=(is_end & began_before)[:, None] & col_mask[None, :])
        carry = tl.sum(tl.where((at == first + BLOCK_KEYS - 1)[:, None], sums, 0.0), axis=0)

    last_row = _row_at(keys_ptr, start + CHUNK - 1, n_keys)
    if (last_row >= 0) & (last_row == _row_at(keys_ptr, start + CHUNK, n_keys)):
        tl.store(parts + tl.where(last_row == row_before, 0, E), carry, mask=col_mask)


@triton.jit(do_not_specialize=["n_keys"])
def join_chunks_kernel(
    keys_ptr,  # [n T] int16 or int32, sorted
    parts_ptr,  # [chunks, 2, E] fp32
    out_ptr,  # [K, E]
    n_keys,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    chunk = tl.program_id(0)
    row = _row_at(keys_ptr, (chunk + 1) * CHUNK - 1, n_keys)
    runs_on = (row >= 0) & (row == _row_at(keys_ptr, (chunk + 1) * CHUNK, n_keys))
    if runs_on & (row != _row_at(keys_ptr, chunk * CHUNK - 1, n_keys)):
        cols = tl.program_id(1) * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
        col_mask = cols < E
        beginning = tl.load(parts_ptr + (chunk.to(tl.int64) * 2 + 1) * E + cols, mask=col_mask, other=0.0)
        total = tl.zeros((BLOCK_CHUNKS, BLOCK_COLS), dtype=tl.float32)
        first = chunk + 1
        while _row_at(keys_ptr, first * CHUNK, n_keys) == row:
            chunks = first + tl.arange(0, BLOCK_CHUNKS)
            mask = (_row_at(keys_ptr, chunks * CHUNK, n_keys) == row)[:, None] & col_mask[None, :]
            parts = parts_ptr + chunks.to(tl.int64)[:, None] * 2 * E + cols[None, :]
            total += tl.load(parts, mask=mask, other=0.0)
            first += BLOCK_CHUNKS
        tl.store(out_ptr + row.to(tl.int64) * E + cols, beginning + tl.sum(total, axis=0), mask=col_mask)


def key_dtype(n_rows: int) -> torch.dtype:
    """The smallest dtype that holds the keys of a table: a radix sort makes a pass for each of its bytes."""
    return torch.int16 if n_rows <= 65536 else torch.int32


def sum_segments(x: Tensor, keys: Tensor, out: Tensor) -> None:
    """Writes sums of x [T, E] by keys [n T] to the rows of `out`, [K, E] in the dtype of x, that have a key.

    A key is its row less 32768, in `key_dtype(K)`.
    """
    n_tokens, e = x.shape
    n_keys = len(keys)
    chunk, block_keys, block_chunks = 256, 32, 64
    block_cols = min(power_of_two(e), 64 if x.dtype == torch.float32 else 128)
    n_chunks = triton.cdiv(n_keys, chunk)
    if n_keys > 0:
        keys, order = torch.sort(keys, stable=True)
        parts = x.new_empty((n_chunks, 2, e), dtype=torch.float32)
        sum_within_chunks_kernel[n_chunks, triton.cdiv(e, block_cols)](
            x, keys, order, out, parts, n_tokens, n_keys,
            E=e, CHUNK=chunk, BLOCK_KEYS=block_keys, BLOCK_COLS=block_cols, num_warps=4,
        )  # fmt: skip
        join_cols = min(power_of_two(e), 64)
        join_chunks_kernel[n_chunks, triton.cdiv(e, join_cols)](
            keys, parts, out, n_keys,
            E=e, CHUNK=chunk, BLOCK_CHUNKS=block_chunks, BLOCK_COLS=join_cols, num_warps=4,
        )  # fmt: skip
