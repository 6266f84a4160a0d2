"""Sentences with tags, one word per line: CoNLL columns and CoNLL-U.

CoNLL: tabs separate columns if the first word's line has one, otherwise blanks do. A blank line ends a sentence. The
reader leaves out -DOCSTART- lines and comments: lines before a sentence's first word that begin with # and a blank.
CoNLL-U (universaldependencies.org/format.html): tabs separate ten columns. The reader leaves out comments, words of
several tokens (1-2) and empty nodes (1.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from itertools import chain, islice
from pathlib import Path

from ...disk import numbered_lines, plain_suffix
from .examples import TaggedExample
from .lines import Lack, MissingLabel, is_missing, placed, refuse, text_reader, without_end
from .tasks import Column, Columns

CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

# Columns of which CoNLL-U writes "_" where nobody has filled them in; in the others it means that there is nothing.
_UNFILLED = ("upos", "xpos", "deprel")

_BLANKS = re.compile("[ \t]+")
_NO_WORD = re.compile(r"\d+[-.]\d+")  # the ids of words of several tokens and of empty nodes

_LINES_TO_LOOK_AT = 1000

# The words of a sentence, each with the number of its line and its columns.
_Sentence = list[tuple[int, list[str]]]


def read_conll(
    path: Path,
    columns: Columns,
    *,
    labels: Collection[str] | None = None,
    may_lack: Collection[Lack] = (),
    bad_row: Callable[[ValueError], None] = refuse,
) -> Iterator[TaggedExample]:
    """The sentences of a file, one by one, in order.

    Args:
        columns: `words` and `tags`, each a column's number from 0, or from the end as -1, or its name in CoNLL-U. A
            file is read as CoNLL-U if a column is named or if the file's name ends with .conllu. By default words are
            in the first column (CoNLL) or the form column (CoNLL-U), and tags are not read.
        labels: the tags that are allowed; None allows all.
        may_lack: what a sentence may lack: "text" takes words that are empty, "label" gives no tags to a sentence that
            lacks one, or to any if there is no such column, or only that of the words.
        bad_row: function to call with the error of a bad sentence; if it does not raise, the sentence is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no sentences or lacks a column, or a line is bad; the message names the line.
    """
    words, tags = columns.words, columns.tags
    is_conllu = plain_suffix(path) == ".conllu" or isinstance(words, str) or isinstance(tags, str)
    if words is None:
        words = "form" if is_conllu else 0
    sentences = _conllu_sentences(path) if is_conllu else _sentences(path, _texts(path))
    first = next(sentences, None)
    if first is None:
        raise ValueError(f"{path}, line 1: the file must hold sentences, got none")
    line, row = first[0]
    word_place, tag_place = _place(words, len(row)), None if tags is None else _place(tags, len(row))
    if word_place is None:
        raise ValueError(f"{path}, line {line}: must have words in column {words!r}, got {len(row)} columns")
    if tag_place is None or tag_place == word_place:
        if "label" not in may_lack:
            raise ValueError(f"{path}, line {line}: must have tags in column {tags!r}, got {len(row)} columns")
        tag_place = None
    for number, sentence in enumerate(chain([first], sentences)):
        try:
            found = None if tag_place is None else _tags(path, sentence, tag_place, is_conllu, labels, may_lack)
            example = TaggedExample(str(number), sentence[0][0], _words(path, sentence, word_place, may_lack), found)
        except ValueError as error:
            bad_row(error)
        else:
            yield example


def looks_like_conll(path: Path) -> bool:
    """Whether the first lines are those of CoNLL: as many columns in each, and tabs, blank lines or a -DOCSTART-."""
    first = list(islice(_texts(path), _LINES_TO_LOOK_AT))
    filled = [text for _, text in first if text is not None]
    try:
        sentences = list(_sentences(path, iter(first)))
    except ValueError:
        return False
    return len(sentences) > 1 or any("\t" in text or text.startswith("-DOCSTART-") for text in filled)


def _place(column: Column, n_columns: int) -> int | None:
    if isinstance(column, str):
        if column.lower() not in CONLLU_COLUMNS:
            raise ValueError(f"a column must be a number, or one of {', '.join(CONLLU_COLUMNS)}, got {column!r}")
        return CONLLU_COLUMNS.index(column.lower())
    return column % n_columns if -n_columns <= column < n_columns else None


def _words(path: Path, sentence: _Sentence, place: int, may_lack: Collection[Lack]) -> tuple[str, ...]:
    read, found = text_reader(may_lack), []
    for line, row in sentence:
        with placed(path, line):
            found.append(read(row[place], "the word"))
    return tuple(found)


def _tags(
    path: Path,
    sentence: _Sentence,
    place: int,
    is_conllu: bool,
    labels: Collection[str] | None,
    may_lack: Collection[Lack],
) -> tuple[str, ...] | None:
    """The tags of a sentence; None if it lacks one and may."""
    for line, row in sentence:
        tag = row[place]
        if is_missing(tag) or (is_conllu and tag == "_" and CONLLU_COLUMNS[place] in _UNFILLED):
            if "label" in may_lack:
                return None
            raise MissingLabel(f"{path}, line {line}: the tag must not be empty{', got _' if tag == '_' else ''}")
        if labels is not None and tag not in labels:
            raise ValueError(f"{path}, line {line}: the tag must be one of {', '.join(labels)}, got {tag!r}")
    return tuple(row[place] for _, row in sentence)


def _sentences(path: Path, texts: Iterator[tuple[int, str | None]]) -> Iterator[_Sentence]:
    has_tabs: bool | None = None
    n_columns = 0
    sentence: _Sentence = []
    for line, text in texts:
        if text is None:
            if sentence:
                yield sentence
            sentence = []
            continue
        if text.startswith("-DOCSTART-") or (text.startswith("# ") and not sentence):
            continue
        has_tabs = "\t" in text if has_tabs is None else has_tabs
        row = text.split("\t") if has_tabs else _BLANKS.split(text.strip(" \t"))
        n_columns = n_columns or len(row)
        _check_count(path, line, row, n_columns)
        sentence.append((line, row))


def _conllu_sentences(path: Path) -> Iterator[_Sentence]:
    sentence: _Sentence = []
    for line, text in _texts(path):
        if text is None:
            if sentence:
                yield sentence
            sentence = []
        elif not text.startswith("#"):
            row = text.split("\t")
            _check_count(path, line, row, len(CONLLU_COLUMNS))
            if not _NO_WORD.fullmatch(row[0]):
                sentence.append((line, row))


def _texts(path: Path) -> Iterator[tuple[int, str | None]]:
    """Numbered lines without their ends; None for a blank line, and at the end of the file."""
    line = 0
    for line, text in numbered_lines(path):
        text = without_end(text)
        yield line, text if text.strip(" \t") else None
    yield line + 1, None


def _check_count(path: Path, line: int, row: list[str], expected: int) -> None:
    if len(row) != expected:
        raise ValueError(f"{path}, line {line}: must have {expected} columns, as the first word, got {len(row)}")
