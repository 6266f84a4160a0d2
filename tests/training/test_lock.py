"""The lock of a directory: for one process at a time, and gone with it."""

import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from electra_fast.training import lock
from electra_fast.training.lock import NAME, locked

HOLDS = """
import sys, time
from pathlib import Path
from electra_fast.training.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(directory, seconds=60):
    command = [sys.executable, "-c", HOLDS, str(directory), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


def test_the_second_is_told_who_the_first_is(tmp_path):
    with holder(tmp_path / "run") as process:
        with pytest.raises(BlockingIOError) as error, locked(tmp_path / "run"):
            pass
        process.kill()
    expected = (
        rf"another run is at work in {re.escape(str(tmp_path / 'run'))} \(host {re.escape(socket.gethostname())}, "
    )
    expected += rf"process {process.pid}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{{4}}\): wait for its end, or "
    assert re.fullmatch(rf"{expected}give another directory", str(error.value)), str(error.value)


def test_a_killed_process_leaves_no_lock(tmp_path):
    with holder(tmp_path / "run") as process:
        process.kill()
    assert (tmp_path / "run" / NAME).is_file()
    with locked(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "run"], "only what was made here is removed"


def test_one_process_has_one_lock_too(tmp_path):
    with locked(tmp_path), pytest.raises(BlockingIOError, match=f"process {os.getpid()}"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_nothing_is_left_but_what_was_written(tmp_path):
    with locked(tmp_path / "a" / "b"):
        assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [NAME]
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["result"]
    with pytest.raises(KeyError), locked(tmp_path / "c"):
        raise KeyError
    assert not (tmp_path / "c").exists()


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("text")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NAME).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=re.escape(NAME)), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "text"


@pytest.mark.parametrize("out", ["link", "link/run", "between"])
def test_a_directory_is_made_where_links_lead(tmp_path, out):
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "runs")
    (tmp_path / "between").symlink_to("link")
    with locked(tmp_path / out):
        assert (tmp_path / out / NAME).is_file()
        with pytest.raises(BlockingIOError), locked(tmp_path / out):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["between", "link"], "what was made is removed"
    with locked(tmp_path / out):
        (tmp_path / out / "result").touch()
    assert [path.name for path in (tmp_path / "disk").rglob("*") if path.is_file()] == ["result"]
    assert (tmp_path / "link").is_symlink() and (tmp_path / "between").is_symlink()


def test_a_link_in_a_circle_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(FileExistsError, match="a link that leads in a circle"), locked(tmp_path / "a"):
        pass


def test_a_full_disk_is_told_with_the_name_of_the_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match=rf"No space left on device: .*{re.escape(NAME)}"), locked(tmp_path / "run"):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run", ["run", "of/today/run"])
def test_many_that_take_turns_are_never_two_at_once(tmp_path, run):
    """The file and its directories are removed and made again all the time."""
    inside, seen, refused = [0], [], [0]

    def work():
        for _ in range(200):
            try:
                with locked(tmp_path / run):
                    inside[0] += 1
                    seen.append(inside[0])
                    time.sleep(0)
                    inside[0] -= 1
            except BlockingIOError:
                refused[0] += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {1} and len(seen) + refused[0] == 1600


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path), locked(tmp_path):
        pass
    assert f"no lock on {tmp_path}: " in capsys.readouterr().out


def test_a_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "fcntl", None)
    with locked(tmp_path / "run"), locked(tmp_path / "run"):
        pass
    assert "nothing keeps a second run out of it" in capsys.readouterr().out
