"""Files of questions about contexts: SQuAD 1.1 and 2.0, and MRQA.

SQuAD (rajpurkar.github.io/SQuAD-explorer) is one JSON object; MRQA (github.com/mrqa/MRQA-Shared-Task-2019) is JSONL
whose first line is a header. Each may end with .gz, .xz or .zst as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...disk import numbered_lines, plain_suffix
from .examples import QuestionExample
from .lines import any_text, checked_text, json_object, shown

_Answers = tuple[tuple[str, int], ...]
# Makes the answers from the record of a question and its context.
_AnswersOf = Callable[[dict, str], _Answers | None]

# Finds the ids, and so their lines: JSON's parser does not say where things are. Quotes inside a text are escaped by a
# backslash, so no text matches.
_ID = re.compile(r'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)')


def read_questions(path: Path, *, needs_answers: bool = True) -> Iterator[QuestionExample]:
    """The questions of a file, in order; a name that ends with .jsonl means MRQA, one with .json SQuAD.

    The line of a SQuAD question is that of its id. The texts of MRQA's answers are taken from the context at their
    spans. Answers that have a text but no span come after them, and start at -1.

    Args:
        needs_answers: False if answers may be absent.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the JSON is broken; there are no questions; or a question is incomplete, has an answer that is not
            in the context at its place, or has another's id. The message then names line and id.
    """
    readers = {".json": _squad, ".jsonl": _mrqa}
    read = readers.get(plain_suffix(path))
    if read is None:
        raise ValueError(f"the name of a file of questions must end with {' or '.join(readers)}, got {path}")
    ids: set[str] = set()
    for question in read(path, needs_answers):
        if question.id in ids:
            raise ValueError(f"{path}, line {question.line}: each id must occur once, got {question.id!r} again")
        ids.add(question.id)
        yield question
    if not ids:
        raise ValueError(f"{path}, line 1: the file must hold questions, got none")


def _squad(path: Path, needs_answers: bool) -> Iterator[QuestionExample]:
    text = "".join(line for _, line in numbered_lines(path))
    if not text.strip():
        return
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: must be JSON, got: {error}") from error
    lines = _lines_of_ids(text)
    for article_name, article in _parts(path, "", whole, "data"):
        for paragraph_name, paragraph in _parts(path, article_name, article, "paragraphs"):
            for name, record in _parts(path, paragraph_name, paragraph, "qas"):
                id = _id(f"{path}: {name}", record, "id")
                where = f"{path}, line {lines[id]}: question {id}"
                yield _question(where, id, lines[id], record, paragraph.get("context"), _squad_answers, needs_answers)


def _mrqa(path: Path, needs_answers: bool) -> Iterator[QuestionExample]:
    for line, text in numbered_lines(path):
        if text.isspace():
            continue
        where = f"{path}, line {line}"
        try:
            paragraph = json_object(text)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if "header" in paragraph:
            continue
        for name, record in _parts(where, "", paragraph, "qas"):
            id = _id(f"{where}: {name}", record, "qid")
            context = paragraph.get("context")
            yield _question(f"{where}: question {id}", id, line, record, context, _mrqa_answers, needs_answers)


def _question(
    where: str, id: str, line: int, record: dict, context: Any, answers: _AnswersOf, needs_answers: bool
) -> QuestionExample:
    try:
        read_text = checked_text if needs_answers else any_text
        question, context = read_text(record.get("question"), "the question"), read_text(context, "the context")
        found = answers(record, context)
        if found is None and needs_answers:
            raise ValueError("must have answers, got none")
        return QuestionExample(id, line, question, context, found)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _squad_answers(record: dict, context: str) -> _Answers | None:
    if record.get("is_impossible"):
        return ()
    return tuple(_squad_answer(answer, context) for answer in _records(record, "answers")) or None


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
        raise ValueError(f"the answer {shown(text)} must stand in the context at {start}, got {shown(there)}")
    return text, found


def _mrqa_answers(record: dict, context: str) -> _Answers | None:
    found: list[tuple[str, int]] = []
    for answer in _records(record, "detected_answers"):
        for span in answer.get("char_spans") or ():
            is_pair = isinstance(span, list) and len(span) == 2 and all(map(_is_count, span))
            text = context[span[0] : span[1] + 1] if is_pair else ""
            if not text.strip() or span[1] >= len(context):
                raise ValueError(f"char_spans must be of text within the {len(context)} of context, got {shown(span)}")
            found.append((text.strip(), span[0] + len(text) - len(text.lstrip())))
    if not found:
        return None
    texts = [checked_text(text, "an answer") for text in record.get("answers") or ()]
    others = dict.fromkeys(text for text in texts if text not in {text for text, _ in found})
    return (*found, *((text, -1) for text in others))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _records(record: dict, key: str) -> list[dict]:
    found = record.get(key) or []
    if not isinstance(found, list) or not all(isinstance(part, dict) for part in found):
        raise ValueError(f"{key} must be a list of objects, got {shown(found)}")
    return found


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
