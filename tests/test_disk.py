"""Lines of files that may be packed."""

import gzip
import lzma
import os

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.disk import _open_zstd, lines, numbered_lines

PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


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


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("damage", ["cut off", "no such format", "flipped"])
def test_a_damaged_packed_file_is_named_with_the_line(tmp_path, ending, damage):
    path = tmp_path / f"a{ending}"
    packed = bytearray(PACK[ending]("\n".join(os.urandom(50).hex() for _ in range(2000)).encode()))
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
    with pytest.raises(ValueError, match=rf"a\{ending}, line \d+: the compressed file is damaged: ") as raised:
        found.extend(line for _, line in numbered_lines(path))
    assert f"line {len(found) + 1}:" in str(raised.value) or found == []


def test_no_lines_without_a_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing.txt"):
        with pytest.raises(FileNotFoundError, match="no such file: "):
            list(lines(path))


@settings(deadline=None, max_examples=30)
@given(parts=st.lists(st.binary(max_size=3000), max_size=5), repeats=st.integers(1, 800))
def test_zstd_files_of_several_frames_are_read_to_their_end(tmp_path_factory, parts, repeats):
    path = tmp_path_factory.mktemp("zstd") / "a.zst"
    parts = [part * repeats for part in parts]
    path.write_bytes(b"".join(zstandard.compress(part) for part in parts))
    with _open_zstd(path, "rb") as file:
        assert file.read() == b"".join(parts)
