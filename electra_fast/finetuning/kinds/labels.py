"""The labels of a kind: checked once, numbered in the order of the network's outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def checked_labels(labels: Sequence[str], least: int) -> tuple[str, ...]:
    """The labels as a tuple; raises ValueError if there are fewer than `least`, or one occurs twice."""
    labels = tuple(labels)
    if len(labels) < least:
        names = f": {', '.join(labels)}" if labels else ""
        raise ValueError(f"the number of labels must be at least {least}, got {len(labels)}{names}")
    if len(set(labels)) < len(labels):
        raise ValueError(f"each label must occur once, got {', '.join(labels)}")
    return labels


def label_config(labels: Sequence[str]) -> dict[str, Any]:
    """The entries of a config for these labels; it takes `num_labels` from them."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}


def label_numbers(labels: Sequence[str], given: Iterable[tuple[int, str]]) -> np.ndarray:
    """The numbers, int64, of `given` labels and their lines; raises ValueError for a label outside the set."""
    numbers = {label: n for n, label in enumerate(labels)}
    found = []
    for line, label in given:
        if label not in numbers:
            raise ValueError(f"line {line}: the label must be one of {', '.join(labels)}, got {label!r}")
        found.append(numbers[label])
    return np.array(found, np.int64)


def entropy(shares: np.ndarray) -> float:
    """The entropy of a distribution, in nats: the mean cross-entropy of the best prediction that is always the same."""
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
