"""From scores of tokens to the answers of questions: the best spans of a window, then those of all windows together.

The rules are those of google-research/electra, finetune/qa/qa_metrics.py, with the limits on a span applied before
the best are chosen, so that no place among them is lost to spans that cannot be.
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
    """[B, S] bool: the tokens of type 1 but the last, which is [SEP]. is_real: [B, S], nonzero at real tokens."""
    is_second = (token_type_ids == 1) & (is_real != 0)
    is_context = torch.zeros_like(is_second)
    is_context[:, :-1] = is_second[:, :-1] & is_second[:, 1:]
    return is_context


def best_starts(start_scores: Tensor, may_start: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    """The best starts of each row and their scores, [R, K] with K = min(beam_size, S); -inf for what may not start.

    start_scores, may_start: [R, S].
    """
    scores = start_scores.masked_fill(~may_start, -torch.inf)
    values, starts = scores.topk(min(beam_size, scores.shape[1]), dim=1)
    return starts, values


def best_spans(
    starts: Tensor, start_scores: Tensor, end_scores: Tensor, is_context: Tensor, max_length: int, n_best: int
) -> list[dict[str, np.ndarray]]:
    """The spans with the highest sums of both scores, best first: at most `n_best` of each row, none where none can be.

    Args:
        starts, start_scores: [R, K], of `best_starts`.
        end_scores: [R, K, S], of each end for each start; or [R, 1, S] where they are the same for all.
        is_context: [R, S] bool, the tokens that may end a span.
        max_length: in tokens.

    Returns:
        a dict a row with the arrays starts and ends, int64, tokens of the row, inclusive, and scores, fp32.
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
    """One prediction a question, from all of its windows.

    Args:
        window_examples: [I] rising, the example of each window.
        spans: of each window, [S, 2], the characters [begin, end) of the context that each token stands for.
        scores: of each window, its `best_spans`, and either `null_score`, that of no answer on the scale of the spans,
            or `no_answer_logit`, which is the null odds as they are.
        null_threshold: null odds above which there is no answer; None where there always is one.

    Returns:
        id: the question's.
        answer: the best text, or "" where there is none.
        n_best: at most so many different texts, best first, each with the character where it starts, its score and its
            probability among them.
        null_odds: the least of the windows' no_answer_logit, or the least null_score less the best score; where no
            span can be, the null score.
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
    """The characters [begin, end), and the accents that belong to the last: stripped ones are part of no token."""
    while end < len(context) and unicodedata.combining(context[end]):
        end += 1
    return context[begin:end]


def _null_odds(scores: Sequence[dict[str, Any]], best_score: float) -> float:
    if "no_answer_logit" in scores[0]:
        return float(min(window["no_answer_logit"] for window in scores))
    return float(min(window["null_score"] for window in scores)) - best_score
