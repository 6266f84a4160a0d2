"""Inputs of `predict`: files of examples, and lines of the standard input. Labels are not read.

kind          lines                                        files by column             files of their own form
texts         a text; a tab separates a pair               .tsv .csv .jsonl .txt
tagging       a sentence, white space between words        .jsonl                      CoNLL, CoNLL-U
qa            {"question": ..., "context": ...}                                        SQuAD's JSON, MRQA's JSONL
choice                                                     .tsv .csv .jsonl .txt
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ...disk import not_utf8, numbered_lines, plain_suffix
from .conll import read_conll
from .examples import Example, QuestionExample, TaggedExample, TextExample
from .lines import checked_text, json_object, without_end
from .squad_files import read_questions
from .tables import JSON_SUFFIXES, TABLE_SUFFIXES, read_table
from .tasks import TASKS, Columns, KindName

_STANDARD_INPUT = "standard input"


def read_examples(kind: KindName, path: Path | None, columns: Columns) -> Iterator[Example]:
    """The examples of a file, or of the standard input, one by one.

    Args:
        path: the file; None is the standard input, which is read by lines only.
        columns: the columns of a file. Without any, a file of texts is read line by line, unless its name says that it
            is a table. The default for words is column 0, or CoNLL-U's `form`; the default for choices is SWAG's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is damaged (the message names file and line), the input lacks a named column, or a column
            that is needed is not named.
    """
    if path is None:
        if columns != Columns() or kind == "choice":
            raise ValueError("columns and choices need a file (--input): of the standard input lines are read")
        return _of_lines(kind, _standard_input(), _STANDARD_INPUT)
    suffix = plain_suffix(path)
    _check_columns(kind, columns)
    if kind == "qa":
        if suffix == ".jsonl" and not _is_mrqa(path):
            return _of_lines(kind, numbered_lines(path), str(path))
        return read_questions(path, needs_answers=False)
    if kind == "tagging" and suffix not in JSON_SUFFIXES:
        words = "form" if columns.words is None and suffix == ".conllu" else columns.words
        return read_conll(path, replace(columns, words=words), needs_labels=False)
    if kind == "choice" and not columns.endings:
        swag = TASKS["swag"].columns
        columns = replace(
            columns, text=columns.text or swag.text, start=columns.start or swag.start, endings=swag.endings
        )
    needed = "words" if kind == "tagging" else "text"
    if getattr(columns, needed) is not None:
        return read_table(path, kind, columns, needs_labels=False)
    if columns != Columns() or kind not in _OF_TEXTS or (suffix in TABLE_SUFFIXES and suffix != ".txt"):
        raise ValueError(f"{path} is a table: --{needed} must name the column to read")
    return _of_lines(kind, numbered_lines(path), str(path))


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


def _is_mrqa(path: Path) -> bool:
    """Whether the first line is MRQA's header."""
    return '"header"' in next(numbered_lines(path), (1, ""))[1]


def _standard_input() -> Iterator[tuple[int, str]]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{_STANDARD_INPUT}, line {number}: {not_utf8(error)}") from error


def _of_lines(kind: KindName, lines: Iterable[tuple[int, str]], name: str) -> Iterator[Example]:
    """Yields one example per line; leaves out blank lines."""
    parse = _words if kind == "tagging" else _question if kind == "qa" else _TextParser()
    number = -1
    for line_number, line in lines:
        if not line.strip():
            continue
        number += 1
        try:
            yield parse(str(number), line_number, without_end(line))
        except ValueError as error:
            raise ValueError(f"{name}, line {line_number}: {error}") from error
    if number < 0:
        raise ValueError(f"{name}, line 1: there must be examples, got none")


class _TextParser:
    """Parses lines that hold one text each, or a pair of texts; the first line decides which, for all."""

    def __init__(self):
        self._n_parts: int | None = None

    def __call__(self, id: str, line_number: int, line: str) -> TextExample:
        parts = line.split("\t")
        self._n_parts = self._n_parts or len(parts)
        if len(parts) != self._n_parts or len(parts) > 2:
            raise ValueError(
                f"must be a text, or two with a tab between them, as in the first line; got {len(parts)}, there "
                f"{self._n_parts}"
            )
        return TextExample(id, line_number, *(checked_text(part, "the text") for part in parts))


def _words(id: str, line_number: int, line: str) -> TaggedExample:
    return TaggedExample(id, line_number, tuple(line.split()))


def _question(id: str, line_number: int, line: str) -> QuestionExample:
    record = json_object(line)
    question, context = (checked_text(record.get(name), name) for name in ("question", "context"))
    return QuestionExample(str(record.get("id", id)), line_number, question, context)
