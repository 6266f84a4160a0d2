"""Memory of results in C++, which stays with the process."""

import subprocess
import sys

import pytest
import torch

from electra_fast.ops import cpu

pytestmark = pytest.mark.skipif(cpu.extension is None, reason="the extension electra_fast._cpu is not built")


@pytest.mark.parametrize("n", [20 << 10, 99_999, 3 << 20], ids=["small", "odd", "large"])
def test_memory_is_used_again_and_by_one_tensor_at_a_time(n):
    like = torch.zeros(1)
    first, second = cpu.room(like, n), cpu.room(like, n)
    for x in (first, second):
        assert x.shape == (n,) and x.dtype == torch.float32 and x.data_ptr() % 64 == 0
    first.fill_(1)
    second.fill_(2)
    assert first.eq(1).all()
    place = first.data_ptr()
    del first
    again = cpu.room(like, n // 7, 7)
    assert again.data_ptr() == place and again.shape == (n // 7, 7)
    again.fill_(3)
    view = again[1:]
    del again
    other = cpu.room(like, n)
    assert other.data_ptr() != place  # a view holds it
    assert view.eq(3).all() and second.eq(2).all()


# In processes of their own: what is kept, and found, goes by what was in use before.
SHARING = """
import torch
from electra_fast.ops import cpu

place = cpu.room(torch.zeros(1), 201_000).data_ptr()
print(*(cpu.room(torch.zeros(1), n).data_ptr() == place for n in (121_000, 31_000)))
"""


def test_a_free_piece_of_up_to_twice_the_size_serves_too():
    assert subprocess.check_output([sys.executable, "-c", SHARING], text=True).split() == ["True", "False"]


KEEPING = """
import resource
import torch
from electra_fast.ops import cpu

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 >> 20

def fill(size):
    tensors = [cpu.room(torch.zeros(1), size << 18).fill_(1) for _ in range(60)]

before = resident()
for size in (6, 7, 8):
    fill(size)
print(resident() - before)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill(8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
for _ in range(20_001):  # two windows
    cpu.room(torch.zeros(1), 100_000)
fill(1)
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_what_was_in_use_at_once_is_kept_and_then_given_back():
    kept, faults, later = map(int, subprocess.check_output([sys.executable, "-c", KEEPING]).split())
    assert 60 * 8 < kept < 60 * 8 * 1.5 + 50
    assert faults < 1000
    assert later < 300


def test_what_has_no_memory_gets_none():
    assert cpu.room(torch.empty(1, device="meta"), 1 << 20).is_meta
