"""Inference on a CPU by the C++ encoder, where the values of the parameters are known.

XLA's graphs have fixed shapes, so they compute padding too. `Twin` drops it, in a callback where the graph is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import is_
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.buffer_callback import ExecutionContext, buffer_callback

from ..functional.parameters import Path
from ..functional.twin import Twin, why_not
from ..model.config import ElectraConfig


class CpuPath:
    """The C++ encoder for a model, with the parameters of its last call.

    Args:
        config: the model's shape.
        kind: what follows `FlaxElectra` in the class's name.
    """

    def __init__(self, config: ElectraConfig, kind: str):
        self._config, self._kind = config, kind
        self._served: tuple[list[Array], Twin] | None = None

    def twin_of(self, leaves: dict[Path, Any], tokens: Iterable[Any]) -> Twin | None:
        """The model of PyTorch that serves a call; None where the pure functions do.

        Parameters must be fp32 arrays on one CPU, not traced. Arrays of JAX never change, so the last twin serves as
        long as it is given the same. Tokens may be traced, but not in a graph of several devices: it cannot call back.
        """
        if not all(x is None or is_readable(x) or _may_call_back(x) for x in tokens):
            return None
        values = list(leaves.values())
        served = self._served
        if served is not None and len(values) == len(served[0]) and all(map(is_, values, served[0])):
            return served[1]
        if jax.default_backend() != "cpu" or not all(map(_is_plain, values)) or why_not(self._config):
            return None
        twin = Twin(self._config, self._kind, {path: np.asarray(value) for path, value in leaves.items()})
        self._served = values, twin
        return twin

    def __deepcopy__(self, memo: dict) -> CpuPath:
        return CpuPath(self._config, self._kind)

    def __reduce__(self) -> tuple:
        return CpuPath, (self._config, self._kind)


def _is_plain(value: Any) -> bool:
    return is_readable(value) and isinstance(value, jax.Array) and value.dtype == np.float32


def _may_call_back(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer) and jax.device_count() == 1


def is_readable(value: Any) -> bool:
    """Tells whether numpy reads an array without waiting for a device other than the CPU."""
    if not isinstance(value, jax.Array):
        return isinstance(value, np.ndarray)
    if isinstance(value, jax.core.Tracer):
        return False
    devices = value.devices()
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"


def compute(twin: Twin, tokens: Iterable[Any], keep_states: bool, pure: Callable[..., Any]) -> tuple[Any, Any]:
    """Computes the results and hidden states of `heads.forward`, by a callback where tokens are traced.

    Args:
        tokens: input_ids, attention_mask, token_type_ids and position_ids of one shape; None for a default.
        pure: the same function of these tokens, of which only the shapes of its results are used.
    """
    tokens = tuple(tokens)
    if all(x is None or is_readable(x) for x in tokens):
        return jax.tree.map(jnp.asarray, twin(*tokens, keep_states=keep_states))
    n_own = len(tokens[0].shape)

    def call(_: ExecutionContext, results: Any, *tokens: Any) -> None:
        """Writes the results of several batches at once, if the graph was mapped, by rows one below the other."""
        given = [None if x is None else np.asarray(x) for x in tokens]
        n_above = given[0].ndim - n_own
        flat = [None if x is None else x.reshape(-1, *x.shape[n_above + 1 :]) for x in given]
        found = twin(*flat, keep_states=keep_states)
        for room, values in zip(jax.tree.leaves(results), jax.tree.leaves(found), strict=True):
            room = np.asarray(room)
            room[...] = values.reshape(room.shape)

    # jax.pure_callback copies what is larger than 100 kB in threads that this very call may hold, and waits for ever.
    return buffer_callback(call, jax.eval_shape(pure, *tokens), vmap_method="broadcast_all")(*tokens)
