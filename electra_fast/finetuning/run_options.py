"""The options of a fine-tuning run: those of every run (`training.options`), with defaults for fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from ..training.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class FinetuningOptions(RunOptions):
    """Options of a fine-tuning run; its hyperparameters are in the recipe.

    Raises:
        ValueError: a number is not positive, or a name is unknown.
    """

    log_every: int = 10
    checkpoint_every: int | None = None
    seed: int = 0
    """Seed of the first run; of further ones each is one more. It also chooses the examples, where only some are
    trained on or held out."""
