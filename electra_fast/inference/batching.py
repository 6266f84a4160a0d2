"""What bulk inference shares: inputs read in chunks, the next one prepared ahead, batches of similar lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

# What is read ahead and ordered by length at a time: whichever comes first.
CHUNK_ITEMS = 16_384
CHUNK_CHARS = 1 << 22
# What is computed at once, where nothing else is asked for.
BATCH_TOKENS = 8192

_In, _Out = TypeVar("_In"), TypeVar("_Out")


@dataclass
class Counts:
    """What has been computed so far, by all processes; `tokens` are those that the network has read."""

    examples: int = 0
    tokens: int = 0


def chunks(items: Iterable[_In], n_chars: Callable[[_In], int]) -> Iterator[list[_In]]:
    """All items in order, `CHUNK_ITEMS` at a time, or fewer that have `CHUNK_CHARS` characters."""
    chunk: list[_In] = []
    size = 0
    for item in items:
        chunk.append(item)
        size += n_chars(item)
        if len(chunk) == CHUNK_ITEMS or size >= CHUNK_CHARS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def one_ahead(function: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """function(item) of each item, in order; that of the next is computed by a thread meanwhile.

    The items are read here, not there: a thread that waits for input could not be interrupted.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: Future[_Out] | None = None
        for item in items:
            following = pool.submit(function, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def batches_by_length(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """The numbers of all items in batches of at most `batch_tokens` tokens, or of one item; the longest come first.

    A batch that does not fit into memory is then the first one, and what it took serves all others.
    """
    order = np.argsort(-lengths, kind="stable")
    first, n_tokens = 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        if place > first and n_tokens + length > batch_tokens:
            yield order[first:place]
            first, n_tokens = place, 0
        n_tokens += length
    if len(order):
        yield order[first:]
