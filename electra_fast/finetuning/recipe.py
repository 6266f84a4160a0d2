"""The hyperparameters of fine-tuning, and the right ones for a network's size and a task.

ELECTRA is known to collapse with BERT's settings (huggingface/transformers issues 4498 and 3677,
google-research/electra issue 63). So the defaults are the paper's: a rate for each size, smaller rates for lower
layers, warm-up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from ..model.config import ElectraConfig
from .data.tasks import Task
from .kinds.kind import Head

# (largest hidden size, learning rate, layer decay) of the paper's small and base; then the last two of its large
# (Clark et al. 2020, table 7).
_RATES = ((512, 3e-4, 0.8), (896, 1e-4, 0.8))
_RATES_OF_LARGE = (5e-5, 0.9)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The hyperparameters of a fine-tuning run.

    Attributes:
        learning_rate: learning rate of the head after warm-up; layers below get less (`layer_decay`).
        layer_decay: the factor of the rate from each layer to the one below; 1 gives all layers one rate.
        google_layer_decay: decay as in the released code, where the last layer is two factors below the head.
        n_epochs: passes over the training examples; may be a fraction.
        batch_size: items per update, of all processes together.
        group_by_length: make batches of items with similar lengths. Nothing is padded either way, but a CPU computes
            the attention of sequences of equal length together.
        warmup_share: share of the updates in which the rate rises. The decay begins with the first update, too
            (`warmup_decay`).
        max_length: tokens of a row, at most.
        head: "transformers", or "paper" where the paper has another head.
        dropout: dropout everywhere, in place of the checkpoint's values; None keeps those.
        bias_correction: whether to correct the bias of Adam's moments. The released code does not, so its first
            updates are three times as large.
        swap_pairs: whether to train on each pair a second time, with its texts exchanged.
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
    """The paper's recipe for a network of this size and for these tasks.

    With several tasks it takes the longest rows and the most epochs among them.

    Args:
        changes: fields to set to something else.

    Raises:
        ValueError: a value is out of range, or rows are longer than the network allows.
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
