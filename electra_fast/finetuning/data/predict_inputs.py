"""Inputs of `predict` and `embed`: files of examples, and lines of the standard input. Labels are not read.

Every line, and every row of a table, is an example, so that predictions line up with the input. What a row lacks, a
blank line included, is the empty text.

kind          lines                                        files by column             files of their own form
texts         a text; a tab separates a pair               .tsv .csv .jsonl .parquet   .txt
tagging       a sentence, white space between words        .jsonl .parquet             CoNLL, CoNLL-U (*)
qa            {"question": ..., "context": ...}                                        SQuAD's JSON, MRQA's JSONL
choice                                                     .tsv .csv .jsonl .parquet   .txt

(*) The same text is taken alike in a file and in the standard input: a file to tag is CoNLL if its name says so
(.conll, .bio, .iob, .iob2, .tsv) or if the column of its words is named, and has a sentence on each line otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from ...disk import STANDARD_INPUT, numbered_lines, plain_suffix
from .conll import looks_like_conll, read_conll
from .examples import Example, QuestionExample, TaggedExample, TextExample
from .lines import Lack, any_text, json_object, placed, without_end
from .squad_files import read_questions
from .tables import TABLE_SUFFIXES, TYPED_SUFFIXES, Row, example_of, table_rows, with_fields
from .tasks import CONLL_SUFFIXES, TASKS, Columns, KindName

_MAY_LACK: tuple[Lack, ...] = ("text", "label")

_Line = tuple[int, str]
_Item = TypeVar("_Item")


def read_examples(kind: KindName, path: Path | None, columns: Columns) -> Iterator[Example]:
    """The examples of a file, or of the standard input, one by one.

    Args:
        path: the file; None is the standard input, which is read by lines only.
        columns: the columns of a file. Without any, a file of texts or sentences is read line by line, unless its name
            says that it is a table or CoNLL. The default for words is column 0, or CoNLL-U's `form`; the default for
            choices is SWAG's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is damaged (the message names file and line), the input has no lines or lacks a named column,
            or a column that is needed is not named.
    """
    if path is None:
        if columns != Columns() or kind == "choice":
            raise ValueError("columns and choices need a file (--input): of the standard input lines are read")
        return _of_lines(kind, None)
    suffix = plain_suffix(path)
    _check_columns(kind, columns)
    if kind == "qa":
        if suffix == ".jsonl" and not _is_mrqa(path):
            return _of_lines(kind, path)
        return read_questions(path, may_lack=_MAY_LACK)
    if kind == "tagging" and _is_conll(path, columns):
        words = "form" if columns.words is None and suffix == ".conllu" else columns.words
        return read_conll(path, replace(columns, words=words), may_lack=_MAY_LACK)
    if kind == "choice" and not columns.endings:
        swag = TASKS["swag"].columns
        columns = replace(
            columns, text=columns.text or swag.text, start=columns.start or swag.start, endings=swag.endings
        )
    needed = "words" if kind == "tagging" else "text"
    if getattr(columns, needed) is not None:
        return _of_table(kind, path, columns)
    if columns != Columns() or kind == "choice" or _is_named_as_table(path):
        raise ValueError(f"{path} is a table: --{needed} must name the column to read")
    return _of_lines(kind, path)


def read_texts(path: Path, columns: Columns) -> Iterator[str]:
    """The texts of a file, one by one: those of the column `text` of a table, or whole lines if there are no columns.

    Raises:
        FileNotFoundError, ValueError: as `read_examples` does.
    """
    if columns == Columns() and not _is_named_as_table(path):
        return (line for _, line in numbered_lines(path))  # line ends are white space to the tokenizer
    return (example.text for example in read_examples("classification", path, columns))


_OF_TEXTS = ("classification", "regression", "multilabel")
_COLUMNS = {
    **dict.fromkeys(_OF_TEXTS, ("text", "pair", "id")),
    "tagging": ("words", "id"),
    "choice": ("text", "start", "endings", "id"),
    "qa": (),
}


def _check_columns(kind: KindName, columns: Columns) -> None:
    names = ("text", "pair", "words", "start", "endings", "id")
    wrong = [name for name in names if getattr(columns, name) not in (None, ()) and name not in _COLUMNS[kind]]
    if wrong:
        known = ", ".join(_COLUMNS[kind]) or "none"
        raise ValueError(f"the columns to name for {kind} are {known}, got {', '.join(wrong)}")


def _is_named_as_table(path: Path) -> bool:
    """Whether the file's name says that it has columns; .txt leaves that open."""
    return plain_suffix(path) in TABLE_SUFFIXES and plain_suffix(path) != ".txt"


def _is_conll(path: Path, columns: Columns) -> bool:
    """Whether a file to tag has a word on each line, by its name or because the column of words is named.

    Any other has a sentence on each line, as the standard input has. One that looks like CoNLL all the same is refused:
    its words and tags would be taken for sentences.
    """
    suffix = plain_suffix(path)
    if suffix == ".csv":
        raise ValueError(f"words to tag are read from lines of text, CoNLL, CoNLL-U or .jsonl, got {path}")
    if suffix in TYPED_SUFFIXES:
        return False
    if suffix in (".conllu", *CONLL_SUFFIXES) or columns.words is not None:
        return True
    if path.is_file() and looks_like_conll(path):  # a pipe can be read once only
        raise ValueError(
            f"{path} looks like CoNLL, with a word on each line: --words must name the column to read (0 is the "
            f"first); sentences, one on each line, may come from the standard input"
        )
    return False


def _is_mrqa(path: Path) -> bool:
    """Whether the first line is MRQA's header."""
    return '"header"' in next(numbered_lines(path), (1, ""))[1]


def _of_table(kind: KindName, path: Path, columns: Columns) -> Iterator[Example]:
    """Yields one example per row."""
    for number, (line, row) in enumerate(_some(table_rows(path, columns, _MAY_LACK), path)):
        with placed(path, line):
            example = example_of(kind, number, line, row, columns, None, _MAY_LACK)
        yield example


def _of_lines(kind: KindName, path: Path | None) -> Iterator[Example]:
    """Yields one example per line of a file, or of the standard input."""
    name = STANDARD_INPUT if path is None else path
    lines = _some(((number, without_end(line)) for number, line in numbered_lines(path)), name)
    if kind == "tagging":
        return (TaggedExample(str(i), line, tuple(text.split())) for i, (line, text) in enumerate(lines))
    return _questions(lines, name) if kind == "qa" else _texts(lines, name)


def _texts(lines: Iterator[_Line], name: Path | str) -> Iterator[TextExample]:
    """Reads lines of a text each, or of a pair; the first line that is not blank decides which, for all."""
    first: list[_Line] = []
    for line in lines:
        first.append(line)
        if line[1].strip():
            break
    n_parts = first[-1][1].count("\t") + 1 if first[-1][1].strip() else 1
    for number, (line, text) in enumerate(chain(first, lines)):
        parts = text.split("\t") if text.strip() else [""] * n_parts
        if len(parts) != n_parts or n_parts > 2:
            raise ValueError(
                f"{name}, line {line}: must be a text, or two with a tab between them, as in the first line with text; "
                f"got {len(parts)}, there {n_parts} (a text with tabs in it needs CSV or JSONL)"
            )
        yield TextExample(str(number), line, *parts)


def _questions(lines: Iterator[_Line], name: Path | str) -> Iterator[QuestionExample]:
    for number, (line, record) in enumerate(with_fields(_objects(lines, name), ("question", "context"), name)):
        with placed(name, line):
            question, context = (any_text(record.get(field), field) for field in ("question", "context"))
            id = any_text(record.get("id"), "id") or str(number)
        yield QuestionExample(id, line, question, context)


def _objects(lines: Iterator[_Line], name: Path | str) -> Iterator[tuple[int, Row]]:
    for line, text in lines:
        with placed(name, line):
            record = json_object(text) if text.strip() else {}
        yield line, record


def _some(rows: Iterator[_Item], name: Path | str) -> Iterator[_Item]:
    """Yields the rows or lines, of which there must be one."""
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{name}, line 1: there must be examples, got none")
    yield first
    yield from rows
