"""Whole-word masking: `mask_tokens`, but choosing words instead of tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def mask_words(
    input_ids: Tensor,
    cu_seqlens: Tensor,
    candidates: Tensor,
    word_starts: Tensor,
    uniform: Tensor,
    n_slots: int,
    mask_token_id: int,
    mask_prob: float = 0.15,
    mask_fraction: float = 0.85,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Masks whole words, where `mask_tokens` masks tokens: all tokens of a word are chosen, or none.

    A sequence of n tokens has a budget of max(1, round(mask_prob * n)) tokens. Its words are chosen in random order, up
    to the first that exceeds the budget; a word longer than the whole budget is never chosen. Each chosen token becomes
    [MASK] with probability `mask_fraction`.

    Shapes are static, and the host never waits for the device, so a CUDA graph can record this function.

    Args:
        input_ids: [T] int64, the text.
        cu_seqlens: [B + 1] int32, starts of the sequences.
        candidates: [T] bool, the tokens that may be chosen; a word ends before any other token.
        word_starts: [T] bool, the first token of each word.
        uniform: [2, T] fp32 in [0, 1), random numbers for the choice of words and for [MASK].

    Returns:
        (masked_ids [T], positions [n_slots] int64, labels [n_slots] int64, is_used [n_slots] bool), as from
        `mask_tokens`, with the positions in ascending order.
    """
    tokens = torch.arange(len(input_ids), device=input_ids.device)
    sequence = torch.bucketize(tokens, cu_seqlens[1:], right=True)
    lengths = cu_seqlens.diff()
    budget = (lengths * mask_prob).round().long().clamp(min=1)[sequence]

    follows_a_candidate = candidates.roll(1)
    is_start = word_starts | ~candidates | ~follows_a_candidate | (tokens == cu_seqlens[:-1].long()[sequence])
    first = torch.where(is_start, tokens, 0).cummax(0).values
    n_in_word = torch.zeros_like(tokens).index_add(0, first, torch.ones_like(tokens))[first]

    # Words get a random order within their sequence, and sequences keep theirs. Tokens of a word share one key and both
    # sorts are stable, so the tokens stay together.
    may_be_chosen = candidates & (n_in_word <= budget)
    order = uniform[0][first].masked_fill(~may_be_chosen, 2.0).argsort(stable=True)
    order = order[sequence[order].argsort(stable=True)]
    rank = torch.empty_like(tokens).scatter(0, order, tokens - cu_seqlens[:-1].long()[sequence])
    is_chosen = may_be_chosen & (rank[first] + n_in_word <= budget)

    slot = is_chosen.cumsum(0) - 1
    is_chosen = is_chosen & (slot < n_slots)
    # Tokens without a slot write to the last entry, which is cut off.
    positions = tokens.new_zeros(n_slots + 1).scatter(0, torch.where(is_chosen, slot, n_slots), tokens)[:n_slots]
    is_used = torch.arange(n_slots, device=tokens.device) < is_chosen.sum()
    masked_ids = input_ids.masked_fill(is_chosen & (uniform[1] < mask_fraction), mask_token_id)
    return masked_ids, positions, input_ids[positions], is_used
