"""The choice of tokens to mask in pre-training, and the placing of samples, on the device, in shapes known beforehand.

    n_chosen[b] = min(max(1, round(mask_prob * n)), candidates)       slots of sequence b begin at sum(n_chosen[:b])
    rank[i] = |{j in the sequence: key[j] < key[i], or equal and j < i}|,  key = uniform where candidate, else 2
    slot r holds the candidate of rank r, or with replacement the one of rank floor(uniform[start + r] * candidates)

Shapes: input_ids, masked_ids, candidates, is_replaced [T]; uniform [2, T]; cu_seqlens [B + 1]; positions, labels,
samples, is_used [N].

Fused: three launches choose (counts, their cumulative sum, everything else) and three place (a fill, the winners, the
ids), where eager torch sorts all tokens twice and copies sizes to the host. A rank is a count over the sequence, n^2
comparisons in registers: 67 million for 256 sequences of 512, which take microseconds and no sort. The kernels move
some 30 T bytes, nothing beside a layer.

Numerics: the shares are products in fp32 rounded half to even, as torch rounds them, so every integer is the
reference's. If a token has several slots, their integer maximum wins, in any order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 32  # tokens that a program ranks at a time, against 128 others: 64 registers
_SPLITS = 8  # programs per sequence: two blocks each at 512 tokens


@triton.jit(do_not_specialize=["n_sequences"])
def count_chosen_kernel(
    cu_seqlens_ptr,  # [B + 1] int32
    candidate_ptr,  # [T] bool
    count_ptr,  # [2, B] int32: how many are chosen, and how many could be
    n_sequences,
    mask_prob,
    BLOCK: tl.constexpr,
):
    sequence = tl.program_id(0)
    start, end = tl.load(cu_seqlens_ptr + sequence), tl.load(cu_seqlens_ptr + sequence + 1)
    found = tl.zeros((BLOCK,), dtype=tl.int32)
    for first in range(start, end, BLOCK):
        tokens = first + tl.arange(0, BLOCK)
        found += tl.load(candidate_ptr + tokens, mask=tokens < end, other=0).to(tl.int32)
    n_candidates = tl.sum(found, axis=0)

    # Rounds half to even by comparisons: a difference could be contracted with the product into one rounding.
    share = (end - start).to(tl.float32) * mask_prob
    whole = share.to(tl.int32)
    half = whole.to(tl.float32) + 0.5
    is_up = (share > half) | ((share == half) & (whole % 2 == 1))
    n_chosen = tl.minimum(tl.maximum(whole + is_up.to(tl.int32), 1), n_candidates)
    tl.store(count_ptr + sequence, n_chosen)
    tl.store(count_ptr + n_sequences + sequence, n_candidates)


@triton.jit(do_not_specialize=["n_tokens", "n_sequences", "n_slots"])
def mask_tokens_kernel(
    input_ptr,  # [T] int64
    cu_seqlens_ptr,  # [B + 1] int32
    candidate_ptr,  # [T] bool
    uniform_ptr,  # [2, T] fp32: keys and draws; whether a chosen token becomes [MASK]
    count_ptr,  # [2, B] int32, from count_chosen_kernel
    end_ptr,  # [B] int64: the cumulative sum of the first row of counts
    masked_ptr,  # [T] int64
    position_ptr,  # [N] int64
    label_ptr,  # [N] int64
    used_ptr,  # [N] bool
    n_tokens,
    n_sequences,
    n_slots,
    mask_token_id,
    mask_fraction,
    REPLACEMENT: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_OTHER: tl.constexpr,
):
    sequence, split = tl.program_id(0), tl.program_id(1)
    start, end = tl.load(cu_seqlens_ptr + sequence), tl.load(cu_seqlens_ptr + sequence + 1)
    n_chosen = tl.load(count_ptr + sequence)
    n_candidates = tl.load(count_ptr + n_sequences + sequence)
    first_slot = tl.load(end_ptr + sequence) - n_chosen

    for first in range(start + split * BLOCK, end, tl.num_programs(1) * BLOCK):
        tokens = first + tl.arange(0, BLOCK)
        mask = tokens < end
        is_candidate = tl.load(candidate_ptr + tokens, mask=mask, other=0) != 0
        key = tl.load(uniform_ptr + tokens, mask=mask, other=2.0)
        rank = tl.zeros((BLOCK,), dtype=tl.int32)
        for first_other in range(start, end, BLOCK_OTHER):
            others = first_other + tl.arange(0, BLOCK_OTHER)
            counts = tl.load(candidate_ptr + others, mask=others < end, other=0) != 0
            other = tl.where(counts, tl.load(uniform_ptr + others, mask=others < end, other=2.0), 2.0)
            is_tie_before = (other[None, :] == key[:, None]) & (others[None, :] < tokens[:, None])
            rank += tl.sum(((other[None, :] < key[:, None]) | is_tie_before).to(tl.int32), axis=1)

        ids = tl.load(input_ptr + tokens, mask=mask, other=0)
        if REPLACEMENT:
            is_chosen = tl.zeros((BLOCK,), dtype=tl.int32)
            for first_draw in range(0, n_chosen, BLOCK_OTHER):
                draws = first_draw + tl.arange(0, BLOCK_OTHER)
                slots = first_slot + draws
                has_slot = (draws < n_chosen) & (slots < n_slots)
                draw = tl.load(uniform_ptr + start + draws, mask=has_slot, other=0.0) * n_candidates.to(tl.float32)
                drawn = tl.minimum(draw.to(tl.int32), n_candidates - 1)
                is_drawn = (drawn[None, :] == rank[:, None]) & has_slot[None, :] & is_candidate[:, None]
                is_chosen = tl.maximum(is_chosen, tl.max(is_drawn.to(tl.int32), axis=1))
                # At most one token of the block has the rank that a slot drew.
                token = tl.max(tl.where(is_drawn, tokens[:, None], -1), axis=0)
                tl.store(position_ptr + slots, token.to(tl.int64), mask=token >= 0)
                tl.store(label_ptr + slots, tl.load(input_ptr + token, mask=token >= 0, other=0), mask=token >= 0)
                tl.store(used_ptr + slots, token >= 0, mask=token >= 0)
            is_chosen = is_chosen != 0
        else:
            slots = first_slot + rank
            is_chosen = is_candidate & (rank < n_chosen) & (slots < n_slots)
            tl.store(position_ptr + slots, tokens.to(tl.int64), mask=is_chosen)
            tl.store(label_ptr + slots, ids, mask=is_chosen)
            tl.store(used_ptr + slots, is_chosen, mask=is_chosen)
        becomes_mask = tl.load(uniform_ptr + n_tokens + tokens, mask=mask, other=2.0) < mask_fraction
        tl.store(masked_ptr + tokens, tl.where(is_chosen & becomes_mask, mask_token_id, ids), mask=mask)

    # All programs together fill the unused slots.
    n_used = tl.load(end_ptr + n_sequences - 1)
    program = sequence * tl.num_programs(1) + split
    first_id = tl.load(input_ptr)
    for first in range(program * BLOCK, n_slots, tl.num_programs(0) * tl.num_programs(1) * BLOCK):
        slots = first + tl.arange(0, BLOCK)
        is_idle = (slots < n_slots) & (slots >= n_used)
        tl.store(position_ptr + slots, tl.zeros((BLOCK,), dtype=tl.int64), mask=is_idle)
        tl.store(label_ptr + slots, first_id + tl.zeros((BLOCK,), dtype=tl.int64), mask=is_idle)
        tl.store(used_ptr + slots, slots < n_used, mask=is_idle)


@triton.jit(do_not_specialize=["n_slots"])
def find_winner_kernel(
    position_ptr,  # [N] int64
    used_ptr,  # [N] bool
    winner_ptr,  # [T] int32: the last slot of a token; -1 before
    n_slots,
    BLOCK: tl.constexpr,
):
    slots = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_used = tl.load(used_ptr + slots, mask=slots < n_slots, other=0) != 0
    positions = tl.load(position_ptr + slots, mask=is_used, other=0)
    tl.atomic_max(winner_ptr + positions, slots, mask=is_used, sem="relaxed")


@triton.jit(do_not_specialize=["n_tokens"])
def place_samples_kernel(
    input_ptr,  # [T] int64
    winner_ptr,  # [T] int32
    sample_ptr,  # [N] int64
    corrupted_ptr,  # [T] int64
    replaced_ptr,  # [T] bool
    n_tokens,
    BLOCK: tl.constexpr,
):
    tokens = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = tokens < n_tokens
    ids = tl.load(input_ptr + tokens, mask=mask, other=0)
    winner = tl.load(winner_ptr + tokens, mask=mask, other=-1)
    corrupted = tl.where(winner < 0, ids, tl.load(sample_ptr + winner, mask=winner >= 0, other=0))
    tl.store(corrupted_ptr + tokens, corrupted, mask=mask)
    tl.store(replaced_ptr + tokens, corrupted != ids, mask=mask)


def mask_tokens(
    input_ids: Tensor, cu_seqlens: Tensor, candidates: Tensor, uniform: Tensor, n_slots: int, mask_token_id: int,
    mask_prob: float, mask_fraction: float, replacement: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Computes input_ids [T] -> (masked_ids [T], positions [N], labels [N], is_used [N])."""
    n_tokens, n_sequences = len(input_ids), len(cu_seqlens) - 1
    masked_ids = torch.empty_like(input_ids)
    positions, labels = (input_ids.new_empty(n_slots) for _ in range(2))
    is_used = input_ids.new_empty(n_slots, dtype=torch.bool)
    if n_tokens == 0:
        return masked_ids, positions.zero_(), labels.zero_(), is_used.zero_()
    counts = cu_seqlens.new_empty(2, n_sequences)
    count_chosen_kernel[n_sequences,](
        cu_seqlens, candidates, counts, n_sequences, mask_prob, BLOCK=512, num_warps=4
    )  # fmt: skip
    mask_tokens_kernel[n_sequences, _SPLITS](
        input_ids, cu_seqlens, candidates, uniform, counts, counts[0].cumsum(0), masked_ids, positions, labels, is_used,
        n_tokens, n_sequences, n_slots, mask_token_id, mask_fraction,
        REPLACEMENT=replacement, BLOCK=_BLOCK, BLOCK_OTHER=128, num_warps=4,
    )  # fmt: skip
    return masked_ids, positions, labels, is_used


def place_samples(
    input_ids: Tensor, positions: Tensor, samples: Tensor, is_used: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Computes input_ids [T]; positions, samples, is_used [N] -> (corrupted_ids [T], is_replaced [T])."""
    n_tokens, n_slots = len(input_ids), len(positions)
    corrupted_ids, is_replaced = torch.empty_like(input_ids), torch.empty_like(input_ids, dtype=torch.bool)
    winner = torch.full_like(input_ids, -1, dtype=torch.int32)
    if n_slots > 0:
        find_winner_kernel[triton.cdiv(n_slots, 256),](positions, is_used, winner, n_slots, BLOCK=256)
    if n_tokens > 0:
        place_samples_kernel[triton.cdiv(n_tokens, 512),](
            input_ids, winner, samples, corrupted_ids, is_replaced, n_tokens, BLOCK=512
        )  # fmt: skip
    return corrupted_ids, is_replaced
