"""masked_mean: errors, what does not count, contracts and refusals."""

import pytest
import torch

from electra_fast.ops import reference, testing
from electra_fast.ops.contracts.masked_mean import masked_mean, masked_mean_bwd, masked_mean_fwd


def make(n, device):
    return torch.rand(n, device=device) + 1, torch.rand(n, device=device) < 0.7


@pytest.mark.parametrize("n", [1, 13, 513, 4096, 9001])
def test_errors_are_within_the_budget(n, device):
    """Of twenty means, as eager torch may hit a single one by chance."""

    def of_rows(op):
        return lambda values, counts: torch.stack([op(*row) for row in zip(values, counts, strict=True)])

    values, counts = torch.rand(20, n, device=device) + 1, torch.rand(20, n, device=device) < 0.7
    tensors = {"values": values, "counts": counts}
    testing.assert_within_budget(of_rows(masked_mean), of_rows(reference.masked_mean), tensors)


@pytest.mark.parametrize("n", [0, 1, 5000])
def test_booleans_count_as_by_the_reference(n, device):
    values, counts = torch.rand(n, device=device) < 0.5, torch.rand(n, device=device) < 0.9
    assert masked_mean(values, counts) == reference.masked_mean(values, counts)


@pytest.mark.parametrize("n", [0, 700])
def test_where_nothing_counts_mean_and_gradient_are_zero(n, device):
    values = torch.full((n,), float("nan"), device=device, requires_grad=True)
    mean = masked_mean(values, torch.zeros(n, dtype=torch.bool, device=device))
    mean.backward()
    assert mean == 0 and (values.grad == 0).all()


def test_what_does_not_count_may_be_nan(device):
    values, counts = make(700, device)
    expected = reference.masked_mean(values, counts)
    values = values.where(counts, torch.nan).requires_grad_()
    mean = masked_mean(values, counts)
    mean.backward()
    torch.testing.assert_close(mean.detach(), expected)
    torch.testing.assert_close(values.grad, counts / counts.sum())


def test_contracts(device):
    values, counts = make(37, device)
    mean, n = masked_mean_fwd(values, counts)
    torch.library.opcheck(masked_mean_fwd, (values, counts))
    torch.library.opcheck(masked_mean_bwd, (mean, n, counts))


@pytest.mark.parametrize(
    "values, counts",
    [
        (torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.bool)),
        (torch.ones(3), torch.ones(3)),
        (torch.ones(3), torch.ones(4, dtype=torch.bool)),
        (torch.ones(3, 1), torch.ones(3, dtype=torch.bool)),
    ],
    ids=["float64", "counts of float", "more counts", "two dimensions"],
)
def test_refusals(values, counts, device):
    with pytest.raises(ValueError, match=r"masked_mean: expected values \[N\] of float32 or bool"):
        masked_mean(values.to(device), counts.to(device))
