"""Labels that only a slip can have made different, and labels that are no labels: what people are told about them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection

_QUOTES_AND_ENDS = " \t\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb.,;:!?"
_NUMBER = re.compile(r"(-?)0*(\d+)(?:\.0*)?")
_TRUTH = {"true": "1", "false": "0"}
# Words and marks for what is missing. Some of them are good names too, and are told beside others alone: `none` may be
# a class, and marks may be tags.
_MISSING = {"nan", "null", "<na>", "n/a", "#n/a"}
_MISSING_AS_WRITTEN = {"None", "NA"}
_MISSING_MARKS = {"-", "--", "?"}
_MISSING_BESIDE_OTHERS = {"none", "na"}
# Separators that people use and that are not read. One label among the parts shows a mark to be one; words of ordinary
# names and their blanks need all parts to be labels.
_MARKS = [re.compile(mark) for mark in (r"\t", "[/\uff0f]", "#", r"\+", r"\\", r"\|", ";")]
_WITHIN_NAMES = [re.compile(words) for words in (r"\s+", "[,\uff0c\u3001]", "[:\uff1a]", "&", r"(?i:\s+and\s+)")]
_ENDS = " \t#/\uff0f+\\,\uff0c\u3001:\uff1a;&|"


def same_but_for_slips(label: str) -> str:
    """The label without what people slip in.

    These are capitals, full-width forms, characters that nobody sees, quotes, blanks and punctuation around it, blanks,
    hyphens and underscores for each other, decimals of integers, and words for 0 and 1. A label of nothing else stays
    as it is.
    """
    text = unicodedata.normalize("NFKC", label).casefold()
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    bare = text.lstrip(_QUOTES_AND_ENDS).rstrip(_QUOTES_AND_ENDS)
    if number := _NUMBER.fullmatch(bare):
        return "".join(number.groups())
    if bare in _TRUTH:
        return _TRUTH[bare]
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
    missing = _missing_among(labels, kind)
    if missing:
        doubts.append(f"{_quoted(missing)} may say that the label is missing, and is a label")
    joint = joint_among(labels) if kind == "multilabel" else []
    if joint:
        doubts.append(
            f"{_quoted(joint[:2])} may each be several labels ({len(joint)} of {len(labels)} look so): text is "
            "separated at | ; and line feeds, or at commas where the column has none of these"
        )
    lists = [label for label in sorted(labels) if label[0] in "[({" and label[-1] in "])}"]
    if kind == "classification" and lists:
        doubts.append(f"{_quoted(lists[:3])} may be several labels, which are for the kind multilabel")
    if kind == "multilabel" and labels and set(labels) <= {"0", "1"}:
        doubts.append("the labels are 0 and 1 alone: a vector has a zero or a one for each label, in every row")
    return doubts


def joint_among(labels: Collection[str]) -> list[str]:
    """The labels that seem to be others joined by a separator that is not read, in order."""
    bare = {label.strip(_ENDS) for label in labels}
    found = {label for label in labels for mark in _MARKS if not bare.isdisjoint(_joined(label, mark))}
    for words in _WITHIN_NAMES:
        parts = {label: joined for label in labels if (joined := _joined(label, words))}
        # What lacks in two labels beside others is a label that never stands alone.
        lacking = Counter(part for joined in parts.values() if joined & bare for part in joined - bare)
        known = bare | {part for part, count in lacking.items() if count > 1}
        found.update(label for label, joined in parts.items() if joined <= known and joined & bare)
    return sorted(found)


def _joined(label: str, separator: re.Pattern[str]) -> set[str]:
    """The bare parts between separators; none if there are not two."""
    parts = {part.strip(_ENDS) for part in separator.split(label)} - {""}
    return parts if len(parts) > 1 else set()


def _missing_among(labels: Collection[str], kind: str) -> list[str]:
    """The labels that may stand for none, in order; [] if all of them may be names as well."""
    marks = set() if kind == "tagging" else _MISSING_MARKS

    def is_sure(label: str) -> bool:
        bare = label.strip()
        return bare.lower() in _MISSING or bare in _MISSING_AS_WRITTEN or bare in marks

    if not any(map(is_sure, labels)):
        return []
    others = _MISSING_MARKS | _MISSING_BESIDE_OTHERS
    return [label for label in sorted(labels) if is_sure(label) or label.strip().lower() in others]


def _quoted(labels: Collection[str]) -> str:
    return ", ".join(map(repr, labels))
