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
DAMAGE = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError)


_CHUNK = 1 << 20


def open_packed(file: Path) -> BinaryIO:
    """The bytes of a file, plain, .gz, .xz or .zst; reading raises one of `DAMAGE` where it is damaged."""
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


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of UTF-8 text, plain, .gz, .xz or .zst, with their ends, by number from 1.

    A line ends with a line feed and nothing else: a carriage return within one is white space of its text.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, naming the line.
    """
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"no such file: {path}")
    number = 0
    try:
        with open_packed(path) as file:
            for number, line in enumerate(file, start=1):
                # Spreadsheets begin a file with a byte order mark.
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number}: must be UTF-8, got: {error}") from error
    except DAMAGE as error:
        raise ValueError(f"{path}, line {number + 1}: the compressed file is damaged: {error}") from error


def plain_name(path: Path) -> str:
    """The file's name without .gz, .xz or .zst."""
    return path.stem if path.suffix in COMPRESSIONS else path.name


def plain_suffix(path: Path) -> str:
    """How that name ends, in lower case: ".jsonl"."""
    return Path(plain_name(path)).suffix.lower()
