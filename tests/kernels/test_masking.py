"""mask_tokens and place_samples: every integer is the reference's, in every shape, and nothing but candidates moves."""

import pytest
import torch

from electra_fast.model.packing import cu_seqlens_of
from electra_fast.ops import reference
from electra_fast.ops.contracts import masking

MASK = 103
LENGTHS = [[1], [7], [128, 128], [5, 0, 130, 1, 0, 31], [0, 0, 3], [513], [20] * 9]


def make(lengths, device, share=0.8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    return dict(
        input_ids=torch.randint(5, 1000, (n,), generator=generator).to(device),
        cu_seqlens=cu_seqlens_of(lengths).to(device),
        candidates=(torch.rand(n, generator=generator) < share).to(device),
        uniform=torch.rand(2, n, generator=generator).to(device),
    )


def assert_same(inputs, **options):
    ours = masking.mask_tokens(**inputs, mask_token_id=MASK, **options)
    theirs = reference.mask_tokens(**inputs, mask_token_id=MASK, **options)
    for name, x, y in zip(("masked_ids", "positions", "labels", "is_used"), ours, theirs, strict=True):
        assert x.dtype == y.dtype, name
        assert torch.equal(x, y), name
    return ours


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_integers_are_those_of_the_reference(lengths, replacement, device):
    inputs = make(lengths, device)
    positions, is_used = assert_same(inputs, n_slots=sum(lengths) // 4 + len(lengths), replacement=replacement)[1::2]
    assert inputs["candidates"][positions[is_used]].all()
    assert replacement or len(positions[is_used].unique()) == is_used.sum()


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("n_slots", [0, 1, 9, 300])
def test_slots_beyond_the_last_are_dropped_and_spare_ones_filled(n_slots, replacement, device):
    assert_same(make([40, 70, 3], device), n_slots=n_slots, replacement=replacement)


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_sequences_of_few_or_no_candidates(share, replacement, device):
    masked, _, _, is_used = assert_same(make([9, 1, 150, 2], device, share), n_slots=60, replacement=replacement)
    assert share > 0 or not (is_used.any() or (masked == MASK).any())


@pytest.mark.parametrize("mask_prob", [0.15, 0.25, 0.5, 0.9])
def test_shares_are_rounded_half_to_even_in_fp32(mask_prob, device):
    inputs = make(list(range(50)), device, share=1.0)
    assert_same(inputs, n_slots=1300, mask_prob=mask_prob, mask_fraction=0.5)


def test_ties_are_broken_by_position(device):
    inputs = make([200, 64], device)
    inputs["uniform"] = (inputs["uniform"] * 4).floor() / 4
    assert_same(inputs, n_slots=50)
    assert_same(inputs, n_slots=50, replacement=True)


def test_the_ends_of_the_unit_interval(device):
    inputs = make([30, 50], device)
    for value in (0.0, 1 - 2**-24):
        inputs["uniform"] = torch.full_like(inputs["uniform"], value)
        assert_same(inputs, n_slots=20, replacement=True)


def test_a_long_sequence(device):
    assert_same(make([700, 20], device), n_slots=150)


@pytest.mark.parametrize("n_slots", [0, 4])
def test_no_tokens(n_slots, device):
    ids, positions, labels, is_used = masking.mask_tokens(**make([0], device), n_slots=n_slots, mask_token_id=MASK)
    assert len(ids) == 0
    assert not (positions.any() or labels.any() or is_used.any())


@pytest.mark.parametrize(("n_tokens", "n_slots"), [(1, 1), (100, 7), (1000, 600), (31, 0)])
def test_samples_are_placed_as_by_the_reference(n_tokens, n_slots, device):
    ids = torch.randint(0, 9, (n_tokens,), device=device)
    positions = torch.randint(0, n_tokens, (n_slots,), device=device)  # many twice
    samples, is_used = torch.randint(0, 9, (n_slots,), device=device), torch.rand(n_slots, device=device) < 0.8
    ours = masking.place_samples(ids, positions, samples, is_used)
    if n_slots == 0:
        assert torch.equal(ours[0], ids)
        assert not ours[1].any()
        return
    for x, y in zip(ours, reference.place_samples(ids, positions, samples, is_used), strict=True):
        assert x.dtype == y.dtype
        assert torch.equal(x, y)


def test_the_last_of_several_samples_wins(device):
    ids = torch.tensor([5, 6, 7], device=device)
    positions, samples = torch.tensor([1, 1, 1, 0], device=device), torch.tensor([8, 9, 4, 5], device=device)
    corrupted, is_replaced = masking.place_samples(
        ids, positions, samples, torch.tensor([1, 1, 0, 1]).bool().to(device)
    )
    assert corrupted.tolist() == [5, 9, 7]
    assert is_replaced.tolist() == [False, True, False]


def test_strided_inputs_give_the_same_as_contiguous_ones(device):
    inputs = make([20, 30], device)
    strided = {name: torch.stack([x, x], dim=-1)[..., 0] for name, x in inputs.items()}
    options = dict(n_slots=12, mask_token_id=MASK)
    for x, y in zip(masking.mask_tokens(**inputs, **options), masking.mask_tokens(**strided, **options), strict=True):
        assert torch.equal(x, y)


def test_contracts(device):
    inputs = make([5, 9], device)
    torch.library.opcheck(masking._mask_tokens, (*inputs.values(), 4, MASK, 0.15, 0.85, False))
    slots = masking.mask_tokens(**inputs, n_slots=4, mask_token_id=MASK)
    torch.library.opcheck(masking._place_samples, (inputs["input_ids"], *slots[1:]))


def test_refusals_name_the_tensor(device):
    inputs = make([5], device)
    with pytest.raises(ValueError, match=r"mask_tokens: expected cu_seqlens of torch.int32, got torch.int64"):
        masking.mask_tokens(**inputs | {"cu_seqlens": inputs["cu_seqlens"].long()}, n_slots=2, mask_token_id=MASK)
    ids, is_used = inputs["input_ids"], torch.ones(5, dtype=torch.bool, device=device)
    with pytest.raises(ValueError, match=r"place_samples: .*samples.* meta"):
        masking.place_samples(ids, ids, ids.to("meta"), is_used)
