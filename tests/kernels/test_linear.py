"""linear_gelu: the activation itself, errors, repeatability, contracts and refusals."""

import pytest
import torch

from electra_fast.ops import reference
from electra_fast.ops.contracts import linear
from electra_fast.ops.testing import assert_within_budget

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# (tokens, H, F)
SHAPES = [(1, 64, 128), (13, 256, 1024), (513, 64, 64), (3, 768, 300), (5, 1024, 512), (7, 100, 50), (0, 64, 64)]


def make(n_tokens, hidden, intermediate, dtype, device):
    x = torch.randn(n_tokens, hidden, device=device)
    weight = torch.randn(intermediate, hidden, device=device) / hidden**0.5
    bias = 0.1 * torch.randn(intermediate, device=device)
    return {"x": x.to(dtype), "weight": weight.to(dtype), "bias": bias.to(dtype)}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_errors_are_within_the_budget(shape, dtype, device):
    assert_within_budget(linear.linear_gelu, reference.linear_gelu, make(*shape, dtype, device))


def test_gelu_and_its_derivative_are_exact_over_the_whole_line(device):
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-1e30, -1000.0, -0.0, 1e-30, 1000.0, 1e30])]).to(device)
    one, zero = torch.ones(1, 1, device=device), torch.zeros(1, device=device)
    x = x[:, None].requires_grad_()
    y = linear.linear_gelu(x, one, zero)
    y.sum().backward()
    exact = x.detach().double().requires_grad_()
    reference.ACTIVATIONS["gelu"](exact).sum().backward()
    truth = reference.ACTIVATIONS["gelu"](exact.detach())
    torch.testing.assert_close(y.detach().double(), truth, rtol=6e-8, atol=1e-7)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=0, atol=2e-7)
    inner = (x.detach() < 0) & (x.detach() > -5)
    torch.testing.assert_close(y.detach().double()[inner], truth[inner], rtol=2e-3, atol=0)


def test_two_runs_are_bit_equal(device):
    def run():
        torch.manual_seed(3)
        tensors = {name: x.requires_grad_() for name, x in make(131, 64, 300, torch.bfloat16, device).items()}
        y = linear.linear_gelu(**tensors)
        y.sin().sum().backward()
        return [y, *(x.grad for x in tensors.values())]

    for one, other in zip(run(), run(), strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_without_a_gradient_the_output_is_the_same(device):
    tensors = make(9, 64, 128, torch.bfloat16, device)
    expected, pre = linear.linear_gelu_fwd(*tensors.values(), True)
    assert pre.shape == expected.shape
    assert torch.equal(linear.linear_gelu(**tensors), expected)


def test_strided_inputs_give_the_same_as_contiguous_ones(device):
    tensors = make(6, 64, 128, torch.float32, device)
    expected = linear.linear_gelu(**tensors)
    strided = {name: x.T.contiguous().T if x.dim() == 2 else x for name, x in tensors.items()}
    assert torch.equal(linear.linear_gelu(**strided), expected)
    batched = tensors | {"x": tensors["x"].view(2, 3, 64)}
    assert torch.equal(linear.linear_gelu(**batched), expected.view(2, 3, 128))


def test_a_gradient_of_any_stride(device):
    tensors = {name: x.requires_grad_() for name, x in make(6, 64, 128, torch.float32, device).items()}
    y = linear.linear_gelu(**tensors)
    dy = torch.randn(128, 6, device=device).T
    one = torch.autograd.grad(y, tensors.values(), dy, retain_graph=True)
    other = torch.autograd.grad(y, tensors.values(), dy.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_contracts(device):
    tensors = make(9, 64, 128, torch.float32, device)
    torch.library.opcheck(linear.linear_gelu_fwd, (*tensors.values(), True))
    torch.library.opcheck(linear.linear_gelu_fwd, (*tensors.values(), False))
    dy, pre = torch.randn(2, 9, 128, device=device)
    torch.library.opcheck(linear.linear_gelu_bwd, (dy, pre, tensors["x"], tensors["weight"]))


def test_refusals_name_the_tensor(device):
    tensors = make(2, 64, 128, torch.float32, device)
    with pytest.raises(ValueError, match=r"linear_gelu: expected weight of torch.float32, as x is, got torch.bfloat16"):
        linear.linear_gelu(**tensors | {"weight": tensors["weight"].bfloat16()})
    with pytest.raises(ValueError, match=r"float32, bfloat16 and float16, got x of torch.float64"):
        linear.linear_gelu(**{name: x.double() for name, x in tensors.items()})
    with pytest.raises(ValueError, match=r"bias on .*, as x is, got meta"):
        linear.linear_gelu(**tensors | {"bias": tensors["bias"].to("meta")})
