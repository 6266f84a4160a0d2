"""The two halves of a layer in C++: errors against fp64, bits of dropout, equal bits, contracts."""

from dataclasses import replace

import pytest
import torch
from block_cases import attention_case, both, feed_forward_case, gradients

from electra_fast.ops import testing
from electra_fast.ops.contracts import cpu_attention_block, cpu_feed_forward_block, cpu_library

pytestmark = pytest.mark.skipif(cpu_library.obstacle() is not None, reason=f"{cpu_library.obstacle()}")

# (lengths, heads, head size): vectors and panels full, broken and alone; one sequence, many, empty ones, long ones.
ATTENTION = [
    ([5], 3, 16),
    ([3, 7, 1], 2, 24),
    ([17, 0, 33], 1, 64),
    ([40, 34], 1, 80),
    ([0, 17, 0, 128], 4, 16),
    ([129, 64, 150], 1, 64),
    ([130], 1, 128),
    ([300], 2, 64),
    ([2, 2, 2], 5, 3),
    ([13, 8], 3, 7),
    ([21], 1, 200),
    ([128, 128], 4, 64),
]
FEED_FORWARD = [(1, 8, 8), (5, 16, 64), (29, 60, 84), (130, 256, 1024), (77, 48, 17), (33, 7, 13), (257, 128, 512)]


@pytest.fixture(autouse=True)
def poisoned_memory():
    with testing.poisoned():
        yield


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("lengths, n_heads, head_size", ATTENTION, ids=str)
def test_errors_of_the_first_half_are_within_the_budget(lengths, n_heads, head_size, causal, p):
    case = attention_case(lengths, n_heads, head_size, causal).dropping(p)
    testing.assert_within_budget(case.cpp, case.reference, case.tensors, **case.options)


@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("n_tokens, width, inner", FEED_FORWARD, ids=str)
def test_errors_of_the_second_half_are_within_the_budget(n_tokens, width, inner, p):
    case = feed_forward_case(n_tokens, width, inner).dropping(p)
    testing.assert_within_budget(case.cpp, case.reference, case.tensors, **case.options)


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(
    "case",
    [
        attention_case([9, 140], 3, 20),
        attention_case([23], 2, 64),
        attention_case([2, 5, 2], 5, 1),
        feed_forward_case(57, 60, 84),
        feed_forward_case(77, 48, 1),
    ],
    ids=lambda case: case.op,
)
def test_dropout_draws_the_bits_of_the_reference(case, p):
    """One other bit would be an error of the size of the results."""
    case = case.dropping(p)
    expected, found = (gradients(op, case.leaves(), **case.options) for op in (case.reference, case.cpp))
    for name, value in expected.items():
        atol = 1e-4 * max(1.0, value.abs().max().item())
        torch.testing.assert_close(found[name], value, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(
    "case",
    [attention_case([129, 0, 64, 3], 3, 20), attention_case([2] * 70, 4, 64), feed_forward_case(257, 128, 512)],
    ids=lambda case: case.op,
)
def test_runs_and_numbers_of_threads_give_the_same_bits(case, threads):
    case = case.dropping(0.1)
    runs = []
    for n in (1, 1, 2, 3):
        threads(n)
        runs.append(gradients(case.cpp, case.leaves(), **case.options))
    for other in runs[1:]:
        for name, value in runs[0].items():
            assert torch.equal(other[name], value), name


def test_results_do_not_depend_on_the_sequences_beside():
    case = attention_case([40, 34, 5], 2, 32)
    whole = case.cpp(**case.tensors, **case.options)
    alone = case.tensors | {"hidden": case.tensors["hidden"][40:74].clone()}
    options = case.options | {"cu_seqlens": torch.tensor([0, 34], dtype=torch.int32), "max_seqlen": 34}
    assert torch.equal(whole[40:74], case.cpp(**alone, **options))


# Tokens that are read: none, in no order, one thrice, all of a sequence and none of its neighbours, all in reverse.
READ = [[], [41, 0, 5, 41, 17, 41], list(range(17, 40)), list(range(42))[::-1]]


def reading(case, tokens):
    return replace(case, options=case.options | {"read": torch.tensor(tokens, dtype=torch.int64)})


@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("read", READ, ids=["none", "some", "neighbours", "all"])
def test_errors_of_some_rows_are_within_the_budget(read, causal, p):
    case = reading(attention_case([17, 0, 23, 2], 3, 20, causal).dropping(p), read)
    testing.assert_within_budget(case.cpp, case.reference, case.tensors, **case.options)


@pytest.mark.parametrize("p", [0.0, 0.1])
def test_some_rows_are_those_of_all_with_the_same_dropout(p):
    case, tokens = attention_case([40, 34, 5, 130], 2, 32).dropping(p), [77, 3, 200, 3, 78, 0, 150]
    some = reading(case, tokens).cpp(**case.tensors, **reading(case, tokens).options)
    torch.testing.assert_close(some, case.cpp(**case.tensors, **case.options)[tokens], rtol=1e-5, atol=1e-5)


def test_rows_that_are_read_have_the_same_bits_on_any_number_of_threads(threads):
    case = reading(attention_case([129, 0, 64, 3, 90], 4, 64).dropping(0.1), [*range(0, 286, 3), 5, 5, 285])
    runs = []
    for n in (1, 2, 3, 1):
        threads(n)
        runs.append(gradients(case.cpp, case.leaves(), **case.options))
    for other in runs[1:]:
        for name, value in runs[0].items():
            assert torch.equal(other[name], value), name


@pytest.mark.parametrize("token", [-1, 42, 2**40])
def test_a_token_to_read_that_is_none_is_refused(token):
    case = reading(attention_case([17, 0, 23, 2], 3, 20), [3, token])
    with pytest.raises(IndexError, match=rf"tokens to read must be in \[0, 42\), got {token}"):
        case.cpp(**case.tensors, **case.options)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_an_empty_batch_has_gradients_of_zero(lengths):
    for case in (attention_case(lengths, 2, 8), feed_forward_case(0, 16, 24)):
        found = gradients(case.cpp, case.leaves(), **case.options)
        assert found.pop("out").shape == (0, 16) and found.pop("hidden").shape == (0, 16)
        assert len(found) == len(case.tensors) - 1 and not any(x.any() for x in found.values())


def test_leading_dimensions_of_the_second_half():
    case = feed_forward_case(12, 16, 24)
    expected = gradients(case.cpp, case.leaves())
    padded = case.leaves() | {"hidden": case.tensors["hidden"].view(3, 4, 16).clone().requires_grad_()}
    for name, value in gradients(case.cpp, padded).items():
        assert torch.equal(value.view(expected[name].shape), expected[name]), name
    one = case.leaves() | {"hidden": case.tensors["hidden"][0].clone().requires_grad_()}
    for name, value in gradients(case.cpp, one).items():
        torch.testing.assert_close(value, gradients(case.reference, one)[name], msg=name)


def test_memory_of_a_token():
    """What is saved for the backward, as docs/ops.md says."""
    hidden = torch.zeros(10, 256)
    of_keys, of_all_else = 2 * 256 * 4, (1 + 1 + 1) * 256 * 4 + 4 * (2 * 4 + 2)
    for read, n_rows in ((None, 10), (torch.arange(3), 3)):
        _, saved = cpu_attention_block._room(hidden, read, 4, True)
        assert saved.nbytes <= 11 * of_keys + (n_rows + 1) * (of_all_else + 256)
    _, saved = cpu_feed_forward_block._room(hidden, [torch.zeros(1024, 256)], True)
    assert saved.shape[1] * 4 <= (1024 + 256 + 2) * 4 + 256


@pytest.mark.parametrize("p", [0.0, 0.1])
def test_contracts(p):
    attention, feed_forward = both()
    for op, case, others, options in (
        (
            cpu_attention_block,
            attention,
            [attention.options["cu_seqlens"], torch.tensor([20, 3, 3])],
            (3, 1e-12, p, p, True, [2**62 + 12345, 77]),
        ),
        (cpu_feed_forward_block, feed_forward, [], (1e-12, p, 99)),
    ):
        order = [f"{part}_{kind}" for kind in ("weight", "bias") for part in ("q", "k", "v", "out")]
        if case.op == "feed_forward_block":
            order = ["inner_weight", "outer_weight", "inner_bias", "outer_bias"]
        parameters = [case.tensors[name] for name in (*order, "norm_weight", "norm_bias")]
        call = case.tensors["hidden"], parameters, *others, *options
        out, saved = op.IN_CPP.forward(*call, True)
        # Memory between rows of what is saved is not written, so it is no result that can be compared.
        tests = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(op.IN_CPP.forward, (*call, True), test_utils=tests)
        torch.library.opcheck(op.IN_CPP.forward, (*call, False))
        wanted = [True, False] * (len(case.tensors) // 2) + [True] * (len(case.tensors) % 2)
        torch.library.opcheck(op.IN_CPP.backward, (torch.ones_like(out), saved, *call, wanted))
