"""clip: the reference's bits, what is not finite, counts anywhere, and refusals."""

import math

import pytest
import torch
from torch.utils._pytree import tree_map_only

from electra_fast.ops import reference_optim
from electra_fast.ops.contracts.clip import clip


def scalars(values, dtype, device):
    return [torch.tensor(x, dtype=dtype, device=device) for x in values]


def both(norm, n_counts, device, max_norm, loss_scale):
    """The results of kernel and reference, each with its counts, which begin at 0, 1, ..."""
    for op in (clip, reference_optim.clip):
        counts = scalars(range(n_counts), torch.int64, device)
        scale = None if loss_scale is None else torch.tensor(loss_scale, device=device)
        yield *op(torch.tensor(norm, device=device), counts, max_norm, scale), counts


@pytest.mark.parametrize("loss_scale", [None, 3.0, 65536.0])
@pytest.mark.parametrize("max_norm", [None, 0.3, 1.0])
@pytest.mark.parametrize("norm", [0.0, 1e-30, 0.3, 0.7, 1.0, 123.4, 3e38, math.inf, math.nan])
def test_results_have_the_bits_of_the_reference(norm, max_norm, loss_scale, device):
    (*ours, our_counts), (*theirs, their_counts) = both(norm, 3, device, max_norm, loss_scale)
    for got, expected in zip((*ours, *our_counts), (*theirs, *their_counts), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
    assert bool(ours[2]) == math.isfinite(norm)


@pytest.mark.parametrize("n_counts", [1, 13, 300])
def test_every_count_is_found(n_counts, device):
    (*_, counts), _ = both(5.0, n_counts, device, 1.0, None)
    assert [int(x) for x in counts] == list(range(1, n_counts + 1))


def test_views_count_too(device):
    buffer = torch.zeros(5, dtype=torch.int64, device=device)
    clip(torch.ones((), device=device), [buffer[3], buffer[1]])
    assert buffer.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": torch.ones(1)}, r"norm to be a scalar of torch.float32, got torch.float32, \(1,\)"),
        ({"norm": torch.ones((), dtype=torch.float64)}, r"norm to be a scalar of torch.float32, got torch.float64"),
        ({"loss_scale": torch.ones((), dtype=torch.float16)}, r"loss_scale .* got torch.float16"),
        ({"counts": [torch.zeros((), dtype=torch.int64), torch.zeros(())]}, r"counts\[1\] .* got torch.float32"),
        ({"counts": []}, "counts, got none"),
    ],
    ids=["shape", "dtype", "scale", "count", "no count"],
)
def test_refusals_name_the_tensor(change, message, device):
    given = {"norm": torch.ones(()), "counts": [torch.zeros((), dtype=torch.int64)], "loss_scale": None} | change
    given = tree_map_only(torch.Tensor, lambda x: x.to(device), given)
    with pytest.raises(ValueError, match=rf"clip: expected {message}"):
        clip(**given)
