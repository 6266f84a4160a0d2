"""What a launch reads and writes by its IR: beside the addresses that the same kernels touch in the interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from electra_fast.benchmarks.ops.launches import Launch
from electra_fast.benchmarks.ops.ttir import Loop, traffic

from electra_fast.ops.registry import OPS

SCRIPT = Path(__file__).with_name("traffic_of_calls.py")
QUICK = ("dropout_add_norm", "linear_gelu", "embed_norm_project", "adamw")

# Where data decide what is touched, or whole blocks of small tensors count: less may be touched than is derived.
BY_DATA = {
    "attention_bwd_keys_kernel": {"sums_ptr"},
    "embed_norm_project_fwd_kernel": {"position_table_ptr", "type_table_ptr", "words_ptr"},
    "embed_norm_bwd_kernel": {"position_table_ptr", "type_table_ptr", "words_ptr"},
    "sum_within_chunks_kernel": {"out_ptr", "parts_ptr"},
    "join_chunks_kernel": {"keys_ptr", "parts_ptr", "out_ptr"},
    "find_winner_kernel": {"winner_ptr"},
    "place_samples_kernel": {"sample_ptr"},
    "grad_norm_kernel": {"table"},
    "adamw_kernel": {"table"},
    "lamb_sums_kernel": {"table", "table_ptr"},
    "lamb_apply_kernel": {"table", "table_ptr"},
    "rtd_head_bwd_kernel": {"sums_ptr"},
    "mlm_head_bwd_kernel": {"dlogits_ptr"},
    "mlm_head_rows_kernel": {"bias_ptr", "weight_ptr"},
}

# What the interpreter loads and nothing uses: the compiler leaves the load out. In fp32 a parameter is its own master.
UNUSED = {"adamw_kernel": {"table_ptr"}}


def launches(ops, interpret):
    environment = os.environ | {"TRITON_INTERPRET": str(int(interpret)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT), *ops], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "ops",
    [QUICK, pytest.param([op for op in OPS if op not in QUICK], marks=pytest.mark.slow)],
    ids=["some", "others"],
)
def test_what_is_derived_is_what_kernels_touch(ops):
    touched, derived = launches(ops, interpret=True), launches(ops, interpret=False)
    assert [name for name, *_ in touched] == [name for name, *_ in derived]
    for (name, *there), (_, *here) in zip(touched, derived, strict=True):
        for side, found, told in zip(("reads", "writes"), there, here, strict=True):
            for argument in found.keys() | told.keys():
                what = f"{name} {side} {found.get(argument, 0)} bytes of {argument}, {told.get(argument, 0)} derived"
                assert found.get(argument, 0) <= told.get(argument, 0) or argument in UNUSED.get(name, ()), what
                is_equal = found.get(argument, 0) == told.get(argument, 0)
                assert is_equal or argument in BY_DATA.get(name, set()) | UNUSED.get(name, set()), what


class Compiled:
    """A kernel's IR, by hand."""

    def __init__(self, body):
        arguments = "%x_ptr: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %y_ptr: !tt.ptr<f32>, %n: i32"
        self.asm = {"ttir": f"module {{\n  tt.func public @k({arguments}) attributes {{}} {{\n{body}\n  }}\n}}"}


def traffic_of(body, n=100, grid=(4, 1, 1)):
    arguments = dict(x_ptr=torch.empty(1000), y_ptr=torch.empty(1000), n=n)
    return traffic(Launch("k", Compiled(body), arguments, grid), {})


POINTERS = """
    %c0 = arith.constant 0 : i32
    %c8 = arith.constant 8 : i32
    %c16 = arith.constant 16 : i32
    %p = tt.get_program_id x : i32
    %xs = tt.splat %x_ptr : !tt.ptr<f32> -> tensor<16x!tt.ptr<f32>>
    %ys = tt.splat %y_ptr : !tt.ptr<f32> -> tensor<16x!tt.ptr<f32>>
"""


def test_loops_and_the_pointers_that_they_carry():
    found = traffic_of(
        POINTERS
        + """
    %r:2 = scf.for %i = %p to %n step %c16 iter_args(%at = %xs, %sum = %c0) -> (tensor<16x!tt.ptr<f32>>, i32)  : i32 {
      scf.for %j = %c0 to %c16 step %c8  : i32 {
        %v = tt.load %at : tensor<16x!tt.ptr<f32>>
      }
      scf.yield %at, %sum : tensor<16x!tt.ptr<f32>>, i32
    }
    tt.store %ys, %v : tensor<16x!tt.ptr<f32>>
"""
    )
    # 100 less 0 to 3 in steps of 16 are 7 rounds, each of two loads of 64 bytes, by four programs.
    assert found.loops == [Loop(7.0, False), Loop(2.0, True)]
    assert found.reads == {"x_ptr": 7 * 2 * 64 * 4} and found.writes == {"y_ptr": 4 * 64}


def test_no_more_is_moved_than_there_is():
    body = POINTERS + "    %v = tt.load %xs : tensor<16x!tt.ptr<f32>>\n"
    assert traffic_of(body, grid=(1000, 1, 1)).reads == {"x_ptr": 4000}


def test_programs_that_return_at_once_move_nothing():
    body = """
    %c = arith.cmpi sge, %p, %n : i32
    cf.cond_br %c, ^bb1, ^bb2
  ^bb1:  // pred: ^bb0
    tt.return
  ^bb2:  // pred: ^bb0
    %v = tt.load %xs : tensor<16x!tt.ptr<f32>>
"""
    found = traffic_of(POINTERS + body, n=1)
    assert found.working == 0.25 and found.reads == {"x_ptr": 64}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    %z = tt.strange %xs : tensor<16x!tt.ptr<f32>>", "known operations on pointers, got tt.strange"),
        ("    %v = tt.load %lost : !tt.ptr<f32>", "a pointer whose origin is known, got %lost"),
        ("    %z = arith.select %c, %x_ptr, %y_ptr : !tt.ptr<f32>", "into one argument, got x_ptr or y_ptr"),
    ],
    ids=["an operation", "an origin", "two arguments"],
)
def test_what_cannot_be_followed_is_no_guess(body, message):
    with pytest.raises(ValueError, match=message):
        traffic_of(POINTERS + body)
