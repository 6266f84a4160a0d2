"""Checkpoints of a run's state: complete, of the moment they were asked for, and refused where they do not fit."""

import os
import subprocess

import pytest
import torch
from checkpoint_states import SETTINGS, assert_equal, flat, trained, write

from electra_fast.training.checkpoint import Checkpoints
from electra_fast.training.distributed import join
from electra_fast.training.manifest import NAME as MANIFEST


@pytest.fixture(autouse=True)
def world():
    with join("cpu") as world:
        yield world


def test_what_is_loaded_is_what_was_saved(tmp_path):
    checkpoints, states = write(tmp_path / "new" / "checkpoints", 1, 2)
    for step, expected in states.items():
        state = trained(seed=7, n_steps=5)
        assert not any(torch.equal(x, expected[name]) for name, x in flat(state).items() if "value" not in name)
        checkpoints.load(step, state)
        assert_equal(state, expected)


def test_a_checkpoint_is_of_the_moment_it_was_asked_for(tmp_path):
    """Training goes on while it is written."""
    state = {"parameters": {"w": torch.zeros(1 << 20)}}
    checkpoints = Checkpoints(tmp_path, SETTINGS)
    checkpoints.save(1, state)
    for _ in range(50):
        state["parameters"]["w"] += 1
    checkpoints.finish()
    checkpoints.load(1, state)
    assert not state["parameters"]["w"].any()


def test_the_newest_are_kept_by_their_number(tmp_path):
    assert Checkpoints(tmp_path / "none", SETTINGS).steps() == []
    checkpoints, _ = write(tmp_path, 8, 9, 10, 11, keep=2)
    assert checkpoints.steps() == [10, 11]
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        Checkpoints(tmp_path, SETTINGS, keep=0)


def test_what_a_crash_left_is_no_checkpoint_and_is_removed(tmp_path):
    (tmp_path / ".step-5").mkdir(parents=True)
    (tmp_path / ".step-5" / "__0_0.distcp").write_bytes(b"half")
    (tmp_path / "notes").mkdir()
    assert Checkpoints(tmp_path, SETTINGS).steps() == []
    write(tmp_path, 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "step-6"]


# A state that the checkpoint does not fit: it is told apart before a tensor is written to.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: trained(size=7), r"expected exp_avg\.0\.bias of shape \(7,\), got \(6,\)"),
        (lambda state: state | {"extra": {"x": torch.ones(2, 3)}}, r"expected extra\.x of shape \(2, 3\), got none"),
        (lambda state: state | {"loss_scale": {}}, r"expected loss_scale\.n_good of shape none, got \(\)"),
    ],
    ids=["shape", "more", "less"],
)
def test_a_state_of_another_shape_is_refused(tmp_path, change, message):
    checkpoints, _ = write(tmp_path, 3)
    state = change(trained(seed=1))
    before = flat(state)
    with pytest.raises(ValueError, match=rf"step-3 must fit this model: {message}") as error:
        checkpoints.load(3, state)
    assert "\n" not in str(error.value)
    assert_equal(state, before)


# Damage


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("damage", [os.remove, cut, lambda path: os.truncate(path, 0)], ids=["gone", "cut", "empty"])
def test_a_damaged_checkpoint_without_a_manifest_is_one_line_that_names_it(tmp_path, name, damage):
    """So were those of earlier versions."""
    checkpoints, states = write(tmp_path, 1, 2)
    for step in states:
        os.remove(tmp_path / f"step-{step}" / MANIFEST)
    damage(tmp_path / "step-2" / name)
    state = trained(seed=7)
    with pytest.raises(ValueError, match=r"step-2\b") as error:
        checkpoints.load(2, state)
    assert "\n" not in str(error.value)
    checkpoints.load(1, state)
    assert_equal(state, states[1])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_what_was_written_before_stays(small_disk):
    checkpoints, states = write(small_disk / "checkpoints", 1, 2)
    for name in ("save", "finish"):  # an error is reported by what comes next, a save or the end
        checkpoints.save(3, {"parameters": {"w": torch.zeros(1 << 19)}})
        with pytest.raises(OSError, match=r"the checkpoint of step 3 could not be written to .*; .* steps: 1, 2$") as e:
            checkpoints.finish() if name == "finish" else checkpoints.save(4, states[1])
        assert "No space left on device" in str(e.value) and "\n" not in str(e.value)
        assert sorted(path.name for path in (small_disk / "checkpoints").iterdir()) == ["step-1", "step-2"]
    state = trained(seed=7)
    checkpoints.load(2, state)
    assert_equal(state, states[2])
