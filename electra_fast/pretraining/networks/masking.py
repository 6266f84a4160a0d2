"""Which tokens are masked, where whole words are: the form of `mask_tokens` that chooses words instead of tokens."""

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
    """`mask_tokens` by whole words: either all tokens of a word are chosen or none.

    A sequence of n tokens has a budget of max(1, round(mask_prob * n)) tokens. Its words are taken in random order, up
    to the first that goes over the budget; a word longer than all of it is never taken. What was chosen becomes [MASK]
    token by token, with probability `mask_fraction`.

    Shapes are static, and the host never waits for the device: it can be recorded in a CUDA graph.

    Args:
        input_ids: [T] int64.
        cu_seqlens: [B + 1] int32.
        candidates: [T] bool, the tokens that may be chosen; a word ends at a token that may not.
        word_starts: [T] bool, the first token of each word.
        uniform: [2, T] fp32 in [0, 1).

    Returns:
        (masked_ids [T], positions [n_slots] int64, labels [n_slots] int64, is_used [n_slots] bool), as `mask_tokens`,
        with the positions in ascending order.
    """
    tokens = torch.arange(len(input_ids), device=input_ids.device)
    sequence = torch.bucketize(tokens, cu_seqlens[1:], right=True)
    lengths = cu_seqlens.diff()
    budget = (lengths * mask_prob).round().long().clamp(min=1)[sequence]

    follows_a_candidate = candidates.roll(1)
    is_start = word_starts | ~candidates | ~follows_a_candidate | (tokens == cu_seqlens[:-1].long()[sequence])
    first = torch.where(is_start, tokens, 0).cummax(0).values
    n_in_word = torch.zeros_like(tokens).index_add(0, first, torch.ones_like(tokens))[first]

    # Words in random order within their sequence, sequences in order. Tokens of a word have one key, and both sorts are
    # stable, so they stay together.
    may_be_chosen = candidates & (n_in_word <= budget)
    order = uniform[0][first].masked_fill(~may_be_chosen, 2.0).argsort(stable=True)
    order = order[sequence[order].argsort(stable=True)]
    rank = torch.empty_like(tokens).scatter(0, order, tokens - cu_seqlens[:-1].long()[sequence])
    is_chosen = may_be_chosen & (rank[first] + n_in_word <= budget)

    slot = is_chosen.cumsum(0) - 1
    is_chosen = is_chosen & (slot < n_slots)
    # The last entry takes the tokens that have no slot.
    positions = tokens.new_zeros(n_slots + 1).scatter(0, torch.where(is_chosen, slot, n_slots), tokens)[:n_slots]
    is_used = torch.arange(n_slots, device=tokens.device) < is_chosen.sum()
    masked_ids = input_ids.masked_fill(is_chosen & (uniform[1] < mask_fraction), mask_token_id)
    return masked_ids, positions, input_ids[positions], is_used
