"""Rows of tokens as the C++ code holds them, and the views that users get: columns, and an Encoding of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import takewhile
from typing import Any

import numpy as np

from .extension import Batch, Column, Side

_MAY_BE_NONE = ("word_ids", "sequence_ids")  # -1 stands there for None: no word, no sequence


class Rows:
    """Rows of a batch, filled up to a width where that is not 0.

    Args:
        token_of: function that gives the token of an id.
    """

    def __init__(
        self, batch: Batch, width: int, side: Side, pad_id: int, pad_type_id: int, token_of: Callable[[int], str]
    ):
        self._batch, self._filling, self._token_of = batch, (width, side, pad_id, pad_type_id), token_of

    def __len__(self) -> int:
        return len(self._batch)

    @property
    def longest(self) -> int:
        """The number of tokens of the longest row, 0 if there is none."""
        return max(self._batch.longest(), self._filling[0])

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each row."""
        return np.maximum(self._batch.lengths(), self._filling[0]).tolist()

    @property
    def samples(self) -> list[int]:
        """The number of each row's sample in the call."""
        return self._batch.samples().tolist()

    def arrays(self, columns: dict[str, Column]) -> dict[str, np.ndarray] | None:
        """Columns as int64 [rows, tokens], or [rows, tokens, 2] for offsets; None if rows differ in length."""
        return self._batch.columns(columns, 0, len(self._batch), *self._filling)

    def lists(self, column: Column) -> list[list]:
        """A column as a list of each row's values; offsets are tuples."""
        return self._batch.column_lists(column, *self._filling)

    def encodings(self) -> list[Encoding]:
        return [Encoding(self, row) for row in range(len(self))]

    def row(self, name: str, row: int) -> list:
        """A column of one row, with None for what a token has not."""
        (values,) = self._batch.columns({name: getattr(Column, name)}, row, row + 1, *self._filling)[name]
        if name == "offset_mapping":
            return list(zip(*values.T.tolist(), strict=True))
        values = values.tolist()
        return [None if value < 0 else value for value in values] if name in _MAY_BE_NONE else values

    def tokens(self, row: int) -> list[str]:
        return [self._token_of(index) for index in self.row("input_ids", row)]

    def n_sequences(self, row: int) -> int:
        return self._batch.n_sequences(row)

    def overflowing(self, row: int) -> list[Encoding]:
        """Encodings of the parts that were cut off a row's sample."""
        batch = self._batch.with_overflow(True)
        rows = Rows(batch, *self._filling, self._token_of)
        sample = self.samples[row]
        return [Encoding(rows, index) for index, other in enumerate(rows.samples) if other == sample][1:]


class Encoding:
    """One row, with the maps between its tokens, words and characters, as `tokenizers.Encoding` has them."""

    def __init__(self, rows: Rows, row: int):
        self._rows, self._row = rows, row

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Encoding(num_tokens={len(self)}, tokens={self.tokens!r:.80})"

    @cached_property
    def ids(self) -> list[int]:
        return self._rows.row("input_ids", self._row)

    @cached_property
    def type_ids(self) -> list[int]:
        return self._rows.row("token_type_ids", self._row)

    @cached_property
    def tokens(self) -> list[str]:
        return self._rows.tokens(self._row)

    @cached_property
    def offsets(self) -> list[tuple[int, int]]:
        """Characters [start, end) of the text, or of the word where words were given; (0, 0) for special tokens."""
        return self._rows.row("offset_mapping", self._row)

    @cached_property
    def attention_mask(self) -> list[int]:
        return self._rows.row("attention_mask", self._row)

    @cached_property
    def special_tokens_mask(self) -> list[int]:
        return self._rows.row("special_tokens_mask", self._row)

    @cached_property
    def word_ids(self) -> list[int | None]:
        return self._rows.row("word_ids", self._row)

    @cached_property
    def sequence_ids(self) -> list[int | None]:
        return self._rows.row("sequence_ids", self._row)

    @cached_property
    def n_sequences(self) -> int:
        return self._rows.n_sequences(self._row)

    @cached_property
    def overflowing(self) -> list[Encoding]:
        """The rows that truncation cut off."""
        return self._rows.overflowing(self._row)

    def __getstate__(self) -> dict[str, Any]:
        # The rows stay in this process, so a pickle has the values of all properties.
        names = [name for name, value in vars(Encoding).items() if isinstance(value, cached_property)]
        return {name: getattr(self, name) for name in names}

    def token_to_sequence(self, token: int) -> int | None:
        return _at(self.sequence_ids, token)

    def token_to_word(self, token: int) -> int | None:
        return _at(self.word_ids, token)

    def token_to_chars(self, token: int) -> tuple[int, int] | None:
        return None if self.token_to_sequence(token) is None else self.offsets[token]

    def word_to_tokens(self, word: int, sequence: int = 0) -> tuple[int, int] | None:
        _check_index("word", word)
        up_to_word = takewhile(lambda token: (self.word_ids[token] or 0) <= word, self._tokens_of(sequence))
        tokens = [token for token in up_to_word if self.word_ids[token] == word]
        return (tokens[0], tokens[-1] + 1) if tokens else None

    def word_to_chars(self, word: int, sequence: int = 0) -> tuple[int, int] | None:
        tokens = self.word_to_tokens(word, sequence)
        return None if tokens is None else (self.offsets[tokens[0]][0], self.offsets[tokens[1] - 1][1])

    def char_to_token(self, char: int, sequence: int = 0) -> int | None:
        _check_index("character", char)
        of_char = (t for t in self._tokens_of(sequence) if self.offsets[t][0] <= char < self.offsets[t][1])
        return next(of_char, None)

    def char_to_word(self, char: int, sequence: int = 0) -> int | None:
        token = self.char_to_token(char, sequence)
        return None if token is None else self.word_ids[token]

    def _tokens_of(self, sequence: int) -> Iterable[int]:
        if sequence >= self.n_sequences:  # all tokens then, as in the library
            return range(len(self))
        return (token for token, other in enumerate(self.sequence_ids) if other == sequence)


def _check_index(name: str, index: int) -> None:
    if index < 0:
        raise OverflowError(f"a {name}'s index must be at least 0, got {index}")  # the class that the library raises


def _at(values: list, index: int) -> Any:
    _check_index("token", index)
    return values[index] if index < len(values) else None
