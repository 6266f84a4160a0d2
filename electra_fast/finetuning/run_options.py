"""The options of a fine-tuning run: those that every run has (`training.options`)."""

from __future__ import annotations

from dataclasses import dataclass

from ..training.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class FinetuningOptions(RunOptions):
    """Options of a fine-tuning run; what it trains is the recipe's.

    Raises:
        ValueError: a number that must be positive, a name that is not known.
    """

    log_every: int = 10
    checkpoint_every: int | None = None
    seed: int = 0
    """Seed of the first run; of further ones each is one more. It also chooses the examples, where only some are
    trained on or held out."""
