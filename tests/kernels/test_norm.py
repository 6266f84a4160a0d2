"""dropout_add_norm: errors, bits of the dropout, repeatability, contracts and refusals."""

import pytest
import torch

from electra_fast.ops import reference
from electra_fast.ops.contracts import norm
from electra_fast.ops.testing import assert_within_budget

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 64), (13, 256), (513, 64), (3, 768), (5, 1024), (7, 100), (0, 64)]


def make(n_tokens, hidden, dtype, device):
    x, residual = torch.randn(2, n_tokens, hidden, device=device).to(dtype)
    weight, bias = 1 + 0.1 * torch.randn(hidden, device=device), 0.1 * torch.randn(hidden, device=device)
    return {"x": x, "residual": residual, "weight": weight.to(dtype), "bias": bias.to(dtype)}


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_errors_are_within_the_budget(shape, dtype, dropout_p, device):
    tensors = make(*shape, dtype, device)
    seed = torch.tensor([2**62 + 12345], device=device)
    assert_within_budget(
        norm.dropout_add_norm, reference.dropout_add_norm, tensors, eps=1e-12, dropout_p=dropout_p, seed=seed
    )


@pytest.mark.parametrize("hidden", [64, 100, 768])
def test_dropout_draws_the_bits_of_the_reference(hidden, device):
    x, zeros = torch.ones(37, hidden, device=device), torch.zeros(37, hidden, device=device)
    seed = torch.tensor([987654321 << 20], device=device)
    dropped = norm.dropout_add_norm_fwd(x, zeros, zeros[0], zeros[0], seed, 1e-12, 0.3, True)[1]
    assert torch.equal(dropped, reference.dropout(x, 0.3, seed))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_of_equal_values_gives_the_bias(dtype, device):
    x = torch.zeros(2, 64, dtype=dtype, device=device)
    weight, bias = torch.ones(64, dtype=dtype, device=device), torch.full((64,), 0.5, dtype=dtype, device=device)
    assert torch.equal(norm.dropout_add_norm(x, x, weight, bias, 1e-12), bias.expand(2, 64))


def test_two_runs_with_one_seed_are_bit_equal(device):
    def run():
        torch.manual_seed(3)
        tensors = {name: x.requires_grad_() for name, x in make(131, 64, torch.bfloat16, device).items()}
        y = norm.dropout_add_norm(**tensors, eps=1e-12, dropout_p=0.1)
        y.sin().sum().backward()
        return [y, *(x.grad for x in tensors.values())]

    for one, other in zip(run(), run(), strict=True):
        assert torch.equal(one, other)


def test_strided_inputs_give_the_same_as_contiguous_ones(device):
    tensors = make(6, 64, torch.float32, device)
    expected = norm.dropout_add_norm(**tensors, eps=1e-12)
    tensors["x"] = tensors["x"].T.contiguous().T
    assert torch.equal(norm.dropout_add_norm(**tensors, eps=1e-12), expected)
    batched = {name: x.view(2, 3, 64) if x.dim() == 2 else x for name, x in tensors.items()}
    assert torch.equal(norm.dropout_add_norm(**batched, eps=1e-12), expected.view(2, 3, 64))


def test_contracts(device):
    tensors = make(9, 64, torch.float32, device)
    seed = torch.tensor([1], device=device)
    forward = norm.dropout_add_norm_fwd
    torch.library.opcheck(forward, (*tensors.values(), seed, 1e-12, 0.1, True))
    # Empty outputs share the null pointer, which test_schema takes for an alias.
    torch.library.opcheck(forward, (*tensors.values(), None, 1e-12, 0.0, False), test_utils="test_faketensor")
    _, summed, mean, rstd = forward(*tensors.values(), seed, 1e-12, 0.1, True)
    torch.library.opcheck(norm.dropout_add_norm_bwd, (tensors["x"], summed, mean, rstd, tensors["weight"], seed, 0.1))


def test_refusals_name_the_tensor(device):
    tensors = make(2, 64, torch.float32, device)
    with pytest.raises(ValueError, match=r"expected weight of torch.float32, as x is, got torch.bfloat16"):
        norm.dropout_add_norm(**tensors | {"weight": tensors["weight"].bfloat16()}, eps=1e-12)
    with pytest.raises(ValueError, match=r"float32, bfloat16 and float16, got x of torch.float64"):
        norm.dropout_add_norm(**{name: x.double() for name, x in tensors.items()}, eps=1e-12)
    with pytest.raises(ValueError, match=r"residual on .*, as x is, got meta"):
        norm.dropout_add_norm(**tensors | {"residual": tensors["residual"].to("meta")}, eps=1e-12)
    with pytest.raises(ValueError, match="dropout_p must be between 0 and 1"):
        norm.dropout_add_norm(**tensors, eps=1e-12, dropout_p=1.5)
