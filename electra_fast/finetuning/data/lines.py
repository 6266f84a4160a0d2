"""Files of examples line by line, and what is said of a line that is damaged."""

from __future__ import annotations

import json
from typing import Any


def without_end(line: str) -> str:
    """The line without its line feed, and the carriage return before it."""
    return line.removesuffix("\n").removesuffix("\r")


def json_object(line: str) -> dict[str, Any]:
    """The JSON object that a line is; raises ValueError."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"must be a JSON object, got: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"must be a JSON object, got {shown(record)}")
    return record


def checked_text(value: Any, name: str) -> str:
    """The value, which must be text with something in it."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {shown(value)}")
    if not value.strip():
        raise ValueError(f"{name} must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a character
        raise ValueError(f"{name} must be text, got: {error}") from error
    return value


def shown(value: Any) -> str:
    """A value in an error: as JSON has it, cut."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 80 else text[:77] + "..."
