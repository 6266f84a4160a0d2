"""The interface of a kind of task; the kinds themselves are in `table`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from ...model.base import ElectraPreTrainedModel
from ...tokenizer import ElectraTokenizer
from ..data.examples import Example
from ..data.features import Batch, Features

# The head of a network: transformers', or the ELECTRA paper's where it has another.
Head = Literal["transformers", "paper"]


class Kind(Protocol):
    """The rows, losses, predictions and metrics of a kind of task. It has no weights.

    Attributes:
        labels: the names of classes or tags, in the order of the network's outputs; () for a kind without.
        metric_names: names of the metrics that may count for a task; more is better. The first is the default.
    """

    labels: Sequence[str]
    metric_names: Sequence[str]

    def model_class(self, head: Head) -> type[ElectraPreTrainedModel]:
        """The class of the network; raises ValueError for a head that the kind does not have."""

    def config_changes(self) -> dict[str, Any]:
        """The entries of the network's config that depend on the kind: `problem_type`, `id2label`, `label2id`."""

    def features(self, examples: Sequence[Example], tokenizer: ElectraTokenizer, max_length: int) -> Features:
        """Examples as items of rows of at most `max_length` tokens; without targets if examples have no labels."""

    def read(self, batch: Batch) -> Tensor | None:
        """The tokens whose states the network's head reads, [N] int64; None for all."""

    def loss(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> Tensor:
        """The sum of the losses of a batch's targets, in fp32. hidden: [N, H], the encoder's output of these."""

    def scores(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> list[Any]:
        """The network's scores for each item: I NumPy arrays, or dicts of arrays."""

    def fields(self) -> dict[str, Any]:
        """The type of each field of a prediction: str, int or float; [type] of a list, {name: type} of an object."""

    def predictions(self, examples: Sequence[Example], features: Features, scores: Sequence[Any]) -> list[dict]:
        """The prediction for each example, ready for JSON: its `id`, what is predicted, and how sure that is.

        Args:
            scores: scores of all items of `features`, in order.
        """

    def metrics(self, examples: Sequence[Example], predictions: Sequence[dict]) -> dict[str, float]:
        """Metrics by name: how good predictions are for examples with labels. Shares are in [0, 1]."""

    def constant_loss(self, features: Features) -> float:
        """The mean loss of the best prediction that is the same for all targets; a network that learns is below it."""


def as_array(x: Tensor) -> np.ndarray:
    """Scores as a NumPy array, in fp32 because NumPy knows no bf16."""
    return x.detach().float().cpu().numpy()
