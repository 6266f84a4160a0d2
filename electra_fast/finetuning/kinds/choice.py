"""The kind that chooses one of several continuations of a text, as SWAG asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...model.base import ElectraPreTrainedModel
from ...model.modeling import ElectraForMultipleChoice
from ...tokenizer import ElectraTokenizer
from ..data.examples import ChoiceExample
from ..data.features import Batch, Features, flat_rows
from .kind import Head, as_array
from .metrics import accuracy


class MultipleChoice:
    """One of several continuations, by a softmax over one number each; examples may have different numbers of them."""

    labels = ()
    metric_names = ("accuracy",)

    def model_class(self, head: Head) -> type[ElectraPreTrainedModel]:
        if head != "transformers":
            raise ValueError(f"head must be 'transformers' for multiple choice, got {head!r}: the paper has none")
        return ElectraForMultipleChoice

    def config_changes(self) -> dict[str, Any]:
        return {"problem_type": None}

    def features(self, examples: Sequence[ChoiceExample], tokenizer: ElectraTokenizer, max_length: int) -> Features:
        """One item per example, with a row [CLS] text [SEP] start ending [SEP] for each choice.

        If a row is too long, its longer part is cut.

        Raises:
            ValueError: `max_length` leaves no room for special tokens.
        """
        pairs = [(example.text, f"{example.start} {ending}") for example in examples for ending in example.endings]
        encoded = tokenizer(pairs, truncation=True, max_length=max_length, return_token_type_ids=True)
        n_choices = [len(example.endings) for example in examples]
        is_labelled = all(example.label is not None for example in examples)
        labels = {"labels": np.array([example.label for example in examples], np.int64)} if is_labelled else {}
        return Features(
            **flat_rows(encoded),
            item_rows=np.concatenate([[0], np.cumsum(n_choices)]),
            item_examples=np.arange(len(examples)),
            item_targets=labels,
            n_targets=np.ones(len(examples), np.int64),
        )

    def read(self, batch: Batch) -> Tensor:
        return batch.first_tokens

    def loss(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(self._logits(model, hidden, batch), batch.targets["labels"], reduction="sum")

    def scores(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> list[np.ndarray]:
        """The probabilities [choices] of each item."""
        probabilities = as_array(self._logits(model, hidden, batch).softmax(-1))
        return [row[:n] for row, n in zip(probabilities, batch.item_rows.diff().tolist(), strict=True)]

    def fields(self) -> dict[str, Any]:
        """The types of predictions."""
        return {"id": str, "label": int, "probabilities": [float]}

    def predictions(
        self, examples: Sequence[ChoiceExample], features: Features, scores: Sequence[np.ndarray]
    ) -> list[dict]:
        """Predictions with `id`, `label` (the number of the choice) and the `probabilities` of all choices."""
        return [
            {"id": example.id, "label": int(probabilities.argmax()), "probabilities": probabilities.tolist()}
            for example, probabilities in zip(examples, scores, strict=True)
        ]

    def metrics(self, examples: Sequence[ChoiceExample], predictions: Sequence[dict]) -> dict[str, float]:
        """The metric `accuracy`."""
        true = np.array([example.label for example in examples])
        return {"accuracy": accuracy(true, np.array([prediction["label"] for prediction in predictions]))}

    def constant_loss(self, features: Features) -> float:
        """The mean of log(choices), in nats: the loss of a network that gives all choices the same number."""
        return float(np.log(np.diff(features.item_rows)).mean())

    @staticmethod
    def _logits(model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> Tensor:
        """Logits [I, largest number of choices], fp32; -inf for choices that an item does not have."""
        if model.config.summary_type != "first":
            raise ValueError(f"config.summary_type must be 'first' for packed rows, got {model.config.summary_type!r}")
        logits = model.classifier(model.sequence_summary(hidden[:, None]))[:, 0].float()
        n_choices = batch.item_rows.diff()
        columns = torch.arange(int(n_choices.max()), device=logits.device)
        is_choice = columns < n_choices[:, None]
        return logits.new_full(is_choice.shape, -torch.inf).masked_scatter(is_choice, logits)
