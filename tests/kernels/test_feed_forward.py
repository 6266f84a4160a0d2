"""feed_forward_block: errors, bits of the dropout, repeatability, frozen parameters, second derivatives, contracts."""

import pytest
import torch
from electra_fast.kernels import feed_forward as kernels
from electra_fast.kernels import linear_norm

from electra_fast.ops import reference, reference_blocks
from electra_fast.ops.contracts import feed_forward_block as contract
from electra_fast.ops.testing import assert_within_budget

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# (tokens, H, F): one tile and several, widths of the presets, and such as no tile divides; above 256 rows are too wide.
SHAPES = [(1, 64, 128), (131, 256, 300), (70, 64, 256), (3, 768, 520), (7, 100, 50), (0, 64, 64)]


def make(n_tokens, h, f, dtype, device):
    def randn(*shape, scale=1.0):
        return (scale * torch.randn(shape, device=device)).to(dtype)

    return {
        "hidden": randn(n_tokens, h),
        "inner_weight": randn(f, h, scale=h**-0.5),
        "inner_bias": randn(f, scale=0.1),
        "outer_weight": randn(h, f, scale=f**-0.5),
        "outer_bias": randn(h, scale=0.1),
        "norm_weight": 1 + randn(h, scale=0.1),
        "norm_bias": randn(h, scale=0.1),
    }


def gradients(op, tensors, *frozen, **options):
    given = {name: x.detach().clone().requires_grad_(name not in frozen) for name, x in tensors.items()}
    out = op(**given, eps=1e-12, **options)
    out.backward(torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).to(out.dtype))
    return {"out": out.detach()} | {name: x.grad for name, x in given.items()}


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_errors_are_within_the_budget(shape, dtype, dropout_p, device):
    assert_within_budget(
        contract.feed_forward_block,
        reference_blocks.feed_forward_block,
        make(*shape, dtype, device),
        eps=1e-12,
        dropout_p=dropout_p,
        seed=torch.tensor([2**62 + 12345], device=device),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("h", [64, 100, 256])
def test_dropout_draws_the_bits_of_the_reference(h, dtype, device):
    n_tokens = 150
    x, seed = torch.ones(n_tokens, 16, dtype=dtype, device=device), torch.tensor([987654321 << 20], device=device)
    weight, zeros = x.new_zeros(h, 16), x.new_zeros(n_tokens, h)
    bias = x.new_ones(h)
    summed = linear_norm.linear_norm_fwd(x, weight, bias, zeros, bias, bias, seed, 1e-12, 0.3, True)[1]
    assert torch.equal(summed, reference.dropout(bias.expand(n_tokens, h), 0.3, seed))


def test_two_runs_are_bit_equal(device):
    tensors, seed = make(131, 64, 300, torch.bfloat16, device), torch.tensor([3], device=device)
    one, other = (gradients(contract.feed_forward_block, tensors, dropout_p=0.1, seed=seed) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


@torch.no_grad()
def test_without_a_gradient_the_output_is_the_same_and_nothing_is_saved(device):
    tensors = make(9, 64, 128, torch.bfloat16, device)
    y, *saved = contract.feed_forward_block_fwd(*tensors.values(), None, 1e-12, 0.0, True)
    assert all(x.numel() > 0 for x in saved)
    assert torch.equal(contract.feed_forward_block(**tensors, eps=1e-12), y)
    assert all(x.numel() == 0 for x in contract.feed_forward_block_fwd(*tensors.values(), None, 1e-12, 0.0, False)[1:])


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
@pytest.mark.parametrize(
    "frozen",
    [
        ["hidden"],
        ["inner_weight", "norm_bias"],
        ["hidden", "inner_weight", "inner_bias"],
        ["inner_weight", "inner_bias", "outer_weight", "outer_bias", "norm_weight", "norm_bias"],
    ],
    ids=" ".join,
)
def test_frozen_tensors_get_no_gradient_and_change_no_other(frozen, dropout_p, device):
    tensors, seed = make(9, 64, 128, torch.float32, device), torch.tensor([3], device=device)
    everything = gradients(contract.feed_forward_block, tensors, dropout_p=dropout_p, seed=seed)
    some = gradients(contract.feed_forward_block, tensors, *frozen, dropout_p=dropout_p, seed=seed)
    for name, value in some.items():
        assert value is None if name in frozen else torch.equal(value, everything[name]), name


def test_products_that_nobody_wants_are_not_computed(device, monkeypatch):
    computed = []
    for name in ("matmul", "gelu_bwd"):
        function = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *args, f=function, n=name: (computed.append(n), f(*args))[1])
    tensors = make(9, 64, 128, torch.float32, device)
    gradients(contract.feed_forward_block, tensors, "hidden", "inner_weight", "inner_bias")
    assert computed == ["matmul"]


def test_the_backward_can_be_differentiated(device):
    tensors, seed = make(5, 16, 24, torch.float32, device), torch.tensor([3], device=device)

    def second(op):
        given = {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}
        out = op(**given, eps=1e-12, dropout_p=0.2, seed=seed)
        first = torch.autograd.grad(out.sin().sum(), list(given.values()), create_graph=True)
        return torch.autograd.grad(sum(x.square().sum() for x in first), list(given.values()))

    for ours, expected in zip(
        second(contract.feed_forward_block), second(reference_blocks.feed_forward_block), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_strided_inputs_and_batches_give_the_same(device):
    tensors = make(6, 64, 128, torch.float32, device)
    expected = contract.feed_forward_block(**tensors, eps=1e-12)
    strided = {name: x.T.contiguous().T if x.dim() == 2 else x for name, x in tensors.items()}
    assert torch.equal(contract.feed_forward_block(**strided, eps=1e-12), expected)
    batched = tensors | {"hidden": tensors["hidden"].view(2, 3, 64)}
    assert torch.equal(contract.feed_forward_block(**batched, eps=1e-12), expected.view(2, 3, 64))


@pytest.mark.parametrize("wanted", [[True] * 4, [False, False, False, True]], ids=str)
def test_contracts(wanted, device):
    tensors, seed = make(9, 64, 128, torch.float32, device), torch.tensor([1], device=device)
    forward = contract.feed_forward_block_fwd
    torch.library.opcheck(forward, (*tensors.values(), seed, 1e-12, 0.1, True))
    # Empty outputs share the null pointer, which test_schema takes for an alias.
    torch.library.opcheck(forward, (*tensors.values(), None, 1e-12, 0.0, False), test_utils="test_faketensor")
    y, *saved = forward(*tensors.values(), seed, 1e-12, 0.1, True)
    given = [tensors[name] for name in ("hidden", "inner_weight", "outer_weight", "norm_weight")]
    tests = ("test_schema", "test_faketensor") if all(wanted) else "test_faketensor"
    torch.library.opcheck(contract.feed_forward_block_bwd, (y, *given, seed, *saved, 0.1, wanted), test_utils=tests)


def test_the_compiler_sees_one_graph(device):
    tensors, seed = make(9, 64, 128, torch.float32, device), torch.tensor([3], device=device)
    compiled = torch.compile(contract.feed_forward_block, fullgraph=True, backend="aot_eager")
    expected = gradients(contract.feed_forward_block, tensors, dropout_p=0.1, seed=seed)
    found = gradients(compiled, tensors, dropout_p=0.1, seed=seed)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_refusals_name_the_tensor(device):
    tensors = make(2, 64, 128, torch.float32, device)
    with pytest.raises(ValueError, match=r"feed_forward_block: expected outer_bias of torch.float32, as hidden is"):
        contract.feed_forward_block(**tensors | {"outer_bias": tensors["outer_bias"].bfloat16()}, eps=1e-12)
    with pytest.raises(ValueError, match="dropout_p must be between 0 and 1"):
        contract.feed_forward_block(**tensors, eps=1e-12, dropout_p=1.5)
