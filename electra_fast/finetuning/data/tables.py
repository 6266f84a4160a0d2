"""Tables of examples: TSV, CSV and JSONL, with every row checked.

.tsv, .txt      fields between tabs; quotes are text, as in GLUE's files; fields beyond those of the header are left out
.csv            fields between commas, quoted where necessary; the same number in every row
.jsonl, .json   one object per line

Each may end with .gz, .xz or .zst as well. Blank lines are rows, without fields, where labels may
lack: in files to test on and to predict.
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
from .class_lists import class_list
from .examples import ChoiceExample, Example, TaggedExample, TextExample
from .lines import (
    Lack,
    Missing,
    MissingLabel,
    checked_text,
    is_missing,
    is_null,
    json_object,
    placed,
    refuse,
    shown,
    text_reader,
    without_end,
)
from .tasks import Column, Columns, KindName

JSON_SUFFIXES = (".jsonl", ".json")
TABLE_SUFFIXES = (".tsv", ".txt", ".csv", *JSON_SUFFIXES)

# A label of -1 in a test file: the Hub's copies of GLUE hide labels so.
HIDDEN: dict[KindName, Any] = {"classification": "-1", "regression": -1.0, "choice": -1}

_Row = dict[Column, Any]
_LONGEST_FIELD = 2**31 - 1  # the csv module takes 131,072 characters by default


def read_table(
    path: Path,
    kind: KindName,
    columns: Columns,
    *,
    labels: Collection[str] | None = None,
    needs_labels: bool = True,
    may_lack: Collection[Lack] = (),
    bad_row: Callable[[ValueError], None] = refuse,
) -> Iterator[Example]:
    """The examples of a table, one by one, in order.

    A class is text, an integer, or JSON's true or false; all become text. Several classes are a list of classes in any
    form that `class_lists` reads, which may be empty; or, where `columns.label` is a tuple, they are "0" or "1" for
    each of its columns. A choice's label is the number of an ending, from 0.

    Args:
        kind: any kind but "qa"; "tagging" takes lists of words and tags, which only JSON has.
        labels: the classes that are allowed; None allows all.
        needs_labels: False if the label column may be absent; then it is in all rows or in none.
        may_lack: what a row may lack: "text" takes texts that are absent or empty, as "", and "label" takes rows
            without a label among others.
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
    label_columns = label if isinstance(label, tuple) else () if label is None else (label,)
    if needs_labels:
        assert label_columns
        required += label_columns
    rows = table_rows(path, columns.has_header, required, every_line="label" in may_lack)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{path}, line 1: the file must hold examples, got none")
    if not needs_labels and "label" not in may_lack:
        required += [column for column in label_columns if first[1].get(column) is not None]
    reads_labels = "label" in may_lack or set(label_columns) <= set(required)
    is_json = plain_suffix(path) in JSON_SUFFIXES
    for number, (line, row) in enumerate(chain([first], rows)):
        try:
            absent = [column for column in required if column not in row]
            # Objects of JSON leave out what is null, and a blank line lacks all. Another row that is short is damaged.
            is_lacking = is_json or not row
            if absent and not (is_lacking and "text" in may_lack and not set(absent) & set(label_columns)):
                error = MissingLabel if absent[0] in label_columns else Missing
                raise (error if is_lacking else ValueError)(
                    f"must have a field for column {absent[0]!r}, got {_listed(row)}"
                )
            id = str(number) if columns.id is None else _id(row, columns.id)
            target = _target(kind, row, label, labels, may_lack) if label_columns and reads_labels else None
            example = _example(kind, id, line, row, columns, target, may_lack)
        except ValueError as error:
            bad_row(placed(error, f"{path}, line {line}"))
        else:
            yield example


def _example(
    kind: KindName, id: str, line: int, row: _Row, columns: Columns, target: Any, may_lack: Collection[Lack]
) -> Example:
    text = text_reader(may_lack)

    def field(column: Column) -> str:
        return text(row.get(column), f"the text in column {column!r}")

    if kind == "tagging":
        words = row.get(columns.words)
        if not words and "text" in may_lack:
            words = []
        if not isinstance(words, list) or not (words or "text" in may_lack):
            error = Missing if is_missing(words) or words == [] else ValueError
            raise error(f"the words in column {columns.words!r} must be a list of text, got {shown(words)}")
        words = tuple(text(word, f"a word in column {columns.words!r}") for word in words)
        if not words and target:
            if "label" not in may_lack:
                raise Missing(f"the words in column {columns.words!r} must not be empty where there are tags")
            target = None
        if target is not None and len(target) != len(words):
            raise ValueError(f"there must be a tag for each of the {len(words)} words, got {len(target)}")
        return TaggedExample(id, line, words, target)
    if kind != "choice":
        return TextExample(id, line, field(columns.text), None if columns.pair is None else field(columns.pair), target)
    if target is not None and target >= len(columns.endings):
        raise ValueError(f"the label must be the number of one of {len(columns.endings)} endings, got {target}")
    start = "" if columns.start is None else field(columns.start)
    return ChoiceExample(id, line, field(columns.text), start, tuple(map(field, columns.endings)), target)


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


def _id(row: _Row, column: Column) -> str:
    if is_missing(row.get(column)):
        raise ValueError(f"the id in column {column!r} must not be empty")
    return _class(row[column], f"the id in column {column!r}")


def _target(
    kind: KindName,
    row: _Row,
    label: Column | tuple[Column, ...],
    labels: Collection[str] | None,
    may_lack: Collection[Lack],
) -> Any:
    """The answer in a row; None if there is none and may be none."""
    try:
        if isinstance(label, tuple):
            if "label" in may_lack and any(_is_hidden(row.get(column)) for column in label):
                return None
            return tuple(_flag(row.get(column), f"the label in column {column!r}") for column in label)
        value = row.get(label)
        if "label" in may_lack and kind in HIDDEN and _is_hidden(value):
            return HIDDEN[kind]
        return _PARSERS[kind](value, f"the label in column {label!r}", labels)
    except Missing as error:
        if "label" in may_lack:
            return None
        raise MissingLabel(str(error)) from error


def _is_hidden(value: Any) -> bool:
    return str(value).strip() in ("-1", "-1.0")


def _class(value: Any, name: str, labels: Collection[str] | None = None) -> str:
    if isinstance(value, float) and value.is_integer():  # data frames make floats of integers where one is missing
        value = int(value)
    if isinstance(value, bool | int):
        value = "true" if value is True else "false" if value is False else str(value)
    value = checked_text(value, name)
    if labels is not None and value not in labels:
        raise ValueError(f"{name} must be one of {_listed(labels)}, got {value!r}")
    return value


def _number(value: Any, name: str, _labels: None) -> float:
    try:
        number = math.inf if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if is_missing(value) or number != number or (isinstance(value, str) and value.strip().lower() in _NO_NUMBER):
        raise Missing(f"{name} must be a number, got {shown(value)}")
    if not abs(number) <= _LARGEST:
        limit = f"; numbers may be as large as {_LARGEST:.0e}" if math.isfinite(number) else ""
        raise ValueError(f"{name} must be a number, got {shown(value)}{limit}")
    return number


def _classes(value: Any, name: str, labels: Collection[str] | None) -> tuple[str, ...]:
    if is_null(value):
        raise Missing(f"{name} must be a list, got {shown(value)}")
    return tuple(_class(part, name, labels) for part in class_list(value, name))


def _flag(value: Any, name: str) -> str:
    found = _class(value, name).strip().lower()
    if found not in _FLAGS:
        raise ValueError(f"{name} must be 0 or 1, got {shown(value)}")
    return _FLAGS[found]


def _tags(value: Any, name: str, labels: Collection[str] | None) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise (Missing if is_missing(value) else ValueError)(f"{name} must be a list of tags, got {shown(value)}")
    return tuple(_class(part, name, labels) for part in value)


def _ending(value: Any, name: str, _labels: None) -> int:
    digits = re.sub(r"\.0+$", "", _class(value, name).strip())
    if not digits.isdecimal():
        raise ValueError(f"{name} must be the number of an ending, from 0, got {shown(value)}")
    return int(digits)


def _listed(names: Collection[Column]) -> str:
    return ", ".join(map(str, names)) or "none"


# Squares of larger numbers are infinite in fp32.
_LARGEST = 1e19
_NO_NUMBER = ("null", "none", "na", "n/a", "#n/a", "<na>")
_FLAGS = {"0": "0", "0.0": "0", "false": "0", "1": "1", "1.0": "1", "true": "1"}

_PARSERS: dict[KindName, Callable[[Any, str, Any], Any]] = {
    "classification": _class,
    "regression": _number,
    "multilabel": _classes,
    "tagging": _tags,
    "choice": _ending,
}
