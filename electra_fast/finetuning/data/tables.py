"""Tables of examples: TSV, CSV, JSONL and Parquet, with every row checked.

.tsv, .txt      fields between tabs; quotes are text, as in GLUE's files; fields beyond those of the header are left out
.csv            fields between commas, quoted where necessary; the same number in every row
.jsonl, .json   one object per line
.parquet        columns by name; row i counts as line i

All but Parquet may end with .gz, .xz or .zst as well. Blank lines are rows, without fields, where labels may lack:
in files to test on and to predict.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ... import parquet
from ...disk import numbered_lines, plain_suffix
from .class_lists import Undivided, class_list, is_written_list
from .examples import ChoiceExample, Example, TaggedExample, TextExample
from .lines import (
    Lack,
    Missing,
    MissingLabel,
    any_text,
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
# Tables whose fields have types, lists among them.
TYPED_SUFFIXES = (*JSON_SUFFIXES, parquet.SUFFIX)
TABLE_SUFFIXES = (".tsv", ".txt", ".csv", *TYPED_SUFFIXES)

# A label of -1 in a test file: the Hub's copies of GLUE hide labels so.
HIDDEN: dict[KindName, Any] = {"classification": "-1", "regression": -1.0, "choice": -1}

# A row: the fields that it has, by the names of the header or by number.
Row = Mapping[Column, Any]

# A field that none of so many rows has is a slip in its name, not an empty text.
_ROWS_TO_LOOK_AT = 1000
_LONGEST_FIELD = 2**31 - 1  # the csv module takes 131,072 characters by default


def read_table(
    path: Path,
    kind: KindName,
    columns: Columns,
    *,
    labels: Collection[str] | None = None,
    may_lack: Collection[Lack] = (),
    bad_row: Callable[[ValueError], None] = refuse,
) -> Iterator[Example]:
    """The examples of a table, one by one, in order.

    A class is text, an integer, or JSON's true or false; all become text. Several classes are a list of classes in any
    form that `class_lists` reads, which may be empty, or `Undivided` text; or, where `columns.label` is a tuple, they
    are "0" or "1" for each of its columns. A choice's label is the number of an ending, from 0.

    Args:
        kind: any kind but "qa"; "tagging" takes lists of words and tags, which only JSON and Parquet have.
        labels: the classes that are allowed; None allows all.
        may_lack: what a row may lack: "text" takes texts and ids that are absent or empty, and "label" takes rows
            without a label, blank lines included, and tables without its column.
        bad_row: function to call with the error of a bad row; if it does not raise, the row is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no rows or lacks a column, or a row is bad; the message names its line.
    """
    if kind == "tagging" and columns.words is None:
        raise ValueError(f"{path}: a table of sentences needs the column 'words': name the one that has it")
    label = columns.tags if kind == "tagging" else columns.label
    label_columns = label if isinstance(label, tuple) else () if label is None else (label,)
    needed_labels = () if "label" in may_lack else label_columns
    required = [*_texts(columns), *needed_labels]
    is_json = plain_suffix(path) in JSON_SUFFIXES
    number = -1
    for number, (line, row) in enumerate(table_rows(path, columns, may_lack, needed_labels)):
        try:
            with placed(path, line):
                absent = [column for column in required if column not in row]
                # Objects of JSON leave out what is null, and a blank line lacks all. Another short row is damaged.
                is_lacking = is_json or not row
                if absent and not (is_lacking and "text" in may_lack and not set(absent) & set(needed_labels)):
                    error = MissingLabel if absent[0] in needed_labels else Missing
                    raise (error if is_lacking else ValueError)(
                        f"must have a field for column {absent[0]!r}, got {_listed(row)}"
                    )
                target = _target(kind, row, label, labels, may_lack) if label_columns else None
                example = example_of(kind, number, line, row, columns, target, may_lack)
        except ValueError as error:
            bad_row(error)
        else:
            yield example
    if number < 0:
        raise ValueError(f"{path}, line 1: the file must hold examples, got none")


def example_of(
    kind: KindName, number: int, line: int, row: Row, columns: Columns, target: Any, may_lack: Collection[Lack]
) -> Example:
    """The example in a row of a table; its answer is the target."""
    text = text_reader(may_lack)
    id = str(number) if columns.id is None else _id(row, columns.id, may_lack)

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


def _texts(columns: Columns) -> list[Column]:
    """The columns of texts and of the id."""
    wanted = (columns.text, columns.pair, columns.id, columns.words, columns.start, *columns.endings)
    return [column for column in wanted if column is not None]


def table_rows(
    path: Path, columns: Columns, may_lack: Collection[Lack], labels: Sequence[Column] = ()
) -> Iterator[tuple[int, Row]]:
    """The rows of a table, one by one, each with the number of its line.

    Args:
        columns: the columns of texts, which a header must have. Without a header, if texts may lack, one of the first
            rows must have each.
        may_lack: what a row may lack. Where that is "label", a blank line is a row too, without fields, and a row of
            CSV may lack its last fields, or have more that are empty.
        labels: columns that a header must have as well.
    """
    suffix = plain_suffix(path)
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(f"the name of a table must end with {', '.join(TABLE_SUFFIXES)}, got {path}")
    texts, every_line = _texts(columns), "label" in may_lack
    if suffix == parquet.SUFFIX:
        if not columns.has_header:
            raise ValueError(f"the columns of a Parquet file have names, got numbers for {path}")
        answers = columns.label if isinstance(columns.label, tuple) else (columns.label, columns.tags)
        return parquet.read_rows(path, [*texts, *labels], [column for column in answers if column is not None])
    if suffix in JSON_SUFFIXES:
        rows = _json_rows(path, every_line)
    else:
        rows = _split_rows(path, columns.has_header, [*texts, *labels], every_line)
        if columns.has_header:
            return rows
    return with_fields(rows, texts, path) if "text" in may_lack else rows


def with_fields(
    rows: Iterator[tuple[int, Row]], fields: Collection[Column], name: Path | str
) -> Iterator[tuple[int, Row]]:
    """Yields the rows; refuses a field that none of the first ones has."""
    first: list[tuple[int, Row]] = []
    missing = list(fields)
    for line, row in islice(rows, _ROWS_TO_LOOK_AT):
        first.append((line, row))
        missing = [field for field in missing if field not in row]
        if not missing:
            break
    some = next(((line, row) for line, row in first if row), None)
    if missing and some is not None:
        line, row = some
        raise ValueError(
            f"{name}, line {line}: there must be a field {missing[0]!r}, and none of the first rows has it; got "
            f"{_listed(row)}"
        )
    yield from chain(first, rows)


def _split_rows(
    path: Path, has_header: bool, required: Sequence[Column], every_line: bool
) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a table with fields between tabs or commas."""
    suffix = plain_suffix(path)
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


def _json_rows(path: Path, every_line: bool) -> Iterator[tuple[int, Row]]:
    for line, text in numbered_lines(path):
        if every_line or not text.isspace():
            with placed(path, line):
                row = {} if text.isspace() else json_object(text)
            yield line, row


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


def _id(row: Row, column: Column, may_lack: Collection[Lack]) -> str:
    id = any_text(row.get(column), f"the id in column {column!r}")
    if "text" not in may_lack and is_missing(id):
        raise ValueError(f"the id in column {column!r} must not be empty")
    return id


def _target(
    kind: KindName,
    row: Row,
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
        # Python reads 1_000 as 1000, and no other reader of numbers does.
        is_none = isinstance(value, bool) or (isinstance(value, str) and "_" in value)
        number = math.inf if is_none else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if is_missing(value) or number != number or (isinstance(value, str) and value.strip().lower() in _NO_NUMBER):
        raise Missing(f"{name} must be a number, got {shown(value)}")
    if not abs(number) <= _LARGEST:
        limit = f"; numbers may be as large as {_LARGEST:.0e}" if math.isfinite(number) else ""
        raise ValueError(f"{name} must be a number, got {shown(value)}{limit}")
    return number


def _one_class(value: Any, name: str, labels: Collection[str] | None) -> str:
    # Where labels are named, one of them may look like a list.
    is_written = labels is None and isinstance(value, str) and is_written_list(value)
    if is_written or isinstance(value, list | dict):
        raise ValueError(f"{name} must be one class (lists are for the kind multilabel), got {shown(value)}")
    return _class(value, name, labels)


def _classes(value: Any, name: str, labels: Collection[str] | None) -> tuple[str, ...] | Undivided:
    if is_null(value):
        raise Missing(f"{name} must be a list, got {shown(value)}")
    found = class_list(value, name)
    if isinstance(found, Undivided):
        checked_text(found.text, name)
        return found
    return tuple(_class(part, name, labels) for part in found)


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
    "classification": _one_class,
    "regression": _number,
    "multilabel": _classes,
    "tagging": _tags,
    "choice": _ending,
}
