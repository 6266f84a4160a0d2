"""The model of an H200, on operations made by hand."""

import math
from types import SimpleNamespace

import pytest
from electra_fast.benchmarks.ops.census import Event
from electra_fast.benchmarks.ops.prediction import Gpu, Program, matched_trips
from electra_fast.benchmarks.ops.sass import Binary, Pipes
from electra_fast.benchmarks.ops.ttir import Loop, Traffic

GPU = Gpu(flops=1e12, bandwidth=1e9, launch=0.5, reached=0.5, reached_by_long_sums=0.25, reached_by_reductions=0.1)


def event(name, n_launches=1, n_bytes=0, product=(0, 0, 0)):
    return Event(name, "part", False, n_launches, n_bytes, product)


@pytest.mark.parametrize(
    ("operation", "seconds"),
    [
        (event("aten::add", n_bytes=10**9), 0.5 + 2),
        (event("aten::addmm", n_launches=2), 1.0),
        (event("aten::sum", n_bytes=10**9), 0.5 + 10),
        (event("aten::sort", n_bytes=10**9), 0.5 + 16),
        (event("aten::mm", n_bytes=10**9, product=(10**4, 10**4, 10**4)), 0.5 + math.hypot(2, 4)),
        (event("aten::mm", product=(10**3, 10**3, 10**6)), 0.5 + 8),
    ],
    ids=["streams", "launches", "sums", "sorts", "product", "long sums"],
)
def test_time_of_an_operation(operation, seconds):
    assert GPU.seconds(operation) == pytest.approx(seconds)


def test_a_program_alone_on_its_sm_does_one_thing_at_a_time():
    work = Pipes(instructions=9, issue=30, alu=20, mufu=10, shared=5, tensor=40)
    alone, paired = (Program(Binary(work, (), ()), (), work, n) for n in (1, 2))
    assert alone.cycles == 70 and paired.cycles == pytest.approx(44)
    assert alone.bound_by == "tensor"


@pytest.mark.parametrize(
    ("in_ir", "n_in_binary", "expected"),
    [
        ([(3.5, False), (2.0, False)], 2, (3.5, 2.0)),
        ([(4.0, True), (7.0, False)], 1, (7.0,)),
        ([(7.0, False), (4.0, True), (2.0, True)], 2, (7.0, 4.0)),
        ([(None, False)], 1, (1.0,)),
        ([(4.0, True)], 0, ()),
        ([], 1, (1.0,)),
    ],
    ids=["both", "one unrolled", "the shorter unrolled", "by data", "all unrolled", "of the binary alone"],
)
def test_loops_of_the_binary_are_those_of_the_ir_in_their_order(in_ir, n_in_binary, expected):
    binary = SimpleNamespace(loops=(Pipes(),) * n_in_binary)
    assert matched_trips(binary, Traffic(loops=[Loop(*loop) for loop in in_ir])) == expected
