"""The two halves of a layer in C++ on bfloat16: errors against fp64, bits, and what the reference serves."""

from dataclasses import replace

import pytest
import torch
from block_cases import attention_case, both, feed_forward_case, gradients

from electra_fast.ops import cpu, testing
from electra_fast.ops.contracts import cpu_attention_block, cpu_feed_forward_block, cpu_library

needs_bf16 = pytest.mark.skipif(cpu_library.bf16_obstacle() is not None, reason=f"{cpu_library.bf16_obstacle()}")

DTYPES = (torch.float32, torch.bfloat16)

# Panels of 64 columns full, broken and alone; odd numbers of tokens; slices of 512 columns and tokens.
ATTENTION = [
    ([40], 3, 16),
    ([17, 0, 34], 1, 64),
    ([0, 17, 0, 128], 4, 16),
    ([130], 1, 128),
    ([13, 8, 9], 2, 9),
    ([21], 1, 200),
    ([128, 128], 12, 64),
    ([600], 2, 34),
]
FEED_FORWARD = [(5, 16, 64), (29, 60, 84), (130, 256, 1024), (77, 48, 18), (601, 64, 130)]


@pytest.fixture(autouse=True)
def poisoned_memory():
    with testing.poisoned():
        yield


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def in_bf16(case):
    return replace(case, tensors={name: x.bfloat16() for name, x in case.tensors.items()})


@needs_bf16
@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("lengths, n_heads, head_size", ATTENTION, ids=str)
def test_errors_of_the_first_half_are_within_the_budget(lengths, n_heads, head_size, causal, p):
    case = in_bf16(attention_case(lengths, n_heads, head_size, causal).dropping(p))
    testing.assert_within_budget(case.cpp, case.reference, case.tensors, **case.options)


@needs_bf16
@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("n_tokens, width, inner", FEED_FORWARD, ids=str)
def test_errors_of_the_second_half_are_within_the_budget(n_tokens, width, inner, p):
    case = in_bf16(feed_forward_case(n_tokens, width, inner).dropping(p))
    testing.assert_within_budget(case.cpp, case.reference, case.tensors, **case.options)


@needs_bf16
@pytest.mark.parametrize(
    "case", [attention_case([129, 0, 64, 3], 3, 20), feed_forward_case(257, 128, 512)], ids=lambda case: case.op
)
def test_runs_and_numbers_of_threads_give_the_same_bits(case, threads):
    case = in_bf16(case.dropping(0.1))
    runs = []
    for n in (1, 1, 2, 3):
        threads(n)
        runs.append(gradients(case.cpp, case.leaves(), **case.options))
    for other in runs[1:]:
        for name, value in runs[0].items():
            assert torch.equal(other[name], value), name


@needs_bf16
def test_an_empty_batch_has_gradients_of_zero():
    for case in (attention_case([0], 2, 8), feed_forward_case(0, 16, 24)):
        found = gradients(case.cpp, in_bf16(case).leaves(), **case.options)
        assert not any(x.any() for x in found.values())


@needs_bf16
def test_nan_and_infinity_are_not_lost():
    """A number that is none in one token stays so in this token, and does not reach a sequence beside it."""
    case = in_bf16(attention_case([4, 5], 2, 8))
    for bad in (torch.nan, torch.inf):
        tensors = {**case.tensors, "hidden": case.tensors["hidden"].clone()}
        tensors["hidden"][1, 3] = bad
        out = case.cpp(**tensors, **case.options)
        assert out[1].isnan().all() and out[4:].isfinite().all()


@needs_bf16
def test_half_of_the_memory_of_float32():
    sizes = [cpu_attention_block._room(torch.zeros(10, 256, dtype=d), None, 4, True)[1].nbytes for d in DTYPES]
    assert sizes[1] < 0.51 * sizes[0]
    inner = [torch.zeros(1024, 256)]
    sizes = [cpu_feed_forward_block._room(torch.zeros(10, 256, dtype=d), inner, True)[1].nbytes for d in DTYPES]
    assert sizes[1] < 0.51 * sizes[0]


@needs_bf16
@pytest.mark.parametrize("case", both(), ids=lambda case: case.op)
def test_cpp_serves_bfloat16(case, monkeypatch):
    called = []
    op = cpu_library.CpuOp.__call__
    monkeypatch.setattr(cpu_library.CpuOp, "__call__", lambda *args: called.append(args[2][0].dtype) or op(*args))
    gradients(case.cpp, in_bf16(case).leaves(), **case.options)
    assert called == [torch.bfloat16]


def test_the_reference_serves_odd_sizes_and_float16(monkeypatch):
    monkeypatch.setattr(cpu_library.CpuOp, "__call__", lambda *args: pytest.fail("C++ ran"))
    for case in (attention_case([3], 3, 7), feed_forward_case(4, 8, 5), feed_forward_case(4, 7, 4)):
        case = in_bf16(case)
        assert torch.equal(case.cpp(**case.tensors, **case.options), case.reference(**case.tensors, **case.options))
    case = feed_forward_case(4, 8, 4)
    tensors = {name: x.half() for name, x in case.tensors.items()}
    assert torch.equal(case.cpp(**tensors), case.reference(**tensors))


@needs_bf16
def test_cpp_names_what_it_cannot_take():
    with pytest.raises(ValueError, match="intermediate_size must be even for bfloat16, got 5"):
        cpu.extension.bfloat16.feed_forward_block_saved(8, 5, "avx512")
    assert not cpu.extension.bfloat16.has_blocks("avx2")
    with pytest.raises(RuntimeError, match="bfloat16"):
        cpu.extension.bfloat16.feed_forward_block_saved(8, 6, "avx2")


def test_a_lesser_instruction_set_has_no_bfloat16(monkeypatch):
    monkeypatch.setenv("ELECTRA_FAST_ISA", "avx2")
    if cpu_library.obstacle() is None:
        assert cpu_library.bf16_obstacle() == "ELECTRA_FAST_ISA=avx2 allows no AVX512_BF16"
