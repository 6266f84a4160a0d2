"""Exact match and F1 of answers, by the rules of the official script of SQuAD 2.0 (evaluate-v2.0.py).

If all questions have answers, the rules are those of SQuAD 1.1 and MRQA too, with one difference: an answer of nothing
but articles and punctuation does not count as an answer.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """The answer in lower case, without ASCII punctuation and English articles, words one space apart."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Returns 1 if the normalized prediction is one of the normalized answers, else 0; no answers count as "" alone."""
    return float(any(normalized(answer) == normalized(prediction) for answer in _counted(answers)))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """The largest F1 of the prediction's words and an answer's, as bags; no answers count as "" alone."""
    return max(_f1(normalized(prediction).split(), normalized(answer).split()) for answer in _counted(answers))


def _counted(answers: Sequence[str]) -> Sequence[str]:
    return [answer for answer in answers if normalized(answer)] or [""]


def _f1(predicted: list[str], expected: list[str]) -> float:
    if not predicted or not expected:
        return float(predicted == expected)
    n_same = (Counter(predicted) & Counter(expected)).total()
    # 2 p r / (p + r), where p and r are the shares of the predicted and of the expected words.
    return 2 * n_same / (len(predicted) + len(expected))


def squad_scores(answers: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """Means over questions of `f1` and `exact_match`.

    answers: the right answers of each question, () if it has none.
    """
    pairs = list(zip(predictions, answers, strict=True))
    return {name: _mean([score(*pair) for pair in pairs]) for name, score in _SCORES.items()}


def no_answer_scores(
    answers: Sequence[Sequence[str]], predictions: Sequence[str], texts: Sequence[str], null_odds: Sequence[float]
) -> dict[str, float]:
    """The metrics that the official script adds if questions may have no answer, by its names.

    HasAns_* and NoAns_*: means over the questions with answers, and over those without, if there are any.
    best_f1, best_exact: the best score that a threshold on the null odds can give. best_*_thresh is that threshold, 0
    if it is best to answer nothing.

    Args:
        predictions: "" where no answer is predicted.
        texts: the best answer of each question, predicted or not.
    """
    scores: dict[str, float] = {}
    for prefix, has_answer in (("HasAns", True), ("NoAns", False)):
        some = [i for i, known in enumerate(answers) if bool(known) == has_answer]
        if some:
            chosen = squad_scores([answers[i] for i in some], [predictions[i] for i in some])
            scores |= {f"{prefix}_exact": chosen["exact_match"], f"{prefix}_f1": chosen["f1"]}
    for name, score in (("exact", exact_match), ("f1", f1)):
        best, threshold = _best_threshold(
            [score(text, known) for text, known in zip(texts, answers, strict=True)], answers, texts, null_odds
        )
        scores |= {f"best_{name}": best, f"best_{name}_thresh": threshold}
    return scores


def _best_threshold(
    scores: Sequence[float], answers: Sequence[Sequence[str]], texts: Sequence[str], null_odds: Sequence[float]
) -> tuple[float, float]:
    """The best mean score and its threshold.

    Answers are given one by one, by rising odds: a right one is worth its score, a needless one costs 1.
    """
    total = best = sum(not known for known in answers)
    threshold = 0.0
    for i in sorted(range(len(texts)), key=lambda i: null_odds[i]):
        total += scores[i] if answers[i] else -bool(texts[i])
        if total > best:
            best, threshold = total, null_odds[i]
    return best / len(texts), threshold


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


_SCORES = {"f1": f1, "exact_match": exact_match}
