"""Examples, as the readers of files return them. Labels are as in the file, None if it has none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .class_lists import Undivided


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
        label: a class, a number (regression) or a tuple of classes (several labels; plain text is `Undivided` until all
            files are read).
    """

    text: str
    pair: str | None = None
    label: str | float | tuple[str, ...] | Undivided | None = None


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


def classes_in(example: Example) -> tuple[str, ...]:
    """The classes or tags of an example; () for numbers, spans and endings."""
    match example:
        case TextExample(label=str() as label):
            return (label,)
        case TextExample(label=tuple() as found) | TaggedExample(tags=tuple() as found):
            return found
    return ()


def lacks_text(example: Example) -> bool:
    """Whether one of the texts of an example is empty, or one of its words."""
    match example:
        case TextExample(text=text, pair=pair):
            texts = (text,) if pair is None else (text, pair)
        case TaggedExample(words=words):
            texts = words or ("",)
        case QuestionExample(question=question, context=context):
            texts = (question, context)
        case ChoiceExample(text=text, endings=endings):
            texts = (text, *endings)
    return not all(map(str.strip, texts))


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """What became of the rows of a file.

    Attributes:
        read: all rows.
        without_text, without_label, damaged: rows that are left out, by what they lack.
        kept_without_text, kept_without_label: rows that are no different from others but for that.
        first: the error of the first row that is left out.
    """

    read: int
    without_text: int = 0
    without_label: int = 0
    damaged: int = 0
    kept_without_text: int = 0
    kept_without_label: int = 0
    first: str | None = None

    def as_json(self) -> dict[str, Any] | None:
        """The counts that are not 0, with `read`; None if no row lacks anything."""
        found = {name: count for name, count in vars(self).items() if count}
        return found if len(found) > 1 else None

    def said(self, path: Path) -> str | None:
        """The counts as one line for people; None if no row lacks anything."""
        left_out = {"without a text": self.without_text, "without a label": self.without_label, "damaged": self.damaged}
        kept = {"without a text": self.kept_without_text, "without a label": self.kept_without_label}
        parts = [
            f"{action} {sum(counts.values()):,} ({', '.join(f'{n:,} {what}' for what, n in counts.items() if n)})"
            for action, counts in (("left out", left_out), ("kept", kept))
            if any(counts.values())
        ]
        if not parts:
            return None
        first = f"; the first left out: {self.first}" if self.first else ""
        return f"{path}: of {self.read:,} rows {', '.join(parts)}{first}"


@dataclass(frozen=True)
class Split:
    """The examples of one file.

    Attributes:
        name: "train", "dev", "test", or "dev_mismatched" and the like.
        labels: the classes or tags of the whole file, those of examples that are held out of it or not drawn included.
        counts: the rows of the file, and how many of them lack something; None for examples held out of another split.
    """

    name: str
    path: Path
    examples: list[Example]
    labels: frozenset[str] = frozenset()
    counts: RowCounts | None = field(default=None, compare=False)
