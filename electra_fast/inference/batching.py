"""Helpers of bulk inference: inputs read in chunks, the next one prepared ahead, batches of similar lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

# So much is read ahead and ordered by length at a time; the limit that is reached first counts.
CHUNK_ITEMS = 16_384
CHUNK_CHARS = 1 << 22
# Tokens that are computed at once, unless the caller asks for another number.
BATCH_TOKENS = 8192

_In, _Out = TypeVar("_In"), TypeVar("_Out")


@dataclass
class Counts:
    """Counts of everything computed so far, by all processes; `tokens` are those that the network has read."""

    examples: int = 0
    tokens: int = 0


def chunks(items: Iterable[_In], n_chars: Callable[[_In], int]) -> Iterator[list[_In]]:
    """Yields all items in order, `CHUNK_ITEMS` at a time, or fewer if they reach `CHUNK_CHARS` characters."""
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
    """Yields function(item) of each item, in order, while a thread computes the next one.

    The items are read here and not in the thread: a thread that waits for input could not be interrupted.
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
    """Yields the numbers of all items in batches of at most `batch_tokens` tokens, or of one item, the longest first.

    So a batch that does not fit into memory is the first one, and the memory that it took serves all others.
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
