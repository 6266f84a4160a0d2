"""The hyperparameters of fine-tuning, and the right ones for a network's size and a task.

ELECTRA is known to collapse with BERT's settings (huggingface/transformers issues 4498 and 3677,
google-research/electra issue 63). So the paper's are the defaults: rates by size, smaller ones for lower layers,
warm-up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from ..model.config import ElectraConfig
from .data.tasks import Task
from .kinds.kind import Head

# By hidden size, up to: (learning rate, layer decay) of the paper's small, base and large (Clark et al. 2020, table 7).
_RATES = ((512, 3e-4, 0.8), (896, 1e-4, 0.8))
_RATES_OF_LARGE = (5e-5, 0.9)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        learning_rate: of the head, after warm-up; layers below have less (`layer_decay`).
        layer_decay: the factor of the rate from each layer to the one below; 1 for one rate.
        google_layer_decay: as the released code has it, where the last layer is two factors below the head.
        n_epochs: passes over the training examples, a fraction too.
        batch_size: items an update, of all processes together.
        group_by_length: batches of items of similar lengths. Nothing is padded either way; a CPU attends to sequences
            of equal length at once.
        warmup_share: of the updates, in which the rate rises; from the first on it falls too (`warmup_decay`).
        max_length: of a row, in tokens.
        head: "transformers", or "paper" where the paper has another.
        dropout: everywhere, in place of the checkpoint's; None leaves those.
        bias_correction: of Adam's moments. The released code has none, and its first updates are three times as large.
        swap_pairs: train on each pair a second time with its texts exchanged.
    """

    learning_rate: float
    layer_decay: float
    google_layer_decay: bool = False
    n_epochs: float = 3.0
    batch_size: int = 32
    group_by_length: bool = True
    warmup_share: float = 0.1
    decay_power: float = 1.0
    weight_decay: float = 0.0
    max_length: int = 128
    head: Head = "transformers"
    dropout: float | None = None
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-6
    bias_correction: bool = True
    max_grad_norm: float = 1.0
    swap_pairs: bool = False

    def __post_init__(self) -> None:
        for name in ("learning_rate", "n_epochs", "batch_size", "max_length", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share must be at least 0 and below 1, got {self.warmup_share}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")


def recipe_for(config: ElectraConfig, tasks: Iterable[Task], **changes: object) -> Recipe:
    """The paper's recipe for a network of this size and for tasks; of several tasks the longest and most.

    Args:
        changes: fields that are to be something else.

    Raises:
        ValueError: a value out of range, rows that are longer than the network's.
    """
    tasks = list(tasks)
    fitting = [(rate, decay) for size, rate, decay in _RATES if config.hidden_size <= size]
    learning_rate, layer_decay = fitting[0] if fitting else _RATES_OF_LARGE
    recipe = Recipe(
        learning_rate=learning_rate,
        layer_decay=layer_decay,
        n_epochs=max(task.n_epochs for task in tasks),
        max_length=min(config.max_position_embeddings, max(task.max_length for task in tasks)),
        swap_pairs=all(task.swap_pairs for task in tasks),
    )
    recipe = dataclasses.replace(recipe, **changes)
    if recipe.max_length > config.max_position_embeddings:
        raise ValueError(
            f"max_length must be at most {config.max_position_embeddings}, the positions of the network, got "
            f"{recipe.max_length}"
        )
    return recipe
