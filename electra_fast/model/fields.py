"""The fields of a config.json: what kind of value each holds, one table, and how values are written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch

# Torch and C++ count in 64 bits, products of two sizes included.
_LIMIT = 2**31
# Modules and labels are objects of Python, which take far more memory and time than numbers in a tensor.
_LARGEST = {"num_hidden_layers": 1000, "num_labels": 2**22}


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_integer(value)


def _is_label_number(key: Any) -> bool:
    return isinstance(key, Integral) or (isinstance(key, str) and key.removeprefix("-").isdecimal() and len(key) < 20)


def _is_label(value: Any) -> bool:
    return not isinstance(value, list | dict)


@dataclass(frozen=True)
class Kind:
    """A kind of value: what an error calls it, and what tells whether a value is one."""

    description: str
    fits: Callable[[Any], bool]

    def or_none(self) -> Kind:
        return Kind(f"{self.description} or None", lambda value: value is None or self.fits(value))


SIZE = Kind("a positive integer", lambda value: _is_integer(value) and value > 0)
COUNT = Kind("an integer of at least 0", lambda value: _is_integer(value) and value >= 0)
TOKEN = Kind("an integer", _is_integer)
TOKENS = Kind(
    "an integer or a list of integers",
    lambda value: all(TOKEN.fits(x) for x in value) if isinstance(value, list | tuple) else TOKEN.fits(value),
)
# The kernels divide by 1 - rate; modules of torch do not.
RATE = Kind("in [0, 1)", lambda value: _is_number(value) and 0 <= value < 1)
RATE_OF_A_MODULE = Kind("in [0, 1]", lambda value: _is_number(value) and 0 <= value <= 1)
SCALE = Kind("a finite number of at least 0", lambda value: _is_number(value) and 0 <= value < math.inf)
FLAG = Kind("True or False", lambda value: isinstance(value, bool))
NAME = Kind("a name", lambda value: isinstance(value, str))
NAMES = Kind("a list of names", lambda value: isinstance(value, list) and all(isinstance(x, str) for x in value))
ACTIVATION = Kind("the name of an activation or a function", lambda value: isinstance(value, str) or callable(value))
LABELS_BY_NUMBER = Kind(
    "an object from integers to labels",
    lambda value: isinstance(value, dict) and all(map(_is_label_number, value)) and all(map(_is_label, value.values())),
)
NUMBERS_BY_LABEL = Kind("an object from labels to integers", lambda value: isinstance(value, dict))
DTYPE = Kind("a torch dtype or the name of one", lambda value: _dtype_of(value) is not None)

KINDS: dict[str, Kind] = {
    **dict.fromkeys(
        (
            "vocab_size",
            "embedding_size",
            "hidden_size",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        ),
        SIZE,
    ),
    "num_hidden_layers": COUNT,
    "num_labels": COUNT,
    "chunk_size_feed_forward": COUNT.or_none(),
    "pad_token_id": TOKEN.or_none(),
    "bos_token_id": TOKEN.or_none(),
    "eos_token_id": TOKENS.or_none(),
    "hidden_dropout_prob": RATE,
    "attention_probs_dropout_prob": RATE,
    "classifier_dropout": RATE_OF_A_MODULE.or_none(),
    "summary_first_dropout": RATE_OF_A_MODULE,
    "summary_last_dropout": RATE_OF_A_MODULE,
    "initializer_range": SCALE,
    "layer_norm_eps": SCALE,
    "hidden_act": ACTIVATION,
    "summary_activation": ACTIVATION.or_none(),
    "summary_type": NAME,
    "problem_type": NAME.or_none(),
    "architectures": NAMES.or_none(),
    "id2label": LABELS_BY_NUMBER,
    "label2id": NUMBERS_BY_LABEL,
    "dtype": DTYPE.or_none(),
    **dict.fromkeys(
        ("summary_use_proj", "use_cache", "is_decoder", "add_cross_attention", "tie_word_embeddings"), FLAG
    ),
    **dict.fromkeys(
        (
            "output_attentions",
            "output_hidden_states",
            "return_dict",
            "is_encoder_decoder",
            "summary_proj_to_labels",
        ),
        FLAG.or_none(),
    ),
}


def check_field(name: str, value: Any) -> None:
    """Raises ValueError where a field that we know is given a value of another kind."""
    kind = KINDS.get(name)
    if kind is None:
        return
    if _is_integer(value) and abs(value) >= _LIMIT:
        raise ValueError(f"{name} must be below 2**31, got {value!r:.40}")
    if not kind.fits(value):
        raise ValueError(f"{name} must be {kind.description}, got {value!r:.200}")
    if name in _LARGEST and value > _LARGEST[name]:
        raise ValueError(f"{name} must be at most {_LARGEST[name]:,}, got {value:,}")


def _dtype_of(value: Any) -> torch.dtype | None:
    """The dtype that a value names, None where it names none; a dictionary names that of its only part, or of ""."""
    if isinstance(value, dict):
        value = value.get("", next(iter(value.values()), None))
    if isinstance(value, str):
        value = getattr(torch, value.removeprefix("torch."), None)
    return value if isinstance(value, torch.dtype) else None


def as_dtype(value: Any) -> torch.dtype | None:
    return None if value is None else _dtype_of(value)


def json_value(value: Any) -> Any:
    """A field's value as JSON has it: dtypes and functions by name, at any depth."""
    if isinstance(value, dict):
        return {key: json_value(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(x) for x in value]
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return getattr(value, "__name__", type(value).__name__) if callable(value) else value
