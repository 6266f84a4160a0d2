"""The operations of `core` in TensorFlow; there is no `checkpoint`.

They are written for eager tensors and for graphs whose batch size and length are not known when they are traced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

float32, boolean = tf.float32, tf.bool
cast, einsum, maximum, minimum, where = tf.cast, tf.einsum, tf.maximum, tf.minimum, tf.where
rsqrt, erf, tanh, sigmoid, softplus = tf.math.rsqrt, tf.math.erf, tf.tanh, tf.sigmoid, tf.math.softplus
reshape, softmax = tf.reshape, tf.nn.softmax


def shape(x: tf.Tensor) -> tuple[int | tf.Tensor, ...]:
    known = x.shape.as_list()
    if None not in known:
        return tuple(known)
    sizes = tf.shape(x)
    return tuple(sizes[i] if n is None else n for i, n in enumerate(known))


def widest(a: tf.DType, b: tf.DType) -> tf.DType:
    return a if a.size >= b.size else b


def lowest(dtype: tf.DType) -> float:
    return float(dtype.min)


def take(table: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """On a CPU an error for an id that is not in the table."""
    return tf.gather(table, ids if ids.dtype in (tf.int32, tf.int64) else tf.cast(ids, tf.int64))


def matmul(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    # One product of matrices: the gradient of a batch of them would be summed over the batch afterwards.
    rows = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), kernel)
    return tf.reshape(rows, (*shape(x)[:-1], kernel.shape[-1]))


def mean(x: tf.Tensor, axis: int, keepdims: bool = False) -> tf.Tensor:
    return tf.reduce_mean(x, axis, keepdims)


def arange(n: int | tf.Tensor) -> tf.Tensor:
    return tf.range(n, dtype=tf.int32)


def split(key: tf.Tensor, n: int) -> Sequence[tf.Tensor]:
    return tf.unstack(tf.random.split(key, n))


def dropout(x: tf.Tensor, rate: float, key: tf.Tensor) -> tf.Tensor:
    kept = tf.random.stateless_uniform(shape(x), key) >= rate
    return tf.where(kept, x / (1 - rate), tf.zeros((), x.dtype))


def write(buffer: tf.Tensor, rows: tf.Tensor, start: Any) -> tf.Tensor:
    return tf.concat([buffer[:, :start], rows, buffer[:, start + shape(rows)[1] :]], axis=1)
