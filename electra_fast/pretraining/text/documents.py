"""Documents: their sources, how long texts are cut, and which documents are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Protocol

DocumentsBy = Literal["blank-line", "line", "file"]

# Longer documents are cut at line ends, so that a book without blank lines gives text to train on and to hold out.
MAX_DOCUMENT_CHARS = 16_384
_HELD_OUT_SHARE = 0.05


class Source(Protocol):
    """A source of documents."""

    name: str

    def documents(self) -> Iterator[str]:
        """All documents, in an order that never changes; a ValueError names a damaged source."""

    def identity(self) -> bytes:
        """Bytes that change when the content does, as far as this is known without reading all of it."""

    def reading(self) -> str:
        """The option that decides which text of the content is a document; "" where there is none."""

    def files(self) -> list[Path]:
        """The files that hold all of the content; none if `identity` is all that is known of it."""


def cut_documents(lines: Iterable[str], blank_separates: bool) -> Iterator[str]:
    """Documents of at most 16,384 characters, or one longer line; blank lines end documents if they separate."""
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


def is_held_out(document: str) -> bool:
    """Tells by a hash of its text whether a document is for evaluation."""
    digest = hashlib.blake2b(document.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 <= _HELD_OUT_SHARE


def take(documents: Iterable[str], max_chars: int) -> list[str]:
    """The first documents, until they have `max_chars` characters together."""
    taken, n_chars = [], 0
    for document in documents:
        taken.append(document)
        n_chars += len(document)
        if n_chars >= max_chars:
            break
    return taken
