"""Keys and values of earlier tokens, for decoders: in the form of transformers 4 and in that of `functional.core`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..functional.core import Network, Params, empty_cache
from ..model.config import ElectraConfig

Past = tuple[tuple[tf.Tensor, tf.Tensor], ...]
"""A pair of keys and values [B, A, P, D] for each layer."""


def cache_of(net: Network, past: Past | None, batch_size: Any, length: Any) -> Params:
    """The cache of `core` for a call with `length` tokens a row after those of `past`.

    Raises:
        ValueError: a `past` of other rows.
    """
    cache = empty_cache(net, batch_size, length, lambda shape: tf.zeros(shape, net.dtype))
    if past is None:
        return cache
    if isinstance(batch_size, int) and past[0][0].shape[0] not in (None, batch_size):
        raise ValueError(f"past_key_values must be of {batch_size} rows, got {past[0][0].shape[0]}")
    cache["index"] = tf.shape(past[0][0])[2]
    for layer, (keys, values) in zip(cache["layer"].values(), past, strict=True):
        for name, old in (("key", keys), ("value", values)):
            layer[name] = tf.concat([tf.transpose(old, (0, 2, 1, 3)), layer[name]], axis=1)
    return cache


def n_past_of(config: ElectraConfig, past: Past | None) -> int | None:
    """The number of tokens in `past`; None if it is not known.

    Raises:
        ValueError: a config of no decoder, or a `past` of another model.
    """
    if past is None:
        return 0
    if not config.is_decoder:
        raise ValueError("past_key_values need a config with is_decoder=True")
    expected = tf.TensorShape([None, config.num_attention_heads, None, config.head_size])

    def is_layer(pair: Any) -> bool:
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2
        return is_pair and all(expected.is_compatible_with(getattr(x, "shape", ())) for x in pair)

    if not isinstance(past, list | tuple) or len(past) != config.num_hidden_layers or not all(map(is_layer, past)):
        raise ValueError(
            f"past_key_values must be what a call of this model returned: {config.num_hidden_layers} pairs of keys "
            f"and values [batch, {expected[1]}, length, {expected[3]}]"
        )
    return past[0][0].shape[2]


def past_of(cache: Params) -> Past:
    """The keys and values of a full cache."""
    layers = cache["layer"].values()
    return tuple(tuple(tf.transpose(layer[name], (0, 2, 1, 3)) for name in ("key", "value")) for layer in layers)
