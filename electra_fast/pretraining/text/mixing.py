"""Documents of some windows, mixed over all of them: for text whose order is that of its sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from .windows import TokenWindow


def mixed(windows: Iterable[TokenWindow], n: int, seed: int, directory: Path) -> Iterator[TokenWindow]:
    """The documents of `windows` in `n` windows, each document in one that is drawn at random.

    All windows are read before the first one is made. The documents wait in files, so memory holds two windows and a
    permutation at most.

    Args:
        directory: where the files are, which does not exist yet and is empty afterwards.
    """
    directory.mkdir()
    random = np.random.default_rng(seed)
    for window in windows:
        places = random.integers(n, size=window.n_documents)
        order = np.argsort(places, kind="stable")
        ends = np.searchsorted(places[order], np.arange(n + 1))
        for place in range(n):
            _append(directory / f"{place}", reordered(window, order[ends[place] : ends[place + 1]]))
    for place in range(n):
        yield _taken(directory / f"{place}", np.dtype(window.ids.dtype))


def reordered(window: TokenWindow, order: np.ndarray) -> TokenWindow:
    """The documents `order`, [n] int64, of a window."""
    line_counts, token_counts = np.diff(window.document_offsets)[order], np.diff(window.line_offsets)
    lines = _ranges(window.document_offsets[order], line_counts)
    ids = window.ids[_ranges(window.line_offsets[lines], token_counts[lines])]
    return TokenWindow(ids, _offsets(token_counts[lines]), _offsets(line_counts))


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers start, start + 1, ... of each range, one after the other: int64."""
    return np.arange(counts.sum()) + np.repeat(starts - _offsets(counts)[:-1], counts)


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], counts.cumsum()]).astype(np.int64)


def _append(path: Path, window: TokenWindow) -> None:
    parts = {"ids": window.ids, "lines": np.diff(window.line_offsets), "documents": np.diff(window.document_offsets)}
    for name, values in parts.items():
        with open(path.with_suffix(f".{name}"), "ab") as file:
            file.write(np.ascontiguousarray(values).tobytes())


def _taken(path: Path, dtype: np.dtype) -> TokenWindow:
    """What was appended to files, which are deleted."""
    values = {}
    for name, kind in {"ids": dtype, "lines": np.int64, "documents": np.int64}.items():
        file = path.with_suffix(f".{name}")
        values[name] = np.fromfile(file, kind)
        file.unlink()
    return TokenWindow(values["ids"], _offsets(values["lines"]), _offsets(values["documents"]))
