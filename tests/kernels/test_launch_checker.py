"""The checker of launches finds each fault that is planted, names it, and leaves alone what only looks like one."""

import importlib
import pkgutil

import pytest
import torch
import triton
import triton.language as tl
from electra_fast.benchmarks.ops import resources_calls
from launch_checker import Fault, checking

from electra_fast import ElectraConfig, kernels
from electra_fast.ops.contracts.library import IS_INTERPRETED
from electra_fast.ops.registry import OPS

pytestmark = pytest.mark.skipif(not IS_INTERPRETED, reason="the checker watches Triton's interpreter")

BLOCK, N = 8, 20  # of three programs the last has 4 of 8 lanes masked off


@triton.jit
def sum_kernel(x_ptr, out_ptr, n, STRIDE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + tl.program_id(0) * STRIDE, tl.sum(x, axis=0))


@triton.jit
def shift_kernel(x_ptr, out_ptr, n, SHIFT: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at + SHIFT, mask=(at < n) & (at + SHIFT < n), other=0.0)
    tl.store(out_ptr + at, x, mask=at < n)


@triton.jit
def reverse(scratch_ptr, at, n):
    return tl.load(scratch_ptr + n - 1 - at, mask=at < n)


@triton.jit
def reverse_kernel(x_ptr, scratch_ptr, out_ptr, n, VIA_MEMORY: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(scratch_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)
    x = reverse(scratch_ptr, at, n) if VIA_MEMORY else reverse(x_ptr, at, n)
    tl.store(out_ptr + at, x, mask=at < n)


@triton.jit
def twice_kernel(x_ptr, out_ptr, n, AGAIN: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out_ptr + at, 0.0, mask=at < n)
    tl.store(out_ptr + at, 1.0, mask=(at < n) & AGAIN)


@triton.jit
def pairs_kernel(x_ptr, out_ptr, n, MASKED: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = (at < n) & ((at % 2 == 0) | (not MASKED))
    tl.store(out_ptr + at // 2, tl.load(x_ptr + at, mask=at < n), mask=mask)


@triton.jit
def copy_kernel(x_ptr, out_ptr, n, FROM: tl.constexpr, TO: tl.constexpr, BEFORE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = (at >= BEFORE) & (at < n)
    tl.store(out_ptr + at + TO, tl.load(x_ptr + at + FROM, mask=mask), mask=mask)


@triton.jit
def described_kernel(x_ptr, out_ptr, n_rows, BLOCK: tl.constexpr):
    described = tl.make_tensor_descriptor(x_ptr, [n_rows, BLOCK], [BLOCK, 1], [2, BLOCK])
    row = tl.program_id(0) * 2
    total = tl.sum(tl.sum(described.load([row, 0]), axis=1), axis=0)
    tl.store(out_ptr + tl.program_id(0), total)


@triton.jit
def table_kernel(table_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x_ptr = tl.load(table_ptr + tl.program_id(0)).to(tl.pointer_type(tl.float32))
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + tl.program_id(0), tl.sum(x, axis=0))


@triton.jit
def count_kernel(x_ptr, count_ptr, n, PLAIN: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    tl.atomic_max(count_ptr + at * 0, at, mask=mask)
    if PLAIN == "load":
        tl.store(x_ptr + at, tl.load(count_ptr).to(tl.float32), mask=mask)
    elif PLAIN == "store":
        tl.store(count_ptr, 0, mask=tl.program_id(0) == 1)


@pytest.fixture
def checked_launches():
    """Nothing: each test begins and ends the checker itself."""


@pytest.fixture
def x():
    return torch.zeros(N)  # equal values: a race counts, whatever it stores


@pytest.fixture
def out():
    return torch.zeros(N)


GRID = (triton.cdiv(N, BLOCK),)


def run(kernel, *args, grid=GRID, seed=0, **constants):
    with checking(seed):
        kernel[grid](*args, **constants, BLOCK=BLOCK)


def test_two_programs_that_store_at_one_address(x, out):
    run(sum_kernel, x, out, N, STRIDE=1)
    expected = (
        r"sum_kernel, program \(\d, 0, 0\) of \(3, 1, 1\), stores at out_ptr\+0 bytes .*, where program .* stored"
    )
    with pytest.raises(Fault, match=expected):
        run(sum_kernel, x, out, N, STRIDE=0)


def test_a_program_that_loads_what_another_stores(x, out):
    """In place, a block's first element is the last that the block before it loads."""
    run(shift_kernel, x, out, N, SHIFT=1)
    run(shift_kernel, x, x, N, SHIFT=0)
    found = set()
    for seed in range(20):
        with pytest.raises(Fault, match=r"x_ptr or out_ptr\+(32|64) bytes \(\+(8|16) elements, address 0x") as caught:
            run(shift_kernel, x, x, N, SHIFT=1, seed=seed)
        found |= {"loads at" in str(caught.value)}
    assert found == {True, False}  # either of the two may come first


def test_a_program_that_loads_what_it_has_stored(x, out):
    run(reverse_kernel, x, out, torch.zeros(N), 5, VIA_MEMORY=False, grid=(1,))
    with pytest.raises(Fault, match=r"reverse_kernel, .* loads at scratch_ptr\+16 .* where it stored"):
        run(reverse_kernel, x, out, torch.zeros(N), 5, VIA_MEMORY=True, grid=(1,))


def test_a_program_that_stores_twice(x, out):
    run(twice_kernel, x, out, 5, AGAIN=False, grid=(1,))
    with pytest.raises(Fault, match=r"twice_kernel, .* stores at out_ptr\+0 .* where it stored"):
        run(twice_kernel, x, out, 5, AGAIN=True, grid=(1,))


def test_two_lanes_of_one_store(x, out):
    run(pairs_kernel, x, out, N, MASKED=True)
    with pytest.raises(Fault, match=r"pairs_kernel, .* stores at out_ptr\+\d+ bytes .* by two lanes of one store"):
        run(pairs_kernel, x, out, N, MASKED=False)


@pytest.mark.parametrize("start", [0, 3], ids=["whole", "within a buffer"])
def test_one_element_outside_of_a_tensor(start, x, out):
    """Within a larger buffer, too: what lies around belongs to others."""
    x, out = (torch.zeros(N + 6)[start : start + N] for _ in range(2))
    run(copy_kernel, x, out, N, FROM=0, TO=0, BEFORE=0)
    run(copy_kernel, x, out, N, FROM=-1, TO=-1, BEFORE=1)
    run(copy_kernel, x, out, N - 1, FROM=1, TO=1, BEFORE=0)
    for name, kind, constants in (("x_ptr", "loads", dict(FROM=1, TO=0)), ("out_ptr", "stores", dict(FROM=0, TO=1))):
        place = rf"program \(2, 0, 0\) .* {kind} at {name}\+80 bytes \(\+20 elements, .* outside of its 80 bytes"
        with pytest.raises(Fault, match=place):
            run(copy_kernel, x, out, N, BEFORE=0, **constants)
    for name, kind, constants in (("x_ptr", "loads", dict(FROM=-1, TO=0)), ("out_ptr", "stores", dict(FROM=0, TO=-1))):
        place = rf"program \(0, 0, 0\) .* {kind} at {name}-4 bytes \(-1 elements, .* outside of its 80 bytes"
        with pytest.raises(Fault, match=place):
            run(copy_kernel, x, out, N, BEFORE=0, **constants)


def test_an_argument_without_elements(x, out):
    with pytest.raises(Fault, match=r"stores at out_ptr\+\d+ .* outside of its 0 bytes"):
        run(copy_kernel, x, out[:0], N, FROM=0, TO=0, BEFORE=0)


def test_a_descriptor_of_more_rows_than_there_are(out):
    x = torch.zeros(5, BLOCK)
    run(described_kernel, x, out, 5)
    with pytest.raises(Fault, match=r"described_kernel, program \(2, 0, 0\) .* loads at x_ptr\+\d+ .* its 160 bytes"):
        run(described_kernel, x, out, 6)


def test_tables_of_pointers(out):
    xs = [torch.zeros(5) for _ in range(3)]

    def run_table(change=lambda addresses: addresses, n=5, xs=xs):
        with checking(0):
            table = torch.tensor(change([x.data_ptr() for x in xs]))
            table_kernel[3,](table, out, n, BLOCK=BLOCK)

    run_table()
    run_table(xs=torch.zeros(15).split(5))
    for change in (lambda xs: [xs[0], xs[1] + 4, xs[2]], lambda xs: [xs[0], xs[1] - 4, xs[2]], lambda xs: [0, *xs[1:]]):
        with pytest.raises(Fault, match=r"table_kernel, program \([01], 0, 0\) .* loads .* from a table of pointers"):
            run_table(change)
    with pytest.raises(Fault, match=r"a tensor \(5,\) of a table \+2 bytes .* no multiple of the 4 bytes"):
        run_table(lambda addresses: [address + 2 for address in addresses], n=4)
    with pytest.raises(Fault, match=r"from a table of pointers"):
        run_table(n=6)
    with pytest.raises(Fault, match=r"from a table of pointers"):
        run_table(n=6, xs=torch.zeros(15).split(5))  # into the neighbour
    with pytest.raises(Fault, match=r"from a table of pointers"):

        def forget(addresses):
            forgotten[0] = None
            return addresses

        forgotten = [torch.zeros(5) for _ in range(3)]
        run_table(forget, xs=forgotten)


@pytest.mark.parametrize("plain", ["load", "store"])
def test_atomic_operations_and_others(plain, x):
    count = torch.zeros(1, dtype=torch.int32)
    run(count_kernel, x, count, N, PLAIN=None)
    assert count == N - 1
    expected = r"count_ptr\+0 bytes .* where (an atomic operation has been|.* which is not atomic)"
    with pytest.raises(Fault, match=expected):
        run(count_kernel, x, count, N, PLAIN=plain)


def test_elements_of_several_sizes(x):
    """Two dtypes over one memory: programs that share no number share bytes."""
    run(copy_kernel, x, x.view(torch.float16)[N:], N // 2, FROM=0, TO=0, BEFORE=0, grid=(2,))
    with pytest.raises(Fault, match=r"where program .* (stored|loaded)"):
        run(copy_kernel, x, x.view(torch.float16)[1:], N, FROM=0, TO=0, BEFORE=0)


@triton.jit
def turns_kernel(n_ptr, turns_ptr, BLOCK: tl.constexpr):
    program = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(2) + tl.program_id(2)
    tl.store(turns_ptr + program, tl.atomic_add(n_ptr, 1))


def turns(seed, n_ends=None):
    """The turn of each program of a grid of 24; -1 for those that did not run."""
    found = torch.full((24,), -1)
    with checking(seed, n_ends) as checker:
        turns_kernel[2, 3, 4](torch.zeros(1, dtype=torch.int64), found, BLOCK=BLOCK)
    assert checker.launches == {"turns_kernel": 1}
    return found.tolist()


def test_every_program_runs_once_in_an_order_that_the_seed_gives():
    assert sorted(turns(1)) == list(range(24))
    assert turns(1) == turns(1) != turns(2)


def test_only_the_first_and_the_last_programs_run_where_that_is_asked_for():
    assert [program for program, turn in enumerate(turns(1, 2)) if turn >= 0] == [0, 1, 22, 23]


def test_nothing_stays_patched(x, out):
    with pytest.raises(Fault):
        run(sum_kernel, x, out, N, STRIDE=0)
    sum_kernel[GRID](x, out, N, STRIDE=0, BLOCK=BLOCK)
    assert "data_ptr" not in vars(torch.Tensor)


def test_every_kernel_is_watched():
    """A kernel that no op's call launches, or that the checker does not see, would escape."""
    config = ElectraConfig(
        vocab_size=200, embedding_size=32, hidden_size=64, num_attention_heads=2, intermediate_size=64
    )
    with checking(0, n_ends=1) as checker:
        for op in OPS:
            resources_calls.run(op, config, torch.bfloat16)
    modules = [importlib.import_module(m.name) for m in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}.")]
    assert set(checker.launches) == {name for module in modules for name in vars(module) if name.endswith("_kernel")}
