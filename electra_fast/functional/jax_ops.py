"""The operations of `core` in JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid, softmax, softplus

__all__ = ["sigmoid", "softmax", "softplus"]

float32, boolean = jnp.float32, jnp.bool_
einsum, matmul, mean, reshape = jnp.einsum, jnp.matmul, jnp.mean, jnp.reshape
maximum, minimum, tanh, where = jnp.maximum, jnp.minimum, jnp.tanh, jnp.where
rsqrt, erf = jax.lax.rsqrt, jax.lax.erf
shape = jnp.shape
checkpoint = jax.checkpoint
split = jax.random.split
widest = jnp.promote_types


def cast(x: Array, dtype: Any) -> Array:
    return x.astype(dtype)


def lowest(dtype: Any) -> float:
    return float(jnp.finfo(dtype).min)


def take(table: Array, ids: Array) -> Array:
    return jnp.take(table, ids, axis=0, mode="fill")  # NaN where an id is not in the table


def arange(n: int) -> Array:
    return jnp.arange(n, dtype=jnp.int32)


def dropout(x: Array, rate: float, key: Array) -> Array:
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype))


def write(buffer: Array, rows: Array, start: Array | int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(buffer, rows, start, axis=1)
