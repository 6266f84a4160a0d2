"""Question answering: the answer is a span of the context, or there is none. Long contexts are read in windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...model.base import ElectraPreTrainedModel
from ...model.modeling import ElectraForQuestionAnswering
from ...model.packing import PackedBatch
from ...tokenizer import ElectraTokenizer
from ..data.examples import QuestionExample
from ..data.features import Batch, Features
from .answers import best_spans, best_starts, context_tokens, predict_answers
from .kind import Head, as_array
from .paper_heads import ElectraPaperForQuestionAnswering, start_or_end_tokens
from .squad_metrics import no_answer_scores, squad_scores

# Special tokens of a row: [CLS], and a [SEP] each behind question and context.
_N_SPECIAL = 3
_QUESTION_LENGTH = 64


@dataclass(frozen=True, kw_only=True)
class QuestionFeatures(Features):
    """Features of question answering; an item is a window.

    item_targets: start, end, the first and last token of the answer in the row, inclusive, or 0 if the window does not
        hold the answer; is_impossible, whether the question has no answer at all.
    token_targets: is_max_context, the tokens that no other window shows with more context on both sides. It is there
        even without labels, because answers are chosen by it.

    Attributes:
        spans: [T, 2] int32, each token's characters [begin, end) in the context; zeros outside the context.
    """

    spans: np.ndarray


@dataclass(frozen=True)
class QuestionAnswering:
    """The kind that finds the answer to a question as a span of a context.

    Attributes:
        has_unanswerable: whether a question may have no answer (SQuAD 2.0).
        stride: tokens from the start of a window to the start of the next. This is Google's doc_stride; transformers'
            is the overlap of two windows.
        max_question_length: tokens of a question that are read. None takes 64, or half of a row if that is less.
        n_best: answers that a prediction lists.
        max_answer_length: tokens of an answer, at most.
        beam_size: starts that are tried in each window.
        null_threshold: null odds above which there is no answer.

    Raises:
        ValueError: a length or number is below 1.
    """

    has_unanswerable: bool = False
    stride: int = 128
    max_question_length: int | None = None
    n_best: int = 20
    max_answer_length: int = 30
    beam_size: int = 20
    null_threshold: float = 0.0

    def __post_init__(self) -> None:
        for name in ("stride", "max_question_length", "n_best", "max_answer_length", "beam_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    labels: ClassVar[tuple[str, ...]] = ()
    metric_names: ClassVar[tuple[str, ...]] = ("f1", "exact_match")

    def model_class(self, head: Head) -> type[ElectraPreTrainedModel]:
        return {"transformers": ElectraForQuestionAnswering, "paper": ElectraPaperForQuestionAnswering}[head]

    def config_changes(self) -> dict[str, Any]:
        """Two outputs per token, as in transformers; a checkpoint of another task may have other labels."""
        id2label = {0: "LABEL_0", 1: "LABEL_1"}
        return {"problem_type": None, "id2label": id2label, "label2id": {v: k for k, v in id2label.items()}}

    def features(
        self, examples: Sequence[QuestionExample], tokenizer: ElectraTokenizer, max_length: int
    ) -> QuestionFeatures:
        """Rows [CLS] question [SEP] window [SEP], one for each window of the context.

        Targets are the fewest tokens that cover the first answer.

        Raises:
            ValueError: max_length leaves no room for a context, an answer covers no token, or a question has no answer
                although all must have one.
        """
        longest_question = self.max_question_length or min(_QUESTION_LENGTH, max_length // 2)
        if max_length <= longest_question + _N_SPECIAL:
            raise ValueError(
                f"max_length must be over max_question_length + {_N_SPECIAL} = {longest_question + _N_SPECIAL}, "
                f"got {max_length}"
            )
        questions = _texts([example.question for example in examples], tokenizer)
        numbers = {context: i for i, context in enumerate(dict.fromkeys(example.context for example in examples))}
        contexts = _texts(list(numbers), tokenizer)
        has_labels = all(example.answers is not None for example in examples)
        rows: dict[str, list] = {name: [] for name in ("input_ids", "token_type_ids", "spans", "is_max_context")}
        items: dict[str, list] = {name: [] for name in ("example", "start", "end", "is_impossible")}
        frame, types = np.zeros((1, 2), np.int32), np.array([0, 1], np.uint8)
        for number, (example, question) in enumerate(zip(examples, questions, strict=True)):
            context = contexts[numbers[example.context]]
            question_ids = question.ids[:longest_question]
            n_before = len(question_ids) + 2
            begins, ends, is_max_context = windows(
                len(context.ids), max_length - len(question_ids) - _N_SPECIAL, self.stride
            )
            answer = self._answer_tokens(example, context) if has_labels else None
            for window, (begin, end) in enumerate(zip(begins, ends, strict=True)):
                sep = [tokenizer.sep_token_id]
                row = [[tokenizer.cls_token_id], question_ids, sep, context.ids[begin:end], sep]
                rows["input_ids"].append(np.concatenate(row, dtype=np.int32))
                rows["token_type_ids"].append(np.repeat(types, [n_before, end - begin + 1]))
                rows["spans"] += [frame.repeat(n_before, 0), context.spans[begin:end], frame]
                rows["is_max_context"] += [
                    np.zeros(n_before, bool),
                    is_max_context[window, begin:end],
                    np.zeros(1, bool),
                ]
                is_inside = answer is not None and begin <= answer[0] and answer[1] < end
                items["example"].append(number)
                items["start"].append(answer[0] - begin + n_before if is_inside else 0)
                items["end"].append(answer[1] - begin + n_before if is_inside else 0)
                items["is_impossible"].append(answer is None)
        n_items = len(items["example"])
        targets = {name: np.array(items[name]) for name in ("start", "end", "is_impossible")} if has_labels else {}
        return QuestionFeatures(
            input_ids=np.concatenate(rows["input_ids"]),
            token_type_ids=np.concatenate(rows["token_type_ids"]),
            row_starts=np.concatenate([[0], np.cumsum([len(row) for row in rows["input_ids"]])]),
            item_rows=np.arange(n_items + 1),
            item_examples=np.array(items["example"], np.int64),
            item_targets=targets,
            token_targets={"is_max_context": np.concatenate(rows["is_max_context"])},
            n_targets=np.full(n_items, int(has_labels)),
            spans=np.concatenate(rows["spans"]),
        )

    def _answer_tokens(self, example: QuestionExample, context: _Tokens) -> tuple[int, int] | None:
        """The first and the last token of the context that show a character of the answer; None without an answer."""
        if not example.answers:
            if self.has_unanswerable:
                return None
            raise ValueError(f"line {example.line}: question {example.id!r} must have an answer, got none")
        text, begin = example.answers[0]
        first = int(np.searchsorted(context.spans[:, 1], begin, side="right"))
        last = int(np.searchsorted(context.spans[:, 0], begin + len(text), side="left")) - 1
        if first > last:
            raise ValueError(f"line {example.line}: answer {text!r} of question {example.id!r} covers no token")
        return first, last

    def read(self, batch: Batch) -> None:
        return None

    def loss(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> Tensor:
        """The sum over windows of the mean of the cross-entropies of start and end, in fp32 or better.

        The softmax is over the tokens of a row. In transformers padding takes part in it, so that its loss depends on
        the length of the batch; without padding both are the same. The paper's head: see `paper_heads`.
        """
        rows = _rows(batch)
        starts, ends = batch.targets["start"], batch.targets["end"]
        if isinstance(model, ElectraPaperForQuestionAnswering):
            logits = model.logits(rows.unpack(hidden), start_or_end_tokens(*_types(rows, batch)), starts)
            return model.loss_sum(logits, starts, ends, batch.targets["is_impossible"])
        start_logits, end_logits = _token_logits(model, hidden, rows)
        spans = F.cross_entropy(start_logits, starts, reduction="sum") + F.cross_entropy(
            end_logits, ends, reduction="sum"
        )
        return spans / 2

    def scores(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> list[dict[str, np.ndarray]]:
        """The `answers.best_spans` of each window, and `null_score` or, with the paper's head, `no_answer_logit`."""
        rows = _rows(batch)
        types = _types(rows, batch)
        is_context = context_tokens(*types)
        may_start = is_context & rows.unpack(batch.targets["is_max_context"])
        if isinstance(model, ElectraPaperForQuestionAnswering):
            hidden, candidates = rows.unpack(hidden), start_or_end_tokens(*types)
            start_logits = model.start_logits(hidden, candidates)
            starts, start_scores = best_starts(start_logits.log_softmax(-1), may_start, self.beam_size)
            end_scores = model.end_logits(hidden, candidates, starts).log_softmax(-1)
            null = {"no_answer_logit": model.no_answer_logits(hidden, start_logits)}
        else:
            start_logits, end_logits = _token_logits(model, hidden, rows)
            starts, start_scores = best_starts(start_logits, may_start, self.beam_size)
            end_scores = end_logits[:, None]
            null = {"null_score": start_logits[:, 0] + end_logits[:, 0]}
        spans = best_spans(starts, start_scores, end_scores, is_context, self.max_answer_length, self.n_best)
        null = {name: as_array(values) for name, values in null.items()}
        return [span | {name: values[i] for name, values in null.items()} for i, span in enumerate(spans)]

    def fields(self) -> dict[str, Any]:
        """The types of predictions."""
        text = {"text": str, "start": int, "score": float, "probability": float}
        return {"id": str, "answer": str, "n_best": [text], "null_odds": float}

    def predictions(
        self, examples: Sequence[QuestionExample], features: QuestionFeatures, scores: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """The predictions of `answers.predict_answers`."""
        return predict_answers(
            examples,
            features.item_examples,
            np.split(features.spans, features.row_starts[1:-1]),
            scores,
            self.n_best,
            self.null_threshold if self.has_unanswerable else None,
        )

    def metrics(self, examples: Sequence[QuestionExample], predictions: Sequence[dict]) -> dict[str, float]:
        """The metrics f1 and exact_match; if questions may have no answer, also `squad_metrics.no_answer_scores`."""
        answers = [[text for text, _ in example.answers] for example in examples]
        predicted = [prediction["answer"] for prediction in predictions]
        scores = squad_scores(answers, predicted)
        if self.has_unanswerable:
            texts = [prediction["n_best"][0]["text"] if prediction["n_best"] else "" for prediction in predictions]
            null_odds = [prediction["null_odds"] for prediction in predictions]
            scores |= no_answer_scores(answers, predicted, texts, null_odds)
        return scores

    def constant_loss(self, features: QuestionFeatures) -> float:
        """The mean loss of one distribution for all windows.

        It gives [CLS] the share of the windows for which that is right, and spreads the rest evenly over the context.
        The paper's head adds its loss of no answer, which is then at most 0.5 log 2.
        """
        has_answer = features.item_targets["start"] > 0
        share = has_answer.mean()
        entropy = -sum(float(p * np.log(p)) for p in (share, 1 - share) if p > 0)
        context_lengths = np.add.reduceat(features.token_type_ids.astype(np.int64), features.row_starts[:-1]) - 1
        return entropy + float(np.log(context_lengths[has_answer]).sum() / len(has_answer))


class _Tokens(NamedTuple):
    """The tokens of a text: ids [N], and spans [N, 2], the characters [begin, end) of each."""

    ids: np.ndarray
    spans: np.ndarray


def _texts(texts: list[str], tokenizer: ElectraTokenizer) -> list[_Tokens]:
    ids, offsets, spans = tokenizer.encode_bulk(texts, add_special_tokens=False, spans=True)
    cuts = offsets[1:-1]
    return [_Tokens(*parts) for parts in zip(np.split(ids, cuts), np.split(spans, cuts), strict=True)]


def windows(n_tokens: int, size: int, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The windows on a context: their begins [K] and ends [K], and which tokens each is the best for, [K, N] bool.

    The best window of a token has the largest value: the token's context on its shorter side, plus a hundredth of the
    window's length, as in Google's code. Of equal windows the first is best. A context without tokens has one empty
    window.
    """
    step = min(stride, size)
    n_more = max(0, -(-(n_tokens - size) // step))
    begins = step * np.arange(n_more + 1)
    ends = np.minimum(begins + size, n_tokens)
    tokens = np.arange(n_tokens)
    context = np.minimum(tokens - begins[:, None], ends[:, None] - 1 - tokens)
    value = np.where(context >= 0, context + 0.01 * (ends - begins)[:, None], -1.0)
    return begins, ends, value.argmax(0) == np.arange(len(begins))[:, None]


def _rows(batch: Batch) -> PackedBatch:
    """The padded form of a batch. Unlike the encoder's work, scores of tokens cost little on padding."""
    cu_seqlens, length = batch.packed.cu_seqlens, batch.packed.max_seqlen
    n_rows, n_tokens = len(cu_seqlens) - 1, len(batch.input_ids)
    first = torch.arange(n_rows, device=cu_seqlens.device) * length
    indices = first.repeat_interleave(cu_seqlens.diff(), output_size=n_tokens) + batch.packed.position_ids(n_tokens)
    return PackedBatch(n_rows, length, cu_seqlens, length, indices)


def _types(rows: PackedBatch, batch: Batch) -> tuple[Tensor, Tensor]:
    """Token types and which tokens are real, [R, S] each."""
    return rows.unpack(batch.token_type_ids), rows.unpack(torch.ones_like(batch.token_type_ids))


def _token_logits(model: ElectraPreTrainedModel, hidden: Tensor, rows: PackedBatch) -> tuple[Tensor, Tensor]:
    """transformers' start and end logits [R, S], fp32 or better; the lowest number at padding."""
    logits = model.qa_outputs(hidden)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    start_logits, end_logits = rows.unpack(logits, torch.finfo(logits.dtype).min).unbind(-1)
    return start_logits, end_logits
