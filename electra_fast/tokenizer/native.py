"""The C++ encoder: made from a `tokenizers.Tokenizer`, it encodes batches for models and texts in bulk.

The backend knows the vocabulary, the added tokens and the files; only the C++ code encodes, or what stands for it where
it is not built (extension.py). So a backend with a component that the C++ code does not know is refused by name, never
encoded by other rules.

A ragged batch is (ids [N], row_offsets [rows + 1]): row i is ids[row_offsets[i]:row_offsets[i + 1]].
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ..processor import default_threads
from .arguments import as_int
from .components import frames, simplify
from .extension import Batch, Frame, Truncation, make_encoder

Bulk = tuple[np.ndarray, ...]  # ids, row offsets, and further columns that were asked for

_MOST_THREADS = 1024
_SLAB = 1 << 24  # characters that are encoded at once, where texts come from an iterator
_PIECE = 1 << 24  # bytes that are read from a file at once


def fingerprint(backend: Tokenizer) -> tuple:
    """Everything that a native encoder depends on; another value means that the backend has changed since."""
    model = backend.model
    return (
        repr(backend.normalizer),
        repr(backend.pre_tokenizer),
        repr(backend.post_processor),
        repr(backend.get_added_tokens_decoder()),
        backend.get_vocab_size(),
        model.unk_token,
        model.max_input_chars_per_word,
    )


class NativeEncoder:
    """An encoder with the rules of a backend of BERT's form.

    Args:
        backend: a backend of BERT's form, or of one that `components.simplify` brings to it.
        final_sigma: whether a word's last capital sigma is lower-cased to the final form.
        split_special: whether special tokens in texts are split like words.

    Raises:
        ValueError: a backend of another form.
    """

    def __init__(self, backend: Tokenizer, final_sigma: bool, split_special: bool):
        simplify(backend)
        self.fingerprint = fingerprint(backend)
        self._encoder = make_encoder(backend, final_sigma, split_special)
        self._single, pair = frames(backend)
        bare = ([piece for piece in frame if piece[0] >= 0] for frame in (self._single, pair))
        self._frames = {True: Frame(self._single, pair), False: Frame(*bare)}  # with special tokens, and without

    def encode_batch(
        self,
        firsts: Sequence,
        seconds: Sequence | None,
        is_split_into_words: bool,
        add_special_tokens: bool,
        truncation: Truncation | None,
    ) -> Batch:
        """Encodes texts and pairs, cut or not, into rows without overflow and without padding."""
        return self._encoder.encode_batch(
            firsts, seconds, is_split_into_words, self._frames[add_special_tokens], truncation, default_threads()
        )

    def encode_bulk(
        self,
        texts: Iterable[str],
        add_special_tokens: bool,
        num_threads: int | None,
        word_starts: bool,
        spans: bool,
        dtype: Any,
    ) -> Bulk:
        """Encodes many texts into arrays; see `ElectraTokenizer.encode_bulk`."""
        slabs = [texts] if isinstance(texts, (list, tuple)) else _slabs(texts)
        prefix, suffix = self._ends(add_special_tokens)
        threads = _check_threads(num_threads)
        parts, n_texts = [], 0
        for slab in slabs:
            parts.append(self._encoder.encode_texts(slab, prefix, suffix, threads, word_starts, spans, n_texts))
            n_texts += len(slab)
        return _join(parts, dtype)

    def encode_files(
        self,
        paths: Sequence[str | os.PathLike],
        separator: str,
        add_special_tokens: bool,
        num_threads: int | None,
        word_starts: bool,
        spans: bool,
        dtype: Any,
    ) -> Bulk:
        """Encodes the texts of files into arrays; see `ElectraTokenizer.encode_files`."""
        if not separator or not paths:
            raise ValueError(f"paths and separator must not be empty, got {paths!r} and {separator!r}")
        prefix, suffix = self._ends(add_special_tokens)
        threads = _check_threads(num_threads)
        parts = []
        for path in paths:
            content = _content(path)
            try:
                part = self._encoder.encode_utf8(content, separator, prefix, suffix, threads, word_starts, spans)
            except ValueError as error:
                raise ValueError(f"{path} {error}") from None
            parts.append(part)
        return _join(parts, dtype)

    def _ends(self, add_special_tokens: bool) -> tuple[list[int], list[int]]:
        """The ids of the special tokens before and after a single text."""
        if not add_special_tokens:
            return [], []
        place = next(index for index, piece in enumerate(self._single) if piece[0] == 0)
        return [piece[1] for piece in self._single[:place]], [piece[1] for piece in self._single[place + 1 :]]


def _check_threads(num_threads: int | None) -> int:
    return default_threads() if num_threads is None else min(as_int("num_threads", num_threads, 1), _MOST_THREADS)


def _slabs(texts: Iterable[str]) -> Iterator[list[str]]:
    slab, size = [], 0
    for text in texts:
        slab.append(text)
        size += len(text) if isinstance(text, str) else 0  # the encoder refuses what is no text
        if size >= _SLAB:
            yield slab
            slab, size = [], 0
    yield slab


def _content(path: str | os.PathLike) -> np.ndarray:
    """Reads a file's bytes. Mapped bytes would take less time, but a file that is truncated meanwhile kills its reader.

    Raises:
        ValueError: a file that was truncated while it was read.
    """
    with Path(path).open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):  # a pipe has no size
            return np.frombuffer(file.readall(), np.uint8)
        content = np.empty(status.st_size, np.uint8)
        done = 0
        while done < len(content):
            n = file.readinto(content[done : done + _PIECE])  # a signal is noticed between two pieces
            if n == 0:
                raise ValueError(
                    f"{path} must not change while it is read: it had {len(content):,} bytes, and ended after {done:,}"
                )
            done += n
    return content


def _join(parts: list[tuple[np.ndarray | None, ...]], dtype: Any) -> Bulk:
    """Joins ragged batches into one: ids, row offsets, and the further columns of the parts."""
    ids, offsets, *extras = parts[0] if len(parts) == 1 else _concatenate(parts)
    ids = ids if ids.dtype == dtype else ids.astype(dtype)
    return (ids, offsets, *(extra for extra in extras if extra is not None))


def _concatenate(parts: list[tuple[np.ndarray | None, ...]]) -> tuple[np.ndarray | None, ...]:
    ids, offsets, *extras = zip(*parts, strict=True)
    firsts = np.cumsum([0, *(len(part) for part in ids)])
    rows = [part[1:] + first for part, first in zip(offsets, firsts[:-1], strict=True)]
    joined = (None if column[0] is None else np.concatenate(column) for column in extras)
    return np.concatenate(ids), np.concatenate([np.zeros(1, np.int64), *rows]), *joined
