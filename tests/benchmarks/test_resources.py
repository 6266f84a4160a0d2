"""Every kernel, compiled for GPUs that are not there: no spills, enough shared memory, a row in kernels/README.md.

The tool runs in processes of its own, because pytest's process uses Triton's interpreter.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import triton
from electra_fast.benchmarks.ops import resources_calls
from electra_fast.benchmarks.ops.resources import Kernel, compiling_for, merged, replace_table, written_table

from electra_fast.ops.registry import OPS

README = Path(__file__).parents[2] / "kernels" / "README.md"

CROWDED = """
import sys
from unittest import mock

import torch
import triton
import triton.language as tl
from electra_fast.benchmarks.ops.resources import Resources, compiling_for

@triton.jit
def crowded_kernel(x_ptr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    tl.store(x_ptr + tl.arange(0, N), x / tl.sum(x))

with compiling_for(90) as found:
    for n in (1024, 16384):
        crowded_kernel[1,](torch.ones(n), N=n, num_warps=1)
print([kernel.spills > 0 for kernel in found])
with mock.patch.object(Resources, "compile", return_value=found):
    Resources(ops=("attention",)).run()
"""

# Prints the kernels that are compiled for other numbers of tokens, where seeds lie at other addresses, too.
OTHER_BATCHES = """
import torch
from electra_fast.benchmarks.ops import resources, resources_calls
from electra_fast.ops.registry import OPS

def compiled(n_tokens):
    with resources.compiling_for(90) as found:
        for op in OPS:
            resources_calls.run(op, resources_calls.networks("small")["small"], torch.bfloat16, n_tokens)
    return {kernel.digest: kernel.name for kernel in found}

known = compiled(512)
for n_tokens in (500, 1):
    print(*{name for digest, name in compiled(n_tokens).items() if digest not in known})
"""


def python(*arguments: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "options",
    [
        "--arch 90 --dtypes bf16 --sizes small base large",
        "--arch 80 100 --dtypes bf16 --sizes base",
        "--arch 90 --dtypes fp32 --sizes base",
        pytest.param("", marks=pytest.mark.slow),
    ],
)
def test_every_kernel_compiles_without_spills_and_has_its_shared_memory(options):
    done = python("-m", "electra_fast.benchmarks.ops.resources", *options.split())
    assert done.returncode == 0, done.stderr
    assert "_kernel" in done.stdout


def test_a_kernel_that_spills_is_reported(tmp_path):
    script = tmp_path / "crowded.py"
    script.write_text(CROWDED)
    done = python(str(script))
    assert done.returncode == 1
    assert done.stdout.startswith("[False, True]")
    assert re.fullmatch(r"crowded_kernel \(.*\) on sm_90 spills \d+ bytes", done.stderr.strip().splitlines()[-1])


def kernel(**changes) -> Kernel:
    figures = dict(registers=64, spills=0, shared=163 * 1024, warps=4, stages=3, wgmma=None)
    return Kernel(**dict(name="a_kernel", flags=(), arch=80, dtype="bf16", sizes=("small",)) | figures | changes)


def test_too_much_shared_memory_is_reported():
    assert kernel().faults == []
    assert kernel(arch=86).faults == [
        "a_kernel (bf16 small) on sm_86 takes 163.0 kB of shared memory, and there are 99"
    ]


def test_kernels_that_differ_in_their_sizes_only_are_one_row():
    assert merged([kernel(), kernel(spills=8), kernel(sizes=("base",))]) == [
        kernel(sizes=("small", "base")),
        kernel(spills=8),
    ]


def test_the_interpreter_is_refused(monkeypatch):
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    with pytest.raises(ValueError, match="TRITON_INTERPRET=1 is set"), compiling_for(90):
        pass


def test_the_table_goes_between_the_markers(tmp_path):
    path = tmp_path / "README.md"
    begin, end = "<!-- resources: begin -->", "<!-- resources: end -->"
    path.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    assert written_table(path) == "\nold\n"
    replace_table(path, "new")
    assert path.read_text() == f"before\n{begin}\nnew\n{end}\nafter\n"
    path.write_text(f"{end}{begin}")
    with pytest.raises(ValueError, match="must hold the markers"):
        replace_table(path, "new")


def test_every_op_has_calls():
    assert set(resources_calls.CALLS) == set(OPS)


def test_the_readme_has_every_kernel():
    names = python("-c", "from electra_fast.benchmarks.ops.resources import kernel_names; print(*kernel_names())")
    written = written_table(README)
    assert set(re.findall(r"^\| `(\w+)`", written, re.MULTILINE)) == set(names.stdout.split())


def test_a_batch_of_another_size_compiles_nothing():
    done = python("-c", OTHER_BATCHES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
