"""Keys and values of earlier tokens, for decoders: in the form of transformers 4 and in that of `functional.core`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..functional.core import Network, Params, empty_cache

Past = tuple[tuple[tf.Tensor, tf.Tensor], ...]
"""A pair of keys and values [B, A, P, D] for each layer."""


def cache_of(net: Network, past: Past | None, batch_size: Any, length: Any) -> Params:
    """The cache of `core` for a call with `length` tokens a row after those of `past`.

    Raises:
        ValueError: a config of no decoder, or a `past` of another model.
    """
    config = net.config
    if not config.is_decoder:
        raise ValueError("past_key_values and use_cache need a config with is_decoder=True")
    cache = empty_cache(net, batch_size, length, lambda shape: tf.zeros(shape, net.dtype))
    if past is None:
        return cache
    heads = [config.num_attention_heads, None, config.head_size]
    if len(past) != config.num_hidden_layers or not past[0][0].shape.is_compatible_with([None, *heads]):
        raise ValueError(
            f"past_key_values must be of {config.num_hidden_layers} layers with keys [batch, {heads[0]}, length, "
            f"{heads[2]}], got {len(past)} with {past[0][0].shape}"
        )
    cache["index"] = tf.shape(past[0][0])[2]
    for layer, (keys, values) in zip(cache["layer"].values(), past, strict=True):
        for name, old in (("key", keys), ("value", values)):
            layer[name] = tf.concat([tf.transpose(old, (0, 2, 1, 3)), layer[name]], axis=1)
    return cache


def past_of(cache: Params) -> Past:
    """The keys and values of a full cache."""
    layers = cache["layer"].values()
    return tuple(tuple(tf.transpose(layer[name], (0, 2, 1, 3)) for name in ("key", "value")) for layer in layers)
