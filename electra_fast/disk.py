"""Text files, plain or packed, line by line; and files and directories that appear whole or not at all."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

COMPRESSIONS = (".gz", ".xz", ".zst")

_DAMAGE = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError)
_CHUNK = 1 << 20


def lines(path: Path, newline: str | None = None) -> Iterator[str]:
    """The lines of UTF-8 text, plain, .gz, .xz or .zst, with their ends.

    Args:
        newline: that of `open`; by default carriage returns end lines too, and become line feeds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, naming the line.
    """
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"no such file: {path}")
    number = 0
    try:
        # Spreadsheets begin a file with a byte order mark.
        with _open_packed(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline=newline) as text:
            for number, line in enumerate(text, start=1):  # noqa: B007 - errors name it
                yield line
    except UnicodeDecodeError as error:
        # Some kilobytes are decoded at once: lines may come before the damage that have not been given out.
        number += 1 + error.object.count(b"\n", 0, error.start)
        raise ValueError(f"{path}, line {number}: {not_utf8(error)}") from error
    except _DAMAGE as error:
        raise ValueError(f"{path}, line {number + 1}: the compressed file is damaged: {error}") from error


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The `lines` of a file by number from 1.

    A line ends with a line feed and nothing else: a carriage return within one is white space of its text.
    """
    return enumerate(lines(path, newline="\n"), start=1)


def not_utf8(error: UnicodeDecodeError) -> str:
    """What is said of a line that is not UTF-8."""
    return f"must be UTF-8, got byte 0x{error.object[error.start]:02x}: {error.reason}"


def _open_packed(file: Path) -> BinaryIO:
    """The bytes of a file, plain, .gz, .xz or .zst; reading raises one of `_DAMAGE` where it is damaged."""
    openers = {".gz": gzip.open, ".xz": lzma.open, ".zst": _open_zstd}
    return openers.get(file.suffix, open)(file, "rb")


def _open_zstd(path: Path, _mode: str) -> io.BufferedReader:
    return io.BufferedReader(_ZstdFile(path), _CHUNK)


class _ZstdFile(io.RawIOBase):
    """The frames of a .zst file as one stream; zstandard's own reader takes a file that was cut off for a whole one."""

    def __init__(self, path: Path):
        self._file = path.open("rb")
        # Files packed with --long=31 need that window.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._packed, self._plain = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self._plain:
            self._packed = self._packed or self._file.read(_CHUNK)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("the file ends before its last frame does")
                return 0
            self._frame = self._frame or self._decompressor.decompressobj()
            self._plain = memoryview(self._frame.decompress(self._packed))
            self._packed = b""
            if self._frame.eof:
                self._packed, self._frame = self._frame.unused_data, None
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def plain_name(path: Path) -> str:
    """The file's name without .gz, .xz or .zst."""
    return path.stem if path.suffix in COMPRESSIONS else path.name


def plain_suffix(path: Path) -> str:
    """How that name ends, in lower case: ".jsonl"."""
    return Path(plain_name(path)).suffix.lower()
