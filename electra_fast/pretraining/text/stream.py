"""The endless stream of training sequences, a pure function of a seed and a position.

An epoch reads the corpus once, in windows: the documents of a window are shuffled and packed, and the sequences
shuffled again. All draws depend on (seed, epoch, window) only, so there is no state to save: a run resumes at its
position. Every process of a distributed run has the whole stream and takes its own positions.
"""

from __future__ import annotations

import atexit
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .sequences import DensePacking, Examples, PackingName, make_packing
from .windows import WINDOW_CHARS, TokenWindow, word_start_table

if TYPE_CHECKING:
    from ...tokenizer import ElectraTokenizer


class WindowedCorpus(Protocol):
    """A corpus that a stream can read: `Corpus` or `ShardedCorpus`."""

    separator: str

    @property
    def windows_are_fixed(self) -> bool: ...

    def training_windows(
        self, tokenizer: ElectraTokenizer, random: np.random.Generator | None, window_chars: int, threads: int | None
    ) -> Iterator[TokenWindow]: ...

    def held_out_window(self, tokenizer: ElectraTokenizer, threads: int | None = None) -> TokenWindow: ...


@dataclass(frozen=True)
class Rows:
    """Training sequences.

    Attributes:
        input_ids: [count, S] int64, the tokens.
        word_starts: [count, S] bool, True at tokens that begin a word, at special tokens and at padding.
        token_type_ids: [count, S] int64; None if all are 0.
        lengths: [count] int64, tokens before the padding; None without padding.
    """

    input_ids: Tensor
    word_starts: Tensor
    token_type_ids: Tensor | None = None
    lengths: Tensor | None = None


class SequenceStream:
    """Training sequences by their position, epoch after epoch.

    A background thread makes windows ahead. Reading forward is fast. A jump forward has to read and count the text in
    between, but does not build its sequences; a jump backward starts over. Only one thread at a time may ask for rows.

    Args:
        corpus: source of the text.
        tokenizer: tokenizer of the text.
        seq_length: tokens per sequence, with special tokens.
        seed: seed of every order and every choice, at least 0.
        packing: "dense": full sequences; "lines": each line one; "google": the original's padded pairs of segments.
        window_chars: characters of text that are shuffled together; another number gives another stream. The windows of
            a `ShardedCorpus` are its shards.
        threads: threads that tokenise; None: as many as the process has cores.

    Attributes:
        wait_seconds: seconds that callers have waited for windows so far.

    Raises:
        ValueError: an unknown packing, a seed below 0.
    """

    def __init__(
        self,
        corpus: WindowedCorpus,
        tokenizer: ElectraTokenizer,
        seq_length: int,
        seed: int,
        packing: PackingName = "dense",
        window_chars: int = WINDOW_CHARS,
        threads: int | None = None,
    ):
        if seed < 0 or window_chars < 1:
            raise ValueError(f"seed must be at least 0 and window_chars at least 1, got {seed} and {window_chars}")
        self.seq_length, self.seed, self.wait_seconds = seq_length, seed, 0.0
        self._corpus, self._tokenizer = corpus, tokenizer
        self._packing = make_packing(packing, tokenizer, seq_length)
        self._window_chars, self._threads = window_chars, threads
        self._word_starts = word_start_table(tokenizer)
        self._start, self._examples = 0, Examples(np.empty((0, seq_length), np.int32))
        self._wanted = 0  # windows that end at or before this position are counted, not built
        self._ahead: _Ahead | None = None

    def rows(self, first: int, count: int) -> Rows:
        """The sequences at positions first, first + 1, ..., first + count - 1.

        Raises:
            ValueError: a text that does not fill one sequence, a damaged file.
        """
        if first < 0 or count < 1:
            raise ValueError(f"first must be at least 0 and count at least 1, got {first} and {count}")
        if first < self._start:
            self.close()
        parts = []
        end = first + count
        while first < end:
            self._move_to(first)
            begin = first - self._start
            part = slice(begin, begin + end - first)
            parts.append(self._examples_at(part))
            first += len(parts[-1].input_ids)
        return self._as_rows(parts)

    def close(self) -> None:
        """Stops the background thread; the stream may be used again, and then starts over."""
        if self._ahead is not None:
            self._ahead.stop()
        self._ahead = None
        self._start, self._examples = 0, self._examples_at(slice(0))

    def __enter__(self) -> SequenceStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _move_to(self, position: int) -> None:
        """Takes windows from the thread until one contains the position."""
        self._wanted = position
        while position >= self._start + len(self._examples.input_ids):
            if self._ahead is None:
                self._ahead = _Ahead(self._windows())
            before = time.perf_counter()
            try:
                self._start, self._examples = self._ahead.take()
            except Exception:
                self.close()
                raise
            finally:
                self.wait_seconds += time.perf_counter() - before

    def _windows(self) -> Iterator[tuple[int, Examples]]:
        """Yields (first position, sequences) of every wanted window; runs in the thread."""
        start, epoch_size = 0, None
        for epoch in itertools.count():
            if epoch_size is not None and start + epoch_size <= self._wanted:
                start += epoch_size
                continue
            epoch_start, n_windows = start, 0
            order = np.random.default_rng((self.seed, 0, epoch))
            for window in self._corpus.training_windows(self._tokenizer, order, self._window_chars, self._threads):
                random = np.random.default_rng((self.seed, 1, epoch, n_windows))
                plan = self._packing.plan(window, random)
                if start + plan.n_sequences > self._wanted:
                    yield start, plan.build()
                start += plan.n_sequences
                n_windows += 1
            if start == epoch_start:
                raise ValueError(
                    f"the text besides the held-out one must fill at least one sequence of {self.seq_length} tokens, "
                    f"but does not. {self._corpus.separator}"
                )
            # An epoch of one window has the same size in any order.
            if not self._packing.size_is_random and (self._corpus.windows_are_fixed or n_windows == 1):
                epoch_size = start - epoch_start

    def _examples_at(self, part: slice) -> Examples:
        values = (self._examples.input_ids, self._examples.lengths, self._examples.first_lengths)
        return Examples(*(None if value is None else value[part] for value in values))

    def _as_rows(self, parts: list[Examples]) -> Rows:
        input_ids = np.concatenate([part.input_ids for part in parts])
        word_starts = torch.from_numpy(self._word_starts[input_ids])
        input_ids = torch.from_numpy(input_ids.astype(np.int64))
        if parts[0].lengths is None:
            return Rows(input_ids, word_starts)
        lengths, first = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("lengths", "first_lengths")
        )
        columns = np.arange(self.seq_length)
        is_second = (columns >= first[:, None]) & (columns < lengths[:, None])
        return Rows(
            input_ids,
            word_starts,
            torch.from_numpy(is_second.astype(np.int64)),
            torch.from_numpy(lengths.astype(np.int64)),
        )


class _Ahead:
    """A thread that runs an iterator, one item ahead of its consumer."""

    def __init__(self, items: Iterator[Any]):
        # One item waits here while the thread makes the next one.
        self._queue: queue.Queue[Callable[[], Any]] = queue.Queue(maxsize=1)
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, args=(items,), name="windows", daemon=True)
        self._thread.start()
        # Python must not end while the thread's C++ code waits to return to it.
        atexit.register(self.stop)

    def take(self) -> Any:
        """Returns the next item, or raises the iterator's exception."""
        return self._queue.get()()

    def stop(self) -> None:
        """Ends the thread after the item that it is making."""
        atexit.unregister(self.stop)
        self._is_stopped = True
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _work(self, items: Iterator[Any]) -> None:
        try:
            for item in items:
                self._queue.put(lambda item=item: item)
                if self._is_stopped:
                    return
        except BaseException as error:
            self._queue.put(lambda error=error: _raise(error))


def _raise(error: BaseException) -> None:
    raise error


def held_out_sequences(
    corpus: WindowedCorpus, tokenizer: ElectraTokenizer, seq_length: int, max_sequences: int
) -> Tensor:
    """Held-out text as full sequences [n, seq_length] int64: at most `max_sequences`, spread evenly, always the same.

    Raises:
        ValueError: too little held-out text for one sequence.
    """
    window = corpus.held_out_window(tokenizer)
    plan = DensePacking(seq_length, tokenizer.cls_token_id, tokenizer.sep_token_id).plan(window, None)
    if plan.n_sequences == 0:
        raise ValueError(
            f"the held-out text must fill at least one sequence of {seq_length} tokens, got {window.n_tokens} tokens. "
            f"{corpus.separator}"
        )
    n = min(plan.n_sequences, max_sequences)
    rows = plan.build().input_ids[np.arange(n) * plan.n_sequences // n]
    return torch.from_numpy(rows.astype(np.int64))
