"""Text for pre-training: documents, split into training and held-out text.

`Corpus` reads documents as a stream, so it may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .documents import _HELD_OUT_SHARE, DocumentsBy, Source, is_held_out
from .sources import TextList, find_sources, fingerprint, fingerprint_of_edges
from .windows import WINDOW_CHARS, TokenWindow, token_windows

if TYPE_CHECKING:
    from ...tokenizer import ElectraTokenizer

_MAX_NAMES = 20
_SEPARATORS: dict[DocumentsBy, str] = {
    "blank-line": "Blank lines end documents; with --documents-by line (documents_by='line') every line is one",
    "line": "Every line is a document",
    "file": "Every file is a document; --documents-by line or blank-line (documents_by=) makes more of it",
}


class Corpus:
    """Documents of files, directories and Hugging Face datasets, read again each time.

    About 1 in 20 documents is held out. The text of a document alone decides this, so it does not change when others
    are added, and copies of a document are all held out or none.

    Args:
        paths: text and JSONL files, plain, .gz, .xz or .zst, directories of them, or datasets; see `find_sources`.
        documents_by: end of the documents in text files: "blank-line", "line" or "file". A document longer than 16,384
            characters is cut at line ends in any case.
        text_key: key of the text in a line of JSONL and in a dataset.

    Attributes:
        windows_are_fixed: whether every epoch has the same windows, as with one source, which has one order.
        separator: what ends documents, in a sentence for messages.

    Raises:
        FileNotFoundError, ValueError, ImportError: from `find_sources`. A damaged file is reported when it is read.
    """

    def __init__(self, paths: Sequence[str | Path], documents_by: DocumentsBy = "blank-line", text_key: str = "text"):
        self._sources: list[Source] = [
            source for path in paths for source in find_sources(path, documents_by, text_key)
        ]
        self.separator = _SEPARATORS[documents_by]
        self._fingerprint: str | None = None

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> Corpus:
        """A corpus of documents in memory."""
        corpus = cls([])
        corpus._sources, corpus.separator = [TextList(texts)], "Every text is a document"
        return corpus

    @property
    def windows_are_fixed(self) -> bool:
        return len(self._sources) == 1

    def training(self, random: np.random.Generator | None = None) -> Iterator[str]:
        """The documents to train on; `random` orders the files, None leaves them as given."""
        return (document for document in self._documents(random) if not is_held_out(document))

    def held_out(self, random: np.random.Generator | None = None) -> Iterator[str]:
        """The documents to evaluate on."""
        return (document for document in self._documents(random) if is_held_out(document))

    def training_windows(
        self,
        tokenizer: ElectraTokenizer,
        random: np.random.Generator | None,
        window_chars: int = WINDOW_CHARS,
        threads: int | None = None,
    ) -> Iterator[TokenWindow]:
        """The training documents of one epoch, tokenised; files in an order drawn from `random`, or as given."""
        return token_windows(self.training(random), tokenizer, window_chars, threads)

    def held_out_window(self, tokenizer: ElectraTokenizer, threads: int | None = None) -> TokenWindow:
        """Held-out documents, at most 32 million characters; files in an order that is always the same.

        Raises:
            ValueError: nothing is held out.
        """
        documents = self.held_out(np.random.default_rng(0))
        window = next(token_windows(documents, tokenizer, WINDOW_CHARS, threads), None)
        if window is None:
            raise ValueError(
                f"the corpus must be large enough that some of its documents, about {_HELD_OUT_SHARE:.0%}, are held "
                f"out; got none. {self.separator}"
            )
        return window

    def fingerprint(self) -> str:
        """32 hexadecimal digits that change when files are added, renamed or changed; reads all of them, once.

        A dataset on the Hub is known by its name alone.
        """
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self._sources)
        return self._fingerprint

    def fingerprint_of_edges(self) -> str:
        """The fingerprint of earlier versions, which leaves out what is more than 64 KB from a file's ends."""
        return fingerprint_of_edges(self._sources)

    def description(self) -> dict[str, Any]:
        """Facts about the text for the model card."""
        names = [source.name for source in self._sources]
        shown = names if len(names) <= _MAX_NAMES else [*names[:_MAX_NAMES], f"and {len(names) - _MAX_NAMES} more"]
        return {"sources": ", ".join(shown), "fingerprint": self.fingerprint()}

    def _documents(self, random: np.random.Generator | None) -> Iterator[str]:
        sources = self._sources
        if random is not None:
            sources = [sources[i] for i in random.permutation(len(sources))]
        for source in sources:
            yield from source.documents()
