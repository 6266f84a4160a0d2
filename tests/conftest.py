"""Gives each process one thread, because pytest-xdist runs as many processes as there are cores.

Without a GPU the kernels run in Triton's interpreter. Triton reads the variable when it is imported, so it is set here.
XLA optimizes little, since compilations would take most of the time of the tests with JAX.

After all tests, the largest errors of the kernels are shown in the form of the table in kernels/README.md.
"""

import os
import signal
from importlib.util import find_spec

import pytest
import torch

if not torch.cuda.is_available() and find_spec("triton"):
    os.environ["TRITON_INTERPRET"] = "1"
    from electra_fast.ops.testing import repair_interpreter

    repair_interpreter()
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
HAS_JAX = find_spec("jax") is not None
collect_ignore_glob = [] if HAS_JAX else ["flax/test_*.py", "functional/test_jax_*.py"]
torch.set_num_threads(1)
# In the background of a shell Ctrl-C is ignored, and then in all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str | None:
    return None if HAS_JAX else f"jax is not installed: left out are {', '.join(collect_ignore_glob)}"


@pytest.fixture
def served(monkeypatch):
    """The halves of layers that C++ served: a list of their ops, which a test may clear."""
    from electra_fast.ops.contracts import cpu_attention_block, cpu_feed_forward_block

    return _served(monkeypatch, cpu_attention_block.IN_CPP, cpu_feed_forward_block.IN_CPP)


@pytest.fixture
def served_heads(monkeypatch):
    """The vocabulary heads that C++ served."""
    from electra_fast.ops.contracts import cpu_mlm_head

    return _served(monkeypatch, cpu_mlm_head.IN_CPP)


def _served(monkeypatch, *ops):
    from electra_fast.ops.contracts import cpu_library

    calls, call = [], cpu_library.CpuOp.__call__

    def note(op, *given):
        calls.extend(known for known in ops if known is op)
        return call(op, *given)

    monkeypatch.setattr(cpu_library.CpuOp, "__call__", note)
    return calls


def pytest_terminal_summary(terminalreporter):
    largest = {}
    for report in terminalreporter.stats.get("passed", ()):
        for kernel, column, ratio in (value for name, value in report.user_properties if name == "error"):
            row = largest.setdefault(kernel, {})
            row[column] = max(row.get(column, 0.0), ratio)
    if not largest:
        return
    columns = sorted({column for row in largest.values() for column in row})
    terminalreporter.section("largest errors against fp64; 2 is what they may be")
    rows = [[f"`{kernel}`", *(f"{row[c]:.2f}" if c in row else "" for c in columns)] for kernel, row in largest.items()]
    for cells in [["kernel", *columns], ["---"] * (1 + len(columns)), *sorted(rows)]:
        terminalreporter.write_line(f"| {' | '.join(cells)} |")
