"""Examples, as the readers of files return them. Labels are as in the file, None if it has none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class _Example:
    """Attributes:
    id: the id in the file, or else the number of the example in it, from 0.
    line: the number of the line, from 1, where the example begins.
    """

    id: str
    line: int


@dataclass(frozen=True, slots=True)
class TextExample(_Example):
    """A text, or a pair of texts.

    Attributes:
        label: a class, a number (regression) or a tuple of classes (several labels).
    """

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
        answers: the right answers, each a text and the character in the context where it starts; () if the context
            holds no answer, None if the answers are not known. The first one is trained on.
    """

    question: str
    context: str
    answers: tuple[tuple[str, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class ChoiceExample(_Example):
    """A text and its possible continuations, which all begin with `start`.

    Attributes:
        label: the number of the right ending.
    """

    text: str
    start: str
    endings: tuple[str, ...]
    label: int | None = None


Example = TextExample | TaggedExample | QuestionExample | ChoiceExample


def answer_of(example: Example) -> object:
    """The answer to predict for an example; None if it is not known."""
    match example:
        case TextExample(label=answer) | ChoiceExample(label=answer):
            return answer
        case TaggedExample(tags=answer) | QuestionExample(answers=answer):
            return answer


@dataclass(frozen=True)
class Split:
    """The examples of one file.

    Attributes:
        name: "train", "dev", "test", or "dev_mismatched" and the like.
    """

    name: str
    path: Path
    examples: list[Example]
