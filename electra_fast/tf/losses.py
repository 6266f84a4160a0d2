"""Losses of the TFElectra classes, with the shapes of transformers 4: they are not reduced over the batch.

Labels that are out of range raise ValueError in eager mode. In a graph TensorFlow raises InvalidArgumentError on a CPU,
and the loss is NaN on a GPU and in XLA.
"""

from __future__ import annotations

import tensorflow as tf


def class_loss(labels: tf.Tensor, logits: tf.Tensor, name: str = "labels") -> tf.Tensor:
    """Cross-entropy of labels [...] and logits [..., C]: [...], in fp32 at least."""
    labels = _shaped(name, labels, logits)
    if tf.executing_eagerly():
        values, n = labels.numpy(), logits.shape[-1]
        wrong = values[(values < 0) | (values >= n)]
        if wrong.size:
            raise ValueError(f"{name} must be in [0, {n}), got {wrong[0]}")
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, _wide(logits))


def token_loss(labels: tf.Tensor, logits: tf.Tensor, takes_negative: bool) -> tf.Tensor:
    """Mean cross-entropy over labels [B, S] with logits [B, S, C]: [1].

    Labels of -100 do not count; with `takes_negative` no negative ones do.
    """
    labels = _shaped("labels", labels, logits)
    is_label = labels >= 0 if takes_negative else labels != -100
    losses = class_loss(tf.where(is_label, labels, 0), logits)
    weights = tf.cast(is_label, losses.dtype)
    return tf.reshape(tf.reduce_sum(losses * weights) / tf.reduce_sum(weights), (1,))


def sequence_loss(labels: tf.Tensor, logits: tf.Tensor, problem_type: str | None) -> tf.Tensor:
    """The loss of one prediction per text: [B].

    labels: [B] classes; [B] or [B, 1] values for one label; [B, C] for several labels or values, by `problem_type`.
    """
    logits = _wide(logits)
    if problem_type == "multi_label_classification":
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(_like(labels, logits), logits), -1)
    if problem_type == "regression" or logits.shape[-1] == 1:
        return tf.reduce_mean(tf.square(_like(labels, logits) - logits), -1)
    return class_loss(labels, logits)


def span_loss(
    start_positions: tf.Tensor, end_positions: tf.Tensor, start_logits: tf.Tensor, end_logits: tf.Tensor
) -> tf.Tensor:
    """The mean of the cross-entropies of positions [B] and logits [B, S] of starts and ends: [B]."""
    start = class_loss(start_positions, start_logits, "start_positions")
    return (start + class_loss(end_positions, end_logits, "end_positions")) / 2


def _wide(logits: tf.Tensor) -> tf.Tensor:
    return tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits


def _like(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    labels = tf.cast(labels, logits.dtype)
    labels = labels[:, None] if labels.shape.rank == 1 and logits.shape[-1] == 1 else labels
    if not labels.shape.is_compatible_with(logits.shape):
        raise ValueError(f"labels must have the shape of the logits, {logits.shape}, got {labels.shape}")
    return labels


def _shaped(name: str, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Labels as int64 with the logits' dimensions but for the last."""
    if not labels.dtype.is_integer and labels.dtype != tf.bool:
        raise ValueError(f"{name} must be integers, got {labels.dtype.name}")
    expected = logits.shape[:-1]
    if labels.shape.rank == expected.rank + 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if not labels.shape.is_compatible_with(expected):
        raise ValueError(f"{name} must have shape {expected}, got {labels.shape}")
    return tf.cast(labels, tf.int64)
