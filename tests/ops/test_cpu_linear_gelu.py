"""A product with GELU in C++: errors against fp64, equal bits, contracts, and what it refuses."""

import pytest
import torch

from electra_fast.ops import reference, registry, testing
from electra_fast.ops.contracts import cpu_library, cpu_linear_gelu

pytestmark = pytest.mark.skipif(cpu_library.obstacle() is not None, reason=f"{cpu_library.obstacle()}")

# (rows, columns of x, columns of the result): panels and tasks full, broken and alone.
SIZES = [(1, 1, 1), (5, 16, 70), (33, 70, 16), (80, 128, 128), (300, 200, 65)]


def case(n_rows: int, in_features: int, out_features: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(n_rows)
    draw = lambda *size: torch.randn(size, generator=generator)  # noqa: E731
    return {
        "x": draw(n_rows, in_features),
        "weight": draw(out_features, in_features) / in_features**0.5,
        "bias": draw(out_features),
    }


@pytest.fixture(autouse=True)
def poisoned_memory():
    with testing.poisoned():
        yield


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_errors_are_within_the_budget(size):
    testing.assert_within_budget(cpu_linear_gelu.linear_gelu, reference.linear_gelu, case(*size))


def test_bits_do_not_depend_on_threads_nor_on_a_backward_that_follows():
    tensors, before, found = case(700, 192, 130), torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3, 1):
            torch.set_num_threads(n_threads)
            leaves = [x.clone().requires_grad_() for x in tensors.values()]
            out = cpu_linear_gelu.linear_gelu(*leaves)
            out.square().sum().backward()
            found.append([out, *(x.grad for x in leaves)])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))
    assert torch.equal(cpu_linear_gelu.linear_gelu(*tensors.values()), found[0][0])


def test_gradients_that_nobody_wants_are_left_out_and_others_stay():
    tensors = case(33, 70, 20)
    full = [x.clone().requires_grad_() for x in tensors.values()]
    cpu_linear_gelu.linear_gelu(*full).square().sum().backward()
    for i, name in enumerate(tensors):
        leaves = [x.clone().requires_grad_(other == name) for other, x in tensors.items()]
        cpu_linear_gelu.linear_gelu(*leaves).square().sum().backward()
        assert torch.equal(leaves[i].grad, full[i].grad), name


def test_gradients_can_be_differentiated():
    found = []
    for op in (cpu_linear_gelu.linear_gelu, reference.linear_gelu):
        leaves = [x.clone().requires_grad_() for x in case(5, 6, 7).values()]
        (grad,) = torch.autograd.grad(op(*leaves).sum(), leaves[0], create_graph=True)
        grad.square().sum().backward()
        found.append([x.grad for x in leaves])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(3, 4), (12,), (2, 3, 2), (), (0, 5)], ids=str)
def test_leading_dimensions(shape):
    x, weight, bias = case(12, 16, 9).values()
    x = x[0] if shape == () else x[:0].view(*shape, 16) if 0 in shape else x.view(*shape, 16)
    expected = reference.linear_gelu(x, weight, bias)
    torch.testing.assert_close(cpu_linear_gelu.linear_gelu(x, weight, bias), expected)


def test_no_rows_have_gradients_of_zero():
    leaves = [x.requires_grad_() for x in case(0, 8, 5).values()]
    out = cpu_linear_gelu.linear_gelu(*leaves)
    out.sum().backward()
    assert out.shape == (0, 5) and not any(x.grad.any() for x in leaves)


def test_what_cpp_cannot_read_goes_to_the_reference():
    for change in (lambda x: x.double(), lambda x: x.bfloat16(), lambda x: x.repeat_interleave(2, -1)[..., ::2]):
        tensors = [change(x) for x in case(7, 24, 24).values()]
        torch.testing.assert_close(cpu_linear_gelu.linear_gelu(*tensors), reference.linear_gelu(*tensors))
    with pytest.raises(RuntimeError, match="shapes"):
        cpu_linear_gelu.linear_gelu(torch.zeros(3, 5), torch.zeros(4, 6), torch.zeros(4))


def test_contracts():
    x, *parameters = case(7, 64, 20).values()
    out, saved = cpu_linear_gelu.linear_gelu_cpu_fwd(x, parameters, True)
    # Memory between rows of what is saved is not written, so it is no result that can be compared.
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(cpu_linear_gelu.linear_gelu_cpu_fwd, (x, parameters, True), test_utils=tests)
    call = torch.ones_like(out), saved, x, parameters, [True, False, True]
    torch.library.opcheck(cpu_linear_gelu.linear_gelu_cpu_bwd, call)


def test_auto_takes_it_on_a_cpu():
    assert registry.OPS["linear_gelu"].cpu is cpu_linear_gelu.linear_gelu
