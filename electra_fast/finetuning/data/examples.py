"""What the readers make of files: one class a kind of task. Labels are as in the file, None where it has none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class _Example:
    """Attributes:
    id: as in the file, or the number of the example in it, from 0.
    line: where it is, or begins, from 1.
    """

    id: str
    line: int


@dataclass(frozen=True, slots=True)
class TextExample(_Example):
    """A text, or a pair of them. label: a class, a number (regression) or any number of classes (several labels)."""

    text: str
    pair: str | None = None
    label: str | float | tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class TaggedExample(_Example):
    """A sentence, and a tag for each of its words."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class QuestionExample(_Example):
    """A question about a context.

    Attributes:
        answers: those that count as right, each a text and the character in the context where it starts; () where the
            context has none; None where it is not known. The first is the one to train on.
    """

    question: str
    context: str
    answers: tuple[tuple[str, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class ChoiceExample(_Example):
    """A text and its possible continuations, each of which begins with `start`. label: the number of the right one."""

    text: str
    start: str
    endings: tuple[str, ...]
    label: int | None = None


Example = TextExample | TaggedExample | QuestionExample | ChoiceExample


def answer_of(example: Example) -> object:
    """What is to be predicted of an example; None where that is not known."""
    match example:
        case TextExample(label=answer) | ChoiceExample(label=answer):
            return answer
        case TaggedExample(tags=answer) | QuestionExample(answers=answer):
            return answer


@dataclass(frozen=True)
class Split:
    """The examples of one file. name: "train", "dev", "test", or "dev_mismatched" and the like."""

    name: str
    path: Path
    examples: list[Example]
