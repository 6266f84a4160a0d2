"""The vocabulary head in C++: errors against fp64, samples, equal bits, contracts, and what it refuses."""

import pytest
import torch

from electra_fast.ops import reference, registry, testing
from electra_fast.ops.contracts import cpu_library, cpu_mlm_head

pytestmark = pytest.mark.skipif(cpu_library.obstacle() is not None, reason=f"{cpu_library.obstacle()}")

# (rows, width, vocabulary): panels full, broken and alone; more logits than are kept; more rows than are in memory at
# once; none.
SIZES = [
    (1, 8, 5),
    (7, 24, 70),
    (5, 64, 64),
    (33, 48, 1000),
    (130, 128, 517),
    (40, 8, 60_000),
    (800, 16, 90),
    (0, 8, 9),
]


def case(n_rows: int, width: int, vocabulary: int) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """(hidden, weight and bias, labels, uniform numbers)."""
    generator = torch.Generator().manual_seed(n_rows)
    draw = lambda *size: torch.randn(size, generator=generator)  # noqa: E731
    tensors = {"hidden": draw(n_rows, width), "weight": draw(vocabulary, width) * 0.3, "bias": draw(vocabulary)}
    labels = torch.randint(vocabulary, (n_rows,), generator=generator)
    return tensors, labels, torch.rand(n_rows, generator=generator)


@pytest.fixture(autouse=True)
def poisoned_memory():
    with testing.poisoned():
        yield


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_errors_are_within_the_budget(size):
    tensors, labels, _ = case(*size)
    testing.assert_within_budget(cpu_mlm_head.mlm_head, reference.mlm_head, tensors, labels=labels)


@pytest.mark.parametrize("temperature, never_label", [(1.0, False), (2.0, False), (0.5, True)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_samples_are_those_of_exact_numbers(size, temperature, never_label):
    tensors, labels, uniform = case(*size)
    _, is_correct, samples = cpu_mlm_head.mlm_head(*tensors.values(), labels, uniform, temperature, never_label)
    exact = [x.double() for x in tensors.values()]
    _, expected_correct, expected = reference.mlm_head(*exact, labels, uniform, temperature, never_label)
    assert torch.equal(is_correct, expected_correct)
    assert (samples != expected).sum() <= len(samples) // 200  # numbers that fall on the border of two tokens
    if never_label:
        assert not (samples == labels).any()


def test_a_temperature_may_be_a_tensor():
    tensors, labels, uniform = case(33, 48, 1000)
    given = (*tensors.values(), labels, uniform)
    samples = [cpu_mlm_head.mlm_head(*given, temperature)[2] for temperature in (1.0, 2.0, torch.tensor(2.0))]
    assert torch.equal(samples[1], samples[2])
    assert not torch.equal(samples[0], samples[2])


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_samples_at_the_ends_of_the_distribution_can_be_drawn(number):
    """A token with a probability of zero is never one of them."""
    hidden, weight = torch.ones(3, 1), torch.zeros(200, 1)
    bias = torch.full((200,), -torch.inf)
    bias[70:130] = 0
    labels, uniform = torch.tensor([70, 100, 129]), torch.full((3,), number)
    _, _, samples = cpu_mlm_head.mlm_head(hidden, weight, bias, labels, uniform)
    assert samples.tolist() == [70 if number == 0 else 129] * 3
    _, _, samples = cpu_mlm_head.mlm_head(hidden, weight, bias, labels, uniform, never_label=True)
    assert samples.tolist() == ([71, 70, 70] if number == 0 else [129, 129, 128])


def test_a_loss_that_is_none_shows():
    tensors, labels, uniform = case(7, 24, 70)
    tensors["hidden"][2, 3] = torch.nan
    losses, is_correct, samples = cpu_mlm_head.mlm_head(*tensors.values(), labels, uniform)
    assert losses.isnan().tolist() == [i == 2 for i in range(7)] and not is_correct[2]
    assert ((samples >= 0) & (samples < 70)).all()


@pytest.mark.parametrize("size", [(800, 16, 90), (33, 48, 1000)], ids=["computed-again", "kept"])
def test_bits_do_not_depend_on_threads(size):
    tensors, labels, uniform = case(*size)
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3, 1):
            torch.set_num_threads(n_threads)
            leaves = [x.clone().requires_grad_() for x in tensors.values()]
            losses, _, samples = cpu_mlm_head.mlm_head(*leaves, labels, uniform)
            losses.square().sum().backward()
            found.append([losses, samples, *(x.grad for x in leaves)])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_a_second_backward_finds_what_was_kept():
    tensors, labels, _ = case(33, 48, 1000)
    leaves = [x.clone().requires_grad_() for x in tensors.values()]
    loss = cpu_mlm_head.mlm_head(*leaves, labels)[0].sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(loss, leaves), strict=True))


def test_gradients_that_nobody_wants_are_left_out_and_others_stay():
    tensors, labels, _ = case(33, 48, 1000)
    full = [x.clone().requires_grad_() for x in tensors.values()]
    cpu_mlm_head.mlm_head(*full, labels)[0].sum().backward()
    for i, name in enumerate(tensors):
        leaves = [x.clone().requires_grad_(other == name) for other, x in tensors.items()]
        cpu_mlm_head.mlm_head(*leaves, labels)[0].sum().backward()
        assert torch.equal(leaves[i].grad, full[i].grad)


def test_gradients_can_be_differentiated():
    tensors, labels, _ = case(5, 6, 11)
    found = []
    for op in (cpu_mlm_head.mlm_head, reference.mlm_head):
        leaves = [x.clone().requires_grad_() for x in tensors.values()]
        (grad,) = torch.autograd.grad(op(*leaves, labels)[0].sum(), leaves[0], create_graph=True)
        grad.square().sum().backward()
        found.append([x.grad for x in leaves])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_labels_outside_of_the_vocabulary_are_refused():
    tensors, labels, _ = case(7, 24, 70)
    for label in (-100, -1, 70, 2**40):
        with pytest.raises(IndexError, match=rf"labels must be in \[0, 70\), got {label}"):
            cpu_mlm_head.mlm_head(*tensors.values(), labels.index_fill(0, torch.tensor([3]), label))


def test_what_cpp_cannot_read_goes_to_the_reference():
    tensors, labels, uniform = case(7, 24, 70)
    expected = reference.mlm_head(*tensors.values(), labels, uniform)
    strided = labels.repeat_interleave(2)[::2]
    for others in ((strided, uniform), (labels, uniform.double()), (labels, uniform.repeat_interleave(2)[::2])):
        for ours, theirs in zip(cpu_mlm_head.mlm_head(*tensors.values(), *others), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_contracts():
    tensors, labels, uniform = case(7, 24, 70)
    hidden, *parameters = tensors.values()
    torch.library.opcheck(
        torch.ops.electra_fast.mlm_head_cpu_fwd.default,
        (hidden, parameters, labels, uniform, 1.0, False, True),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_auto_takes_it_on_a_cpu():
    assert registry.OPS["mlm_head"].cpu is cpu_mlm_head.mlm_head
