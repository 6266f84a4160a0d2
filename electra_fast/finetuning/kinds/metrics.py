"""Metrics by scikit-learn and scipy, the same as in published results.

Labels are given by their numbers. A correlation with something constant is not defined; here it is 0, so that a network
that has collapsed gets a number.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np


def accuracy(true: np.ndarray, predicted: np.ndarray) -> float:
    """The share of the predictions [N] that are right."""
    return float(np.mean(true == predicted))


def classification_metrics(true: np.ndarray, predicted: np.ndarray, n_labels: int) -> dict[str, float]:
    """The metrics accuracy, f1 and matthews of label numbers [N].

    With two labels, f1 is that of label 1, as in GLUE; otherwise it is the mean over the labels that occur in `true` or
    `predicted`. matthews is Matthews's correlation, also for more than two labels.
    """
    metrics = sklearn_metrics()
    average = "binary" if n_labels == 2 else "macro"
    return {
        "accuracy": accuracy(true, predicted),
        "f1": float(metrics.f1_score(true, predicted, average=average, zero_division=0)),
        "matthews": _correlation(metrics.matthews_corrcoef, true, predicted),
    }


def regression_metrics(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """The metrics pearson, spearman (correlations of values and ranks) and mse (mean squared error) of numbers [N]."""
    stats = _scipy_stats()
    return {
        "pearson": _correlation(lambda x, y: stats.pearsonr(x, y).statistic, true, predicted),
        "spearman": _correlation(lambda x, y: stats.spearmanr(x, y).statistic, true, predicted),
        "mse": float(np.mean((true - predicted) ** 2)),
    }


def multilabel_metrics(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """The metrics f1 and accuracy of booleans [N, labels].

    f1 is over all pairs of example and label together; accuracy is the share of examples with all labels right.
    """
    metrics = sklearn_metrics()
    return {
        "f1": float(metrics.f1_score(true.ravel(), predicted.ravel(), zero_division=0)),
        "accuracy": float(np.mean((true == predicted).all(axis=1))),
    }


def _correlation(function: Callable, true: np.ndarray, predicted: np.ndarray) -> float:
    # Both libraries warn of constant input, or return NaN.
    is_constant = (true == true[0]).all() or (predicted == predicted[0]).all()
    return 0.0 if is_constant else float(function(true, predicted))


def sklearn_metrics() -> ModuleType:
    """The module sklearn.metrics; raises ImportError, naming the extra, where scikit-learn is not installed."""
    try:
        from sklearn import metrics
    except ImportError as error:
        raise ImportError("these metrics need scikit-learn: pip install 'electra_fast[eval]'") from error
    return metrics


def _scipy_stats() -> ModuleType:
    try:
        from scipy import stats
    except ImportError as error:
        raise ImportError("these metrics need scipy: pip install 'electra_fast[eval]'") from error
    return stats
