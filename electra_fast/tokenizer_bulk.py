"""Text to ids in bulk: the C++ WordPiece where it gives the backend's ids, the backend for the rest, arrays throughout.

A ragged batch is (ids [N], row_offsets [rows + 1]): row i is ids[row_offsets[i]:row_offsets[i + 1]].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from tokenizers import Encoding, Tokenizer, models
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from ._tokenizer import LONGEST_WORD, WordPiece

Ragged = tuple[np.ndarray, np.ndarray]
EncodeRest = Callable[[list[str], bool], list[list[int]]]


def fingerprint(backend: Tokenizer) -> tuple:
    """What a bulk encoder depends on; another value means that the backend has been changed since."""
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


class BulkEncoder:
    """The C++ encoder of a backend, if it has BERT's standard form, with the backend standing in for the rest.

    Args:
        backend: without truncation or padding of its own in `encode_rest`.
        fingerprint: the backend's `fingerprint`.
    """

    def __init__(self, backend: Tokenizer, fingerprint: tuple):
        self.fingerprint = fingerprint
        self._native = _native_encoder(backend)
        self._prefix, self._suffix = _frame(backend) or ([], [])

    @property
    def is_native(self) -> bool:
        return self._native is not None

    def encode(self, texts: list[str], add_special_tokens: bool, encode_rest: EncodeRest) -> Ragged:
        """Encodes texts natively; those that the C++ code defers through `encode_rest(texts, add_special_tokens)`."""
        if self._native is None:
            rows = [np.array(row, np.int32) for row in encode_rest(texts, add_special_tokens)]
            return np.concatenate([*rows, np.empty(0, np.int32)]), offsets_of([len(row) for row in rows])
        prefix, suffix = (self._prefix, self._suffix) if add_special_tokens else ([], [])
        ids, offsets, deferred = self._native.encode(texts, prefix, suffix)
        if not deferred:
            return ids, offsets
        rest = encode_rest([texts[row] for row in deferred], add_special_tokens)
        # Deferred rows are empty so far: the native ids up to each of them stay in one piece.
        pieces, done = [], 0
        for row, row_ids in zip(deferred, rest, strict=True):
            pieces += [ids[done : offsets[row]], np.array(row_ids, np.int32)]
            done = offsets[row]
        lengths = np.diff(offsets)
        lengths[deferred] = [len(row_ids) for row_ids in rest]
        return np.concatenate([*pieces, ids[done:]]), offsets_of(lengths)


def _frame(backend: Tokenizer) -> tuple[list[int], list[int]] | None:
    """The ids before and after a single text, or None where they are not one at each end."""
    frame = backend.post_processor.process(Encoding(), None, True).ids
    return (frame[:1], frame[1:]) if len(frame) == 2 else None


def _native_encoder(backend: Tokenizer) -> WordPiece | None:
    model, normalizer = backend.model, backend.normalizer
    added = backend.get_added_tokens_decoder().values()
    standard = (
        isinstance(model, models.WordPiece)
        and model.continuing_subword_prefix == "##"
        and model.max_input_chars_per_word <= LONGEST_WORD
        and isinstance(normalizer, BertNormalizer)
        and normalizer.clean_text
        and isinstance(backend.pre_tokenizer, BertPreTokenizer)
        and _frame(backend) is not None
        # Such tokens are found in normalized text; the others literally, which is what the C++ code looks for.
        and not any(token.normalized for token in added)
    )
    if not standard:
        return None
    return WordPiece(
        pieces=list(backend.get_vocab(with_added_tokens=False).items()),
        unknown_id=backend.token_to_id(model.unk_token),
        max_word_length=model.max_input_chars_per_word,
        lower_case=normalizer.lowercase,
        whole_tokens=[token.content for token in added],
    )


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def truncate(ragged: Ragged, max_length: int, n_ends: int, side: str) -> Ragged:
    """Shortens rows to max_length from the given side; the first and last n_ends tokens, which frame them, stay."""
    ids, offsets = ragged
    lengths = np.diff(offsets)
    if lengths.max(initial=0) <= max_length:
        return ragged
    position = np.arange(len(ids)) - np.repeat(offsets[:-1], lengths)
    to_end = np.repeat(lengths, lengths) - position  # 1 for a row's last token
    if side == "right":
        keep = (position < max_length - n_ends) | (to_end <= n_ends)
    else:
        keep = (position < n_ends) | (to_end <= max_length - n_ends)
    return ids[keep], offsets_of(np.minimum(lengths, max_length))


def pad(ragged: Ragged, width: int, fill: int, side: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows side by side: ids and mask, int64 [rows, width], where no row is longer than the width."""
    ids, offsets = ragged
    lengths = np.diff(offsets)[:, None]
    column = np.arange(width)
    mask = column < lengths if side == "right" else column >= width - lengths
    padded = np.full(mask.shape, fill, np.int64)
    padded[mask] = ids  # a boolean index runs row by row, as the ids do
    return padded, mask.astype(np.int64)


def to_lists(ragged: Ragged) -> list[list[int]]:
    ids, offsets = ragged[0].tolist(), ragged[1].tolist()
    return [ids[start:end] for start, end in pairwise(offsets)]
