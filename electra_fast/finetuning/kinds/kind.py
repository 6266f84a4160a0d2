"""What a kind of task is asked for, and which kinds there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from ...model.base import ElectraPreTrainedModel
from ...tokenizer import ElectraTokenizer
from ..data.examples import Example
from ..data.features import Batch, Features

# transformers' head, or that of the ELECTRA paper where it has another.
Head = Literal["transformers", "paper"]


class Kind(Protocol):
    """The rows, losses, predictions and metrics of a kind of task. It has no weights.

    Attributes:
        labels: the names of classes or tags, in the order of the network's outputs; () where there are none.
        metric_names: of the metrics that a task may count by, of which more is better; by default the first.
    """

    labels: Sequence[str]
    metric_names: Sequence[str]

    def model_class(self, head: Head) -> type[ElectraPreTrainedModel]:
        """The class of the network; raises ValueError for a head that the kind does not have."""

    def config_changes(self) -> dict[str, Any]:
        """What the network's config says of the kind: `problem_type`, `id2label`, `label2id`."""

    def features(self, examples: Sequence[Example], tokenizer: ElectraTokenizer, max_length: int) -> Features:
        """Examples as items of rows of at most `max_length` tokens; without targets where examples have no labels."""

    def loss(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> Tensor:
        """The sum of the losses of a batch's targets, in fp32. hidden: [T, H], the encoder's."""

    def scores(self, model: ElectraPreTrainedModel, hidden: Tensor, batch: Batch) -> list[Any]:
        """What the network says of each item: I arrays, or dicts of arrays, of numpy."""

    def predictions(self, examples: Sequence[Example], features: Features, scores: Sequence[Any]) -> list[dict]:
        """What JSON can hold of each example: its `id`, what is predicted, and how sure that is.

        Args:
            scores: of all items of `features`, in order.
        """

    def metrics(self, examples: Sequence[Example], predictions: Sequence[dict]) -> dict[str, float]:
        """How good predictions are of examples with labels; shares are in [0, 1]."""

    def constant_loss(self, features: Features) -> float:
        """The mean loss of the best prediction that is the same for all targets: a network that learns is below."""


def as_array(x: Tensor) -> np.ndarray:
    """Scores for numpy, which knows no bf16."""
    return x.detach().float().cpu().numpy()
