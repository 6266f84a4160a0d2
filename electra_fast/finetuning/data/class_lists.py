"""Several classes in one field, in the forms that people's files have.

Lists of JSON; lists, tuples, sets and arrays as Python and NumPy print them, which is what pandas saves; arrays of
PostgreSQL; text with | , ; or a line feed between the classes; and vectors of zeros and ones in all of these forms.
What looks like a list but cannot be read as one is refused: half a list would become classes that nobody has named.
Commas separate only where no other separator does, which a whole column says: names in surveys may have commas.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ...disk import parse_json
from .lines import shown

# Separators of classes in plain text, and their full-width forms: those of names with commas, and commas too.
_MARKS = "|;\n\uff5c\uff1b"
_MARK = re.compile(f"[{_MARKS}]")
_MARK_OR_COMMA = re.compile(f"[{_MARKS},\uff0c\u3001]")
_WRAPPED = re.compile(
    r"(?:array|tensor|Index|list|tuple|set|frozenset)\((?P<inner>.*?)(?:,\s*dtype\s*=[^()]*)?\)", re.DOTALL
)
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
# An item in brackets and what follows it: a comma, white space (NumPy), or the end.
_ITEM = re.compile(
    r"""(?:(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<bare>[^\s,'"\[\](){}:]+))(?:\s*,\s*|\s+|$)""",
    re.DOTALL,
)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d*)?(?:[eE][+-]?\d+)?")
_NAMED = {"True": True, "False": False, "true": True, "false": False}
_NOTHING = {"None", "nan", "NULL", "<NA>"}
_BARE_VECTOR = re.compile(r"[01](?:\.0*)?(?:\s+[01](?:\.0*)?)+")


@dataclass(frozen=True, slots=True)
class Undivided:
    """A field of plain text, whose column says what separates its classes.

    Attributes:
        name: the field, as an error message calls it.
    """

    text: str
    name: str

    def has_mark(self) -> bool:
        """Whether another separator than a comma is in the text."""
        return _MARK.search(self.text) is not None

    def classes(self, with_commas: bool) -> tuple[str, ...]:
        """The classes between separators, commas included or not.

        Raises:
            ValueError: the text is part of something printed, a separator is within brackets, or both ; and | occur.
        """
        separators = _MARK_OR_COMMA if with_commas else _MARK
        parts = _stripped(separators.split(self.text))
        is_cut = self.text.count("(") == self.text.count(")") and any(p.count("(") != p.count(")") for p in parts)
        if is_cut or _is_printed(self.text):
            raise ValueError(_no_list(self.name, self.text))
        if re.search("[;\uff1b]", self.text) and re.search("[|\uff5c]", self.text):
            raise ValueError(
                f"{self.name} must have one separator between the labels, got ; and | in {shown(self.text)}"
            )
        return tuple(parts)


def are_commas_separators(fields: Collection[Undivided]) -> bool:
    """Whether commas separate the classes in these fields of a column: not where another separator does."""
    return not any(field.has_mark() for field in fields)


def is_written_list(text: str) -> bool:
    """Whether text is a list or an object, as JSON, Python or NumPy print it; `[a]` may be a name."""
    text = _field(text)
    if not text or text[-1] != _BRACKETS.get(text[0]):
        return False
    try:
        return isinstance(parse_json(text), list | dict)
    except ValueError:
        items = _items(text[1:-1].strip())
    return items is not None and all(quoted or (text[0] == "[" and _is_number(item)) for quoted, item in items)


def class_list(value: Any, name: str) -> list[Any] | Undivided:
    """The classes in a field, as the values of a list in JSON would be; [] for empty text.

    Raises:
        ValueError: the value is no list, and no text that can be read as one.
    """
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a list, or text with | or , between the labels, got {shown(value)}")
    text = _field(value)
    while wrapped := _WRAPPED.fullmatch(text):
        text = wrapped["inner"].strip()
    if not text:
        return []
    items = _items(text)
    if text[0] in _BRACKETS and text[-1] == _BRACKETS[text[0]]:
        found = _bracketed(text, name)
    elif text[0] in "[{" or (text[-1] == "]" and "[" not in text):
        found = None
    elif items is not None and all(quoted for quoted, _ in items):
        found = [item for _, item in items]
    else:
        found = text.split() if _BARE_VECTOR.fullmatch(text) else Undivided(text, name)
    if found is None:
        raise ValueError(_no_list(name, value))
    return found


def _field(text: str) -> str:
    """The text of a field without the quotes that data frames put around it in tab-separated values."""
    text = text.strip()
    return text[1:-1].replace('""', '"') if re.fullmatch(r'"[\[({].*[\])}]"', text, re.DOTALL) else text


def _no_list(name: str, value: Any) -> str:
    return f"{name} must be a whole list, such as ['a', 'b'], got {shown(value)}"


def _bracketed(text: str, name: str) -> list[Any] | Undivided | None:
    """The items of a list that is written out; None if it is not clear what they are."""
    if text[0] == "[":
        try:
            return parse_json(text)
        except ValueError:
            pass
    inner = text[1:-1].strip()
    items = _items(inner)
    if items is not None:
        if all(quoted for quoted, _ in items):
            return [item for _, item in items]
        if all(not quoted and _is_number(item) for quoted, item in items):
            return [_NAMED[item] if item in _NAMED else float(item) for _, item in items]
    if text[0] == "(":
        return Undivided(text, name)
    # Classes without quotes: blanks are part of them, so they need commas. PostgreSQL quotes some and not others.
    parts = [part.strip().strip('"') for part in inner.split(",")]
    is_list = len(parts) > 1 or not re.search(r"\s", inner)
    is_clear = is_list and all(parts) and not re.search(r"[\[\](){}:']|\.\.\.", inner)
    return parts if is_clear and not set(parts) & _NOTHING else None


def _is_number(item: str) -> bool:
    return item in _NAMED or _NUMBER.fullmatch(item) is not None


def _items(text: str) -> list[tuple[bool, str]] | None:
    """The items of a list without its brackets, each with whether it is quoted; None if it is no list of such items."""
    items, position = [], 0
    while position < len(text):
        match = _ITEM.match(text, position)
        if match is None:
            return None
        quoted = match["quoted"]
        items.append((False, match["bare"]) if quoted is None else (True, _unquoted(quoted)))
        position = match.end()
    return items


def _unquoted(text: str) -> str:
    if "\\" not in text:
        return text[1:-1]
    try:
        return ast.literal_eval(text)
    except SyntaxError as error:
        raise ValueError(f"a class in quotes must have the escapes of Python or JSON, got {shown(text)}") from error


def _stripped(parts: Sequence[str]) -> list[str]:
    return [part.strip() for part in parts if part.strip()]


def _is_printed(text: str) -> bool:
    """Whether text is part of a list or of a data frame that was printed."""
    parts = _stripped(_MARK_OR_COMMA.split(text))
    return bool(re.search(r"\bdtype\s*[:=]", text)) or any(part[0] in "[{" or part[-1] in "]}" for part in parts)


def vector_width(lists: Sequence[tuple[int, Sequence[str]]]) -> int | None:
    """The width of the vectors of zeros and ones that a column holds; None if it holds names of classes.

    A column holds vectors if every list has the same number of items, two or more, and all are zeros and ones: read
    as names, every example would have the same two classes.

    Args:
        lists: the lists of a file, each with its line.

    Raises:
        ValueError: the lists look like vectors, but not all have the same length, or are written as 010.
    """
    values = {item for _, items in lists for item in items}
    if values and all(re.fullmatch("[01]{2,}", value) for value in values) and len(set(map(len, values))) == 1:
        raise ValueError(f"line {lists[0][0]}: a vector must be a list, such as [0, 1, 0], got {lists[0][1][0]}")
    if not values <= _BITS.keys():
        return None
    widths = {len(items) for _, items in lists}
    if len(widths) == 1:
        width = widths.pop()
        return width if width > 1 else None
    is_vector = any(len(set(items)) < len(items) for _, items in lists)
    if is_vector:
        width = len(lists[0][1])
        line, items = next((line, items) for line, items in lists if len(items) != width)
        raise ValueError(f"line {line}: a vector must have {width} items, as the first row's, got {len(items)}")
    return None


def classes_of(vector: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes that a vector has a one for; raises ValueError if it is no vector of theirs."""
    if len(vector) != len(names) or not set(vector) <= _BITS.keys():
        raise ValueError(
            f"the label must be a vector of {len(names)} zeros and ones, got {', '.join(vector) or 'none'}"
        )
    return tuple(name for name, item in zip(names, vector, strict=True) if _BITS[item])


_BITS = dict.fromkeys(("0", "0.", "0.0", "false", "False"), False) | dict.fromkeys(
    ("1", "1.", "1.0", "true", "True"), True
)
