"""Documents: what a source gives, how a long text is cut, which ones are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Protocol

# Longer documents are cut at line ends: a book without blank lines still gives text to train on and text to hold out.
MAX_DOCUMENT_CHARS = 16_384
_HELD_OUT_SHARE = 0.05


class Source(Protocol):
    """Something that documents are read from."""

    name: str

    def documents(self) -> Iterator[str]:
        """All documents, in an order that never changes; a ValueError names a source that is damaged."""

    def identity(self) -> bytes:
        """Bytes that change when the content does, so far as can be told without reading all of it."""


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


def is_held_out(document: str) -> bool:
    """Whether a document is for evaluation, by a hash of its text."""
    digest = hashlib.blake2b(document.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 <= _HELD_OUT_SHARE


def take(documents: Iterable[str], max_chars: int) -> list[str]:
    """Documents until that many characters are there."""
    taken, n_chars = [], 0
    for document in documents:
        taken.append(document)
        n_chars += len(document)
        if n_chars >= max_chars:
            break
    return taken
