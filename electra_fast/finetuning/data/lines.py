"""Lines of files of examples, and the messages about damaged ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

from ...disk import parse_json

# What a row may lack: one of its texts, or its label. None of it may lack in training; both may in inference.
Lack = Literal["text", "label"]


class Missing(ValueError):
    """Says that nothing is where a text must be: the field is absent, null, NaN, empty or white space."""


class MissingLabel(Missing):
    """Says that nothing is where a label must be."""


def refuse(error: ValueError) -> None:
    """What is done with a bad row where nothing else is said: its error is raised."""
    raise error


class placed:
    """Puts the place in front of the message of a ValueError: file, line and the item, if the line has several.

    A generator with @contextmanager would be shorter, but takes longer than the reading of a row.
    """

    __slots__ = ("_item", "_line", "_name")

    def __init__(self, name: Path | str, line: int, item: str = ""):
        self._name, self._line, self._item = name, line, item

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, ValueError):
            place = f"{self._name}, line {self._line}: {self._item and f'{self._item}: '}"
            raise (type(error) if isinstance(error, Missing) else ValueError)(f"{place}{error}") from error


def is_null(value: Any) -> bool:
    """Whether a field has no value: null, NaN, or what stands for a field that is absent."""
    return value is None or value != value


def is_missing(value: Any) -> bool:
    """Whether a field holds nothing: no value, or text without a character that is not white space."""
    return is_null(value) or (isinstance(value, str) and not value.strip())


def without_end(line: str) -> str:
    """The line without its line feed and the carriage return before that."""
    return line.removesuffix("\n").removesuffix("\r")


def json_object(line: str) -> dict[str, Any]:
    """Parses a line that must be a JSON object; raises ValueError."""
    try:
        record = parse_json(line)
    except ValueError as error:
        raise ValueError(f"must be a JSON object, got: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"must be a JSON object, got {shown(record)}")
    return record


def checked_text(value: Any, name: str) -> str:
    """Returns the value, which must be text that is not empty; raises ValueError, or Missing where there is none."""
    if is_missing(value):
        raise Missing(f"{name} must {'not be empty' if isinstance(value, str) else f'be text, got {shown(value)}'}")
    return _well_formed(value, name)


def any_text(value: Any, name: str) -> str:
    """The text of a value where texts may lack: null, NaN and what is absent are empty, a number is as JSON has it.

    Raises:
        ValueError: a list or an object, or half a character.
    """
    if is_null(value):
        return ""
    return _well_formed(json.dumps(value) if isinstance(value, bool | int | float) else value, name)


def text_reader(may_lack: Collection[Lack]) -> Callable[[Any, str], str]:
    """What reads the text of a value: `any_text` where it may lack, else `checked_text`."""
    return any_text if "text" in may_lack else checked_text


def _well_formed(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a character
        raise ValueError(f"{name} must be text, got: {error}") from error
    return value


def shown(value: Any) -> str:
    """A value as an error message shows it: as JSON, or Python where JSON has no such value; cut to 80 characters."""
    text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= 80 else text[:77] + "..."
