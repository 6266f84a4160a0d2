"""Packing: how the documents of a window become sequences of one length.

The packing `dense` joins the documents, [SEP] after each, and cuts them: every sequence is full, without padding. The
packing `lines` makes each line a sequence of its own, for networks that will read short texts. The packing `google` is
the original's: padded pairs of segments, each pair from one document.
"""

from __future__ import annotations

import random as python_random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from ...model.packing import ranges
from .windows import TokenWindow

if TYPE_CHECKING:
    from ...tokenizer import ElectraTokenizer

PackingName = Literal["dense", "lines", "google"]

_SINGLE_SEGMENT_SHARE = 0.1
_SHORT_TARGET_SHARE = 0.05
_SHORTEST_TARGET = 5


@dataclass(frozen=True)
class Examples:
    """Sequences of one window.

    Attributes:
        input_ids: [n, S] int32, the tokens.
        lengths: [n] int32, tokens before the padding; None without padding.
        first_lengths: [n] int32, tokens of the first segment, with its [CLS] and [SEP]; None with only one segment.
    """

    input_ids: np.ndarray
    lengths: np.ndarray | None = None
    first_lengths: np.ndarray | None = None


@dataclass(frozen=True)
class Plan:
    """The number of sequences in a window, known before they are built."""

    n_sequences: int
    build: Callable[[], Examples]


class Packing(Protocol):
    """A way to make sequences from a window; all its random choices come from `random`."""

    size_is_random: bool  # whether the number of sequences depends on random choices

    def plan(self, window: TokenWindow, random: np.random.Generator) -> Plan: ...


def make_packing(name: PackingName, tokenizer: ElectraTokenizer, seq_length: int) -> Packing:
    """The packing `name`, with the special tokens of a tokenizer; raises ValueError for an unknown name."""
    cls, sep, pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    if seq_length < _SHORTEST_TARGET:
        raise ValueError(f"seq_length must be at least {_SHORTEST_TARGET}, got {seq_length}")
    if name == "dense":
        return DensePacking(seq_length, cls, sep)
    if name == "lines":
        return LinesPacking(seq_length, cls, sep, pad)
    if name == "google":
        return GooglePacking(seq_length, cls, sep, pad)
    raise ValueError(f"packing must be 'dense', 'lines' or 'google', got {name!r}")


@dataclass(frozen=True)
class DensePacking:
    """Sequences [CLS] ... [SEP] of exactly `seq_length` tokens; a window's last tokens that fill none are left out."""

    seq_length: int
    cls: int
    sep: int
    size_is_random = False

    def plan(self, window: TokenWindow, random: np.random.Generator | None) -> Plan:
        """Plans the window's sequences; `random` orders documents, then sequences, and None keeps both orders."""
        n_sequences = (window.n_tokens + window.n_documents) // (self.seq_length - 2)
        return Plan(n_sequences, lambda: self._build(window, random, n_sequences))

    def _build(self, window: TokenWindow, random: np.random.Generator | None, n_sequences: int) -> Examples:
        window = window.loaded()
        offsets = window.line_offsets[window.document_offsets]
        documents, order = np.arange(window.n_documents), np.arange(n_sequences)
        if random is not None:
            documents, order = random.permutation(window.n_documents), random.permutation(n_sequences)
        ids, sep, offsets = np.asarray(window.ids), np.array([self.sep], window.ids.dtype), offsets.tolist()
        # [SEP] ends every document, because another text follows it in the same sequence.
        parts = (part for i in documents.tolist() for part in (ids[offsets[i] : offsets[i + 1]], sep))
        text = np.concatenate(list(parts))
        body = text[: n_sequences * (self.seq_length - 2)].reshape(n_sequences, self.seq_length - 2)
        input_ids = np.empty((n_sequences, self.seq_length), np.int32)
        input_ids[:, 0], input_ids[:, -1] = self.cls, self.sep
        input_ids[:, 1:-1] = body[order]
        return Examples(input_ids)


@dataclass(frozen=True)
class LinesPacking:
    """Padded sequences [CLS] line [SEP]; lines of more than `seq_length` - 2 tokens become several of about one length.

    Sequences begin where lines do and have their lengths, as texts have that a fine-tuned network reads.
    """

    seq_length: int
    cls: int
    sep: int
    pad: int
    size_is_random = False

    def plan(self, window: TokenWindow, random: np.random.Generator) -> Plan:
        window = window.loaded()
        n_parts = -(-np.diff(window.line_offsets) // (self.seq_length - 2))
        return Plan(int(n_parts.sum()), lambda: self._build(window, n_parts, random))

    def _build(self, window: TokenWindow, n_parts: np.ndarray, random: np.random.Generator) -> Examples:
        size, order = self.seq_length, random.permutation(n_parts.sum())
        line, part = np.repeat(np.arange(len(n_parts)), n_parts)[order], ranges(np.zeros_like(n_parts), n_parts)[order]
        first, length, n_parts = window.line_offsets[line], np.diff(window.line_offsets)[line], n_parts[line]
        starts, ends = first + part * length // n_parts, first + (part + 1) * length // n_parts
        rows, lengths = np.arange(len(order)), ends - starts
        input_ids = np.full((len(order), size), self.pad, np.int32)
        input_ids.reshape(-1)[ranges(rows * size + 1, lengths)] = np.asarray(window.ids)[ranges(starts, lengths)]
        input_ids[:, 0], input_ids[rows, lengths + 1] = self.cls, self.sep
        lengths = (lengths + 2).astype(np.int32)
        return Examples(input_ids, lengths, lengths)


@dataclass(frozen=True)
class GooglePacking:
    """Padded [CLS] A [SEP] B [SEP]: the ExampleBuilder of google-research/electra, build_pretraining_dataset.py.

    Lines of a document are collected up to the target length: `seq_length`, or in 5 % of the examples a random number
    from 5 to `seq_length`. Segment A gets the first line, and every line that leaves A below half the target. The first
    line that does not goes to A with probability 1/2; all others go to B. In 10 % of the examples all lines go to A.
    Tokens beyond the sequence's length are lost.
    """

    seq_length: int
    cls: int
    sep: int
    pad: int
    size_is_random = True

    def plan(self, window: TokenWindow, random: np.random.Generator) -> Plan:
        window = window.loaded()
        documents, seed = random.permutation(window.n_documents), int(random.integers(2**62))
        offsets = window.document_offsets
        lines = ranges(offsets[:-1][documents], np.diff(offsets)[documents])
        lengths = np.diff(window.line_offsets)[lines]
        is_last = np.zeros(len(lines), bool)
        is_last[np.cumsum(np.diff(offsets)[documents]) - 1] = True
        segments = self._assign(lengths.tolist(), is_last.tolist(), python_random.Random(seed))
        n_sequences = segments[-1][0] + 1 if segments else 0
        kept = lengths > 0
        starts = np.asarray(window.line_offsets[:-1])[lines][kept]
        order = random.permutation(n_sequences)
        return Plan(n_sequences, lambda: self._build(window.ids, starts, lengths[kept], segments, order))

    def _assign(
        self, lengths: list[int], is_last: list[bool], chance: python_random.Random
    ) -> list[tuple[int, int, int]]:
        """Assigns every line that has tokens: (its example, its segment, its start in the segment)."""
        placed: list[tuple[int, int, int]] = []
        pending: list[int] = []
        total, target, example = 0, self.seq_length, 0
        for length, ends_document in zip(lengths, is_last, strict=True):
            if length:
                pending.append(length)
                total += length
            if total >= target or (ends_document and pending):
                single = chance.random() < _SINGLE_SEGMENT_SHARE
                first_target = 100_000 if single else (target - 3) // 2
                first = second = 0
                for n in pending:
                    if (
                        first == 0
                        or first + n < first_target
                        or (second == 0 and first < first_target and chance.random() < 0.5)
                    ):
                        placed.append((example, 0, first))
                        first += n
                    else:
                        placed.append((example, 1, second))
                        second += n
                pending, total, example = [], 0, example + 1
                is_short = chance.random() < _SHORT_TARGET_SHARE
                target = chance.randint(_SHORTEST_TARGET, self.seq_length) if is_short else self.seq_length
        return placed

    def _build(
        self,
        ids: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        segments: list[tuple[int, int, int]],
        order: np.ndarray,
    ) -> Examples:
        n_sequences, size = len(order), self.seq_length
        row, segment, place = np.array(segments, np.int64).reshape(-1, 3).T
        row = np.argsort(order)[row]
        totals = np.zeros((n_sequences, 2), np.int64)
        np.add.at(totals, (row, segment), lengths)
        # [CLS] and the [SEP]s take their room first, then segment A; segment B gets the rest.
        first = np.minimum(totals[:, 0], size - 2)
        second = np.minimum(totals[:, 1], np.maximum(0, size - 3 - first))
        kept = np.clip(np.stack([first, second], 1)[row, segment] - place, 0, lengths)
        column = np.where(segment == 0, 1, first[row] + 2) + place
        input_ids = np.full((n_sequences, size), self.pad, np.int32)
        input_ids.reshape(-1)[ranges(row * size + column, kept)] = np.asarray(ids)[ranges(starts, kept)]
        rows = np.arange(n_sequences)
        input_ids[:, 0], input_ids[rows, first + 1] = self.cls, self.sep
        has_second = second > 0
        input_ids[rows[has_second], (first + second + 2)[has_second]] = self.sep
        total = first + 2 + np.where(has_second, second + 1, 0)
        return Examples(input_ids, total.astype(np.int32), (first + 2).astype(np.int32))
