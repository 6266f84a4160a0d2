"""The file of one split: which of its rows are taken, what becomes of the others, and the classes that it has."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...disk import plain_suffix
from .class_lists import Undivided, are_commas_separators, classes_of, vector_width
from .conll import read_conll
from .examples import Example, QuestionExample, RowCounts, Split, TextExample, answer_of, classes_in, lacks_text
from .lines import Lack, Missing, MissingLabel, placed
from .squad_files import read_questions
from .tables import HIDDEN, TYPED_SUFFIXES, read_table
from .tasks import Task, is_labelled


def read_split(task: Task, name: str, path: Path) -> Split:
    """Reads the examples of one file as the split of this name; train and dev must have labels.

    Training leaves out rows without a text or without a label, and measuring those without a label. Rows to measure
    without a text are kept: the network answers for what the tokenizer makes of it. A test file loses no row.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a row is bad, or none is left; the message names file and line.
    """
    may_lack: tuple[Lack, ...] = () if name == "train" else ("text",) if is_labelled(name) else ("text", "label")
    n_damaged = task.n_damaged_rows if name == "train" else 0
    left_out: list[ValueError] = []

    def leave_out(error: ValueError) -> None:
        left_out.append(error)
        if not isinstance(error, Missing) and len(_damaged(left_out)) > n_damaged:
            raise error

    examples = list(_rows(task, path, may_lack, leave_out))
    if not examples:
        raise left_out[0]
    if n_damaged and left_out:
        warnings.warn(f"{path}: {len(left_out)} damaged rows are left out; the first: {left_out[0]}", stacklevel=2)
    if "label" in may_lack:
        examples = _without_placeholders(task, examples)
    n_unlabelled = sum(answer_of(example) is None for example in examples)
    counts = RowCounts(
        read=len(examples) + len(left_out),
        without_text=sum(type(error) is Missing for error in left_out),
        without_label=sum(isinstance(error, MissingLabel) for error in left_out),
        damaged=len(_damaged(left_out)),
        kept_without_text=sum(map(lacks_text, examples)),
        kept_without_label=n_unlabelled if n_unlabelled < len(examples) else 0,
        first=str(left_out[0]) if left_out else None,
    )
    return Split(name, path, examples, frozenset(label for e in examples for label in classes_in(e)), counts)


def with_classes(task: Task, splits: Mapping[str, Split]) -> dict[str, Split]:
    """The splits with the classes of plain text, and names in place of vectors where the file to train on has vectors.

    Raises:
        ValueError: text cannot be divided, a label is not the task's, or no vector although others are; the message
            names file and line.
    """
    splits = _divided(splits)
    first = splits.get("train") or next(iter(splits.values()))
    if isinstance(task.columns.label, tuple):
        width: int | None = len(task.columns.label)
    else:
        try:
            width = vector_width([(e.line, e.label) for e in first.examples if e.label is not None])
        except ValueError as error:
            raise ValueError(f"{first.path}, {error}") from error
    if width is None:
        for split in splits.values():
            _check_labels(task, split)
        return dict(splits)
    names = task.labels or tuple(map(str, range(width)))
    if task.labels is None:
        warnings.warn(
            f"{first.path}: the labels are vectors of {width} zeros and ones, and are called 0 to {width - 1} unless "
            "labels are named",
            stacklevel=3,
        )
    if len(names) != width:
        raise ValueError(f"{first.path}: vectors of {width} zeros and ones need {width} labels, got {len(names)}")
    return {name: _named(split, names) for name, split in splits.items()}


def _rows(
    task: Task, path: Path, may_lack: Collection[Lack], bad_row: Callable[[ValueError], None]
) -> Iterator[Example]:
    """The examples of a file, by the reader for the kind of task."""
    needs_labels = "label" not in may_lack
    columns = task.columns if needs_labels else task.test_columns or task.columns
    policy: dict[str, Any] = {"may_lack": may_lack, "bad_row": bad_row}
    if task.kind == "qa":
        is_empty_told = needs_labels or bool(task.options.get("has_unanswerable"))
        found = read_questions(path, empty_is_unanswerable=is_empty_told, **policy)
        return _answerable(task, path, found)
    # The classes of several labels may be vectors: their names are known when all of them are read.
    policy |= {"labels": None if task.kind == "multilabel" else task.labels}
    if task.kind == "tagging" and plain_suffix(path) not in TYPED_SUFFIXES:
        return read_conll(path, columns, **policy)
    return read_table(path, task.kind, columns, **policy)


def _damaged(errors: Iterable[ValueError]) -> list[ValueError]:
    return [error for error in errors if not isinstance(error, Missing)]


def _without_placeholders(task: Task, examples: list[Example]) -> list[Example]:
    """The examples of a test file, without what only stands in the place of answers.

    Where all lists are empty, or all labels are -1, nothing is known. A -1 among others is no label unless it may be.
    """
    answers = [answer_of(example) for example in examples]
    if task.kind in ("multilabel", "qa"):
        return examples if any(answers) else [_without_answer(example) for example in examples]
    hidden = HIDDEN.get(task.kind)
    is_never = task.kind == "choice" or (task.labels is not None and hidden not in task.labels)
    if hidden is None or not (is_never or all(answer == hidden for answer in answers)):
        return examples
    return [
        _without_answer(example) if answer == hidden else example
        for example, answer in zip(examples, answers, strict=True)
    ]


def _without_answer(example: Example) -> Example:
    return replace(example, **{"answers" if isinstance(example, QuestionExample) else "label": None})


def _divided(splits: Mapping[str, Split]) -> dict[str, Split]:
    """The splits with classes in place of plain text: one rule for all files, since they have the same classes."""
    labels = (example.label for split in splits.values() for example in split.examples)
    with_commas = are_commas_separators([label for label in labels if isinstance(label, Undivided)])

    def divided(split: Split, example: TextExample) -> TextExample:
        if not isinstance(example.label, Undivided):
            return example
        with placed(split.path, example.line):
            return replace(example, label=example.label.classes(with_commas))

    found = {}
    for name, split in splits.items():
        examples = [divided(split, example) for example in split.examples]
        found[name] = replace(split, examples=examples, labels=frozenset(c for e in examples for c in classes_in(e)))
    return found


def _named(split: Split, names: Sequence[str]) -> Split:
    def named(example: TextExample) -> TextExample:
        with placed(split.path, example.line):
            return replace(example, label=None if example.label is None else classes_of(example.label, names))

    return replace(split, examples=[named(example) for example in split.examples], labels=frozenset(names))


def _check_labels(task: Task, split: Split) -> None:
    for example in split.examples:
        for label in example.label or ():
            if task.labels is not None and label not in task.labels:
                raise ValueError(
                    f"{split.path}, line {example.line}: the label in column {task.columns.label!r} must be one of "
                    f"{', '.join(task.labels)}, got {label!r}"
                )


def _answerable(task: Task, path: Path, questions: Iterable[QuestionExample]) -> Iterator[QuestionExample]:
    for question in questions:
        if question.answers == () and not task.options.get("has_unanswerable"):
            raise ValueError(
                f"{path}, line {question.line}: question {question.id} has no answer, but all of the task {task.name} "
                f"must have one (those of squad2 need not; for a custom task, say has_unanswerable)"
            )
        yield question
