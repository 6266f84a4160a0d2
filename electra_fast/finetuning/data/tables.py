"""Tables of examples: TSV, CSV and JSONL, with every row checked.

.tsv, .txt      fields between tabs; quotes are text, as in GLUE's files; fields beyond those of the header are left out
.csv            fields between commas, quoted where necessary; the same number in every row
.jsonl, .json   one object per line

Each may end with .gz, .xz or .zst as well. Training leaves out blank lines; `predict_inputs` reads every line.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ...disk import numbered_lines, plain_suffix
from .examples import ChoiceExample, Example, TaggedExample, TextExample
from .lines import checked_text, json_object, shown, without_end
from .tasks import Column, Columns, KindName

JSON_SUFFIXES = (".jsonl", ".json")
TABLE_SUFFIXES = (".tsv", ".txt", ".csv", *JSON_SUFFIXES)

_Row = dict[Column, Any]
_LONGEST_FIELD = 2**31 - 1  # the csv module takes 131,072 characters by default


def _refuse(error: ValueError) -> None:
    raise error


def read_table(
    path: Path,
    kind: KindName,
    columns: Columns,
    *,
    labels: Collection[str] | None = None,
    needs_labels: bool = True,
    bad_row: Callable[[ValueError], None] = _refuse,
) -> Iterator[Example]:
    """The examples of a table, one by one, in order.

    A class is text, an integer, or JSON's true or false; all become text. Several classes are a list of classes in
    JSON, or text with | or , between them; the list or text may be empty. A choice's label is the number of an ending,
    from 0.

    Args:
        kind: any kind but "qa"; "tagging" takes lists of words and tags, which only JSON has.
        labels: the classes that are allowed; None allows all.
        needs_labels: False if the label column may be absent; then it is in all rows or in none.
        bad_row: function to call with the error of a bad row; if it does not raise, the row is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no rows or lacks a column, or a row is bad; the message names its line.
    """
    if kind == "tagging" and columns.words is None:
        raise ValueError(f"{path}: a table of sentences needs the column 'words': name the one that has it")
    wanted = (columns.text, columns.pair, columns.id, columns.words, columns.start, *columns.endings)
    required = [column for column in wanted if column is not None]
    label = columns.tags if kind == "tagging" else columns.label
    if needs_labels:
        assert label is not None
        required.append(label)
    rows = table_rows(path, columns.has_header, required)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{path}, line 1: the file must hold examples, got none")
    if not needs_labels and first[1].get(label) is not None:
        required.append(label)
    for number, (line, row) in enumerate(chain([first], rows)):
        try:
            missing = [column for column in required if column not in row]
            if missing:
                raise ValueError(f"must have a field for column {missing[0]!r}, got {_listed(row)}")
            id = str(number) if columns.id is None else _class(row[columns.id], f"the id in column {columns.id!r}")
            target = _PARSERS[kind](row[label], f"the label in column {label!r}", labels) if label in required else None
            example = _example(kind, id, line, row, columns, target)
        except ValueError as error:
            bad_row(ValueError(f"{path}, line {line}: {error}"))
        else:
            yield example


def _example(kind: KindName, id: str, line: int, row: _Row, columns: Columns, target: Any) -> Example:
    def text(column: Column) -> str:
        return checked_text(row[column], f"the text in column {column!r}")

    if kind == "tagging":
        words = row[columns.words]
        if not isinstance(words, list) or not words:
            raise ValueError(f"the words in column {columns.words!r} must be a list of text, got {shown(words)}")
        words = tuple(checked_text(word, f"a word in column {columns.words!r}") for word in words)
        if target is not None and len(target) != len(words):
            raise ValueError(f"there must be a tag for each of the {len(words)} words, got {len(target)}")
        return TaggedExample(id, line, words, target)
    if kind != "choice":
        return TextExample(id, line, text(columns.text), None if columns.pair is None else text(columns.pair), target)
    if target is not None and target >= len(columns.endings):
        raise ValueError(f"the label must be the number of one of {len(columns.endings)} endings, got {target}")
    start = "" if columns.start is None else text(columns.start)
    return ChoiceExample(id, line, text(columns.text), start, tuple(text(ending) for ending in columns.endings), target)


def table_rows(
    path: Path, has_header: bool, required: Sequence[Column], *, every_line: bool = False
) -> Iterator[tuple[int, _Row]]:
    """Yields the number of each line and its row: the fields that it has, by the names of the header or by number.

    Args:
        required: the columns that a header must have.
        every_line: whether a blank line is a row too, without fields, and a row of CSV may lack its last fields, or
            have more that are empty.
    """
    suffix = plain_suffix(path)
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(f"the name of a table must end with {', '.join(TABLE_SUFFIXES)}, got {path}")
    if suffix in JSON_SUFFIXES:
        yield from _json_rows(path, every_line)
        return
    fields = _csv_fields(path) if suffix == ".csv" else _tab_fields(path)
    header: Sequence[Column] | None = None
    for line, row in fields:
        if not row and (not every_line or (has_header and header is None)):
            continue
        if header is None and has_header:
            header = row
            for column in required:
                if header.count(column) != 1:
                    raise ValueError(f"{path}, line {line}: the header must have one {column!r}, got {_listed(header)}")
            continue
        # Without a header, the first row that is not blank says how many fields there are.
        header = header or range(len(row))
        is_whole = len(row) == len(header) or (every_line and not any(row[len(header) :]))
        if suffix == ".csv" and not is_whole:
            raise ValueError(f"{path}, line {line}: must have {len(header)} fields, as the first row, got {len(row)}")
        if suffix != ".csv" and every_line and _is_part_of_quoted(row, len(header)):
            raise ValueError(
                f"{path}, line {line}: must have {len(header)} fields, as the first row, got {len(row)} and a quote "
                f"that is not closed: text with tabs or line ends in quotes needs CSV"
            )
        yield line, dict(zip(header if has_header else range(len(row)), row, strict=False))


def _is_part_of_quoted(row: Sequence[str], n_fields: int) -> bool:
    """Whether a row between tabs looks like part of one with a quoted tab or line end, as data frames write it."""
    return (len(row) < n_fields or any(row[n_fields:])) and any(field.count('"') % 2 for field in row)


def _json_rows(path: Path, every_line: bool) -> Iterator[tuple[int, _Row]]:
    for line, text in numbered_lines(path):
        if every_line or not text.isspace():
            try:
                yield line, {} if text.isspace() else json_object(text)
            except ValueError as error:
                raise ValueError(f"{path}, line {line}: {error}") from error


def _tab_fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    for line, text in numbered_lines(path):
        text = without_end(text)
        yield line, text.split("\t") if text else []


def _csv_fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    rows = csv.reader((text for _, text in numbered_lines(path)), strict=True)
    while True:
        line = rows.line_num + 1
        limit = csv.field_size_limit(_LONGEST_FIELD)
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ValueError(f"{path}, line {line}: must be CSV, got: {str(error).partition(' - ')[0]}") from error
        finally:
            csv.field_size_limit(limit)  # it holds for all of Python
        if row is None:
            return
        yield line, row


def _class(value: Any, name: str, labels: Collection[str] | None = None) -> str:
    if isinstance(value, bool | int):
        value = "true" if value is True else "false" if value is False else str(value)
    value = checked_text(value, name)
    if labels is not None and value not in labels:
        raise ValueError(f"{name} must be one of {_listed(labels)}, got {value!r}")
    return value


def _number(value: Any, name: str, _labels: None) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a number, got {shown(value)}")
    return number


def _classes(value: Any, name: str, labels: Collection[str] | None) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in re.split("[|,]", value)] if value.strip() else []
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, or text with | or , between the labels, got {shown(value)}")
    return tuple(_class(part, name, labels) for part in value)


def _tags(value: Any, name: str, labels: Collection[str] | None) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list of tags, got {shown(value)}")
    return tuple(_class(part, name, labels) for part in value)


def _ending(value: Any, name: str, _labels: None) -> int:
    digits = _class(value, name)
    if not digits.isdecimal():
        raise ValueError(f"{name} must be the number of an ending, from 0, got {shown(value)}")
    return int(digits)


def _listed(names: Collection[Column]) -> str:
    return ", ".join(map(str, names)) or "none"


_PARSERS: dict[KindName, Callable[[Any, str, Any], Any]] = {
    "classification": _class,
    "regression": _number,
    "multilabel": _classes,
    "tagging": _tags,
    "choice": _ending,
}
