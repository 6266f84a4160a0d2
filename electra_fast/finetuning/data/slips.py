"""Labels that only a slip can have made different, and labels that are no labels: what people are told about them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

_QUOTES_AND_ENDS = " \t\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb.,;:!?"
_NUMBER = re.compile(r"(-?)0*(\d+)(?:\.0*)?")
_MISSING = {"nan", "null", "<na>", "n/a", "#n/a"}


def same_but_for_slips(label: str) -> str:
    """The label without what people slip in.

    These are capitals, full-width forms, characters that nobody sees, quotes, blanks and punctuation around it, blanks,
    hyphens and underscores for each other, and decimals of integers. A label of nothing else stays as it is.
    """
    text = unicodedata.normalize("NFKC", label).casefold()
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    bare = text.lstrip(_QUOTES_AND_ENDS).rstrip(_QUOTES_AND_ENDS)
    if number := _NUMBER.fullmatch(bare):
        return "".join(number.groups())
    return " ".join(re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", bare).split()) or text.strip() or label


def slips_among(labels: Collection[str]) -> list[tuple[str, ...]]:
    """The groups of labels that differ by slips alone, each in order."""
    groups: dict[str, list[str]] = {}
    for label in sorted(labels):
        groups.setdefault(same_but_for_slips(label), []).append(label)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def doubts_about(labels: Collection[str], kind: str) -> list[str]:
    """What may be wrong with labels that were found in a file, a sentence each."""
    doubts = [f"{_quoted(group)} differ by a slip alone, and are different labels" for group in slips_among(labels)]
    missing = [label for label in sorted(labels) if label.strip().lower() in _MISSING or label == "None"]
    if missing:
        doubts.append(f"{_quoted(missing)} may say that the label is missing, and is a label")
    lists = [label for label in sorted(labels) if label[0] in "[({" and label[-1] in "])}"]
    if kind == "classification" and lists:
        doubts.append(f"{_quoted(lists[:3])} may be several labels, which are for the kind multilabel")
    if kind == "multilabel" and labels and set(labels) <= {"0", "1"}:
        doubts.append("the labels are 0 and 1 alone: a vector has a zero or a one for each label, in every row")
    return doubts


def _quoted(labels: Collection[str]) -> str:
    return ", ".join(map(repr, labels))
