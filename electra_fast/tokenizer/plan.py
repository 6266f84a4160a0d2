"""What a call's keywords come to: which lengths, cuts and columns, settled once for all calls that are alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from .arguments import as_int, as_model_length, as_side, check_flag
from .extension import Column, Side, Strategy, Truncation

_MOST_PADDED = 1 << 20  # tokens; rows padded to more, by a slip in a length, would take all the memory
_ENDLESS = 1 << 62  # tokens that no row has, in the C++ code's range
_REMEMBERED = 256  # plans
_NO_EFFECT = "max_length has no effect with padding=True and no truncation; padding='max_length' pads to it"


class Options(NamedTuple):
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


_FLAGS = ("add_special_tokens", "is_split_into_words")
_FLAGS_OR_NONE = (
    "return_token_type_ids",
    "return_attention_mask",
    "return_overflowing_tokens",
    "return_special_tokens_mask",
    "return_offsets_mapping",
    "return_length",
    "split_special_tokens",
    "verbose",
)


class Defaults(NamedTuple):
    """What a tokenizer's attributes say where the keywords of a call leave it open."""

    model_max_length: Any
    padding_side: str
    truncation_side: str
    return_token_type_ids: bool
    return_attention_mask: bool


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


@dataclass(frozen=True, slots=True)
class Plan:
    """What a call does with any texts."""

    lengths: Lengths
    truncation: Truncation | None
    """`lengths` for the encoder; None cuts nothing."""
    padding_side: Side
    columns: dict[str, Column]
    """The columns that rows have, in order."""
    warning: str | None
    """What is to be told of the keywords at every call."""

    @classmethod
    def of(cls, options: Options, defaults: Defaults) -> Plan:
        """Checks keywords and settles them by the rules of transformers.

        Raises:
            TypeError: a flag that is none.
            ValueError: an unknown strategy or side, a negative length, one that is no multiple of `pad_to_multiple_of`.
        """
        for name in _FLAGS + _FLAGS_OR_NONE:
            check_flag(name, getattr(options, name), or_none=name in _FLAGS_OR_NONE)
        lengths, warning = _lengths(options, defaults)
        truncation = None
        if lengths.truncates:
            truncation = Truncation(
                strategy=getattr(Strategy, lengths.truncation),
                max_length=min(lengths.max_length, _ENDLESS),
                stride=min(lengths.stride, _ENDLESS),
                side=getattr(Side, lengths.truncation_side),
            )
        types, mask = options.return_token_type_ids, options.return_attention_mask
        wanted = {
            "input_ids": True,
            "token_type_ids": defaults.return_token_type_ids if types is None else types,
            "attention_mask": defaults.return_attention_mask if mask is None else mask,
            "special_tokens_mask": options.return_special_tokens_mask,
            "offset_mapping": options.return_offsets_mapping,
        }
        columns = {name: getattr(Column, name) for name, is_wanted in wanted.items() if is_wanted}
        return cls(lengths, truncation, getattr(Side, lengths.padding_side), columns, warning)


_PLAIN = frozenset({bool, float, int, str, type(None)})


def plan_of(options: Options, defaults: Defaults) -> Plan:
    """The plan of a call: a remembered one, or `Plan.of`.

    Plans depend on values alone, so they never grow old. Values of other types than Python's own may change, or have no
    hash, and are settled anew.
    """
    types = (*map(type, options), *map(type, defaults))  # 1 and 1.0 are equal to True, and mean something else
    return _remembered(options, defaults, types) if _PLAIN.issuperset(types) else Plan.of(options, defaults)


@lru_cache(_REMEMBERED)
def _remembered(options: Options, defaults: Defaults, types: tuple[type, ...]) -> Plan:
    return Plan.of(options, defaults)


def _lengths(options: Options, defaults: Defaults) -> tuple[Lengths, str | None]:
    """The rules of padding and truncation, and a warning about them, if there is one."""
    max_length, multiple = options.max_length, options.pad_to_multiple_of
    max_length = None if max_length is None else as_int("max_length", max_length, 0)
    multiple = None if multiple is None else as_int("pad_to_multiple_of", multiple, 1)
    stride = 0 if options.stride is None else as_int("stride", options.stride, 0)
    model_max_length = as_model_length(defaults.model_max_length)
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
    padding_side = as_side("padding_side", options.padding_side, defaults.padding_side)
    truncation_side = as_side("truncation_side", None, defaults.truncation_side)
    warning = None
    if options.verbose and max_length is not None and options.padding is True and truncation == "do_not_truncate":
        warning = _NO_EFFECT
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
    return Lengths(padding, truncation, max_length, stride, multiple, padding_side, truncation_side), warning


def _strategy(name: str, value: Any, if_true: str, if_false: str, names: tuple[str, ...]) -> str:
    value = getattr(value, "value", value)  # transformers' enumerations
    value = {True: if_true, False: if_false}[value] if isinstance(value, bool) else value
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{name} must be True, False or one of {', '.join(names)}, got {value!r:.80}")
    return value
