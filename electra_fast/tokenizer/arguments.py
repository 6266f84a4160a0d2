"""Arguments of a tokenizer, checked and brought into one form: texts, lengths, and rows to be padded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from operator import index
from typing import Any

import numpy as np

_UNKNOWN_LENGTH = int(1e20)  # a larger model_max_length means that none is known, as in transformers
_MOST_PADDED = 1 << 20  # tokens; rows padded to more, by a slip in a length, would take all the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The keywords of a call, as the user gave them; `ElectraTokenizer.__call__` explains them."""

    add_special_tokens: bool = True
    padding: bool | str = False
    truncation: bool | str | None = None
    max_length: int | None = None
    stride: int | None = 0
    is_split_into_words: bool = False
    pad_to_multiple_of: int | None = None
    padding_side: str | None = None
    return_tensors: str | None = None
    return_token_type_ids: bool | None = None
    return_attention_mask: bool | None = None
    return_overflowing_tokens: bool = False
    return_special_tokens_mask: bool = False
    return_offsets_mapping: bool = False
    return_length: bool = False
    split_special_tokens: bool | None = None
    verbose: bool = True

    def __post_init__(self) -> None:
        for name in _FLAGS:
            value = getattr(self, name)
            if value is not True and value is not False:  # a call of a small batch takes as long as its checks
                check_flag(name, value, or_none=name not in ("add_special_tokens", "is_split_into_words"))


_FLAGS = tuple(field.name for field in fields(Options) if field.type in ("bool", "bool | None"))


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


@dataclass(frozen=True, slots=True)
class Lengths:
    """The settled rules of how rows are cut and filled."""

    padding: str
    """Strategy: "do_not_pad", "longest" or "max_length"."""
    truncation: str
    """Strategy: "do_not_truncate", "longest_first", "only_first" or "only_second"."""
    max_length: int | None
    stride: int
    pad_to_multiple_of: int | None
    padding_side: str
    truncation_side: str

    @property
    def truncates(self) -> bool:
        return self.truncation != "do_not_truncate"

    @property
    def pads(self) -> bool:
        return self.padding != "do_not_pad"

    def width(self, longest: int) -> int:
        """The length that rows are padded to, given that of the longest; raises ValueError for an absurd one."""
        width = self.max_length if self.padding == "max_length" else longest
        multiple = self.pad_to_multiple_of or 1
        width = -(-width // multiple) * multiple
        if width > max(_MOST_PADDED, 2 * longest):
            raise ValueError(
                f"rows must not be padded to more than {_MOST_PADDED:,} tokens, got {width:,}: give a smaller "
                "max_length or pad_to_multiple_of (without max_length, padding='max_length' takes model_max_length)"
            )
        return width


def resolve_lengths(options: Options, model_max_length: Any, padding_side: str, truncation_side: str) -> Lengths:
    """Settles a call's padding and truncation by the rules of transformers; the other arguments are the tokenizer's.

    Raises:
        ValueError: an unknown strategy or side, a negative length, one that is no multiple of `pad_to_multiple_of`.
    """
    max_length, multiple = options.max_length, options.pad_to_multiple_of
    max_length = None if max_length is None else as_int("max_length", max_length, 0)
    multiple = None if multiple is None else as_int("pad_to_multiple_of", multiple, 1)
    stride = 0 if options.stride is None else as_int("stride", options.stride, 0)
    model_max_length = as_model_length(model_max_length)
    truncation = options.truncation
    if truncation is None:
        truncation = "longest_first" if max_length is not None and options.padding is False else False
    padding = _strategy("padding", options.padding, "longest", "do_not_pad", ("longest", "max_length", "do_not_pad"))
    truncation = _strategy(
        "truncation",
        truncation,
        "longest_first",
        "do_not_truncate",
        ("longest_first", "only_first", "only_second", "do_not_truncate"),
    )
    padding_side = as_side("padding_side", options.padding_side, padding_side)
    truncation_side = as_side("truncation_side", None, truncation_side)
    if options.verbose and max_length is not None and options.padding is True and truncation == "do_not_truncate":
        warnings.warn("max_length has no effect with padding=True and no truncation; padding='max_length' pads to it")
    if max_length is None:
        if model_max_length == float("inf"):
            padding = "do_not_pad" if padding == "max_length" else padding
            truncation = "do_not_truncate"
        elif padding == "max_length" or truncation != "do_not_truncate":
            max_length = model_max_length
    if truncation != "do_not_truncate" and padding != "do_not_pad" and multiple is not None and max_length % multiple:
        raise ValueError(
            "max_length must be a multiple of pad_to_multiple_of where rows are cut and filled, "
            f"got {max_length} and {multiple}"
        )
    return Lengths(padding, truncation, max_length, stride, multiple, padding_side, truncation_side)


def as_side(name: str, side: Any, default: Any) -> str:
    """A side, or the default where it is None.

    Raises:
        ValueError: neither "right" nor "left".
    """
    side = default if side is None else side
    if not isinstance(side, str) or side not in ("right", "left"):
        raise ValueError(f"{name} must be 'right' or 'left', got {side!r:.80}")
    return side


def _strategy(name: str, value: Any, if_true: str, if_false: str, names: tuple[str, ...]) -> str:
    value = getattr(value, "value", value)  # transformers' enumerations
    value = {True: if_true, False: if_false}[value] if isinstance(value, bool) else value
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{name} must be True, False or one of {', '.join(names)}, got {value!r:.80}")
    return value


def as_batch(text: Any, text_pair: Any, is_split_into_words: bool) -> tuple[list, list | None, bool]:
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
    elif set(map(type, text)) == {str}:  # the common case, which this finds quickly
        firsts, seconds = list(text), None
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
