"""Lines of files of examples, and the messages about damaged ones."""

from __future__ import annotations

import json
from typing import Any


def without_end(line: str) -> str:
    """The line without its line feed and the carriage return before that."""
    return line.removesuffix("\n").removesuffix("\r")


def json_object(line: str) -> dict[str, Any]:
    """Parses a line that must be a JSON object; raises ValueError."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"must be a JSON object, got: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"must be a JSON object, got {shown(record)}")
    return record


def checked_text(value: Any, name: str) -> str:
    """Returns the value, which must be text that is not empty; raises ValueError."""
    if isinstance(value, str) and not value.strip():
        raise ValueError(f"{name} must not be empty")
    return _well_formed(value, name)


def any_text(value: Any, name: str) -> str:
    """The text of a value that inference reads: null, NaN and what is missing are empty, a number is as JSON has it.

    Raises:
        ValueError: a list or an object, or half a character.
    """
    if value is None or value != value:
        return ""
    return _well_formed(json.dumps(value) if isinstance(value, bool | int | float) else value, name)


def _well_formed(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a character
        raise ValueError(f"{name} must be text, got: {error}") from error
    return value


def shown(value: Any) -> str:
    """A value as an error message shows it: as JSON, cut to 80 characters."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 80 else text[:77] + "..."
