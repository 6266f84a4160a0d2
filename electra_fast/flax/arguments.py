"""The arguments of a Flax class's call: checked, with errors that name them.

Values are read only where they are on a CPU and known; in a traced graph an id that is in no table gives NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..functional.inputs import as_array
from ..functional.parameters import Path, Shapes, flatten
from ..model.config import ElectraConfig
from .cpu import is_readable


class Tokens(NamedTuple):
    """Arrays of one shape, [B, S] or [B, C, S], but for the mask beside a cache of M places, [B, M]; or None."""

    input_ids: Any
    attention_mask: Any = None
    token_type_ids: Any = None
    position_ids: Any = None


def tokens_of(config: ElectraConfig, n_dims: int, given: Tokens, cache: Mapping[str, Any] | None) -> Tokens:
    """Checks the tokens of a call; `n_dims` is 3 for a class of several choices, else 2.

    Raises:
        ValueError: arguments that no model can take.
    """
    limits = {
        "input_ids": config.vocab_size,
        "attention_mask": None,
        "token_type_ids": config.type_vocab_size,
        "position_ids": config.max_position_embeddings,
    }
    arrays = {name: integers(name, value, limits[name]) for name, value in given._asdict().items()}
    ids = arrays["input_ids"]
    if ids is None or ids.ndim != n_dims or not ids.shape[-1]:
        expected = "[batch, length]" if n_dims == 2 else "[batch, choices, length]"
        got = None if ids is None else tuple(ids.shape)
        raise ValueError(f"input_ids must have shape {expected} with at least one token, got {got}")
    length = ids.shape[-1]
    if cache is None and arrays["position_ids"] is None and length > config.max_position_embeddings:
        raise ValueError(
            f"sequence length {length} is over max_position_embeddings {config.max_position_embeddings}: truncate the "
            "text (tokenizer(..., truncation=True, max_length=...)) or split it"
        )
    shapes = dict.fromkeys(arrays, ids.shape)
    if cache is not None:
        _check_cache(config, cache, ids.shape[0])
        shapes["attention_mask"] = (ids.shape[0], places(cache))
    for name, array in arrays.items():
        if array is None:
            continue
        if array.shape != shapes[name] and array.shape != (1,) * (array.ndim - 1) + shapes[name][-1:]:
            raise ValueError(f"{name} must have shape {tuple(shapes[name])}, got {tuple(array.shape)}")
        if array.shape != shapes[name]:
            arrays[name] = (np if isinstance(array, np.ndarray) else jnp).broadcast_to(array, shapes[name])
    return Tokens(**arrays)


def integers(name: str, value: Any, limit: int | None) -> Any:
    """An argument as an array of integers in [0, limit), or of any numbers where there is no limit, else ValueError."""
    if value is None:
        return None
    array = value if hasattr(value, "aval") else as_array(name, value)
    if not jnp.issubdtype(array.dtype, jnp.integer) and (limit or not _is_number(array.dtype)):
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    if limit is None or not is_readable(array) or not array.size:
        return array
    values = np.asarray(array)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= limit:
        raise ValueError(f"{name} must be in [0, {limit}), got values from {low} to {high}")
    return array


def _is_number(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.bool_) or jnp.issubdtype(dtype, jnp.floating)


def check_head_mask(config: ElectraConfig, head_mask: Any) -> None:
    n_layers, n_heads = config.num_hidden_layers, config.num_attention_heads
    if head_mask is not None and tuple(jnp.shape(head_mask)) not in ((n_heads,), (n_layers, n_heads)):
        raise ValueError(f"head_mask must have shape {(n_layers, n_heads)}, got {tuple(jnp.shape(head_mask))}")


def check_encoder(config: ElectraConfig, n_rows: int, states: Any, mask: Any) -> None:
    """Raises ValueError for states of an encoder that the model cannot attend to."""
    if states is None:
        if mask is not None:
            raise ValueError("encoder_attention_mask needs encoder_hidden_states beside it")
        return
    if not config.add_cross_attention:
        raise ValueError("encoder_hidden_states need a config with add_cross_attention=True")
    shape = tuple(jnp.shape(states))
    if len(shape) != 3 or shape[::2] != (n_rows, config.hidden_size):
        raise ValueError(f"encoder_hidden_states must have shape [{n_rows}, length, {config.hidden_size}], got {shape}")
    if mask is not None and tuple(jnp.shape(mask)) != shape[:2]:
        raise ValueError(f"encoder_attention_mask must have shape {shape[:2]}, got {tuple(jnp.shape(mask))}")


def _check_cache(config: ElectraConfig, cache: Any, n_rows: int) -> None:
    """Raises ValueError for a cache that is not of `init_cache`, or not of this model or batch."""
    if not config.is_decoder:
        raise ValueError("past_key_values need a config with is_decoder=True")
    is_cache = isinstance(cache, Mapping) and set(cache) == {"index", "layer"}
    if not is_cache or len(cache["layer"]) != config.num_hidden_layers:
        raise ValueError("past_key_values must be what init_cache or an earlier call of this model returned")
    found, expected = jnp.shape(cache["layer"]["0"]["key"]), (config.num_attention_heads, config.head_size)
    if found[0] != n_rows or found[2:] != expected:
        raise ValueError(f"past_key_values must be of {n_rows} rows and heads {expected}, got arrays {found}")


def places(cache: Mapping[str, Any]) -> int:
    """The number of tokens a row that a cache has room for."""
    return cache["layer"]["0"]["key"].shape[1]


class Layout:
    """The names and shapes of a model's parameters, to hold others against.

    Args:
        owner: name of the model's class, for errors.
        shapes: the shapes of its parameters.
    """

    def __init__(self, owner: str, shapes: Shapes):
        self.owner, self.shapes = owner, dict(flatten(shapes))
        self._structure = jax.tree.structure(shapes, is_leaf=lambda x: isinstance(x, tuple))
        self._paths = sorted(self.shapes)  # JAX's order
        self._in_order = [self.shapes[path] for path in self._paths]

    def leaves_of(self, params: Any) -> dict[Path, Any]:
        """The arrays of parameters by their paths.

        Raises:
            ValueError: parameters of another model: missing, further or of other shapes.
        """
        leaves, structure = jax.tree.flatten(params)  # in C++: this runs before every call
        if structure == self._structure:
            found = dict(zip(self._paths, leaves, strict=True))
        elif isinstance(params, Mapping):
            found = dict(flatten(params))
        else:
            raise ValueError(f"params must be a dictionary of parameters, got a {type(params).__name__}")
        if missing := self.shapes.keys() - found.keys():
            raise ValueError(f"params must hold the parameters of {self.owner}, but lack {_listed(missing)}")
        if further := found.keys() - self.shapes.keys():
            raise ValueError(f"params must hold the parameters of {self.owner} alone, got also {_listed(further)}")
        leaves = [found[path] for path in self._paths]
        for path, shape, leaf in zip(self._paths, self._in_order, leaves, strict=True):
            if getattr(leaf, "shape", None) != shape:
                got = f"one of {leaf.shape}" if hasattr(leaf, "shape") else f"a {type(leaf).__name__}"
                raise ValueError(f"{'/'.join(path)} must be an array of shape {shape} in params, got {got}")
        return found


def _listed(paths: Any) -> str:
    names = sorted("/".join(path) for path in paths)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
