"""Runs on two machines, namespaces with TCP between them: one is lost and started again, one comes and is lost."""

import pytest
from nodes import two_nodes
from runs import assert_same_run, checkpoints, run, start, steps_done, wait_for

from electra_fast.training.progress import read_records

SECONDS = 200  # a start of torch on a busy machine takes its time
# A process waits before an update, until it is to stop or is killed.
HELD = """
import socket, time
from electra_fast.pretraining.loop import TrainingLoop
update = TrainingLoop._update
def held(loop):
    while (socket.gethostname(), loop.world.size, loop.step) == {where} and not loop._signal:
        time.sleep(0.02)
    update(loop)
TrainingLoop._update = held
"""


@pytest.fixture
def nodes(tmp_path):
    try:
        with two_nodes(tmp_path) as made:
            yield made
    except PermissionError as error:
        pytest.skip(str(error))


def sizes(out):
    """(step, processes) of each beginning of a run."""
    log = out / "log.jsonl"
    records = read_records(log) if log.is_file() else []
    return [(record["step"], record["n_processes"]) for record in records if record["kind"] in ("run", "resume")]


@pytest.mark.slow
def test_a_machine_that_is_lost_ends_the_run_and_the_same_commands_go_on(nodes, tmp_path):
    out, (first, second) = tmp_path / "run", nodes

    def begin(before):
        meeting = "--nnodes", "2", "--master-addr", first.address, "--master-port", "29500", "--node-rank"
        return [
            start([(out, {})], before=before, torchrun=(*meeting, str(i)), inside=node.inside)
            for i, node in enumerate(nodes)
        ]

    run(tmp_path / "alone")
    processes = begin(HELD.format(where=(second.name, 2, 6)))
    wait_for(lambda: steps_done(out) == 6 and checkpoints(out) == ["step-4"], processes[0], SECONDS)
    second.kill()
    printed = [process.communicate(timeout=SECONDS)[0] for process in processes]
    assert [process.returncode for process in processes] == [1, -9]
    assert second.address in printed[0]  # of gloo's error, which says whose connection is closed

    processes = begin("")
    printed = [process.communicate(timeout=SECONDS)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert sizes(out) == [(0, 2), (4, 2)]
    assert_same_run(out, tmp_path / "alone")


@pytest.mark.slow
def test_a_machine_that_comes_and_is_lost_changes_the_size_and_not_the_run(nodes, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    out, (first, second) = tmp_path / "run", nodes
    meeting = f"--nnodes 1:2 --max-restarts 3 --rdzv-backend c10d --rdzv-endpoint {first.name}:29500 --rdzv-id 1"
    meeting += " --rdzv-conf last_call_timeout=1"

    def begin(node, before):
        return start([(out, {})], before=before, torchrun=meeting.split(), inside=node.inside)

    run(tmp_path / "alone")
    staying = begin(first, HELD.format(where=(first.name, 1, 6)))
    wait_for(lambda: steps_done(out) == 6, staying, SECONDS)
    joining = begin(second, HELD.format(where=(second.name, 2, 10)))
    wait_for(lambda: steps_done(out) == 10 and "step-8" in checkpoints(out), staying, SECONDS)
    second.kill()
    joining.communicate(timeout=SECONDS)
    printed, _ = staying.communicate(timeout=SECONDS)
    assert staying.returncode == 0, printed
    # The first machine's process had SIGTERM when the second came, and wrote a checkpoint after its update.
    assert sizes(out) == [(0, 1), (7, 2), (8, 1)]
    assert_same_run(out, tmp_path / "alone")
