"""Files that appear whole or not at all, and lines of files that may be packed."""

import errno
import gzip
import io
import lzma
import os
import random
import re
import signal
import subprocess
import sys
import threading

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.disk import _open_zstd, check_apart, check_writable, lines, numbered_lines, replaced, written

PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def names(directory):
    """What is in a directory, without the numbers of processes."""
    return sorted(re.sub(r"\.\d+\.tmp$", ".tmp", path.name) for path in directory.iterdir())


def fail_with(error):
    def fail(*_):
        raise error

    return fail


# Reading


@pytest.mark.parametrize("ending", PACK)
def test_lines_have_their_ends_and_no_byte_order_mark(tmp_path, ending):
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(PACK[ending]("\ufeffone\r\n\r\ntw\ufeffo\rthrée\n\nfour".encode()))
    assert list(lines(path)) == ["one\n", "\n", "tw\ufeffo\n", "thrée\n", "\n", "four"]
    # Where lines are numbered, only line feeds end them.
    assert list(numbered_lines(path)) == [
        (1, "one\r\n"),
        (2, "\r\n"),
        (3, "tw\ufeffo\rthrée\n"),
        (4, "\n"),
        (5, "four"),
    ]


@pytest.mark.parametrize("before", [0, 1, 7, 1000, 12345])
@pytest.mark.parametrize("ending", PACK)
def test_the_line_that_is_not_utf8_is_named(tmp_path, ending, before):
    """However many lines are decoded together with it, and however long it is itself."""
    path = tmp_path / f"a.txt{ending}"
    text = "\ufeff".encode() + "a líne\r\n".encode() * before
    for damaged in (b"x\xff\nrest\n", b"x" * 20000 + b"\xff", b"cut off \xc3"):
        path.write_bytes(PACK[ending](text + damaged))
        byte = "c3: unexpected end of data" if b"\xc3" in damaged else "ff: invalid start byte"
        for read in (lines, numbered_lines):
            with pytest.raises(
                ValueError, match=rf"a\.txt{ending}, line {before + 1}: must be UTF-8, got byte 0x{byte}"
            ):
                list(read(path))


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_damage_is_named_with_its_line_whatever_ends_lines(tmp_path, end):
    path = tmp_path / "a.txt"
    path.write_bytes((b"one" + end) * 4999 + b"x\xff" + end)
    with pytest.raises(ValueError, match=r"a\.txt, line 5000: must be UTF-8"):
        list(lines(path))


def test_damage_is_named_in_a_pipe_which_is_read_only_once(tmp_path):
    text = b"a line\n" * 3000
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(text + b"caf\xe9\nrest\n",), daemon=True)
    writer.start()
    found = []
    with pytest.raises(ValueError, match=r"pipe, line 3001: must be UTF-8, got byte 0xe9: invalid continuation byte"):
        for line in lines(tmp_path / "pipe"):
            found.append(line)
    writer.join()
    assert found == ["a line\n"] * 3000


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("damage", ["cut off", "no such format", "flipped"])
def test_a_damaged_packed_file_is_named_with_the_line(tmp_path, ending, damage):
    path, letters = tmp_path / f"a{ending}", random.Random(0)
    packed = bytearray(PACK[ending]("\n".join(letters.randbytes(50).hex() for _ in range(2000)).encode()))
    if damage == "cut off":
        packed = packed[:-9]
    elif damage == "no such format":
        packed = b"no archive at all"
    elif ending == ".zst":  # its frames have no checksum by default
        packed = packed[:4] + b"\xff" * 20
    else:
        packed[len(packed) // 2 : len(packed) // 2 + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(packed)
    found = []
    shown = "the compressed file is damaged: "
    if damage == "flipped":  # the checksum comes after the bytes, which may be no text any more
        shown = f"({shown}|must be UTF-8, got byte )"
    with pytest.raises(ValueError, match=rf"a\{ending}, line \d+: {shown}") as raised:
        found.extend(line for _, line in numbered_lines(path))
    line = int(re.search(r"line (\d+):", str(raised.value))[1])
    assert line == len(found) + 1 or (damage == "flipped" and line > len(found)) or found == []


def test_no_lines_without_a_file(tmp_path):
    for path, message in ((tmp_path, " is a directory$"), (tmp_path / "missing.txt", "$")):
        with pytest.raises(FileNotFoundError, match=f"no such file: {path}{message}"):
            list(lines(path))


def test_the_standard_input_is_read_as_a_file_is(tmp_path, monkeypatch):
    for text in ("", "a", "\ufeffone\r\n\r\ntw\ufeffo\rthr\u00e9e\u2028\x85\x0c\n\nfour"):
        (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert list(numbered_lines(None)) == list(numbered_lines(tmp_path / "a.txt"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\n")))
    with pytest.raises(ValueError, match="standard input, line 2: must be UTF-8, got byte 0xff"):
        list(numbered_lines(None))


def test_a_text_whose_lines_carriage_returns_end_is_refused(tmp_path, monkeypatch):
    """As one line it would be one row; with a line feed somewhere, a carriage return is white space."""
    (tmp_path / "a.txt").write_bytes(b"one\rtwo\r")
    with pytest.raises(ValueError, match=r"a\.txt, line 1: lines must end with line feeds, got carriage returns alone"):
        list(numbered_lines(tmp_path / "a.txt"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\rtwo")))
    with pytest.raises(ValueError, match="standard input, line 1: lines must end with line feeds"):
        list(numbered_lines(None))
    for content in (b"one\r", b"one\rtwo\n", b"one\n\rtwo"):
        (tmp_path / "a.txt").write_bytes(content)
        assert "".join(line for _, line in numbered_lines(tmp_path / "a.txt")).encode() == content


@pytest.mark.parametrize("ending", [".GZ", ".Xz", ".ZST"])
def test_packed_files_are_known_in_any_case(tmp_path, ending):
    (tmp_path / f"a.txt{ending}").write_bytes(PACK[ending.lower()](b"one\n"))
    assert list(lines(tmp_path / f"a.txt{ending}")) == ["one\n"]


@settings(deadline=None, max_examples=30)
@given(parts=st.lists(st.binary(max_size=3000), max_size=5), repeats=st.integers(1, 800))
def test_zstd_files_of_several_frames_are_read_to_their_end(tmp_path_factory, parts, repeats):
    path = tmp_path_factory.mktemp("zstd") / "a.zst"
    parts = [part * repeats for part in parts]
    path.write_bytes(b"".join(zstandard.compress(part) for part in parts))
    with _open_zstd(path, "rb") as file:
        assert file.read() == b"".join(parts)


# Files


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    for before, text in ((None, "eins\n"), ("eins\n", "zwei: ü\n")):
        with written(path) as file:
            file.write(text)
            file.flush()
            assert names(tmp_path) == [".a.txt.tmp", *(["a.txt"] if before else [])]
            assert before is None or path.read_text(encoding="utf-8") == before
        assert path.read_text(encoding="utf-8") == text
        assert names(tmp_path) == ["a.txt"]
    path.chmod(0o600)
    with written(str(path), "wb") as file:
        file.write(b"0\xff")
        file.seek(0)
        file.write(b"1")
    assert path.read_bytes() == b"1\xff"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("is_there", [False, True])
def test_after_an_error_there_is_what_was_there_before(tmp_path, error, is_there):
    path = tmp_path / "a.txt"
    if is_there:
        path.write_text("old", encoding="utf-8")
    with pytest.raises(error), written(path) as file:
        file.write("new" * 10000)
        raise error
    assert names(tmp_path) == ["a.txt"] * is_there
    assert not is_there or path.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_of_a_file(tmp_path, monkeypatch, call):
    """It may be noticed as late as when all is written."""
    (tmp_path / "a.txt").write_text("old", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_with(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space left on device"), written(tmp_path / "a.txt") as file:
            file.write("new")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "old"


NOBODY = 1 << 22  # no process has this number

WRITER = """
import sys, time
from electra_fast.disk import replaced, written
with written("a.txt") as file, replaced("b") as directory:
    file.write("new" * 100000)
    (directory / "c.txt").write_text("new")
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_leaves_what_was_there_and_does_no_harm(tmp_path):
    (tmp_path / "a.txt").write_text("old", encoding="utf-8")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_text("old", encoding="utf-8")
    with subprocess.Popen([sys.executable, "-c", WRITER], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert names(tmp_path) == [".a.txt.tmp", ".b.tmp", "a.txt", "b"]
    for path in (tmp_path / "a.txt", tmp_path / "b" / "c.txt"):
        assert path.read_text(encoding="utf-8") == "old"

    next(tmp_path.glob(".a.txt.*.tmp")).chmod(0o400)
    with written(tmp_path / "a.txt") as file, replaced(tmp_path / "b") as directory:
        file.write("newer")
        assert names(directory) == []
    assert names(tmp_path) == ["a.txt", "b"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "newer"
    assert names(tmp_path / "b") == []


def test_two_processes_that_write_at_once_leave_the_whole_of_one(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WRITER], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        with written(tmp_path / "a.txt") as file, replaced(tmp_path / "b") as directory:
            file.write("ours")
            (directory / "ours.txt").touch()
        assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "ours"
        assert names(tmp_path / "b") == ["ours.txt"]
        assert names(tmp_path) == [".a.txt.tmp", ".b.tmp", "a.txt", "b"]  # the other one is still at work
        process.kill()


def test_permissions_are_those_that_the_user_asks_for(tmp_path):
    mask = os.umask(0o027)
    try:
        (tmp_path / f".a.{NOBODY}.tmp").touch(0o777)
        with written(tmp_path / "a"), replaced(tmp_path / "b"):
            pass
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750


def test_links_are_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("file", "directory"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    for content in ("old", "new"):
        with written(tmp_path / "file") as file, replaced(tmp_path / "directory") as directory:
            file.write(content)
            (directory / content).touch()
    assert (tmp_path / "file").is_symlink() and (tmp_path / "directory").is_symlink()
    assert (tmp_path / "disk" / "file").read_text(encoding="utf-8") == "new"
    assert names(tmp_path / "disk" / "directory") == ["new"]
    assert names(tmp_path / "disk") == ["directory", "file"]


def test_what_cannot_be_written_is_refused_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_writable("new.txt")
    with pytest.raises(FileNotFoundError, match=r"the directory of the output does not exist: .*/missing$"):
        check_writable("missing/a.txt")
    reader, writer = os.pipe()
    check_writable(f"/dev/fd/{writer}")
    os.close(reader), os.close(writer)
    for path, error, message in (
        (tmp_path, FileExistsError, "must be a file, but .* is there and is none .it is a directory"),
        (f"/dev/fd/{writer}", OSError, "Bad file descriptor"),
    ):
        with pytest.raises(error, match=message):
            check_writable(path)
        with pytest.raises(error, match=message), written(path):
            pytest.fail("must not be begun")
    with pytest.raises(FileExistsError, match="another directory than the working one"), replaced("."):
        pytest.fail("must not be begun")
    assert names(tmp_path) == []


# Outputs over inputs


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Files in a directory, and other names of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name in ("in/a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link.txt").symlink_to("in/a.txt")
    os.link("in/a.txt", "hard.txt")
    (tmp_path / "same").symlink_to("in")
    return tmp_path


@pytest.mark.parametrize(
    ("output", "given", "message"),
    [
        *[
            (output, "in/a.txt", f"{output} is in/a.txt")
            for output in ("in/a.txt", "./in/a.txt", "in/../in/a.txt", "link.txt", "hard.txt", "same/a.txt")
        ],
        ("in/a.txt", "link.txt", "in/a.txt is link.txt"),
        ("in", "same", "in is same"),
        (".", "in/a.txt", ". holds in/a.txt"),
        ("same", "in/a.txt", "same holds in/a.txt"),
        ("link.txt", "same", "link.txt is a file of same"),
    ],
)
def test_an_output_over_an_input_is_refused_by_any_name(tree, output, given, message):
    for place in (output, tree / output):
        with pytest.raises(FileExistsError, match="the output must not be written over what is read: "):
            check_apart(place, None, "b.txt", given)
    with pytest.raises(FileExistsError, match=f": {re.escape(message)}$"):
        check_apart(output, given)


def test_outputs_beside_inputs_are_fine(tree):
    for output, *inputs in (
        ("new.txt", "b.txt", "in"),
        ("in/new.txt", "in"),
        ("in/new", "in"),
        ("b.txt", "in", "google/electra-small-discriminator", "missing", None),
        ("/dev/null", "/dev/null"),
    ):
        check_apart(output, *inputs)


def test_streams_are_inputs_and_outputs_too(tree):
    """A shell may have opened a file for them; a device may be both."""
    program = "from electra_fast.disk import check_apart; check_apart({}, {})"
    for arguments, redirected, message in (
        ("'link.txt', 0", "< in/a.txt", "link.txt is the standard input"),
        ("1, 'link.txt'", ">> in/a.txt", "the standard output is link.txt"),
        ("1, 0", "< in/a.txt >> hard.txt", "the standard output is the standard input"),
        ("1, 0", "< in/a.txt > new.txt", None),
        ("1, 0", "< /dev/null > /dev/null", None),
        ("1, 0", "<&- >&-", None),
    ):
        command = f'{sys.executable} -c "{program.format(*arguments.split(", "))}" {redirected}'
        done = subprocess.run(command, shell=True, cwd=tree, capture_output=True, text=True)
        assert (message is None and done.stderr == "") or f": {message}\n" in done.stderr


# Directories


def test_a_directory_takes_the_place_of_another(tmp_path):
    out = tmp_path / "made" / "too" / "out"
    for content in ("old", "new"):
        with replaced(out) as directory:
            assert (directory.parent, directory.name) == (out.parent, f".out.{os.getpid()}.tmp")
            (directory / "in").mkdir()
            (directory / "in" / content).touch()
            assert content == "old" or names(out / "in") == ["old"]
        assert names(out.parent) == ["out"]
        assert names(out / "in") == [content]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("is_there", [False, True])
def test_after_an_error_there_is_the_directory_of_before(tmp_path, error, is_there):
    if is_there:
        (tmp_path / "out" / "old").mkdir(parents=True)
    with pytest.raises(error), replaced(tmp_path / "out") as directory:
        (directory / "new").touch()
        raise error
    assert names(tmp_path) == ["out"] * is_there
    assert not is_there or names(tmp_path / "out") == ["old"]


@pytest.mark.parametrize("is_killed", [False, True])
def test_between_the_two_moves_nothing_is_lost(tmp_path, monkeypatch, is_killed):
    (tmp_path / "out" / "old").mkdir(parents=True)
    replace, sources = os.replace, []

    def interrupted(source, target):
        sources.append(source.name)
        if source.name == f".out.{os.getpid()}.tmp":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        if is_killed:
            patch.setattr("electra_fast.disk._clean", lambda *_: None)
        with pytest.raises(KeyboardInterrupt), replaced(tmp_path / "out"):
            pass
    assert sources[:2] == ["out", f".out.{os.getpid()}.tmp"]
    assert names(tmp_path) == ([".out.old.tmp", ".out.tmp"] if is_killed else ["out"])
    with pytest.raises(ValueError, match="again"), replaced(tmp_path / "out"):
        raise ValueError("again")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["old"]


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "out").touch()
    with (
        pytest.raises(FileExistsError, match=r"the output must be a directory, but .*out is a file"),
        replaced(tmp_path / "out"),
    ):
        pytest.fail("must not be begun")
    assert names(tmp_path) == ["out"]
