"""Spans of tags, such as names or phrases, and how many of them are found.

The rules are those of CoNLL's script conlleval, which reads IOB1, BIO and BIOES (IOBES) alike; here they also cover
BILOU. Sequences that no scheme allows give spans, too: every I or E that continues nothing begins a span of its own.
seqeval's default mode does the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Span = tuple[str, int, int]
"""A span: type ("" if tags have none), first word, word after the last."""

# B begins a span, I continues it, E or L ends it, S or U is all of it; O is outside.
_SPAN_TAG = re.compile(r"O|[BIESLU](-.*)?", re.DOTALL)


def are_span_tags(tags: Iterable[str]) -> bool:
    """Whether tags mark spans, and not words, as parts of speech do: all are O or like B-PER, or B alone."""
    return set(tags) != {"O"} and all(_SPAN_TAG.fullmatch(tag) for tag in tags)


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The spans of one sentence's tags, in order."""
    spans: list[Span] = []
    begin, last_place, last_type = 0, "O", ""
    for word, tag in enumerate([*tags, "O"]):
        place, _, type_ = tag.partition("-")
        continues = place in "IEL" and last_place in "BI" and type_ == last_type
        if not continues:
            if last_place != "O":
                spans.append((last_type, begin, word))
            begin = word
        last_place, last_type = place, type_
    return spans


def span_metrics(true: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]) -> dict[str, float]:
    """The metrics f1, precision and recall of the spans of sentences' tags, all types together.

    A span is right if its type and both ends are. A share of nothing is 0, as in conlleval.
    """
    n_true = n_predicted = n_right = 0
    for true_tags, predicted_tags in zip(true, predicted, strict=True):
        true_spans, predicted_spans = set(spans_of(true_tags)), set(spans_of(predicted_tags))
        n_true += len(true_spans)
        n_predicted += len(predicted_spans)
        n_right += len(true_spans & predicted_spans)
    return {
        "f1": _share(2 * n_right, n_true + n_predicted),
        "precision": _share(n_right, n_predicted),
        "recall": _share(n_right, n_true),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
