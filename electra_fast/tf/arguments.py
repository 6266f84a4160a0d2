"""The arguments of a TFElectra class's call: given in any form, named, and checked.

Values are checked in eager mode on a CPU alone. In a graph TensorFlow finds an id that is in no table on a CPU only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ..functional.inputs import as_array
from ..model.config import ElectraConfig

LABELS = ("labels", "start_positions", "end_positions")


def named(
    class_name: str, names: Sequence[str], first: Any, others: Sequence[Any] = (), options: Mapping[str, Any] = {}
) -> dict[str, Any]:
    """Arguments by their names.

    Args:
        names: the names that the class takes, in order.
        first: input_ids; or a list or tuple of arguments in the order of `names`; or a mapping of them.
        others: arguments that follow in the order of `names`.
        options: arguments that were named.

    Raises:
        TypeError: a name that the class does not take, or one that was given twice.
    """
    if isinstance(first, Mapping):
        found = dict(first)
    elif isinstance(first, list | tuple) and first and all(x is None or hasattr(x, "shape") for x in first):
        found = dict(zip(names, first, strict=False))
    else:
        found = {} if first is None else {names[0]: first}
    for further in (dict(zip(names[1:], others, strict=False)), options):
        if twice := sorted(name for name in found.keys() & further.keys() if further[name] is not None):
            raise TypeError(f"{class_name} got {twice[0]} twice")
        found |= {name: value for name, value in further.items() if value is not None or name not in found}
    if unknown := sorted(map(str, found.keys() - set(names))):
        hint = ": it has no loss of its own" if unknown[0] in LABELS and not set(LABELS) & set(names) else ""
        raise TypeError(f"{class_name} got an unexpected argument {unknown[0]!r}{hint}")
    return {name: as_array(name, value) if _is_plain_list(value) else value for name, value in found.items()}


def _is_plain_list(value: Any) -> bool:
    """Tells whether a value is numbers in lists, not arrays in them, as a cache is."""
    if not isinstance(value, list):
        return False
    return isinstance(value[0], int | float) or _is_plain_list(value[0]) if value else True


def check(config: ElectraConfig, n_dims: int, arguments: Mapping[str, Any], n_past: int | None = 0) -> None:
    """Raises ValueError for arguments that no model of this config can take.

    Args:
        n_dims: 2 for [batch, length], 3 for [batch, choices, length].
        n_past: the number of tokens in the cache; None if it is not known.
    """
    for name, value in arguments.items():
        if not hasattr(value, "shape") or isinstance(value, tf.RaggedTensor | tf.SparseTensor):
            hint = ": call its to_tensor() first" if isinstance(value, tf.RaggedTensor) else ""
            raise ValueError(f"{name} must be a tensor or lists of numbers, got a {type(value).__name__}{hint}")
    ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
    if (ids is None) == (embeds is None):
        raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
    axes = "[batch, length" if n_dims == 2 else "[batch, choices, length"
    shape = embeds.shape[:-1] if ids is None else ids.shape
    if embeds is not None and (embeds.shape.rank != n_dims + 1 or embeds.shape[-1] != config.embedding_size):
        raise ValueError(f"inputs_embeds must have shape {axes}, {config.embedding_size}], got {embeds.shape}")
    if shape.rank != n_dims or shape[-1] == 0:
        raise ValueError(f"input_ids must have shape {axes}] with at least one token, got {shape}")
    keys = None if shape[-1] is None or n_past is None else n_past + shape[-1]
    if keys is not None and keys > config.max_position_embeddings and arguments.get("position_ids") is None:
        raise ValueError(
            f"sequence length {keys} is over max_position_embeddings {config.max_position_embeddings}: truncate the "
            "text (tokenizer(..., truncation=True, max_length=...)) or split it"
        )
    mask, head_mask = arguments.get("attention_mask"), arguments.get("head_mask")
    if mask is not None and not (
        mask.shape.is_compatible_with([*shape[:-1], keys]) or (n_dims == 2 and mask.shape.rank in (3, 4))
    ):
        raise ValueError(f"attention_mask must have shape {[*shape[:-1], keys]}, got {mask.shape.as_list()}")
    _check_encoder(config, shape[0], arguments.get("encoder_hidden_states"), arguments.get("encoder_attention_mask"))
    heads = [config.num_hidden_layers, config.num_attention_heads]
    if head_mask is not None and head_mask.shape.as_list() not in (heads, heads[1:]):
        raise ValueError(f"head_mask must have shape {heads} or {heads[1:]}, got {head_mask.shape.as_list()}")
    sizes = {
        "input_ids": config.vocab_size,
        "token_type_ids": config.type_vocab_size,
        "position_ids": config.max_position_embeddings,
    }
    for name, size in sizes.items():
        if (value := arguments.get(name)) is not None:
            _check_ids(name, value, shape, size)


def _check_encoder(config: ElectraConfig, n_rows: int | None, states: Any, mask: Any) -> None:
    if states is None:
        if mask is not None:
            raise ValueError("encoder_attention_mask needs encoder_hidden_states beside it")
        return
    if not config.add_cross_attention:
        raise ValueError("encoder_hidden_states need a config with add_cross_attention=True")
    if not states.shape.is_compatible_with([n_rows, None, config.hidden_size]):
        raise ValueError(
            f"encoder_hidden_states must have shape [{n_rows}, length, {config.hidden_size}], got {states.shape}"
        )
    if mask is not None and not mask.shape.is_compatible_with(states.shape[:2]):
        raise ValueError(f"encoder_attention_mask must have shape {states.shape[:2]}, got {mask.shape}")


def _check_ids(name: str, ids: Any, shape: tf.TensorShape, size: int) -> None:
    if not ids.dtype.is_integer:
        raise ValueError(f"{name} must be integers, got {ids.dtype.name}")
    one_row = tf.TensorShape([1, *shape[1:]])
    if not (ids.shape.is_compatible_with(shape) or (name == "position_ids" and ids.shape.is_compatible_with(one_row))):
        raise ValueError(f"{name} must have shape {shape}, got {ids.shape}")
    if tf.executing_eagerly() and "CPU" in ids.device:
        values = ids.numpy()
        low, high = (values.min(), values.max()) if values.size else (0, 0)
        if low < 0 or high >= size:
            raise ValueError(f"{name} must be in [0, {size}), got values from {low} to {high}")
