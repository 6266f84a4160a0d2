"""Kinds with one prediction per text or pair of texts: a class, a number, or any number of classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ...model.base import ElectraPreTrainedModel
from ...model.heads import ElectraClassificationHead
from ...model.modeling import ElectraForSequenceClassification
from ...tokenizer import ElectraTokenizer
from ..data.examples import TextExample
from ..data.features import Batch, Features, flat_rows
from .kind import Head, as_array
from .labels import checked_labels, entropy, label_config, label_numbers
from .metrics import classification_metrics, multilabel_metrics, regression_metrics
from .paper_heads import ElectraPaperForSequenceClassification


class _SequenceKind(ABC):
    """Base of the three kinds: an item is a row, [CLS] text [SEP] or [CLS] text [SEP] pair [SEP]."""

    labels: tuple[str, ...]

    def model_class(self, head: Head) -> type[ElectraPreTrainedModel]:
        classes = {"transformers": ElectraForSequenceClassification, "paper": ElectraPaperForSequenceClassification}
        if head not in classes:
            raise ValueError(f"head must be one of {', '.join(classes)}, got {head!r}")
        return classes[head]

    def features(self, examples: Sequence[TextExample], tokenizer: ElectraTokenizer, max_length: int) -> Features:
        """One row per example; if a pair is too long, the longer text is cut. Labels are the item target `labels`.

        Raises:
            ValueError: a label is outside the set (the message names the line), or `max_length` leaves no room for
                special tokens.
        """
        texts = [example.text if example.pair is None else (example.text, example.pair) for example in examples]
        encoded = tokenizer(texts, truncation=True, max_length=max_length, return_token_type_ids=True)
        is_labelled = all(example.label is not None for example in examples)
        return Features(
            **flat_rows(encoded),
            item_rows=np.arange(len(examples) + 1),
            item_examples=np.arange(len(examples)),
            item_targets={"labels": self._targets(examples)} if is_labelled else {},
            n_targets=np.ones(len(examples), np.int64),
        )

    @abstractmethod
    def _targets(self, examples: Sequence[TextExample]) -> np.ndarray:
        """The targets, [examples, ...]."""

    def read(self, batch: Batch) -> Tensor:
        return batch.first_tokens

    @staticmethod
    def _logits(model: ElectraPreTrainedModel, first: Tensor) -> Tensor:
        """Logits [I, num_labels], fp32, from the states of first tokens [I, H]."""
        if isinstance(model.classifier, ElectraClassificationHead):  # it takes rows, and reads the first token of each
            return model.classifier(first[:, None]).float()
        return model.classifier(model.dropout(first)).float()


class Classification(_SequenceKind):
    """One class per text, by softmax and cross-entropy.

    Args:
        labels: the classes, at least two. If there are two, F1 is that of the second.
    """

    metric_names = ("accuracy", "f1", "matthews")

    def __init__(self, labels: Sequence[str]):
        self.labels = checked_labels(labels, least=2)

    def config_changes(self) -> dict[str, Any]:
        return {"problem_type": "single_label_classification", **label_config(self.labels)}

    def loss(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(self._logits(model, hidden), batch.targets["labels"], reduction="sum")

    def scores(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> list[np.ndarray]:
        """The probabilities [labels] of each item."""
        return list(as_array(self._logits(model, hidden).softmax(-1)))

    def fields(self) -> dict[str, Any]:
        """The types of predictions."""
        return {"id": str, "label": str, "probabilities": dict.fromkeys(self.labels, float)}

    def predictions(
        self, examples: Sequence[TextExample], features: Features, scores: Sequence[np.ndarray]
    ) -> list[dict]:
        """Predictions with `id`, `label`, and `probabilities` by label."""
        return [
            {
                "id": example.id,
                "label": self.labels[int(probabilities.argmax())],
                "probabilities": dict(zip(self.labels, probabilities.tolist(), strict=True)),
            }
            for example, probabilities in zip(examples, scores, strict=True)
        ]

    def metrics(self, examples: Sequence[TextExample], predictions: Sequence[dict]) -> dict[str, float]:
        """The metrics accuracy, f1 and matthews; see `classification_metrics`."""
        predicted = [self.labels.index(prediction["label"]) for prediction in predictions]
        return classification_metrics(self._targets(examples), np.array(predicted), len(self.labels))

    def constant_loss(self, features: Features) -> float:
        """The entropy of the labels, in nats."""
        labels = features.item_targets["labels"]
        return entropy(np.bincount(labels) / len(labels))

    def _targets(self, examples: Sequence[TextExample]) -> np.ndarray:
        return label_numbers(self.labels, [(example.line, example.label) for example in examples])


class Regression(_SequenceKind):
    """One number per text, by squared error; targets are as in the file, not scaled."""

    labels = ()
    metric_names = ("pearson", "spearman")

    def config_changes(self) -> dict[str, Any]:
        return {"problem_type": "regression", **label_config(["LABEL_0"])}  # the name that transformers gives it

    def _targets(self, examples: Sequence[TextExample]) -> np.ndarray:
        return self._values(examples).astype(np.float32)

    def loss(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> Tensor:
        return F.mse_loss(self._logits(model, hidden)[:, 0], batch.targets["labels"], reduction="sum")

    def scores(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> list[np.float32]:
        """The value of each item."""
        return list(as_array(self._logits(model, hidden)[:, 0]))

    def fields(self) -> dict[str, Any]:
        """The types of predictions."""
        return {"id": str, "value": float}

    def predictions(
        self, examples: Sequence[TextExample], features: Features, scores: Sequence[np.float32]
    ) -> list[dict]:
        """Predictions with `id` and `value`."""
        return [{"id": example.id, "value": float(value)} for example, value in zip(examples, scores, strict=True)]

    def metrics(self, examples: Sequence[TextExample], predictions: Sequence[dict]) -> dict[str, float]:
        """The metrics pearson, spearman and mse; see `regression_metrics`."""
        return regression_metrics(self._values(examples), np.array([prediction["value"] for prediction in predictions]))

    def constant_loss(self, features: Features) -> float:
        """The variance of the targets."""
        return float(features.item_targets["labels"].var(dtype=np.float64))

    @staticmethod
    def _values(examples: Sequence[TextExample]) -> np.ndarray:
        return np.array([example.label for example in examples], np.float64)


class MultiLabel(_SequenceKind):
    """Any number of classes per text, each decided on its own at a probability of 0.5; by binary cross-entropy."""

    metric_names = ("f1", "accuracy")

    def __init__(self, labels: Sequence[str]):
        self.labels = checked_labels(labels, least=1)

    def config_changes(self) -> dict[str, Any]:
        return {"problem_type": "multi_label_classification", **label_config(self.labels)}

    def _targets(self, examples: Sequence[TextExample]) -> np.ndarray:
        return self._is_true(examples).astype(np.float32)

    def loss(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> Tensor:
        """The sum over items of the mean over labels, so that the mean over items is transformers' loss."""
        logits = self._logits(model, hidden)
        loss = F.binary_cross_entropy_with_logits(logits, batch.targets["labels"], reduction="sum")
        return loss / len(self.labels)

    def scores(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> list[np.ndarray]:
        """The probabilities [labels] of each item."""
        return list(as_array(self._logits(model, hidden).sigmoid()))

    def fields(self) -> dict[str, Any]:
        """The types of predictions."""
        return {"id": str, "labels": [str], "probabilities": dict.fromkeys(self.labels, float)}

    def predictions(
        self, examples: Sequence[TextExample], features: Features, scores: Sequence[np.ndarray]
    ) -> list[dict]:
        """Predictions with `id`, `labels` (those over 0.5) and `probabilities` by label."""
        return [
            {
                "id": example.id,
                "labels": [label for label, p in zip(self.labels, probabilities, strict=True) if p > 0.5],
                "probabilities": dict(zip(self.labels, probabilities.tolist(), strict=True)),
            }
            for example, probabilities in zip(examples, scores, strict=True)
        ]

    def metrics(self, examples: Sequence[TextExample], predictions: Sequence[dict]) -> dict[str, float]:
        """The metrics f1 and accuracy; see `multilabel_metrics`."""
        predicted = [[label in prediction["labels"] for label in self.labels] for prediction in predictions]
        return multilabel_metrics(self._is_true(examples), np.array(predicted))

    def constant_loss(self, features: Features) -> float:
        """The mean over labels of the entropy, in nats, of having the label or not."""
        shares = features.item_targets["labels"].mean(axis=0, dtype=np.float64)
        return float(np.mean([entropy(np.array([share, 1 - share])) for share in shares]))

    def _is_true(self, examples: Sequence[TextExample]) -> np.ndarray:
        """Marks the labels of each example: [examples, labels] bool."""
        is_true = np.zeros((len(examples), len(self.labels)), bool)
        for row, example in zip(is_true, examples, strict=True):
            row[label_numbers(self.labels, [(example.line, label) for label in example.label])] = True
        return is_true
