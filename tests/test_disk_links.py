"""Places an output path leads to: pipes and devices are written into, links followed, nothing but files replaced."""

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from electra_fast.disk import check_writable, copied, is_stream, made, moved, removed, replaced, written


def names(directory):
    """What is in a directory."""
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def pipe(tmp_path):
    """A pipe with a name, and a function that gives what was written into it."""
    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()

    def content():
        reader.join(60)
        return found[0]

    return tmp_path / "pipe", content


def test_a_pipe_is_written_into(tmp_path, pipe):
    path, content = pipe
    (tmp_path / "link").symlink_to("pipe")
    with written(tmp_path / "link") as file:
        file.write("zwei: ü\n")
    assert content() == "zwei: ü\n".encode()
    assert path.is_fifo() and (tmp_path / "link").is_symlink() and names(tmp_path) == ["link", "pipe"]


def test_a_pipe_ends_where_an_error_comes(tmp_path, pipe):
    path, content = pipe
    with pytest.raises(ValueError, match="half"), written(path, "wb") as file:
        file.write(b"half")
        raise ValueError("half")
    assert content() == b"half" and path.is_fifo()


def test_a_device_is_written_into(tmp_path):
    """Both are opened for writing only; links to them stay, too."""
    for name in ("null", "full"):
        (tmp_path / name).symlink_to(f"/dev/{name}")
        before = os.stat(f"/dev/{name}")
        for path in (Path(f"/dev/{name}"), tmp_path / name):
            check_writable(path)
            if name == "null":
                with written(path) as file:
                    file.write("text")
            else:
                message = rf"^\[Errno 28\] No space left on device: '{path}'$"
                with pytest.raises(OSError, match=message), written(path) as file:
                    file.write("text")
        after = os.stat(f"/dev/{name}")
        assert stat.S_ISCHR(after.st_mode) and (after.st_ino, after.st_rdev) == (before.st_ino, before.st_rdev)
    assert names(tmp_path) == ["full", "null"] and all(path.is_symlink() for path in tmp_path.iterdir())


def test_a_device_of_ones_own_stays(tmp_path):
    path = tmp_path / "device"
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        path.write_bytes(b"")
    except PermissionError:
        pytest.skip("devices are not permitted here")
    with written(path) as file:
        file.write("text")
    removed(path)
    moved(write(tmp_path / "a.txt", "text"), path)
    assert path.is_char_device() and names(tmp_path) == ["device"]


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("redirected", [">> out.txt", "> new.txt", "| cat > new.txt", "> gone.txt"])
def test_what_a_descriptor_is_open_for_is_written_on(tmp_path, name, redirected):
    """The file may have other content already, and no name any more."""
    write(tmp_path / "out.txt", "before\n")
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = f"""
import os
from electra_fast.disk import check_writable, written
os.path.exists("gone.txt") and os.remove("gone.txt")
print("first", flush=True)
check_writable({name!r})
with written({name!r}) as file:
    file.write("second\\n")
print("third")
"""
    write(tmp_path / "program.py", code)
    done = subprocess.run(
        f"{sys.executable} program.py {redirected}", shell=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    target = redirected.split()[-1]
    if target != "gone.txt":
        before = "before\n" if target == "out.txt" else ""
        assert (tmp_path / target).read_text() == f"{before}first\nsecond\nthird\n"
    assert names(tmp_path) == sorted({"link", "out.txt", "program.py", target} - {"gone.txt"})


def test_links_that_lead_nowhere_are_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("file", "directory", "made"):
        (tmp_path / name).symlink_to(f"again-{name}")
        (tmp_path / f"again-{name}").symlink_to(f"disk/{name}")
    with written(tmp_path / "file") as file, replaced(tmp_path / "directory"):
        file.write("new")
    assert made(tmp_path / "made") == tmp_path / "made"
    assert (tmp_path / "file").is_symlink() and (tmp_path / "again-directory").is_symlink()
    assert names(tmp_path / "disk") == ["directory", "file", "made"] and (tmp_path / "disk" / "made").is_dir()
    (tmp_path / "file2").symlink_to("missing/file")
    with pytest.raises(FileNotFoundError, match=r"the directory of the output does not exist: .*/missing$"):
        check_writable(tmp_path / "file2")


@pytest.mark.parametrize("write", [check_writable, lambda path: written(path).__enter__(), made, removed, is_stream,
                                   lambda path: replaced(path).__enter__()])  # fmt: skip
def test_links_that_lead_in_a_circle_are_refused(tmp_path, write):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(FileExistsError, match=r"must not be a link that leads in a circle, got .*a$"):
        write(tmp_path / "a")
    assert names(tmp_path) == ["a", "b"]


def test_what_is_moved_and_copied_follows_links(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("file", "directory"):
        (tmp_path / name).symlink_to(f"disk/{name}")
    for act in (moved, copied, moved):
        source = write(tmp_path / "source", act.__name__)
        act(source, tmp_path / "file")
        assert source.exists() == (act is copied)
        (tmp_path / "tree" / "in").mkdir(parents=True, exist_ok=True)
        act(tmp_path / "tree", tmp_path / "directory")
        assert (tmp_path / "tree").exists() == (act is copied)
        assert (tmp_path / "disk" / "file").read_text() == act.__name__
        assert names(tmp_path / "disk" / "directory") == ["in"]
    assert (tmp_path / "file").is_symlink() and (tmp_path / "directory").is_symlink()
    assert names(tmp_path / "disk") == ["directory", "file"]


def test_what_is_removed_leaves_links_and_streams(tmp_path, pipe):
    (tmp_path / "disk" / "directory" / "in").mkdir(parents=True)
    (tmp_path / "disk" / "directory" / "link").symlink_to(tmp_path)
    write(tmp_path / "disk" / "file", "old")
    for name in ("file", "directory"):
        (tmp_path / name).symlink_to(f"disk/{name}")
    for name in ("file", "directory", "pipe", "missing"):
        removed(tmp_path / name)
    assert names(tmp_path) == ["directory", "disk", "file", "pipe"]
    assert names(tmp_path / "disk") == ["directory"] and names(tmp_path / "disk" / "directory") == []
    removed(tmp_path / "disk")
    assert names(tmp_path) == ["directory", "file", "pipe"]
    pipe[0].write_bytes(b"")


def test_a_socket_is_no_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(FileExistsError, match=r"must be a file, but socket is there and is none .it is a socket"):
            check_writable("socket")
