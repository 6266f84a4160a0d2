"""The ops in C++ where something is wrong: ends of memory, hooks, instruction sets, threads that write, Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from block_cases import both, gradients
from torch.autograd.graph import saved_tensors_hooks

from electra_fast.ops.contracts import cpu_library, cpu_mlm_head
from electra_fast.processor import fastest_allowed

pytestmark = pytest.mark.skipif(cpu_library.obstacle() is not None, reason=f"{cpu_library.obstacle()}")


def run(script: str, *args: object, timeout: float = 120) -> str:
    """What a script prints in a process of its own, beside this file's modules: it may end the process."""
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    command = [sys.executable, "-c", path + script, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr}"
    return done.stdout


def head(n_rows: int, width: int, vocabulary: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    tensors = [torch.randn(n_rows, width), torch.randn(vocabulary, width), torch.randn(vocabulary)]
    return [x.requires_grad_() for x in tensors], torch.randint(vocabulary, (n_rows,))


READS_TO_THE_END = """
import torch
from block_cases import attention_case, feed_forward_case, gradients
from guarded_memory import guarded
from electra_fast.ops.contracts.cpu_mlm_head import mlm_head

for case in (attention_case([5, 3], 3, 7), attention_case([9], 1, 65, True), feed_forward_case(9, 13, 17),
             feed_forward_case(1, 70, 1)):
    case = case.dropping(0.1)
    found = gradients(case.cpp, {name: guarded(x).requires_grad_() for name, x in case.tensors.items()}, **case.options)
    for name, x in gradients(case.cpp, case.leaves(), **case.options).items():
        assert torch.equal(found[name], x), name
for n_rows, width, vocabulary in ((3, 5, 7), (1, 1, 1), (9, 65, 70)):
    given = torch.randn(n_rows, width), torch.randn(vocabulary, width), torch.randn(vocabulary)
    labels, uniform = guarded(torch.randint(vocabulary, (n_rows,))), guarded(torch.rand(n_rows))
    mlm_head(*(guarded(x).requires_grad_() for x in given), labels, uniform)[0].sum().backward()
"""


def test_nothing_is_read_behind_the_end_of_a_tensor():
    run(READS_TO_THE_END)


def saving(pick, change):
    """Hooks that change what autograd keeps, where `pick(x)` says so."""
    return saved_tensors_hooks(lambda x: change(x) if pick(x) else x, lambda x: x)


@pytest.mark.parametrize("case", both(), ids=lambda case: case.op)
def test_hooks_that_change_what_is_kept_are_noticed(case):
    shapes = {x.shape for x in case.tensors.values()}
    for change, message in (
        (lambda x: x.bfloat16(), "must be in fp32"),
        (lambda x: x[:0], "must have shape"),
        (lambda x: x.repeat_interleave(2, -1)[..., ::2], "is not contiguous"),
    ):
        with saving(lambda x: x.is_floating_point() and x.shape not in shapes, change):
            out = case.cpp(**case.leaves(), **case.options)
        with pytest.raises(RuntimeError, match=f"changed since the forward: what it kept {message}"):
            out.sum().backward()


def test_labels_and_sums_of_the_vocabulary_head_are_checked_again():
    for pick, change, message in (
        (lambda x: x.dtype == torch.int64, lambda x: x.int(), "must be in torch.int64"),
        (lambda x: x.dtype == torch.int64, lambda x: x[:2], "must have shape"),
        (lambda x: x.dim() == 1 and len(x) >= 33 * 70 and x.is_floating_point(), lambda x: x.half(), "must be in fp32"),
    ):
        tensors, labels = head(33, 8, 70)
        with saving(pick, change):
            losses = cpu_mlm_head.mlm_head(*tensors, labels)[0]
        with pytest.raises(RuntimeError, match=f"what it kept {message}"):
            losses.sum().backward()
    tensors, labels = head(33, 8, 70)
    losses = cpu_mlm_head.mlm_head(*tensors, labels)[0]
    labels.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="less memory than its shape takes"):
        losses.sum().backward()


@pytest.mark.parametrize("case", both(), ids=lambda case: case.op)
def test_a_backward_on_another_instruction_set_is_refused(case, monkeypatch):
    """What the forward saved lies in other panels there."""
    given = case.leaves()
    expected = gradients(case.cpp, given, **case.options)
    out = case.cpp(**given, **case.options)
    other = "avx2" if fastest_allowed() == "avx512" else "avx512"
    monkeypatch.setenv("ELECTRA_FAST_ISA", other)
    with pytest.raises(RuntimeError, match=rf"computed with ELECTRA_FAST_ISA=\w+, now it is {other}"):
        out.sum().backward()
    monkeypatch.undo()
    for name, x in gradients(case.cpp, given, **case.options).items():
        assert torch.equal(x, expected[name])


WRITES_LABELS = """
import threading, time, torch
from electra_fast.ops.contracts.cpu_mlm_head import mlm_head

given, labels, is_over = (torch.randn(3000, 8), torch.randn(200, 8), torch.randn(200)), torch.zeros(3000).long(), []

def write():
    while not is_over:
        labels.fill_(2**40)
        labels.fill_(0)

thread = threading.Thread(target=write)
thread.start()
end, n_refused = time.monotonic() + 2, 0
while time.monotonic() < end:
    try:
        mlm_head(*given, labels)
    except IndexError:
        n_refused += 1
is_over.append(True)
thread.join()
print(n_refused)
"""


def test_labels_that_another_thread_writes_are_read_once():
    assert int(run(WRITES_LABELS)) > 0


INTERRUPTED = """
import os, signal, threading, time, torch
from block_cases import attention_case, feed_forward_case
from electra_fast.ops.contracts.cpu_mlm_head import mlm_head

torch.set_num_threads(2)

def late(call):
    sent = []

    def send():
        time.sleep(0.3)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    try:
        thread.start()
        call()
        found = "over before"
    except KeyboardInterrupt:
        found = time.monotonic() - sent[0]
    thread.join()
    print(found)

attention = attention_case([500] * 800, 4, 16)
late(lambda: attention.cpp(**attention.tensors, **attention.options))
feed_forward = feed_forward_case(100_000, 256, 1000)
late(lambda: feed_forward.cpp(**feed_forward.tensors))
# Many rows of little work: all of them together take seconds, those that are computed together a moment.
late(lambda: mlm_head(torch.zeros(10**6, 4), torch.zeros(4000, 4), torch.zeros(4000), torch.zeros(10**6).long()))
"""


def test_ctrl_c_ends_a_call():
    found = run(INTERRUPTED).split()
    assert len(found) == 3 and all(float(seconds) < 1 for seconds in found), found
