"""The `tokenizers` package behind the names of the C++ extension, for platforms that the extension is not built for.

The package turns texts into tokens, with Python objects for each of them, so it takes many times longer. Rows are cut
and framed here, by the rules of csrc/tokenizer/batch.cpp: the package's own truncation ends some calls by a panic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice

import numpy as np
from tokenizers import Encoding, Tokenizer

_TEXTS = 1024  # texts that are encoded at once into arrays: their objects are freed before the next ones

Side = Enum("Side", ["right", "left"])
Strategy = Enum("Strategy", ["longest_first", "only_first", "only_second"])
FramePiece = tuple[int, int, int]  # as in components.py
Part = tuple[int, int]  # tokens [begin, end) of a sequence


class Column(Enum):
    """Columns of a batch, and where the table of a row has them."""

    input_ids = 0
    token_type_ids = 1
    attention_mask = 2
    special_tokens_mask = 3
    word_ids = 4
    sequence_ids = 5
    offset_mapping = slice(6, 8)


_FILLS = {
    Column.attention_mask: 0,
    Column.special_tokens_mask: 1,
    Column.word_ids: -1,
    Column.sequence_ids: -1,
    Column.offset_mapping: 0,
}


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """Where and to how many tokens rows are cut, special tokens included; parts have `stride` tokens in common."""

    strategy: Strategy
    max_length: int
    stride: int
    side: Side

    def parts(self, lengths: list[int], n_special: int) -> list[list[Part]]:
        """The parts of a sample's sequences, those that are kept first; raises ValueError where they cannot be cut."""
        room = self.max_length - n_special
        if room < 0:
            raise ValueError(f"max_length must leave room for {n_special} special tokens, got {self.max_length}")
        return [self._cut(*pair) for pair in zip(lengths, self._kept(lengths, room), strict=True)]

    def _kept(self, lengths: list[int], room: int) -> list[int]:
        excess = sum(lengths) - room
        if excess <= 0:
            return lengths
        if room == 0:
            return [0] * len(lengths)
        if self.strategy is Strategy.longest_first:
            if len(lengths) == 1:
                return [room]
            # The shorter one keeps its length, up to half of the room.
            shorter = min(lengths)
            longer = max(shorter, room - shorter)
            if shorter + longer > room:
                shorter, longer = room // 2, room - room // 2
            return [longer, shorter] if lengths[0] > lengths[1] else [shorter, longer]
        target = int(self.strategy is Strategy.only_second)
        if target == len(lengths):
            raise ValueError("truncation='only_second' needs a pair, got a single text")
        if lengths[target] <= excess:
            raise ValueError(
                f"truncation='{self.strategy.name}' must remove {excess} tokens, but that text has {lengths[target]}"
            )
        return [length - excess * (index == target) for index, length in enumerate(lengths)]

    def _cut(self, size: int, length: int) -> list[Part]:
        if length >= size:
            return [(0, size)]
        if length == 0:
            return [(0, 0), (0, size)]
        if self.stride >= length:
            raise ValueError(f"stride must be below the {length} tokens that a text is cut to, got {self.stride}")
        begins = range(0, max(size - self.stride, 1), length - self.stride)
        parts = [(begin, min(begin + length, size)) for begin in begins]
        return parts if self.side is Side.right else [(size - end, size - begin) for begin, end in parts]


@dataclass(frozen=True)
class Frame:
    """The special tokens around a single text, and around a pair."""

    single: list[FramePiece]
    pair: list[FramePiece]


class Batch:
    """Rows of samples: texts and pairs cut to a length, framed by special tokens, and laid out in columns."""

    def __init__(self, samples: list[list[np.ndarray]], frame: Frame, cut: Truncation | None):
        self._samples, self._frames = samples, (frame.single, frame.pair)
        self._parts = []
        for sequences in samples:
            lengths = [len(tokens) for tokens in sequences]
            n_special = sum(piece[0] < 0 for piece in self._frame(sequences))
            self._parts.append([[(0, n)] for n in lengths] if cut is None else cut.parts(lengths, n_special))
        self._tables = self._rows(False)

    def with_overflow(self, overflow: bool) -> Batch:
        """The same batch, with the rows cut off or without."""
        batch = object.__new__(Batch)
        batch.__dict__.update(self.__dict__, _tables=self._rows(overflow))
        return batch

    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return np.array([len(table) for _, table in self._tables], np.int64)

    def samples(self) -> np.ndarray:
        """Each row's sample, by number."""
        return np.array([sample for sample, _ in self._tables], np.int64)

    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths().max(initial=0))

    def __len__(self) -> int:
        return len(self._tables)

    def n_sequences(self, row: int) -> int:
        return len(self._samples[self._tables[row][0]])

    def columns(
        self, names: dict[str, Column], first: int, last: int, width: int, side: Side, pad_id: int, pad_type_id: int
    ) -> dict[str, np.ndarray] | None:
        """Columns of the rows [first, last), each filled up to the width: int64 [rows, tokens], or [rows, tokens, 2]
        for offsets. None if these rows differ in length, or if there are none."""
        if len({max(len(table), width) for _, table in self._tables[first:last]}) != 1:
            return None
        filling = width, side, pad_id, pad_type_id
        return {name: np.stack(self._column(column, first, last, *filling)) for name, column in names.items()}

    def column_lists(self, column: Column, width: int, side: Side, pad_id: int, pad_type_id: int) -> list[list]:
        """The list of each row's values, which are tuples for offsets."""
        rows = [row.tolist() for row in self._column(column, 0, len(self), width, side, pad_id, pad_type_id)]
        return [[*map(tuple, row)] for row in rows] if column is Column.offset_mapping else rows

    def _column(
        self, column: Column, first: int, last: int, width: int, side: Side, pad_id: int, pad_type_id: int
    ) -> list[np.ndarray]:
        fill = {Column.input_ids: pad_id, Column.token_type_ids: pad_type_id, **_FILLS}[column]
        rows = []
        for _, table in self._tables[first:last]:
            own = table[:, column.value]
            filling = np.full((max(width - len(own), 0), *own.shape[1:]), fill, np.int64)
            rows.append(np.concatenate((own, filling) if side is Side.right else (filling, own)))
        return rows

    def _frame(self, sequences: list[np.ndarray]) -> list[FramePiece]:
        return self._frames[len(sequences) - 1]

    def _rows(self, overflow: bool) -> list[tuple[int, np.ndarray]]:
        """The sample and the table of each row, int64 [tokens, 8], with the columns of `Column`."""
        rows = []
        for sample, (sequences, parts) in enumerate(zip(self._samples, self._parts, strict=True)):
            first, *second = parts
            n_second = len(second[0]) if second else 1
            # The further parts of the first text go with each of the second, then its first part with the further ones.
            chosen = [(a, b) for a in range(1, len(first)) for b in range(n_second)] + [
                (0, b) for b in range(1, n_second)
            ]
            for choice in [(0, 0), *(chosen if overflow else ())]:
                kept = [tokens[slice(*of[index])] for tokens, of, index in zip(sequences, parts, choice)]  # noqa: B905
                rows.append((sample, _table(kept, self._frame(sequences))))
        return rows


def _table(sequences: list[np.ndarray], frame: list[FramePiece]) -> np.ndarray:
    pieces = [np.zeros((0, 8), np.int64)]
    for sequence, index, type_id in frame:
        if sequence < 0:
            pieces.append(np.array([[index, type_id, 1, 1, -1, -1, 0, 0]], np.int64))
        else:
            piece = sequences[sequence].copy()
            piece[:, Column.token_type_ids.value] = type_id
            piece[:, Column.sequence_ids.value] = sequence
            pieces.append(piece)
    return np.concatenate(pieces)


class Encoder:
    """An encoder with the methods of the C++ one, made from a backend of BERT's form.

    Raises:
        ValueError: `final_sigma`, which the package does not have.
    """

    def __init__(self, backend: Tokenizer, final_sigma: bool, split_special: bool):
        if final_sigma:
            raise ValueError("final_sigma must be False where the C++ extension is not built, got True")
        self._backend = Tokenizer.from_str(backend.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = split_special

    def encode_batch(
        self,
        firsts: Sequence,
        seconds: Sequence | None,
        split_into_words: bool,
        frame: Frame,
        truncation: Truncation | None,
        n_threads: int,
    ) -> Batch:
        """Encodes texts, or lists of words, and pairs of them; None among the seconds stands for no second."""
        texts, n_sequences = [], []
        for index, (first, second) in enumerate(zip(firsts, seconds or [None] * len(firsts), strict=True)):
            names = {"text": first} if second is None else {"text": first, "text_pair": second}
            texts += [_checked(f"{name}[{index}]", text, split_into_words) for name, text in names.items()]
            n_sequences.append(len(names))
        encodings = iter(self._backend.encode_batch(texts, split_into_words, add_special_tokens=False))
        samples = [[_tokens(encoding) for encoding in islice(encodings, n)] for n in n_sequences]
        return Batch(samples, frame, truncation)

    def encode_texts(
        self,
        texts: Iterable[str],
        prefix: list[int],
        suffix: list[int],
        n_threads: int,
        word_starts: bool,
        spans: bool,
        first_index: int,
    ) -> tuple[np.ndarray | None, ...]:
        """Encodes texts into ids and row offsets, word starts and spans: see the C++'s encode_texts."""
        ids, offsets, starts, places = [np.zeros(0, np.int32)], [0], [], []
        for row in self._rows_of(_checked(f"texts[{first_index + i}]", text, False) for i, text in enumerate(texts)):
            ids.append(np.array([*prefix, *row.ids, *suffix], np.int32))
            offsets.append(offsets[-1] + len(ids[-1]))
            if word_starts:
                words = row.word_ids
                begins = [word != before for word, before in zip(words, [None, *words], strict=False)]
                starts += [True] * len(prefix) + begins + [True] * len(suffix)
            if spans:
                places += [(0, 0)] * len(prefix) + row.offsets + [(0, 0)] * len(suffix)
        return (
            np.concatenate(ids),
            np.array(offsets, np.int64),
            np.array(starts, bool) if word_starts else None,
            np.array(places, np.int32).reshape(-1, 2) if spans else None,
        )

    def encode_utf8(
        self,
        content: np.ndarray,
        separator: str,
        prefix: list[int],
        suffix: list[int],
        n_threads: int,
        word_starts: bool,
        spans: bool,
    ) -> tuple[np.ndarray | None, ...]:
        """Encodes the texts between separators, as encode_texts; no text follows a separator at the end."""
        try:
            texts = content.tobytes().decode().split(separator)
        except UnicodeDecodeError as error:
            raise ValueError(f"must be UTF-8, but byte {error.start} cannot be there") from None
        return self.encode_texts(texts if texts[-1] else texts[:-1], prefix, suffix, n_threads, word_starts, spans, 0)

    def _rows_of(self, texts: Iterator[str]) -> Iterator[Encoding]:
        while part := list(islice(texts, _TEXTS)):
            yield from self._backend.encode_batch(part, add_special_tokens=False)


def are_texts(items: Sequence) -> bool:
    """Tells whether all items are texts."""
    return all(isinstance(item, str) for item in items)


def _tokens(encoding: Encoding) -> np.ndarray:
    """The table of a sequence, as of a row; the frame settles its types and its number."""
    table = np.zeros((len(encoding), 8), np.int64)
    table[:, Column.input_ids.value] = encoding.ids
    table[:, Column.attention_mask.value] = 1
    table[:, Column.word_ids.value] = encoding.word_ids
    table[:, Column.offset_mapping.value] = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    return table


def _checked(name: str, texts: str | Sequence[str], split_into_words: bool) -> str | Sequence[str]:
    """Texts as they are; raises TypeError for what is no str, and ValueError for half of a surrogate pair."""
    if split_into_words:
        return [_checked(f"{name}[{index}]", word, False) for index, word in enumerate(texts)]
    if not isinstance(texts, str):
        raise TypeError(f"{name} must be a str, got {texts!r:.80} of type {type(texts).__name__}")
    try:
        texts.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(texts[error.start]):04X}, at character {error.start}"
        raise ValueError(f"{name} must be well-formed Unicode, got half of a surrogate pair, {half}") from None
    return texts
