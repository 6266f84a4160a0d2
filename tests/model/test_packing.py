"""Packing: what goes in comes out, padding never travels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.model.packing import PackedBatch, cu_seqlens_of, packed_row

masks = st.integers(1, 5).flatmap(
    lambda columns: st.lists(st.lists(st.booleans(), min_size=columns, max_size=columns), min_size=1, max_size=5)
)


@given(masks)
@settings(deadline=None)
def test_unpack_undoes_pack_for_any_mask(rows):
    mask = torch.tensor(rows)
    packed = PackedBatch.from_mask(mask)
    x = torch.arange(mask.numel() * 3).reshape(*mask.shape, 3)
    tokens = packed.pack(x)
    assert tokens.shape == (int(mask.sum()), 3)
    assert torch.equal(tokens, x[mask])
    assert torch.equal(packed.unpack(tokens, fill=-7), torch.where(mask[..., None], x, -7))
    assert torch.equal(packed.cu_seqlens.diff(), mask.sum(1).int())
    assert packed.max_seqlen == int(mask.sum(1).max())


@given(masks)
@settings(deadline=None)
def test_a_batch_with_padding_has_the_same_tokens_first_and_then_the_padding(rows):
    mask = torch.tensor(rows)
    plain, packed = PackedBatch.from_mask(mask), PackedBatch.with_padding(mask)
    n, (batch_size, seq_length) = int(mask.sum()), mask.shape
    x = torch.arange(mask.numel() * 3).reshape(*mask.shape, 3)
    tokens = packed.pack(x)
    assert torch.equal(tokens[:n], plain.pack(x))
    assert torch.equal(tokens[n:], x[~mask])
    assert torch.equal(packed.unpack(tokens, fill=-7), plain.unpack(plain.pack(x), fill=-7))
    assert packed.n_sequences == batch_size and packed.max_seqlen == seq_length
    assert torch.equal(packed.cu_seqlens[: batch_size + 1].diff(), mask.sum(1).int())
    lengths = packed.cu_seqlens.diff()
    assert len(lengths) == 2 * batch_size and lengths.min() >= 0 and lengths.max() <= seq_length
    assert packed.cu_seqlens[-1] == mask.numel()
    assert torch.equal(packed.is_text(mask.numel()), torch.arange(mask.numel()) < n)
    places = packed.position_ids(mask.numel())
    assert torch.equal(places[:n], plain.position_ids(n)) and places.max() < seq_length


def test_a_batch_without_padding_is_a_view():
    x = torch.randn(3, 4, 5)
    packed = PackedBatch.from_mask(torch.ones(3, 4))
    assert packed.indices is None
    assert packed.pack(x).data_ptr() == x.data_ptr() == packed.unpack(packed.pack(x)).data_ptr()


def test_gradients_flow_through_both_directions():
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    x = torch.randn(2, 3, requires_grad=True)
    packed = PackedBatch.from_mask(mask)
    packed.unpack(packed.pack(x) * 2).sum().backward()
    assert torch.equal(x.grad, 2.0 * mask)


@pytest.mark.parametrize(
    ("position_ids", "lengths"),
    [
        ([0, 1, 2, 0, 1], [3, 2]),
        ([0, 0, 0], [1, 1, 1]),
        ([0, 1, 2, 3], None),  # one sequence
        ([0], None),
        ([1, 2, 0, 1], None),  # does not start at 0
        ([0, 2, 0, 1], None),  # a gap: the user's own positions
        ([3, 1, 2, 0], None),
    ],
)
def test_several_sequences_in_a_row_are_told_by_positions_that_start_again(position_ids, lengths):
    packed = packed_row(torch.tensor([position_ids]))
    assert (None if packed is None else packed.cu_seqlens.diff().tolist()) == lengths


def test_cu_seqlens_of_lengths():
    assert cu_seqlens_of([3, 0, 2]).tolist() == [0, 3, 3, 5]
    assert cu_seqlens_of([3]).dtype == torch.int32
