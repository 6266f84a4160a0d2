"""Sources of documents: text and JSONL files, plain or compressed, Parquet, and directories of them.

A source yields its documents one by one, any number of times, always in the same order. A document is a few lines of
text without blank ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import get_args

from ...disk import COMPRESSIONS, lines, parse_json, plain_suffix
from ...parquet import SUFFIX, read_rows
from ...processor import default_threads
from .documents import DocumentsBy, Source, cut_documents

_ENDINGS = (".txt", ".jsonl", SUFFIX, *COMPRESSIONS)
_EDGE = 1 << 16  # bytes at each end of a file that its identity covers
# Bytes of a file that are hashed by one thread, and that are read at once.
_PART, _BLOCK = 1 << 26, 1 << 20


@dataclass(frozen=True)
class TextFile:
    """A file of UTF-8 text, plain or compressed: documents with blank lines between, one a line, or a single one."""

    path: Path
    name: str
    documents_by: DocumentsBy

    def documents(self) -> Iterator[str]:
        if self.documents_by == "line":
            yield from (line for line in lines(self.path) if not line.isspace())
        else:
            yield from cut_documents(lines(self.path), self.documents_by == "blank-line")

    def identity(self) -> bytes:
        return _file_identity(self.path, self.name)

    def reading(self) -> str:
        return self.documents_by

    def files(self) -> list[Path]:
        return [self.path]


@dataclass(frozen=True)
class _FileOfRecords:
    """Base of the files whose records each have a document under the key `text_key`."""

    path: Path
    name: str
    text_key: str

    def identity(self) -> bytes:
        return _file_identity(self.path, self.name)

    def reading(self) -> str:
        return self.text_key

    def files(self) -> list[Path]:
        return [self.path]


@dataclass(frozen=True)
class JsonLinesFile(_FileOfRecords):
    """A file of one JSON object per line, plain or compressed, each with a document under the key `text_key`."""

    def documents(self) -> Iterator[str]:
        for number, line in enumerate(lines(self.path), start=1):
            if not line.isspace():
                yield from cut_documents(self._text(line, number).splitlines(keepends=True), False)

    def _text(self, line: str, number: int) -> str:
        try:
            record = parse_json(line)
        except ValueError as error:
            raise ValueError(f"{self.path}, line {number} must be a JSON object, got: {error}") from error
        text = record.get(self.text_key) if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise ValueError(f"{self.path}, line {number} must be an object with text under {self.text_key!r}")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # JSON can spell half a character
            raise ValueError(f"{self.path}, line {number} must hold text, got: {error}") from error
        return text


@dataclass(frozen=True)
class ParquetFile(_FileOfRecords):
    """A file of Parquet with a document in each row of the column `text_key`; rows without text are left out."""

    def documents(self) -> Iterator[str]:
        for number, row in read_rows(self.path, [self.text_key]):
            text = row[self.text_key]
            if not isinstance(text, str | None):
                raise ValueError(f"{self.path}, row {number} must have text under {self.text_key!r}, got {text!r:.80}")
            yield from cut_documents((text or "").splitlines(keepends=True), False)


@dataclass(frozen=True)
class TextList:
    """Documents in memory."""

    texts: Sequence[str]
    name: str = "texts in memory"

    def documents(self) -> Iterator[str]:
        yield from self.texts

    def identity(self) -> bytes:
        digest = hashlib.blake2b()
        for text in self.texts:
            digest.update(hashlib.blake2b(text.encode()).digest())
        return digest.digest()

    def reading(self) -> str:
        return ""

    def files(self) -> list[Path]:
        return []


def find_sources(path: str | Path, documents_by: DocumentsBy = "blank-line", text_key: str = "text") -> list[Source]:
    """The sources of a path: a file, all files below a directory in order of name, or a Hugging Face dataset.

    A file whose name, without .gz, .xz or .zst, ends with .jsonl is JSONL; one that ends with .parquet is Parquet;
    every other is text. A dataset is a directory written by `save_to_disk`, or `hf:NAME[:CONFIG[:SPLIT]]`, streamed
    from the Hub.

    Raises:
        FileNotFoundError: a path that does not exist.
        ValueError: a directory without readable files.
        ImportError: a dataset, if the package `datasets` is not installed.
    """
    if documents_by not in get_args(DocumentsBy):
        raise ValueError(f"documents_by must be one of {', '.join(get_args(DocumentsBy))}, got {documents_by!r}")
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
        if plain_suffix(file) == ".jsonl":
            sources.append(JsonLinesFile(file, name, text_key))
        elif file.suffix == SUFFIX:
            sources.append(ParquetFile(file, name, text_key))
        else:
            sources.append(TextFile(file, name, documents_by))
    return sources


def fingerprint(sources: Iterable[Source]) -> str:
    """32 hexadecimal digits that change with names, with what a document is, and with any byte of files.

    Files are read whole, by all cores.
    """
    digest = hashlib.sha256()
    with ThreadPoolExecutor(default_threads()) as pool:
        found = [(source, [pool.map(_part_digest, *_parts(file)) for file in source.files()]) for source in sources]
        for source, files in found:
            contents = [b"".join(parts) for parts in files] or [source.identity()]
            for part in (source.name.encode(), source.reading().encode(), len(contents).to_bytes(8), *contents):
                digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()[:32]


def fingerprint_of_edges(sources: Iterable[Source]) -> str:
    """The fingerprint of earlier versions, which changes with names, sizes, and the first and last 64 KB of files."""
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        for part in (source.name.encode(), source.identity()):
            digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()


def _parts(path: Path) -> tuple[Iterable[Path], Iterable[int]]:
    return repeat(path), range(0, path.stat().st_size, _PART)


def _part_digest(path: Path, start: int) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        for _ in range(_PART // _BLOCK):
            digest.update(file.read(_BLOCK))
    return digest.digest()


def _file_identity(path: Path, name: str) -> bytes:
    size = path.stat().st_size
    digest = hashlib.blake2b(f"{name}\0{size}\0".encode())
    with path.open("rb") as file:
        digest.update(file.read(_EDGE))
        file.seek(max(0, size - _EDGE))
        digest.update(file.read(_EDGE))
    return digest.digest()
