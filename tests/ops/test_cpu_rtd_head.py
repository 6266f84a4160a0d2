"""The replaced-token head in C++: errors against fp64, equal bits, contracts, and what it refuses."""

import pytest
import torch

from electra_fast.ops import reference, registry, testing
from electra_fast.ops.contracts import cpu_library, cpu_rtd_head

pytestmark = pytest.mark.skipif(cpu_library.obstacle() is not None, reason=f"{cpu_library.obstacle()}")

# (tokens, width): panels and tasks full, broken and alone.
SIZES = [(1, 1), (5, 16), (33, 70), (512, 128), (77, 200), (193, 64)]


def case(n_tokens: int, width: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(n_tokens)
    draw = lambda *size: torch.randn(size, generator=generator)  # noqa: E731
    return {
        "hidden": draw(n_tokens, width),
        "dense_weight": draw(width, width) / width**0.5,
        "dense_bias": draw(width),
        "prediction_weight": draw(1, width),
        "prediction_bias": draw(1),
    }


def labels_of(n_tokens: int) -> torch.Tensor:
    """Tokens that count, replaced or not, and some that do not."""
    return (torch.arange(n_tokens) * 7 % 5 - 1).clamp(max=1)


@pytest.fixture(autouse=True)
def poisoned_memory():
    with testing.poisoned():
        yield


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_errors_of_logits_are_within_the_budget(size):
    logits = lambda op: lambda **tensors: op(**tensors)[1]  # noqa: E731
    testing.assert_within_budget(logits(cpu_rtd_head.rtd_head), logits(reference.rtd_head), case(*size))


@pytest.mark.parametrize("to", [torch.int8, torch.int64, torch.bool], ids=str)
@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_the_loss_and_its_gradients_are_the_references(size, to):
    found, labels = [], labels_of(size[0]).to(to)
    for op in (cpu_rtd_head.rtd_head, reference.rtd_head):
        leaves = [x.clone().requires_grad_() for x in case(*size).values()]
        loss, _ = op(*leaves, labels)
        loss.backward()
        found.append([loss, *(x.grad for x in leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_bits_do_not_depend_on_threads():
    tensors, before, found = case(700, 192), torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3, 1):
            torch.set_num_threads(n_threads)
            leaves = [x.clone().requires_grad_() for x in tensors.values()]
            loss, logits = cpu_rtd_head.rtd_head(*leaves, labels_of(700))
            (loss + logits.square().mean()).backward()
            found.append([loss, logits, *(x.grad for x in leaves)])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_gradients_that_nobody_wants_are_left_out_and_others_stay():
    tensors = case(33, 70)
    full = [x.clone().requires_grad_() for x in tensors.values()]
    cpu_rtd_head.rtd_head(*full)[1].sum().backward()
    for i, name in enumerate(tensors):
        leaves = [x.clone().requires_grad_(other == name) for other, x in tensors.items()]
        cpu_rtd_head.rtd_head(*leaves)[1].sum().backward()
        assert torch.equal(leaves[i].grad, full[i].grad), name


def test_gradients_can_be_differentiated():
    found = []
    for op in (cpu_rtd_head.rtd_head, reference.rtd_head):
        leaves = [x.clone().requires_grad_() for x in case(5, 6).values()]
        (grad,) = torch.autograd.grad(op(*leaves)[1].sum(), leaves[0], create_graph=True)
        grad.square().sum().backward()
        found.append([leaves[i].grad for i in (0, 1, 2, 3)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(3, 4), (12,), (2, 3, 2), ()], ids=str)
def test_leading_dimensions(shape):
    tensors = case(12, 16)
    hidden = tensors.pop("hidden")
    hidden = hidden[0] if shape == () else hidden.view(*shape, 16)
    labels = labels_of(12)[1] if shape == () else labels_of(12).view(shape)
    for ours, theirs in zip(
        cpu_rtd_head.rtd_head(hidden, *tensors.values(), labels),
        reference.rtd_head(hidden, *tensors.values(), labels),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_no_tokens_have_gradients_of_zero():
    leaves = [x.requires_grad_() for x in case(0, 8).values()]
    _, logits = cpu_rtd_head.rtd_head(*leaves)
    logits.sum().backward()
    assert logits.shape == (0,) and not any(x.grad.any() for x in leaves)


def test_what_cpp_cannot_read_goes_to_the_reference():
    for change in (lambda x: x.double(), lambda x: x.repeat_interleave(2, -1)[..., ::2]):
        tensors = [change(x) for x in case(7, 24).values()]
        expected = reference.rtd_head(*tensors, labels_of(7))
        for ours, theirs in zip(cpu_rtd_head.rtd_head(*tensors, labels_of(7)), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_contracts():
    hidden, *parameters = case(7, 64).values()
    logits, saved = cpu_rtd_head.rtd_logits_cpu_fwd(hidden, parameters, True)
    # Memory between rows of what is saved is not written, so it is no result that can be compared.
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(cpu_rtd_head.rtd_logits_cpu_fwd, (hidden, parameters, True), test_utils=tests)
    call = torch.ones_like(logits), saved, hidden, parameters, [True, False, True, True, True]
    torch.library.opcheck(cpu_rtd_head.rtd_logits_cpu_bwd, call)


def test_auto_takes_it_on_a_cpu():
    assert registry.OPS["rtd_head"].cpu is cpu_rtd_head.rtd_head
