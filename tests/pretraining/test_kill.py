"""A run that was killed, rerun: what follows is bit for bit what would have followed."""

import os
import random
import signal
import sys
import time

import pytest
import torch
from runs import checkpoints, curve, launch, run, start, state, steps_done, wait_for

from electra_fast.training.progress import read_records

# A process hangs in an update, so that the one who kills it cannot come too late.
HANG = """
import time
from electra_fast.pretraining.loop import TrainingLoop
update = TrainingLoop._update
TrainingLoop._update = lambda loop: time.sleep(600) if loop.step == {step} else update(loop)
"""
SLOW = """
import time
from electra_fast.pretraining.loop import TrainingLoop
update = TrainingLoop._update
TrainingLoop._update = lambda loop: time.sleep(0.3) or update(loop)
"""
# run.json is synced to disk; then of each checkpoint, of steps 4 and 8, its data, its metadata and its manifest.
HANG_IN_SYNC = """
import itertools, os, time
calls, sync = itertools.count(1), os.fsync
def hanging(file):
    number = file if isinstance(file, int) else file.fileno()
    if "/checkpoints/" in os.readlink(f"/proc/self/fd/{{number}}") and next(calls) >= {call}:
        time.sleep(600)
    sync(file)
os.fsync = hanging
"""
HANG_IN_REMOVAL = """
import os, shutil, time
remove = shutil.rmtree
def hang(path):
    os.unlink(path / ".metadata")
    time.sleep(600)
shutil.rmtree = lambda path, **options: hang(path) if path.name == ".step-4" else remove(path, **options)
"""


SIGTERM_IN_EVALUATION = """
import os, signal
from electra_fast.pretraining import run
evaluate, calls = run.evaluate, []
def interrupted(*arguments):
    calls.append(arguments)
    if len(calls) == 2 and os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGTERM)
    return evaluate(*arguments)
run.evaluate = interrupted
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("kill") / "whole"
    run(out)
    return out


def kill(process):
    """Kills a process that is still at work."""
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stdout.read()
    process.stdout.close()


def assert_bit_equal(found, expected, step=12):
    assert curve(found) == curve(expected)
    tensors, wanted = state(found, step), state(expected, step)
    assert tensors.keys() == wanted.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], wanted[name])] == []


def check_random_kills(seed, out, whole, n_kills, **options):
    """Kills a run again and again at random moments, and lets it come to its end."""
    print(f"seed {seed}")
    moments = random.Random(seed)
    last = options["n_steps"] - 4
    for _ in range(n_kills):
        step = moments.randint(min(steps_done(out) + 1, last), last)
        process = start([(out, options)], before=HANG.format(step=step + 3))
        wait_for(lambda step=step: steps_done(out) >= step, process)
        time.sleep(moments.uniform(0, 0.02))
        kill(process)
        complete = [name for name in checkpoints(out) if not name.startswith(".")]
    run(out, **options)
    if complete:
        assert read_records(out / "log.jsonl", "resume")[-1]["step"] == int(complete[-1].removeprefix("step-"))
    assert_bit_equal(out, whole, options["n_steps"])


def test_killed_at_a_random_step(tmp_path):
    options = {"n_steps": 30, "checkpoint_every": 5}
    run(tmp_path / "whole", **options)
    check_random_kills(random.randrange(2**32), tmp_path / "run", tmp_path / "whole", n_kills=1, **options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"precision": "bf16"}, {"precision": "fp16", "recipe": {"dropout": 0.1}}])
def test_killed_again_and_again(tmp_path, options):
    """With a checkpoint every step, most of the time one is being written."""
    options = {"n_steps": 60, "checkpoint_every": 1, "keep_checkpoints": 1, **options}
    run(tmp_path / "whole", **options)
    check_random_kills(random.randrange(2**32), tmp_path / "run", tmp_path / "whole", n_kills=6, **options)


@pytest.mark.parametrize("call", [4, pytest.param(5, marks=pytest.mark.slow), 6], ids=["data", "metadata", "manifest"])
def test_killed_while_a_checkpoint_is_written(tmp_path, whole, call):
    out = tmp_path / "run"
    process = start([(out, {})], before=HANG_IN_SYNC.format(call=call) + HANG.format(step=11))
    last = {4: [], 5: [".metadata.tmp"], 6: [".metadata", f".manifest.json.{process.pid}.tmp"]}
    files = {"__0_0.distcp", *last[call]}
    wait_for(lambda: {path.name for path in out.glob("checkpoints/.step-8/*")} == files, process)
    wait_for(lambda: steps_done(out) == 11, process)
    kill(process)
    assert checkpoints(out) == ["step-4", ".step-8"]

    run(out)
    assert read_records(out / "log.jsonl", "resume")[0]["step"] == 4
    assert checkpoints(out) == ["step-8", "step-12"]
    assert_bit_equal(out, whole)


def test_killed_while_an_old_checkpoint_is_removed(tmp_path, whole):
    """What is removed in part is no longer taken for a checkpoint. The new one counts as soon as it is written, and not
    only when the next is due."""
    out, options = tmp_path / "run", {"keep_checkpoints": 1}
    process = start([(out, options)], before=HANG_IN_REMOVAL + HANG.format(step=11))
    wait_for(lambda: checkpoints(out) == [".step-4", "step-8"], process)
    wait_for(lambda: not (out / "checkpoints" / ".step-4" / ".metadata").exists(), process)
    kill(process)

    run(out, **options)
    assert checkpoints(out) == ["step-12"]
    assert_bit_equal(out, whole)


def test_sigterm_to_one_process_while_it_evaluates_ends_both_after_the_same_update(tmp_path):
    code, printed = launch([(tmp_path / "run", {})], n_processes=2, before=SIGTERM_IN_EVALUATION)
    # The one that ends first has 143; torchrun then ends the other, which has written everything by then.
    assert code != 0 and "exitcode  : 143" in printed, printed
    (end,) = read_records(tmp_path / "run" / "log.jsonl", "end")
    assert (end["reason"], end["step"]) == ("interrupted", 5)
    assert checkpoints(tmp_path / "run") == ["step-4", "step-5"]


def test_sigterm_to_torchrun_ends_two_processes_after_a_checkpoint(tmp_path, whole):
    out = tmp_path / "run"
    process = start([(out, {"checkpoint_every": 100})], n_processes=2, before=SLOW)
    wait_for(lambda: steps_done(out) >= 2, process)
    process.terminate()
    printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    (end,) = read_records(out / "log.jsonl", "end")
    step = end["step"]
    assert end["reason"] == "interrupted" and 2 <= step < 12, printed
    assert f"stopped after step {step}: the same command goes on from there" in printed
    assert "[rank" not in printed  # no traceback but the launcher's
    assert checkpoints(out) == [f"step-{step}"]

    run(out, checkpoint_every=100)
    losses, wanted = ([record["loss"] for record in curve(directory)] for directory in (out, whole))
    assert losses == pytest.approx(wanted, rel=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="needs terminals")
def test_a_terminal_that_is_closed_ends_the_run_after_a_checkpoint(tmp_path):
    """SIGHUP comes, and from then on each output is an error."""
    import fcntl
    import termios

    out, (controller, terminal) = tmp_path / "out", os.openpty()
    process = start(
        [(out, {"n_steps": 1000})],
        before=SLOW,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        **dict.fromkeys(("stdin", "stdout", "stderr"), terminal),
    )
    os.close(terminal)
    wait_for(lambda: steps_done(out) >= 1, process)
    os.close(controller)
    assert process.wait(timeout=120) == 128 + signal.SIGHUP
    (end,) = read_records(out / "log.jsonl", "end")
    assert end["reason"] == "interrupted"
    assert f"step-{end['step']}" in checkpoints(out)
