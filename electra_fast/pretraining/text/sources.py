"""Where documents come from: text and JSONL files, plain or compressed, and directories of them.

A source yields its documents one by one, as often as it is asked, always in the same order. A document is a few lines
of text without blank ones.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import zstandard

DocumentsBy = Literal["blank-line", "file"]

# Longer documents are cut at line ends: a book without blank lines still gives text to train on and text to hold out.
MAX_DOCUMENT_CHARS = 16_384

COMPRESSIONS = (".gz", ".xz", ".zst")
_ENDINGS = (".txt", ".jsonl", *COMPRESSIONS)
DAMAGE = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError)
_CHUNK = 1 << 20
_EDGE = 1 << 16  # bytes at either end of a file that its fingerprint covers


class Source(Protocol):
    """Something that documents are read from."""

    name: str

    def documents(self) -> Iterator[str]:
        """All documents, in an order that never changes; a ValueError names a source that is damaged."""

    def identity(self) -> bytes:
        """Bytes that change when the content does, so far as can be told without reading all of it."""


@dataclass(frozen=True)
class TextFile:
    """Lines of UTF-8, plain or compressed; blank lines separate documents, or the whole file is one."""

    path: Path
    name: str
    documents_by: DocumentsBy

    def documents(self) -> Iterator[str]:
        yield from cut_documents(_lines(self.path), self.documents_by == "blank-line")

    def identity(self) -> bytes:
        return _file_identity(self.path, self.name)


@dataclass(frozen=True)
class JsonLinesFile:
    """One JSON object a line, plain or compressed, each a document under the key `text_key`."""

    path: Path
    name: str
    text_key: str

    def documents(self) -> Iterator[str]:
        for number, line in enumerate(_lines(self.path), start=1):
            if not line.isspace():
                yield from cut_documents(self._text(line, number).splitlines(keepends=True), False)

    def identity(self) -> bytes:
        return _file_identity(self.path, self.name)

    def _text(self, line: str, number: int) -> str:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{self.path}, line {number} must be a JSON object, got: {error}") from error
        text = record.get(self.text_key) if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise ValueError(f"{self.path}, line {number} must be an object with text under {self.text_key!r}")
        return text


@dataclass(frozen=True)
class TextList:
    """Documents that are in memory."""

    texts: Sequence[str]
    name: str = "texts in memory"

    def documents(self) -> Iterator[str]:
        yield from self.texts

    def identity(self) -> bytes:
        digest = hashlib.blake2b()
        for text in self.texts:
            digest.update(hashlib.blake2b(text.encode()).digest())
        return digest.digest()


def find_sources(path: str | Path, documents_by: DocumentsBy = "blank-line", text_key: str = "text") -> list[Source]:
    """The sources a path stands for: a file, all files below a directory by name, or a Hugging Face dataset.

    A file whose name, without .gz, .xz or .zst, ends with .jsonl is JSONL; every other file is text. A dataset is a
    directory that `save_to_disk` wrote, or `hf:NAME[:CONFIG[:SPLIT]]`, streamed from the Hub.

    Raises:
        FileNotFoundError: a path that does not exist.
        ValueError: a directory without files that are read.
        ImportError: a dataset, where the package `datasets` is not installed.
    """
    if documents_by not in ("blank-line", "file"):
        raise ValueError(f"documents_by must be 'blank-line' or 'file', got {documents_by!r}")
    if str(path).startswith("hf:"):
        from .hf_datasets import HubDataset

        return [HubDataset.parse(str(path), text_key)]
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such data file or directory: {path}")
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        from .hf_datasets import SavedDataset

        return [SavedDataset(path, path.name, text_key)]
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _ENDINGS and file.is_file())
        if not files:
            raise ValueError(f"{path} must hold files named {', '.join('*' + end for end in _ENDINGS)}, got none")
    sources: list[Source] = []
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        if _is_json_lines(file):
            sources.append(JsonLinesFile(file, name, text_key))
        else:
            sources.append(TextFile(file, name, documents_by))
    return sources


def cut_documents(lines: Iterable[str], blank_separates: bool) -> Iterator[str]:
    """Documents of at most 16,384 characters, or a single line; blank lines end one where they separate."""
    document: list[str] = []
    n_chars = 0
    for line in lines:
        is_blank = line.isspace()
        if document and ((is_blank and blank_separates) or n_chars + len(line) > MAX_DOCUMENT_CHARS):
            yield "".join(document)
            document, n_chars = [], 0
        if not is_blank:
            document.append(line)
            n_chars += len(line)
    if document:
        yield "".join(document)


def fingerprint(sources: Iterable[Source]) -> str:
    """32 hexadecimal digits that change with names, sizes, and the first and last 64 KB of files."""
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        for part in (source.name.encode(), source.identity()):
            digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()


def open_packed(file: Path) -> BinaryIO:
    """The bytes of a file, plain, .gz, .xz or .zst; reading raises one of `DAMAGE` where it is damaged."""
    openers = {".gz": gzip.open, ".xz": lzma.open, ".zst": _open_zstd}
    return openers.get(file.suffix, open)(file, "rb")


def _file_identity(path: Path, name: str) -> bytes:
    size = path.stat().st_size
    digest = hashlib.blake2b(f"{name}\0{size}\0".encode())
    with path.open("rb") as file:
        digest.update(file.read(_EDGE))
        file.seek(max(0, size - _EDGE))
        digest.update(file.read(_EDGE))
    return digest.digest()


def _is_json_lines(file: Path) -> bool:
    return (file.with_suffix("") if file.suffix in COMPRESSIONS else file).suffix == ".jsonl"


def _lines(file: Path) -> Iterator[str]:
    try:
        with open_packed(file) as content, io.TextIOWrapper(content, "utf-8") as lines:
            yield from lines
    except (UnicodeDecodeError, *DAMAGE) as error:
        raise ValueError(f"{file} must be UTF-8 text, plain, .gz, .xz or .zst, got: {error}") from error


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
