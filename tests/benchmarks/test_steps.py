"""The ratchet of whole steps: what has grown since the table was written is a fault."""

from dataclasses import replace
from pathlib import Path

import pytest
import triton
from electra_fast.benchmarks.ops.resources import written_table
from electra_fast.benchmarks.ops.steps import MARK, WORKLOADS, KernelRow, StepRow, Steps, faults, merged, text

README = Path(__file__).parents[2] / "kernels" / "README.md"
STEP = StepRow("small 128 x 128", 900, 10**9, 30, 100.0, 0.01, 16384)
LOOPING = KernelRow("a_kernel", "H=256 SAVE", ("small",), 100, (200, 50), (1.0,) * 5, 2, "issue")
STRAIGHT = replace(LOOPING, name="b_kernel", constants="", loops=())
WRITTEN = text([STEP], [LOOPING, STRAIGHT], {})


def test_nothing_has_grown():
    assert faults(WRITTEN, [STEP], [LOOPING, STRAIGHT]) == []


@pytest.mark.parametrize(
    ("steps", "kernels", "expected"),
    [
        ([replace(STEP, n_launches=901)], [], ["a step of small 128 x 128 has 901 launches, 900 before"]),
        ([replace(STEP, n_launches=899)], [replace(LOOPING, loops=(150, 50))], []),
        ([], [replace(LOOPING, straight=200, loops=(207, 50))], []),
        (
            [],
            [replace(LOOPING, loops=(208, 50))],
            ["a_kernel (H=256 SAVE) has 100 + 208 + 50 instructions, outside of loops + in each, "
             "100 + 200 + 50 before"],
        ),
        ([], [replace(STRAIGHT, straight=104)],
         ["b_kernel () has 104 instructions, outside of loops + in each, 100 before"]),
        ([replace(STEP, name="base 1 x 2")], [replace(LOOPING, constants="H=768", loops=(999,))], []),
    ],
    ids=["a launch", "less", "within three per cent", "a loop", "all of it", "new ones"],
)  # fmt: skip
def test_what_has_grown(steps, kernels, expected):
    assert faults(WRITTEN, steps, kernels) == expected


def test_another_triton_is_not_compared():
    other = WRITTEN.replace(triton.__version__, "1.0.0")
    assert faults(other, [replace(STEP, n_launches=10**6)], []) == []


def test_variants_of_a_kernel_are_one_row():
    longer = replace(LOOPING, straight=101, sizes=("base",))
    assert merged([LOOPING, longer, STRAIGHT]) == [replace(longer, sizes=("small", "base")), STRAIGHT]


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="sizes must be among small, base, got tiny"):
        Steps(sizes=("tiny",)).run()


def test_the_readme_has_every_step():
    names = {f"{size} {batch} x {length}" for size, each in WORKLOADS.items() for batch, length in each}
    written = written_table(README, MARK)
    assert {name for name in names if f"| {name} " in written} == names
