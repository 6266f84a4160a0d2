"""Answers of questions from the scores of tokens: the best spans of a window, then those of all windows together.

The rules are those of google-research/electra, finetune/qa/qa_metrics.py, with one difference: the limits on a span
apply before the best are chosen, so that impossible spans take no place among them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.examples import QuestionExample


def context_tokens(token_type_ids: Tensor, is_real: Tensor) -> Tensor:
    """Marks the tokens of type 1 but the last, which is [SEP]: [B, S] bool.

    is_real: [B, S], nonzero at real tokens.
    """
    is_second = (token_type_ids == 1) & (is_real != 0)
    is_context = torch.zeros_like(is_second)
    is_context[:, :-1] = is_second[:, :-1] & is_second[:, 1:]
    return is_context


def best_starts(start_scores: Tensor, may_start: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    """The best starts of each row and their scores, [R, K] with K = min(beam_size, S); -inf where none may start.

    start_scores, may_start: [R, S].
    """
    scores = start_scores.masked_fill(~may_start, -torch.inf)
    values, starts = scores.topk(min(beam_size, scores.shape[1]), dim=1)
    return starts, values


def best_spans(
    starts: Tensor, start_scores: Tensor, end_scores: Tensor, is_context: Tensor, max_length: int, n_best: int
) -> list[dict[str, np.ndarray]]:
    """The spans with the highest sums of both scores, best first: at most `n_best` per row, and possibly none.

    Args:
        starts, start_scores: [R, K], as `best_starts` returns them.
        end_scores: [R, K, S], the score of each end for each start; or [R, 1, S] if it is the same for all starts.
        is_context: [R, S] bool, the tokens that may end a span.
        max_length: tokens of a span, at most.

    Returns:
        One dict per row with the arrays `starts` and `ends` (int64, tokens of the row, inclusive) and `scores` (fp32).
    """
    n_rows, length = is_context.shape
    ends = starts[:, :, None] + torch.arange(max_length, device=starts.device)  # [R, K, max_length]
    in_row = ends.clamp(max=length - 1)
    may_end = (ends < length) & is_context[:, None].expand(-1, starts.shape[1], -1).gather(2, in_row)
    scores = start_scores[:, :, None] + end_scores.expand(-1, starts.shape[1], -1).gather(2, in_row)
    scores = scores.masked_fill(~may_end, -torch.inf).flatten(1)
    values, index = scores.topk(min(n_best, scores.shape[1]), dim=1)
    best = starts.gather(1, index // max_length)
    table = [x.cpu().numpy() for x in (best, best + index % max_length, values.float())]
    rows = []
    for row in range(n_rows):
        is_span = table[2][row] > -np.inf
        rows.append({name: x[row][is_span] for name, x in zip(("starts", "ends", "scores"), table, strict=True)})
    return rows


def predict_answers(
    examples: Sequence[QuestionExample],
    window_examples: np.ndarray,
    spans: Sequence[np.ndarray],
    scores: Sequence[dict[str, Any]],
    n_best: int,
    null_threshold: float | None,
) -> list[dict[str, Any]]:
    """One prediction per question, from all of its windows.

    Args:
        window_examples: [I] rising, the example of each window.
        spans: one array [S, 2] per window: the characters [begin, end) of the context that each token stands for.
        scores: for each window its `best_spans`, and either `null_score`, the score of "no answer" on the scale of the
            spans, or `no_answer_logit`, which is taken as the null odds.
        n_best: how many different texts a prediction lists, at most.
        null_threshold: null odds above which there is no answer; None if there always is one.

    Returns:
        A dict for each question:
        id: the id of the question.
        answer: the best text, or "" if there is no answer.
        n_best: different texts, best first, each with the character where it starts, its score and its probability
            among the listed texts.
        null_odds: the least of the windows' no_answer_logit, or the least null_score minus the best score; if no span
            is possible, the least null_score.
    """
    bounds = np.searchsorted(window_examples, np.arange(len(examples) + 1))
    predictions = []
    for example, begin, end in zip(examples, bounds[:-1], bounds[1:], strict=True):
        texts = _best_texts(example.context, spans[begin:end], scores[begin:end], n_best)
        null_odds = _null_odds(scores[begin:end], texts[0]["score"] if texts else 0.0)
        has_answer = bool(texts) and (null_threshold is None or null_odds <= null_threshold)
        predictions.append(
            {
                "id": example.id,
                "answer": texts[0]["text"] if has_answer else "",
                "n_best": texts,
                "null_odds": null_odds,
            }
        )
    return predictions


def _best_texts(
    context: str, spans: Sequence[np.ndarray], scores: Sequence[dict[str, Any]], n_best: int
) -> list[dict[str, Any]]:
    found = [
        (float(score), int(window_spans[start, 0]), int(window_spans[end, 1]))
        for window_spans, window in zip(spans, scores, strict=True)
        for start, end, score in zip(window["starts"], window["ends"], window["scores"], strict=True)
    ]
    found.sort(key=lambda span: -span[0])
    best: dict[str, tuple[float, int]] = {}
    for score, begin, end in found:
        best.setdefault(text_of(context, begin, end), (score, begin))
        if len(best) == n_best:
            break
    values = np.array([score for score, _ in best.values()])
    weights = np.exp(values - values.max(initial=-np.inf))
    probabilities = weights / weights.sum()
    return [
        {"text": text, "start": begin, "score": score, "probability": float(probability)}
        for (text, (score, begin)), probability in zip(best.items(), probabilities, strict=True)
    ]


def text_of(context: str, begin: int, end: int) -> str:
    """The characters [begin, end), and the accents that belong to the last: stripped accents are in no token's span."""
    while end < len(context) and unicodedata.combining(context[end]):
        end += 1
    return context[begin:end]


def _null_odds(scores: Sequence[dict[str, Any]], best_score: float) -> float:
    if "no_answer_logit" in scores[0]:
        return float(min(window["no_answer_logit"] for window in scores))
    return float(min(window["null_score"] for window in scores)) - best_score
