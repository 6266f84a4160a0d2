"""BatchEncoding, the result of a tokenizer: columns by name, and maps between tokens, words and characters.

The maps come from the encodings behind the rows. These are made on first use, and so are columns of lists: making
millions of Python objects takes far longer than encoding.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .rows import Encoding


class CharSpan(NamedTuple):
    """Characters [start, end) of the original text."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens [start, end) of a row."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Late:
    """A column that is made when it is first asked for."""

    make: Callable[[], list]


class BatchEncoding(UserDict):
    """Rows of token ids and their other columns, by name or as attributes.

    An integer index gives the Encoding of a row, a slice those of several; without encodings, as after `pad`, a slice
    gives the columns of those rows.

    Args:
        data: the columns: lists, perhaps `Late` ones, or arrays or tensors of shape [rows, tokens].
        encoding: the encodings of the rows, one encoding, or a function that makes them.
        tensor_type: "pt" or "np" converts the columns.
        prepend_batch_axis: whether to add an axis of size one in front, for a single row.
        n_sequences: 1 for texts, 2 for pairs; default: the encodings' number.
    """

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        encoding: Encoding | list[Encoding] | Callable[[], list[Encoding]] | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
        n_sequences: int | None = None,
    ):
        self._columns = dict(data or {})
        self._encodings = [encoding] if isinstance(encoding, Encoding) else encoding
        self._n_sequences = n_sequences
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    @property
    def data(self) -> dict[str, Any]:
        """The columns by name, in a dict of their own."""
        for key in self._columns:
            self._column(key)
        return self._columns

    @data.setter
    def data(self, data: dict[str, Any]) -> None:
        self._columns = data

    def _column(self, key: str) -> Any:
        value = self._columns[key]
        if isinstance(value, Late):
            value = self._columns[key] = value.make()
        return value

    # What needs no column's values: UserDict's own would make them all.

    def __len__(self) -> int:
        return len(self._columns)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __contains__(self, key: object) -> bool:
        return key in self._columns

    def __setitem__(self, key: str, value: Any) -> None:
        self._columns[key] = value

    def __delitem__(self, key: str) -> None:
        del self._columns[key]

    def __copy__(self) -> BatchEncoding:
        other = self.__class__.__new__(self.__class__)
        other.__dict__.update(self.__dict__, _columns=dict(self.data))
        return other

    @property
    def encodings(self) -> list[Encoding] | None:
        """The encodings of the rows; None where the rows did not come from a text."""
        if callable(self._encodings):
            self._encodings = self._encodings()
        return self._encodings

    @property
    def is_fast(self) -> bool:
        return self._encodings is not None

    @property
    def n_sequences(self) -> int | None:
        if self._n_sequences is None and self.encodings:
            self._n_sequences = self.encodings[0].n_sequences
        return self._n_sequences

    def __getitem__(self, item: str | int | slice) -> Any:
        if isinstance(item, str):
            return self._column(item)
        if self._encodings is not None:
            return self.encodings[item]
        if isinstance(item, slice):
            return {key: value[item] for key, value in self.data.items()}
        raise KeyError(f"a row can be taken by its number only where the rows came from texts, got {item!r}")

    def __getattr__(self, name: str) -> Any:
        # Python calls this only where ordinary look-up fails. While an instance is unpickled, columns are missing, too.
        try:
            value = self.__dict__["_columns"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has neither an attribute nor a key {name!r}") from None
        return self._column(name) if isinstance(value, Late) else value

    def __getstate__(self) -> dict[str, Any]:
        return {"_columns": self.data, "_encodings": self.encodings, "_n_sequences": self._n_sequences}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    # Maps between tokens, words and characters. Each takes (row, index), or the index alone for row 0; tokens may be
    # counted from a row's end.

    def _row(self, method: str, row: int = 0) -> Encoding:
        if not self.encodings:
            raise ValueError(f"{method}() needs rows that came from texts; this BatchEncoding holds ids only")
        return self.encodings[row]

    def _locate(self, method: str, row_or_index: int, index: int | None) -> tuple[Encoding, int]:
        """The row's encoding and the index in it."""
        row, index = (0, row_or_index) if index is None else (row_or_index, index)
        return self._row(method, row), index

    def _locate_token(self, method: str, row_or_index: int, index: int | None) -> tuple[Encoding, int]:
        encoding, index = self._locate(method, row_or_index, index)
        return encoding, index + len(encoding) if index < 0 else index

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row, as strings."""
        return self._row("tokens", batch_index).tokens

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """The word that each token of a row belongs to; None for special tokens."""
        return self._row("word_ids", batch_index).word_ids

    def words(self, batch_index: int = 0) -> list[int | None]:
        return self.word_ids(batch_index)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """The sequence of each token of a row: 0 for the text, 1 for its pair, None for special tokens."""
        return self._row("sequence_ids", batch_index).sequence_ids

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        encoding, index = self._locate_token("token_to_sequence", batch_or_token_index, token_index)
        return encoding.token_to_sequence(index)

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        encoding, index = self._locate_token("token_to_word", batch_or_token_index, token_index)
        return encoding.token_to_word(index)

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        encoding, index = self._locate_token("token_to_chars", batch_or_token_index, token_index)
        span = encoding.token_to_chars(index)
        return None if span is None else CharSpan(*span)

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        encoding, index = self._locate("word_to_tokens", batch_or_word_index, word_index)
        span = encoding.word_to_tokens(index, sequence_index)
        return None if span is None else TokenSpan(*span)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        encoding, index = self._locate("word_to_chars", batch_or_word_index, word_index)
        span = encoding.word_to_chars(index, sequence_index)
        return None if span is None else CharSpan(*span)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        encoding, index = self._locate("char_to_token", batch_or_char_index, char_index)
        return encoding.char_to_token(index, sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        encoding, index = self._locate("char_to_word", batch_or_char_index, char_index)
        return encoding.char_to_word(index, sequence_index)

    # Tensors

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Turns the columns into int64 arrays ("np") or tensors ("pt") in place.

        Rows of unequal length become an array of arrays.

        Raises:
            ValueError: an unknown type, or rows of unequal length for "pt".
        """
        if tensor_type is None:
            return self
        tensor_type = getattr(tensor_type, "value", tensor_type)  # transformers' TensorType
        if tensor_type not in ("pt", "np"):
            raise ValueError(f"return_tensors must be 'pt', 'np' or None, got {tensor_type!r}")
        if tensor_type == "pt":
            import torch
        columns = self._columns
        for key in columns:
            value = self._column(key)
            array = _as_array(key, [value] if prepend_batch_axis else value, tensor_type)
            columns[key] = torch.from_numpy(array) if tensor_type == "pt" and isinstance(array, np.ndarray) else array
        return self

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Moves the tensors among the columns to a device, in place."""
        for key, value in self.data.items():
            if hasattr(value, "to"):
                self.data[key] = value.to(device=device, non_blocking=non_blocking)
        return self


def _as_array(key: str, value: Any, tensor_type: str) -> Any:
    """A column as an array; where "pt" is asked for, a tensor is left as it is."""
    if not isinstance(value, (list, tuple, np.ndarray)):  # already a tensor
        return value if tensor_type == "pt" else np.asarray(value)
    try:
        array = np.asarray(value)
    except ValueError:
        if tensor_type == "np" and all(isinstance(row, (list, tuple, np.ndarray)) for row in value):
            array = np.empty(len(value), object)  # as transformers has it
            array[:] = [np.asarray(row) for row in value]
            return array
        raise ValueError(
            f"{key} must have rows of one length to become a tensor: ask for padding=True, truncation=True, or both"
        ) from None
    return array if array.size else array.astype(np.int64)
