"""Encoding of many texts at once into flat arrays: `encode_bulk` and `encode_files` of `ElectraTokenizer`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .arguments import check_flag
from .native import Bulk, NativeEncoder


class BulkEncoding:
    """The methods of `ElectraTokenizer` that make no Python object for a text or a token."""

    n_ids: int

    def _encoder(self) -> NativeEncoder:
        raise NotImplementedError

    def encode_bulk(
        self,
        texts: Iterable[str],
        add_special_tokens: bool = True,
        *,
        num_threads: int | None = None,
        word_starts: bool = False,
        spans: bool = False,
        dtype: Any = np.int32,
    ) -> Bulk:
        """Encodes many texts into arrays, without a Python object per text or token, and with the GIL released.

        Args:
            texts: a list of str, or any iterable of str, read a few megabytes at a time.
            add_special_tokens: whether to frame each text with [CLS] and [SEP].
            num_threads: number of threads; by default the cores that the process may use. Small inputs take fewer.
            word_starts: whether to return which tokens begin a word, as whole-word masking needs.
            spans: whether to return the characters of its text that each token stands for.
            dtype: type of the ids: int32, or uint16 where the vocabulary allows it.

        Returns:
            ids: dtype [N], all rows one after the other, never truncated.
            row_offsets: int64 [texts + 1]; row i is ids[row_offsets[i]:row_offsets[i + 1]].
            word_starts: bool [N], if asked for; True for special tokens too.
            spans: int32 [N, 2], if asked for: begin and end, in characters; zeros for special tokens.

        Raises:
            TypeError: a text that is no str.
            ValueError: a text with half of a surrogate pair, or a dtype too small for the vocabulary.
        """
        _check_flags(add_special_tokens, word_starts, spans)
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
            raise TypeError(f"texts must be a list of str or an iterable of them, got {type(texts).__name__}")
        return self._encoder().encode_bulk(
            texts, add_special_tokens, num_threads, word_starts, spans, self._id_dtype(dtype)
        )

    def encode_files(
        self,
        paths: str | os.PathLike | Sequence[str | os.PathLike],
        *,
        separator: str = "\n",
        add_special_tokens: bool = True,
        num_threads: int | None = None,
        word_starts: bool = False,
        spans: bool = False,
        dtype: Any = np.int32,
    ) -> Bulk:
        """Encodes the texts between the separators of UTF-8 files, as `encode_bulk` encodes those of a list.

        One file after the other is read whole; a pipe is read to its end. No text follows a separator at a file's end.

        Raises:
            FileNotFoundError: a file that does not exist.
            ValueError: a file that is not UTF-8, with its name and the byte in the message; a file that was truncated
                while it was read.
        """
        _check_flags(add_special_tokens, word_starts, spans)
        paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        if not isinstance(paths, (list, tuple)) or not all(isinstance(path, (str, os.PathLike)) for path in paths):
            raise TypeError(f"paths must be a path or a list of paths, got {paths!r:.80}")
        if not isinstance(separator, str):
            raise TypeError(f"separator must be a str, got {separator!r:.80}")
        return self._encoder().encode_files(
            paths, separator, add_special_tokens, num_threads, word_starts, spans, self._id_dtype(dtype)
        )

    def _id_dtype(self, dtype: Any) -> np.dtype:
        dtype = np.dtype(dtype)
        if dtype not in (np.int32, np.uint16) or (dtype == np.uint16 and self.n_ids > 1 << 16):
            raise ValueError(f"dtype must be int32, or uint16 for up to 65,536 tokens, got {dtype} for {self.n_ids:,}")
        return dtype


def _check_flags(add_special_tokens: Any, word_starts: Any, spans: Any) -> None:
    for name, value in (("add_special_tokens", add_special_tokens), ("word_starts", word_starts), ("spans", spans)):
        check_flag(name, value)
