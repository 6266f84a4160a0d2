"""Files of questions about contexts: SQuAD 1.1 and 2.0, and MRQA.

SQuAD (rajpurkar.github.io/SQuAD-explorer) is one JSON object; MRQA (github.com/mrqa/MRQA-Shared-Task-2019) is JSONL
whose first line is a header. Both may also hold SQuAD's questions one by one, each with its context, as the datasets
library has them: {"id", "question", "context", "answers": {"text": [...], "answer_start": [...]}}, in JSONL, in a list
or as the list "data". Each may end with .gz, .xz or .zst as well.

A question has no answer if `is_impossible` is true, if it has nothing but `plausible_answers`, or, where the task has
such questions, if its list of answers is empty. An answer with an empty text that starts at -1 says the same as none.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from ...disk import numbered_lines, parse_json, plain_suffix
from .examples import QuestionExample
from .lines import (
    Lack,
    Missing,
    MissingLabel,
    checked_text,
    is_missing,
    json_object,
    placed,
    refuse,
    shown,
    text_reader,
)

_Answers = tuple[tuple[str, int], ...]
# Makes the answers from the record of a question and its context: () if its list is empty, None if there is no list.
_AnswersOf = Callable[[dict, str], _Answers | None]
# A question of a file: its line, its id, its record, its context, and what makes the answers.
_Found = tuple[int, str, dict, Any, _AnswersOf]

# Finds the ids, and so their lines: JSON's parser does not say where things are. Quotes inside a text are escaped by a
# backslash, so no text matches.
_ID = re.compile(r'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)')


def read_questions(
    path: Path,
    *,
    empty_is_unanswerable: bool = False,
    may_lack: Collection[Lack] = (),
    bad_row: Callable[[ValueError], None] = refuse,
) -> Iterator[QuestionExample]:
    """The questions of a file, in order; a name that ends with .jsonl means MRQA, one with .json SQuAD.

    The line of a SQuAD question is that of its id. The texts of MRQA's answers are taken from the context at their
    spans. Answers that have a text but no span come after them, and start at -1.

    Args:
        empty_is_unanswerable: whether an empty list of answers says that there is none, if `is_impossible` is absent.
        may_lack: what a question may lack: "text" takes an empty question, and an empty context without an answer;
            "label" takes answers that are absent or empty, or without a context, as unknown.
        bad_row: function to call with the error of a bad question; if it does not raise, the question is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the JSON is broken; there are no questions; or a question is incomplete, has an answer that is not
            in the context at its place, or has another's id. The message then names line and id.
    """
    readers = {".json": _whole, ".jsonl": _by_lines}
    read = readers.get(plain_suffix(path))
    if read is None:
        raise ValueError(f"the name of a file of questions must end with {' or '.join(readers)}, got {path}")
    ids: set[str] = set()
    unread: list[tuple[int, str]] = []  # questions with answers that a true is_impossible contradicts
    is_said: set[bool] = set()  # of each question, whether its answers are there, or is_impossible
    for line, id, record, context, answers_of in read(path):
        if id in ids:
            raise ValueError(f"{path}, line {line}: each id must occur once, got {id!r} again")
        ids.add(id)
        try:
            with placed(path, line, f"question {id}"):
                texts = _texts(record, context, answers_of, may_lack)
                answers = _answers(record, texts[1], answers_of, empty_is_unanswerable, may_lack)
                if answers is None and "label" not in may_lack:
                    raise MissingLabel("must have answers, got none")
                is_impossible = _is_impossible(record)
                contradicts = is_impossible and bool(_records(record, _KEYS[answers_of]))
        except ValueError as error:
            bad_row(error)
        else:
            if contradicts:
                unread.append((line, id))
            is_said.add(bool(answers) or is_impossible)
            yield QuestionExample(id, line, *texts, answers)
    if not ids:
        raise ValueError(f"{path}, line 1: the file must hold questions, got none")
    if unread:
        line, id = unread[0]
        warnings.warn(
            f"{path}: {len(unread):,} questions have answers that are not read, since is_impossible is true; the "
            f"first: line {line}: question {id}",
            stacklevel=2,
        )
    if "label" not in may_lack and is_said == {False}:
        raise ValueError(f"{path}: there must be answers, got none, and no question with a true is_impossible")


def _whole(path: Path) -> Iterator[_Found]:
    """The questions of a file that is one value of JSON; lines of JSON with this name are read as lines, too."""
    text = "".join(line for _, line in numbered_lines(path))
    if not text.strip():
        return
    try:
        whole = parse_json(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from _by_lines(path)
            return
        raise ValueError(f"{path}, line {error.lineno}: must be JSON, got: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: must be JSON, got: {error}") from error
    lines = _lines_of_ids(text)
    for article_name, article in _parts(
        path, "", {"data": whole} if whole and isinstance(whole, list) else whole, "data"
    ):
        if "paragraphs" not in article and "question" in article:
            id = _id(f"{path}: {article_name}", article, "id")
            yield lines[id], id, article, article.get("context"), _squad_answers
            continue
        for paragraph_name, paragraph in _parts(path, article_name, article, "paragraphs"):
            for name, record in _parts(path, paragraph_name, paragraph, "qas"):
                id = _id(f"{path}: {name}", record, "id")
                yield lines[id], id, record, paragraph.get("context"), _squad_answers


def _by_lines(path: Path) -> Iterator[_Found]:
    for line, text in numbered_lines(path):
        if text.isspace():
            continue
        where = f"{path}, line {line}"
        with placed(path, line):
            paragraph = json_object(text)
        context = paragraph.get("context")
        if "qas" not in paragraph and "question" in paragraph:
            yield line, _id(where, paragraph, "id"), paragraph, context, _squad_answers
        elif "header" not in paragraph:
            for name, record in _parts(where, "", paragraph, "qas"):
                yield line, _id(f"{where}: {name}", record, "qid"), record, context, _mrqa_answers


def _texts(record: dict, context: Any, answers_of: _AnswersOf, may_lack: Collection[Lack]) -> tuple[str, str]:
    """The question and the context; either may be empty if it may be lacking, but not a context with an answer."""
    read = text_reader(may_lack)
    question, context = read(record.get("question"), "the question"), read(context, "the context")
    is_answered = "label" not in may_lack and bool(_records(record, _KEYS[answers_of]))
    return question, checked_text(context, "the context") if is_answered else context


def _answers(
    record: dict, context: str, answers_of: _AnswersOf, empty_is_unanswerable: bool, may_lack: Collection[Lack]
) -> _Answers | None:
    if _is_impossible(record):
        return ()
    if is_missing(context) and "label" in may_lack:
        return None
    try:
        found = answers_of(record, context)
    except Missing as error:
        if "label" in may_lack:
            return None
        raise MissingLabel(str(error)) from error
    is_unanswerable = empty_is_unanswerable and is_missing(record.get("is_impossible"))
    return found or (() if found == () and is_unanswerable else None)


def _is_impossible(record: dict) -> bool:
    """Whether the file says that there is no answer; an empty list of answers alone does not."""
    value = record.get("is_impossible")
    if is_missing(value):
        return bool(record.get("plausible_answers")) and not record.get("answers")
    truth = _TRUTHS.get(str(value).strip().lower())
    if truth is None:
        raise ValueError(f"is_impossible must be true or false, got {shown(value)}")
    return truth


def _squad_answers(record: dict, context: str) -> _Answers | None:
    found = _records(record, "answers")
    return None if found is None else tuple(_squad_answer(answer, context) for answer in found)


def _squad_answer(answer: dict, context: str) -> tuple[str, int]:
    """The answer and its start, without the white space that a few of SQuAD's answers have at their ends."""
    text, start = checked_text(answer.get("text"), "an answer").strip(), answer.get("answer_start")
    if not _is_count(start):
        raise ValueError(f"answer_start must be the number of a character in the context, got {shown(start)}")
    found = start
    while context[found : found + 1].isspace():
        found += 1
    if not context.startswith(text, found):
        there = context[start : start + len(text)]
        other = context.find(text)
        hint = f"; it stands at {other}" if other >= 0 else ""
        raise ValueError(f"the answer {shown(text)} must stand in the context at {start}, got {shown(there)}{hint}")
    return text, found


def _mrqa_answers(record: dict, context: str) -> _Answers | None:
    found: list[tuple[str, int]] = []
    detected = _records(record, "detected_answers")
    for answer in detected or ():
        for span in answer.get("char_spans") or ():
            is_pair = isinstance(span, list) and len(span) == 2 and all(map(_is_count, span))
            text = context[span[0] : span[1] + 1] if is_pair else ""
            if not text.strip() or span[1] >= len(context):
                raise ValueError(f"char_spans must be of text within the {len(context)} of context, got {shown(span)}")
            found.append((text.strip(), span[0] + len(text) - len(text.lstrip())))
    if not found:
        return () if detected == [] and all(map(is_missing, record.get("answers") or ())) else None
    texts = [checked_text(text, "an answer") for text in record.get("answers") or ()]
    others = dict.fromkeys(text for text in texts if text not in {text for text, _ in found})
    return (*found, *((text, -1) for text in others))


_KEYS = {_squad_answers: "answers", _mrqa_answers: "detected_answers"}

# What is_impossible may be, as lower-case text.
_TRUTHS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _records(record: dict, key: str) -> list[dict] | None:
    """The objects under a key, also where the datasets library has made lists of their fields; None if it is absent.

    Those that stand for no answer are left out.
    """
    found = record.get(key)
    if isinstance(found, dict):
        columns = {name: values if isinstance(values, list) else [values] for name, values in found.items()}
        if len(set(map(len, columns.values()))) > 1 or not columns:
            raise ValueError(f"{key} must have fields of one length, got {shown(found)}")
        found = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if is_missing(found):
        return None
    if not isinstance(found, list) or not all(isinstance(part, dict) for part in found):
        raise ValueError(f"{key} must be a list of objects, got {shown(found)}")
    return [part for part in found if not (part.get("answer_start") == -1 and is_missing(part.get("text")))]


def _parts(where: Path | str, name: str, whole: Any, key: str) -> Iterator[tuple[str, dict]]:
    """The objects in the list under a key, each with a name for messages, such as data[0].paragraphs[2]."""
    parts = whole.get(key) if isinstance(whole, dict) else None
    prefix = f"{name}." if name else ""
    if not isinstance(parts, list):
        raise ValueError(f"{where}: must have a list as {prefix}{key}, got {shown(parts)}")
    for number, part in enumerate(parts):
        if not isinstance(part, dict):
            raise ValueError(f"{where}: {prefix}{key}[{number}] must be an object, got {shown(part)}")
        yield f"{prefix}{key}[{number}]", part


def _id(where: str, record: dict, key: str) -> str:
    id = record.get(key)
    if not isinstance(id, str | int):
        raise ValueError(f"{where} must have text as {key!r}, got {shown(id)}")
    return str(id)


def _lines_of_ids(text: str) -> dict[str, int]:
    lines: dict[str, int] = {}
    line, position = 1, 0
    for match in _ID.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        lines[str(json.loads(match[1]))] = line
    return lines
