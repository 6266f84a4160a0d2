"""Windows: a few million tokens of documents that are tokenised, shuffled and packed together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ...tokenizer import ElectraTokenizer

# Characters per window: about 8 million tokens of English, and half a second of tokenising on one core.
WINDOW_CHARS = 32_000_000


@dataclass(frozen=True)
class TokenWindow:
    """Documents as token ids, without special tokens.

    Line i is ids[line_offsets[i] : line_offsets[i + 1]], and document d is lines document_offsets[d] up to
    document_offsets[d + 1].

    Attributes:
        ids: [N] int32, uint16 or uint32, all tokens.
        line_offsets: [lines + 1] int64, starts of lines in ids.
        document_offsets: [documents + 1] int64, starts of documents in lines.
        read: gives the window with its arrays in memory, where these are only mapped to files; see `loaded`.
    """

    ids: np.ndarray
    line_offsets: np.ndarray
    document_offsets: np.ndarray
    read: Callable[[], TokenWindow] | None = None

    @property
    def n_tokens(self) -> int:
        return len(self.ids)

    @property
    def n_documents(self) -> int:
        return len(self.document_offsets) - 1

    def loaded(self) -> TokenWindow:
        """The window in memory; whoever uses the tokens, and not only counts them, takes this one.

        Raises:
            ValueError: files that are damaged, or that changed since the window was made.
        """
        return self if self.read is None else self.read()


def token_windows(
    documents: Iterable[str], tokenizer: ElectraTokenizer, window_chars: int, threads: int | None
) -> Iterator[TokenWindow]:
    """Windows of `window_chars` characters or a little more; the last one holds the rest.

    Args:
        threads: threads that tokenise; None: as many as the process has cores.
    """
    window: list[str] = []
    n_chars = 0
    for document in documents:
        window.append(document)
        n_chars += len(document)
        if n_chars >= window_chars:
            yield _tokenise(window, tokenizer, threads)
            window, n_chars = [], 0
    if window:
        yield _tokenise(window, tokenizer, threads)


def _tokenise(documents: list[str], tokenizer: ElectraTokenizer, threads: int | None) -> TokenWindow:
    # No token crosses a line end, so a document's tokens are those of its lines.
    lines: list[str] = []
    ends = [0]
    for document in documents:
        lines.extend(document.split("\n"))
        ends.append(len(lines))
    ids, line_offsets = tokenizer.encode_bulk(lines, add_special_tokens=False, num_threads=threads)
    return TokenWindow(ids, line_offsets, np.array(ends, np.int64))


def word_start_table(tokenizer: ElectraTokenizer) -> np.ndarray:
    """A table of the ids that begin a word: bool [largest id + 1], False for pieces that continue one (##ing).

    Special tokens count as words, as in `encode_bulk(word_starts=True)`. transformers' tokenizers are served too.
    """
    starts = np.ones(max(tokenizer.get_vocab().values()) + 1, bool)
    prefix, added = tokenizer.backend_tokenizer.model.continuing_subword_prefix, tokenizer.get_added_vocab()
    for token, index in tokenizer.get_vocab().items():
        starts[index] = token in added or not token.startswith(prefix)
    return starts


def vocabulary_fingerprint(tokenizer: ElectraTokenizer) -> str:
    """32 hexadecimal digits that change with the vocabulary and the rules of normalisation."""
    backend = tokenizer.backend_tokenizer
    parts = (
        sorted(tokenizer.get_vocab().items()),
        json.loads(backend.normalizer.__getstate__()),
        backend.model.max_input_chars_per_word,
        tokenizer.final_sigma,
    )
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
