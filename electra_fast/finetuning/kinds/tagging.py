"""The kind with a tag for each word of a sentence: names, phrases, parts of speech."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ...model.base import ElectraPreTrainedModel
from ...model.modeling import ElectraForTokenClassification
from ...tokenizer import ElectraTokenizer
from ..data.examples import TaggedExample
from ..data.features import Batch, Features
from .kind import Head, as_array
from .labels import checked_labels, entropy, label_config, label_numbers
from .metrics import accuracy
from .spans import are_span_tags, span_metrics

_NO_LABEL = -100  # cross_entropy leaves such targets out


class Tagging:
    """One tag per word, predicted at the first of its pieces.

    A sentence that is too long is cut between words into several rows, so that every word is read. If the tokenizer
    leaves nothing of a word, for example of control characters alone, the word is not read: it gets the tag "O", or
    else the first tag, and counts neither in the loss nor in the metrics.

    Args:
        labels: the tags.
    """

    def __init__(self, labels: Sequence[str]):
        self.labels = checked_labels(labels, least=1)
        self.metric_names = ("f1", "precision", "recall", "accuracy") if are_span_tags(self.labels) else ("accuracy",)

    def model_class(self, head: Head) -> type[ElectraPreTrainedModel]:
        if head != "transformers":
            raise ValueError(f"head must be 'transformers' for tagging, got {head!r}: the paper has no other")
        return ElectraForTokenClassification

    def config_changes(self) -> dict[str, Any]:
        return {"problem_type": None, **label_config(self.labels)}

    def features(self, examples: Sequence[TaggedExample], tokenizer: ElectraTokenizer, max_length: int) -> Features:
        """One or more rows per sentence; each row is an item.

        Token targets: `words`, the number of the word that a token begins, counted in its sentence, -1 elsewhere; and,
        if all sentences have tags, `labels` at the same tokens, -100 elsewhere.

        Raises:
            ValueError: a tag is outside the set (the message names the line where its sentence begins), or
                `max_length` is below 3.
        """
        room = max_length - 2
        if room < 1:
            raise ValueError(f"max_length must be at least 3, for [CLS], a piece and [SEP], got {max_length}")
        pieces, offsets = _pieces(examples, tokenizer, room)
        n_words = np.array([len(example.words) for example in examples])
        sentence_ends = n_words.cumsum()
        rows = [
            (number, end)
            for number, (last, n) in enumerate(zip(sentence_ends.tolist(), n_words.tolist(), strict=True))
            for end in _row_ends(offsets, last - n, last, room)
        ]
        item_examples, row_ends = np.array(rows, np.int64).T
        input_ids, row_starts, places = _framed(pieces, np.diff(offsets[row_ends], prepend=0), tokenizer)
        is_read = np.diff(offsets) > 0
        first_places = places[offsets[:-1][is_read]]
        number_in_sentence = np.arange(n_words.sum()) - np.repeat(sentence_ends - n_words, n_words)
        targets = {"words": np.full(len(input_ids), -1, np.int64)}
        targets["words"][first_places] = number_in_sentence[is_read]
        if all(example.tags is not None for example in examples):
            numbers = label_numbers(self.labels, [(e.line, tag) for e in examples for tag in e.tags])
            targets["labels"] = np.full(len(input_ids), _NO_LABEL, np.int64)
            targets["labels"][first_places] = numbers[is_read]
        return Features(
            input_ids=input_ids,
            token_type_ids=np.zeros(len(input_ids), np.uint8),
            row_starts=row_starts,
            item_rows=np.arange(len(rows) + 1),
            item_examples=item_examples,
            token_targets=targets,
            n_targets=np.add.reduceat(targets["words"] >= 0, row_starts[:-1], dtype=np.int64),
        )

    def read(self, batch: Batch) -> None:
        return None

    def loss(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> Tensor:
        logits = self._logits(model, hidden)
        return F.cross_entropy(logits, batch.targets["labels"], ignore_index=_NO_LABEL, reduction="sum")

    def scores(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> list[np.ndarray]:
        """The probabilities [words that are read, labels] of each item."""
        begins_word = batch.targets["words"] >= 0
        probabilities = as_array(self._logits(model, hidden[begins_word]).softmax(-1))
        row_ends = batch.packed.cu_seqlens[1:-1].long() - 1
        return np.split(probabilities, begins_word.cumsum(0)[row_ends].tolist())

    def fields(self) -> dict[str, Any]:
        """The types of predictions."""
        return {"id": str, "words": [str], "tags": [str], "probabilities": [float]}

    def predictions(
        self, examples: Sequence[TaggedExample], features: Features, scores: Sequence[np.ndarray]
    ) -> list[dict]:
        """Predictions with `id`, `words`, `tags`, and `probabilities`: one number per tag, None for an unread word."""
        tag_of_unread = "O" if "O" in self.labels else self.labels[0]
        predictions = [
            {
                "id": example.id,
                "words": list(example.words),
                "tags": [tag_of_unread] * len(example.words),
                "probabilities": [None] * len(example.words),
            }
            for example in examples
        ]
        words = features.token_targets["words"]
        for item, probabilities in enumerate(scores):
            prediction = predictions[features.item_examples[item]]
            row = words[features.row_starts[item] : features.row_starts[item + 1]]
            best = probabilities.argmax(-1)
            for word, label, probability in zip(
                row[row >= 0].tolist(), best.tolist(), probabilities.max(-1).tolist(), strict=True
            ):
                prediction["tags"][word] = self.labels[label]
                prediction["probabilities"][word] = probability
        return predictions

    def metrics(self, examples: Sequence[TaggedExample], predictions: Sequence[dict]) -> dict[str, float]:
        """The accuracy of tags; if the tags mark spans, also f1, precision and recall of spans."""
        true, predicted = [], []
        for example, prediction in zip(examples, predictions, strict=True):
            is_read = [probability is not None for probability in prediction["probabilities"]]
            true.append([tag for tag, read in zip(example.tags, is_read, strict=True) if read])
            predicted.append([tag for tag, read in zip(prediction["tags"], is_read, strict=True) if read])
        of_spans = span_metrics(true, predicted) if are_span_tags(self.labels) else {}
        flat_true, flat_predicted = (np.array([tag for tags in x for tag in tags]) for x in (true, predicted))
        return {**of_spans, "accuracy": accuracy(flat_true, flat_predicted)}

    def constant_loss(self, features: Features) -> float:
        """The entropy of the tags, in nats."""
        labels = features.token_targets["labels"]
        labels = labels[labels != _NO_LABEL]
        return entropy(np.bincount(labels) / len(labels))

    @staticmethod
    def _logits(model: ElectraPreTrainedModel, hidden: Tensor) -> Tensor:
        """Logits [T, labels], fp32."""
        return model.classifier(model.dropout(hidden)).float()


def _pieces(examples: Sequence[TaggedExample], tokenizer: ElectraTokenizer, room: int) -> tuple[np.ndarray, np.ndarray]:
    """The pieces of all words, at most `room` of each, [pieces], and where each word begins in them, [words + 1]."""
    words = [word for example in examples for word in example.words]
    ids, offsets = tokenizer.encode_bulk(words, add_special_tokens=False)
    place_in_word = np.arange(len(ids)) - np.repeat(offsets[:-1], np.diff(offsets))
    n_kept = np.minimum(np.diff(offsets), room)
    return ids[place_in_word < room], np.concatenate([[0], n_kept.cumsum()])


def _row_ends(offsets: np.ndarray, first: int, last: int, room: int) -> Iterator[int]:
    """Cuts the words first to last - 1 into rows as long as `room` allows; yields the word after each row's last."""
    while True:
        end = min(int(np.searchsorted(offsets, offsets[first] + room, side="right")) - 1, last)
        yield end
        if end == last:
            return
        assert first < end, "a word has more pieces than a row has room"
        first = end


def _framed(
    pieces: np.ndarray, n_pieces: np.ndarray, tokenizer: ElectraTokenizer
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames rows of `n_pieces` pieces as [CLS] pieces [SEP].

    Returns the ids [T], where rows start [R + 1] and where the pieces are [pieces].
    """
    row_starts = np.concatenate([[0], (n_pieces + 2).cumsum()])
    places = np.arange(len(pieces)) + 1 + 2 * np.repeat(np.arange(len(n_pieces)), n_pieces)
    ids = np.empty(row_starts[-1], np.int32)
    ids[row_starts[:-1]] = tokenizer.cls_token_id
    ids[row_starts[1:] - 1] = tokenizer.sep_token_id
    ids[places] = pieces
    return ids, row_starts, places
