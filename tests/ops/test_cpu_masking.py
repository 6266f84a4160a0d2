"""The choice of masked tokens in C++: the reference's, token by token."""

import pytest
import torch

from electra_fast.model.packing import cu_seqlens_of
from electra_fast.ops import reference, registry
from electra_fast.ops.contracts import cpu_library, cpu_masking

pytestmark = pytest.mark.skipif(cpu_library.obstacle() is not None, reason=f"{cpu_library.obstacle()}")


def case(lengths: list[int], seed: int, share: float = 0.8, n_numbers: int = 1 << 20) -> tuple[torch.Tensor, ...]:
    """(ids, starts, candidates, uniform numbers); few different numbers make many ties."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    uniform = torch.randint(n_numbers, (2, n), generator=generator) / n_numbers
    candidates = torch.rand(n, generator=generator) < share
    return torch.randint(5, 99, (n,), generator=generator), cu_seqlens_of(lengths), candidates, uniform


@pytest.mark.parametrize("replacement", [False, True], ids=["apart", "replaced"])
@pytest.mark.parametrize("share, n_numbers", [(0.8, 1 << 20), (0.1, 1 << 20), (0.9, 4), (0.0, 4)], ids=str)
@pytest.mark.parametrize("lengths", [[64] * 8, [3, 0, 1, 170, 10], [10, 30, 50]], ids=str)
def test_choices_are_those_of_the_reference(lengths, share, n_numbers, replacement):
    for seed in range(3):
        given = case(lengths, seed, share, n_numbers)
        for n_slots, mask_prob, mask_fraction in ((90, 0.15, 0.85), (5, 0.15, 1.0), (0, 0.5, 0.5), (200, 0.45, 0.0)):
            options = n_slots, 103, mask_prob, mask_fraction, replacement
            found, expected = (op(*given, *options) for op in (cpu_masking.mask_tokens, reference.mask_tokens))
            for ours, theirs in zip(found, expected, strict=True):
                assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype


def test_numbers_may_lie_across():
    ids, starts, candidates, uniform = case([64] * 4, 0)
    across = torch.rand(256, 3).T[:2].copy_(uniform)
    found = cpu_masking.mask_tokens(ids, starts, candidates, across, 40, 103)
    for ours, theirs in zip(found, reference.mask_tokens(ids, starts, candidates, uniform, 40, 103), strict=True):
        assert torch.equal(ours, theirs)


def test_samples_are_placed_as_in_the_reference():
    ids, *_ = case([40], 0)
    positions, is_used = torch.tensor([3, 9, 3, 0, 39, 0, 7]), torch.tensor([1, 1, 1, 1, 1, 0, 1]).bool()
    samples = torch.tensor([200, 201, 202, 203, 204, 205, int(ids[7])])
    found = cpu_masking.place_samples(ids, positions, samples, is_used)
    for ours, theirs in zip(found, reference.place_samples(ids, positions, samples, is_used), strict=True):
        assert torch.equal(ours, theirs)
    assert found[0][3] == 202 and not found[1][7]


@pytest.mark.parametrize("position", [-1, 40, 2**40])
def test_positions_that_are_none_are_refused(position):
    ids, *_ = case([40], 0)
    with pytest.raises(IndexError, match=rf"positions must be in \[0, 40\), got {position}"):
        cpu_masking.place_samples(ids, torch.tensor([3, position]), torch.ones(2).long(), torch.ones(2).bool())


@pytest.mark.parametrize("starts", [[0, 30], [0, 50], [5, 40], [0, 30, 20, 40], []], ids=str)
def test_starts_that_mark_no_sequences_are_refused(starts):
    ids, _, *others = case([40], 0)
    with pytest.raises(ValueError, match="cu_seqlens must rise from 0 to 40 tokens"):
        cpu_masking.mask_tokens(ids, torch.tensor(starts, dtype=torch.int32), *others, 5, 103)


def test_what_cpp_cannot_read_goes_to_the_reference():
    ids, starts, candidates, uniform = case([40], 0)
    expected = reference.mask_tokens(ids, starts, candidates, uniform, 5, 103)
    for given in (
        (ids.repeat_interleave(2)[::2], starts, candidates, uniform),
        (ids, starts.long(), candidates, uniform),
        (ids, starts, candidates, uniform.double()),
    ):
        for ours, theirs in zip(cpu_masking.mask_tokens(*given, 5, 103), expected, strict=True):
            assert torch.equal(ours, theirs)


def test_auto_takes_them_on_a_cpu():
    assert registry.OPS["mask_tokens"].cpu is cpu_masking.mask_tokens
    assert registry.OPS["place_samples"].cpu is cpu_masking.place_samples
