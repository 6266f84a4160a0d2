"""sum_partials: exact sums, one rounding, two tensors in one launch, and any number of rows and columns."""

import pytest
import torch
from electra_fast.kernels.partial_sums import sum_partials

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 3), (7, 100), (256, 16), (257, 33), (700, 48), (0, 20)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_those_of_the_reference_rounded_once(shape, dtype, device):
    # Small integers: every order of sums gives the same number.
    first = torch.randint(-9, 10, shape, device=device).float() / 8
    assert torch.equal(sum_partials(dtype, first), first.sum(0).to(dtype))


@pytest.mark.parametrize("other", SHAPES, ids=str)
def test_two_tensors_are_summed_by_one_launch(other, device):
    first, second = torch.randn(300, 40, device=device), torch.randn(other, device=device)
    both = sum_partials(torch.bfloat16, first, second)
    parts = sum_partials(torch.bfloat16, first), sum_partials(torch.bfloat16, second)
    assert torch.equal(both, torch.cat(parts))
    torch.testing.assert_close(parts[0], first.double().sum(0).bfloat16())


def test_two_runs_are_bit_equal(device):
    first = torch.randn(1000, 17, device=device)
    assert torch.equal(sum_partials(torch.float32, first), sum_partials(torch.float32, first))
