"""The choice of the tokens to mask: whole words, the share that stays, draws with replacement."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretraining_models import CLS, MASK, SEP, batch, forward, make

from electra_fast.model.packing import PackedBatch
from electra_fast.pretraining.networks.masking import mask_words


@settings(deadline=None, max_examples=150)
@given(
    lengths=st.lists(st.integers(2, 16), min_size=1, max_size=6),
    share=st.sampled_from([0.1, 0.15, 0.25, 0.5]),
    keep=st.sampled_from([0.0, 0.15, 0.5]),
    starts_share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_whole_words(lengths, share, keep, starts_share, seed):
    random = torch.Generator().manual_seed(seed)
    ids, packed = batch(lengths, seed)
    starts = torch.rand(len(ids), generator=random) < starts_share
    uniform = torch.rand(2, len(ids), generator=random)
    n_slots = make(mask_prob=share).n_slots(packed)
    masked, positions, targets, is_used = mask_words(
        ids, packed.cu_seqlens, ids >= 4, starts, uniform, n_slots, MASK, share, 1 - keep
    )
    assert len(positions) == len(targets) == len(is_used) == n_slots
    assert torch.equal(targets, ids[positions])
    assert not positions[~is_used].any()
    chosen = set(positions[is_used].tolist())
    assert len(chosen) == is_used.sum()
    assert set((masked != ids).nonzero().squeeze(1).tolist()) <= chosen
    assert all(masked[i] == MASK for i in chosen if uniform[1, i] < 1 - keep)

    for a, b in pairwise(packed.cu_seqlens.tolist()):
        words, numbers = [], []
        for i in range(a + 1, b - 1):
            if i == a + 1 or starts[i]:
                words.append([])
                numbers.append(uniform[0, i].item())
            words[-1].append(i)
        budget = max(1, round(share * (b - a)))
        expected, is_open = set(), True
        for _, word in sorted(zip(numbers, words, strict=True)):
            if len(word) <= budget:
                is_open = is_open and len(expected) + len(word) <= budget
                expected |= set(word) if is_open else set()
        assert {i for i in chosen if a <= i < b} == expected


def test_words_of_one_token_are_masked_as_tokens_are():
    model = make()
    ids, packed = batch()
    random = torch.rand(2, len(ids), generator=torch.Generator().manual_seed(5))
    one = model._mask(ids, packed, None, random, None)
    other = model._mask(ids, packed, None, random, torch.ones(len(ids), dtype=torch.bool))
    assert torch.equal(one.masked_ids, other.masked_ids)
    assert set(one.positions[one.is_used].tolist()) == set(other.positions[other.is_used].tolist())
    assert torch.isfinite(forward(model, word_starts=torch.rand(len(ids)) < 0.5).loss)


@pytest.mark.parametrize(("keep_prob", "share"), [(0.0, 1.0), (0.15, 0.85), (0.5, 0.5)])
def test_keep_prob_is_the_share_that_stays(keep_prob, share):
    model = make(keep_prob=keep_prob)
    ids = torch.tensor([CLS, *[10] * 398, SEP]).repeat(50)
    packed = PackedBatch.full(50, 400, ids.device)
    random = torch.rand(2, len(ids), generator=torch.Generator().manual_seed(0))
    batch = model._mask(ids, packed, None, random, None)
    assert (batch.masked_ids == MASK).sum() / batch.is_used.sum() == pytest.approx(share, abs=0.03)


def test_replacement_draws_some_positions_twice():
    ids, packed = torch.tensor([CLS, *[10] * 126, SEP]).repeat(20), PackedBatch.full(20, 128, torch.device("cpu"))
    random = torch.rand(2, len(ids), generator=torch.Generator().manual_seed(0))
    n_distinct = {}
    for replacement in (False, True):
        masked = make(replacement=replacement)._mask(ids, packed, None, random, None)
        n_distinct[replacement] = len(set(masked.positions[masked.is_used].tolist())) / 20
        assert masked.is_used.sum() == 20 * 19
    # 126 * (1 - (125 / 126) ** 19) = 17.7
    assert n_distinct[False] == 19
    assert n_distinct[True] == pytest.approx(17.7, abs=0.6)
