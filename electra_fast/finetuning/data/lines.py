"""Files of examples line by line, and what is said of a line that is damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...pretraining.text.sources import COMPRESSIONS, DAMAGE, open_packed


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of UTF-8 text, plain, .gz, .xz or .zst, with their ends, by number from 1.

    A line ends with a line feed and nothing else: a carriage return within one is white space of its text.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, naming the line.
    """
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"no such file: {path}")
    number = 0
    try:
        with open_packed(path) as file:
            for number, line in enumerate(file, start=1):
                # Spreadsheets begin a file with a byte order mark.
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number}: must be UTF-8, got: {error}") from error
    except DAMAGE as error:
        raise ValueError(f"{path}, line {number + 1}: the compressed file is damaged: {error}") from error


def without_end(line: str) -> str:
    """The line without its line feed, and the carriage return before it."""
    return line.removesuffix("\n").removesuffix("\r")


def plain_name(path: Path) -> str:
    """The file's name without .gz, .xz or .zst."""
    return path.stem if path.suffix in COMPRESSIONS else path.name


def plain_suffix(path: Path) -> str:
    """How that name ends, in lower case: ".jsonl"."""
    return Path(plain_name(path)).suffix.lower()


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
