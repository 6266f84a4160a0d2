"""Arguments of a tokenizer, checked and brought into one form: flags, numbers, sides and texts."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np

from .extension import are_texts

_UNKNOWN_LENGTH = int(1e20)  # a larger model_max_length means that none is known, as in transformers


def check_flag(name: str, value: Any, or_none: bool = False) -> None:
    """Raises TypeError for what is neither True nor False, nor None where that is allowed, as 0 and 1 are then."""
    is_other = value is None or (isinstance(value, (int, np.integer)) and value in (0, 1))
    if not (isinstance(value, (bool, np.bool_)) or (or_none and is_other)):
        raise TypeError(f"{name} must be True{', False or None' if or_none else ' or False'}, got {value!r:.80}")


def as_int(name: str, value: Any, least: int, kind: str = "or None") -> int:
    """An integer of any kind, NumPy's included, as int.

    Raises:
        ValueError: no integer, a bool, or one below the least.
    """
    try:
        number = least - 1 if isinstance(value, (bool, np.bool_)) else index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} must be an integer of at least {least}{kind and ' ' + kind}, got {value!r:.80}")
    return number


def as_model_length(value: Any) -> float:
    """A model_max_length as int, or inf where none is known; JSON files have 512.0 and 1e30 too.

    Raises:
        ValueError: no number, a negative one, or a part of a token.
    """
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        if value > _UNKNOWN_LENGTH:
            return float("inf")
        value = int(value) if value == value // 1 else value
    return as_int("model_max_length", value, 0, "")


def as_side(name: str, side: Any, default: Any) -> str:
    """A side, or the default where it is None.

    Raises:
        ValueError: neither "right" nor "left".
    """
    side = default if side is None else side
    if not isinstance(side, str) or side not in ("right", "left"):
        raise ValueError(f"{name} must be 'right' or 'left', got {side!r:.80}")
    return side


def as_batch(text: Any, text_pair: Any, is_split_into_words: bool) -> tuple[Sequence, list | None, bool]:
    """A call's first texts, their seconds (None for a text alone) if there are any, and whether they were a batch.

    The encoder checks that each text is a str, since it looks at them anyway.

    Raises:
        TypeError: something that is neither a text nor a list.
        ValueError: texts and pairs of unequal number.
    """
    sequence = (list, tuple)
    if not isinstance(text, (str, *sequence)):
        raise TypeError(f"text must be a str or a list of them, got {type(text).__name__}")
    if is_split_into_words:
        batched = isinstance(text, sequence) and bool(text) and isinstance(text[0], sequence)
    else:
        batched = isinstance(text, sequence)
    if not batched:
        if not isinstance(text_pair, (str, *sequence, type(None))):
            expected = "a list of words" if is_split_into_words else "a str"
            raise TypeError(f"text_pair must be {expected} as text is, got {type(text_pair).__name__}")
        firsts, seconds = [text], [text_pair] if text_pair else None
    elif text_pair is not None:
        if not isinstance(text_pair, sequence):
            raise TypeError(f"text_pair must be a list as text is, got {type(text_pair).__name__}")
        if len(text) != len(text_pair):
            raise ValueError(f"text and text_pair must be of one length, got {len(text)} and {len(text_pair)}")
        firsts, seconds = list(text), list(text_pair)
        if None in seconds:  # it would stand for a text alone
            raise TypeError(f"text_pair[{seconds.index(None)}] must be a str, got None of type NoneType")
    elif are_texts(text):  # the common case, which this finds quickly
        firsts, seconds = text, None
    else:
        pairs = [is_pair(item, is_split_into_words) for item in text]
        firsts = [item[0] if pair else item for item, pair in zip(text, pairs, strict=True)]
        seconds = [item[1] if pair else None for item, pair in zip(text, pairs, strict=True)] if any(pairs) else None
        halves = [number for number, pair in enumerate(pairs) if pair and seconds[number] is None]
        if halves:  # None would stand for a text alone
            raise TypeError(f"text[{halves[0]}] must be a text or a pair of texts, got {text[halves[0]]!r:.80}")
    if is_split_into_words:
        for name, items in (("text", firsts), ("text_pair", seconds or [])):
            for index, item in enumerate(items):
                if item is not None and not isinstance(item, sequence):
                    where = f"{name}[{index}]" if batched else name
                    raise TypeError(
                        f"{where} must be a list of words, as is_split_into_words=True says, got {type(item).__name__}"
                    )
    return firsts, seconds, batched


def is_pair(item: Any, is_split_into_words: bool) -> bool:
    """Tells whether an item of a batch is a (text, pair) rather than a text."""
    if isinstance(item, str) or not isinstance(item, (list, tuple)) or len(item) != 2:
        return False
    return not is_split_into_words or isinstance(item[0], (list, tuple))
