"""`make gpu` without a GPU: its steps, their limits, and what is left however a step or the suite ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from electra_fast.benchmarks import OURS, gpu_suite
from electra_fast.benchmarks.gpu_bench import BENCHES
from electra_fast.benchmarks.ops.bench import NO_GPU
from electra_fast.benchmarks.pretrain.bench import PROVIDERS

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")

HANGS = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('hangs', flush=True); time.sleep(60)"
LATE = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('what failed', flush=True)"
# A worker that keeps the pipe open after its parent's end.
LEAVES_A_WORKER = (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print('left')"
)

# A suite whose only step hangs after a row and a line.
SUITE = """
import sys
from pathlib import Path
from electra_fast.benchmarks import gpu_suite
code = (
    "import time; from pathlib import Path; from electra_fast.benchmarks.measure import append_rows; "
    "append_rows(Path({rows!r}), [dict(a=1)]); print('a line', flush=True); time.sleep(60)"
)
gpu_suite.steps = lambda tests, out: [gpu_suite.Step("first", ("-c", code), 60.0), gpu_suite.Step("next", (), 1.0)]
sys.exit(gpu_suite.main(Path({folder!r}), Path({folder!r})))
"""


def step(name, code, limit=60.0):
    return gpu_suite.Step(name, ("-c", code), limit)


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """Runs a suite of given steps, with a second of grace; signals of this process stay as they are."""
    monkeypatch.setattr(gpu_suite, "_GRACE", 1.0)
    monkeypatch.setattr(gpu_suite.signal, "signal", lambda *args: None)

    def run(*chosen, **options):
        monkeypatch.setattr(gpu_suite, "steps", lambda tests, out: list(chosen))
        return gpu_suite.main(tmp_path, tmp_path, **options)

    return run


def results(text):
    return [line.split(", ")[0].split(maxsplit=1) for line in text.splitlines()]


def test_steps_go_on_after_failures_and_limits(suite, tmp_path, capfd):
    chosen = [
        step("bad", "print(7); exit(3)"),
        step("late", LATE, 2.0),
        step("hung", HANGS, 2.0),
        step("killed", "import os; os.kill(os.getpid(), 9)"),
        step("good", "print('fine')"),
    ]
    begin = time.perf_counter()
    assert suite(*chosen) == 1
    assert time.perf_counter() - begin < 30
    logs = [(tmp_path / f"{each.name}.log").read_text() for each in chosen]
    assert logs == ["7\n", "what failed\n", "hangs\n", "", "fine\n"]
    expected = [
        ["bad", "exit code 3"],
        ["late", "over its limit of 2 s"],
        ["hung", "over its limit of 2 s"],
        ["killed", "exit code -9"],
        ["good", "ok"],
    ]
    shown = capfd.readouterr().out
    assert results((tmp_path / "summary.log").read_text()) == expected
    assert results("\n".join(shown.splitlines()[-5:])) == expected
    # What came of a step is shown before the next one begins.
    assert shown.index("== bad: exit code 3") < shown.index("== late\n")
    assert suite(chosen[-1]) == 0


def test_workers_of_a_step_end_with_it(suite, tmp_path):
    begin = time.perf_counter()
    assert suite(step("workers", LEAVES_A_WORKER)) == 0
    assert time.perf_counter() - begin < 30
    assert (tmp_path / "workers.log").read_text() == "left\n"


def test_what_the_build_took_is_taken_from_the_last_steps(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_suite, "_LEAST", 0.5)
    started = time.time() - gpu_suite.SECONDS + 4.0  # a grace of one second is kept
    assert suite(step("late", LATE), step("none", "print('never')"), started=started) == 1
    assert results((tmp_path / "summary.log").read_text()) == [
        ["late", "over its limit of 3 s"],
        ["none", "left out"],
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_suite_that_is_stopped_leaves_rows_logs_and_no_process(number, tmp_path):
    rows = tmp_path / "rows.jsonl"
    code = SUITE.format(rows=str(rows), folder=str(tmp_path))
    suite = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "first.log"
    wait_until(lambda: log.exists() and log.read_text() == "a line\n")
    assert json.loads(rows.read_text()) == {"a": 1}
    children = Path(f"/proc/{suite.pid}/task/{suite.pid}/children").read_text().split()
    suite.send_signal(number)
    out, _ = suite.communicate(timeout=30)
    assert suite.returncode != 0
    assert results((tmp_path / "summary.log").read_text()) == [["first", "not finished"]]
    assert out.endswith((tmp_path / "summary.log").read_text())
    assert children and not any(Path(f"/proc/{child}").exists() for child in children)


def wait_until(is_true, seconds=60.0):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


# The steps


def test_steps_come_by_what_they_tell_and_fit_in_eight_minutes(pytestconfig, tmp_path):
    kernels, *others = gpu_suite.steps(pytestconfig.rootpath / "tests", tmp_path)
    assert [each.name for each in (kernels, *others)] == ["kernels", "small", "base", "ops", "tests", "model"]
    assert sum(each.limit for each in (kernels, *others[:3])) < gpu_suite.SECONDS - 60  # for the build, and graces
    modules = [argument for argument in others[3].arguments if argument.endswith(".py")]
    assert any("test_bench_ops" in module for module in modules)
    benches = [each for each in others if each.name != "tests"]
    assert [each.arguments[2] for each in benches] == list(BENCHES)
    assert [Path(each.arguments[3]).name for each in benches] == [
        "pretrain.jsonl", "pretrain.jsonl", "ops.jsonl", "model.jsonl"
    ]  # fmt: skip


def test_the_quick_tests_hold_every_kernel_against_its_reference(pytestconfig, tmp_path):
    tests = pytestconfig.rootpath / "tests"
    arguments = [argument for argument in gpu_suite.steps(tests, tmp_path)[0].arguments if argument != "-n"]
    command = [sys.executable, *arguments[:2], "-n", "0", "--collect-only", "-q", *arguments[2:]]
    command.remove(str(max(1, min(12, (os.cpu_count() or 1) * 3 // 4))))
    listed = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    interpreted = {"test_launch_checker.py", "test_large_tensors.py"}  # run on no GPU
    assert {Path(line.split("::")[0].split(":")[0]).name for line in listed if "test_" in line.split(":")[0]} == {
        path.name for path in (tests / "kernels").glob("test_*.py")
    } - interpreted


def test_ours_has_a_row_before_a_peer_compiles(tmp_path):
    for name in ("small", "base"):
        first, beside, *_ = BENCHES[name](tmp_path / "rows.jsonl")
        assert first.presets == beside.presets == (name,) and first.json == tmp_path / "rows.jsonl"
        assert first.providers == (OURS,)
        assert set(beside.providers) <= set(PROVIDERS) and any("compiled" in peer for peer in beside.providers)


def test_no_step_needs_tyro(tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.modules['tyro'] = None; "
        "from electra_fast.benchmarks.gpu_bench import BENCHES; [list(make(Path('rows'))) for make in BENCHES.values()]"
    )
    hidden = step("imports", code, 120)
    assert gpu_suite.run(hidden, tmp_path / "log").startswith("ok"), (tmp_path / "log").read_text()


@no_gpu
def test_a_bench_of_make_gpu_runs_as_a_module(tmp_path):
    bench = next(each for each in gpu_suite.steps(tmp_path, tmp_path) if each.name == "ops")
    assert gpu_suite.run(bench, tmp_path / "log").startswith("exit code 1")
    assert (tmp_path / "log").read_text().endswith(f"ValueError: {NO_GPU}\n")
