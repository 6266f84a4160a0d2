"""Batches of a data set for `fit`: rows are padded together, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# What fills a row up to the length of the longest in its batch. Ids are filled with the padding token.
_FILL = {"attention_mask": 0, "token_type_ids": 0, "position_ids": 0, "labels": -100}
_LABELS = {"label": "labels", "label_ids": "labels"}

Batch = dict[str, np.ndarray]


def batches(
    rows: Any,
    inputs: Sequence[str],
    labels: Sequence[str],
    batch_size: int,
    shuffle: bool,
    drop_remainder: bool,
    prefetch: bool,
    collate: Callable[[list[Mapping[str, Any]]], Mapping[str, Any]],
) -> tf.data.Dataset:
    """A data set of batches (inputs, labels), drawn in another order each time if they are shuffled.

    A single input or label is an array; several are a dictionary. Columns that are neither are left out.

    Args:
        rows: a sequence of mappings, such as a `datasets.Dataset`.
        collate: makes a batch of rows.
    """
    if not len(rows):
        raise ValueError("the data set must have rows, got none")

    def batch(numbers: Sequence[int]) -> tuple[Batch, Batch]:
        found = {_LABELS.get(name, name): np.asarray(x) for name, x in collate([rows[int(i)] for i in numbers]).items()}
        return tuple({name: found[name] for name in names if name in found} for names in (inputs, labels))

    def draw():
        order = np.random.permutation(len(rows)) if shuffle else np.arange(len(rows))
        end = len(rows) - len(rows) % batch_size if drop_remainder else len(rows)
        for start in range(0, end, batch_size):
            yield tuple(map(_alone, batch(order[start : min(start + batch_size, end)])))

    features, targets = batch([0])
    if not features:
        raise ValueError(f"the data set must have columns of {', '.join(inputs)}, got {', '.join(rows[0])}")
    signature = tuple(_alone({name: _spec(x) for name, x in part.items()}) for part in (features, targets))
    if not targets:
        signature = signature[:1]
    found = tf.data.Dataset.from_generator(
        lambda: (parts[: len(signature)] for parts in draw()), output_signature=signature
    )
    n_batches = len(rows) // batch_size if drop_remainder else -(-len(rows) // batch_size)
    found = found.apply(tf.data.experimental.assert_cardinality(n_batches))
    return found.prefetch(tf.data.AUTOTUNE) if prefetch else found


def padded(rows: list[Mapping[str, Any]], pad_token_id: int = 0, side: str = "right") -> dict[str, np.ndarray]:
    """Rows as arrays, with each column of lists of integers filled up to its longest."""
    return {name: _filled([row[name] for row in rows], _FILL.get(name, pad_token_id), side) for name in rows[0]}


def _filled(values: list[Any], fill: int, side: str) -> np.ndarray:
    arrays = list(map(np.asarray, values))
    if arrays[0].ndim == 0 or arrays[0].dtype.kind not in "iu":
        return np.asarray(values)
    length = max(array.shape[-1] for array in arrays)
    found = np.full((len(arrays), *arrays[0].shape[:-1], length), fill, np.int64)
    for row, array in zip(found, arrays, strict=True):
        n = array.shape[-1]
        start = 0 if side == "right" else length - n
        row[..., start : start + n] = array
    return found


def _alone(named: Mapping[str, Any]) -> Any:
    return next(iter(named.values())) if len(named) == 1 else dict(named)


def _spec(array: np.ndarray) -> tf.TensorSpec:
    return tf.TensorSpec([None] * array.ndim, array.dtype)
