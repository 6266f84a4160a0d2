"""The options of a pre-training run, besides what every run has (`training.options`)."""

from __future__ import annotations

from dataclasses import dataclass

from ..training.options import Parallel, RunOptions


@dataclass(frozen=True, kw_only=True)
class PretrainingOptions(RunOptions):
    """Options of a pre-training run; what it trains is the recipe's.

    Raises:
        ValueError: a number that must be positive, a name that is not known.
    """

    log_every: int = 50
    checkpoint_every: int = 1000
    """Updates between two checkpoints and evaluations; a multiple of log-every."""
    seed: int = 0
    """Seed of weights, order of the text, masks, samples and dropout."""
    n_steps: int | None = None
    """Updates; of fewer than the preset's the warm-up takes at most a tenth. Default: the preset's."""
    minutes: float | None = None
    """Stop after so many minutes of training; the learning rate falls with the time."""
    parallel: Parallel = "ddp"
    """Way in which several processes share the work; fsdp also shares out weights and the optimizer's state."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep."""
    strict: bool = False
    """Stop, and not only warn, where a network does not learn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("n_steps", "minutes", "keep_checkpoints")
        self._check_one_of("parallel", Parallel)
