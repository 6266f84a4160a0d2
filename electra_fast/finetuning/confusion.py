"""The confusion matrix as a picture by scikit-learn: how often each class is taken for each other one."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..disk import written
from .kinds.metrics import sklearn_metrics

_MAX_LABEL_CHARS = 24


def plot_confusion(
    labels: Sequence[str], true: Sequence[str], predicted: Sequence[str], png_path: str | os.PathLike, title: str
) -> None:
    """Draws for each true class (row) which share of its examples, in per cent, was predicted as each class (column).

    Args:
        labels: all L classes, in the order of rows and columns.
        true, predicted: a label for each of the N examples.
        png_path: the picture to write, whole or not at all.

    Raises:
        ImportError: matplotlib or scikit-learn is not installed.
    """
    metrics = sklearn_metrics()
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a plot of a confusion matrix needs matplotlib: pip install 'electra_fast[train]'") from error

    side = max(3.6, 0.5 * len(labels)) + 1
    figure = Figure(figsize=(side, side), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    metrics.ConfusionMatrixDisplay.from_predictions(
        true,
        predicted,
        labels=list(labels),
        display_labels=[label[:_MAX_LABEL_CHARS] for label in labels],
        normalize="true",
        values_format=".1%",
        cmap="Blues",
        xticks_rotation="vertical",
        im_kw={"vmin": 0, "vmax": 1},
        text_kw={"fontsize": 7},
        colorbar=False,
        ax=axes,
    )
    axes.set_ylabel("True label (each row adds up to 100 %)")
    n_right = sum(a == b for a, b in zip(true, predicted, strict=True))
    axes.set_title(f"{title}: {n_right / len(true):.2%} of {len(true):,} right", fontsize=10)
    with written(png_path, "wb") as file:
        canvas.print_figure(file, format="png", dpi=120)
