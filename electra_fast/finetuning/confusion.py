"""The confusion matrix, as numbers and as a picture: how often each class is taken for each other one."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ..disk import written

# With more classes than this the numbers in the cells would be too small to read.
_MAX_NUMBERED = 30
_MAX_LABEL_CHARS = 24


def confusion_matrix(labels: Sequence[str], true: Sequence[str], predicted: Sequence[str]) -> np.ndarray:
    """Counts the examples of each true class (row) that were predicted as each class (column): [L, L] int64.

    Args:
        labels: all L classes, in the order of rows and columns.
        true, predicted: a label for each of the N examples.
    """
    index = {label: i for i, label in enumerate(labels)}
    pairs = [index[a] * len(labels) + index[b] for a, b in zip(true, predicted, strict=True)]
    return np.bincount(np.array(pairs, dtype=np.int64), minlength=len(labels) ** 2).reshape(len(labels), len(labels))


def plot_confusion(
    matrix: np.ndarray, labels: Sequence[str], png_path: str | os.PathLike, title: str = "confusion"
) -> None:
    """Draws a confusion matrix: counts, coloured by their shares of the true class; shares are in per cent.

    Args:
        matrix: [L, L], as `confusion_matrix` returns it.
        png_path: the picture to write, whole or not at all.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a plot of a confusion matrix needs matplotlib: pip install 'electra_fast[train]'") from error

    n = len(labels)
    totals = matrix.sum(1, keepdims=True)
    shares = matrix / np.maximum(totals, 1)
    side = min(max(2.4, (0.9 if n <= 4 else 0.5) * n), 16)
    figure = Figure(figsize=(side + 2.8, side + 1.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    font_size = 8 if n <= _MAX_NUMBERED else 5
    names = [_short(label) for label in labels]
    axes.set_xticks(range(n), names, rotation=0 if n <= 4 else 90, fontsize=font_size)
    axes.set_yticks(range(n), [f"{name} ({total:,})" for name, total in zip(names, totals[:, 0], strict=True)])
    axes.tick_params(axis="y", labelsize=font_size)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true (how many)", fontsize=9)
    axes.spines[:].set_visible(False)
    if n <= _MAX_NUMBERED:
        for row, column in zip(*matrix.nonzero(), strict=True):
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{matrix[row, column]:,}\n{100 * share:.1f} %",
                ha="center",
                va="center",
                fontsize=6 if n > 4 else 9,
                color="white" if share > 0.6 else "#1a1a1a",
            )
    n_right, n_all = int(matrix.trace()), int(matrix.sum())
    right = f"{100 * n_right / n_all:.2f} % of {n_all:,} right" if n_all else "no examples"
    axes.set_title(f"{title}: {right}", loc="left", fontsize=10)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    with written(png_path, "wb") as file:
        canvas.print_figure(file, format="png", dpi=120)


def _short(label: str) -> str:
    return label if len(label) <= _MAX_LABEL_CHARS else f"{label[: _MAX_LABEL_CHARS - 1]}…"
