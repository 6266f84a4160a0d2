"""The options of a pre-training run, besides those of every run (`training.options`)."""

from __future__ import annotations

from dataclasses import dataclass

from ..training.options import Parallel, RunOptions


@dataclass(frozen=True, kw_only=True)
class PretrainingOptions(RunOptions):
    """Options of a pre-training run: how to train. The recipe says what to train.

    Raises:
        ValueError: a number that is not positive, an unknown name.
    """

    log_every: int = 50
    checkpoint_every: int = 1000
    """Updates between two checkpoints and evaluations; a multiple of log-every."""
    seed: int = 0
    """Seed of weights, order of the text, masks, samples and dropout."""
    n_steps: int | None = None
    """Updates; with fewer than the preset's, the warm-up takes at most a tenth of them. Default: the preset's."""
    minutes: float | None = None
    """Minutes of training, after which the run stops; the learning rate falls with time."""
    parallel: Parallel = "ddp"
    """Method by which several processes share the work; fsdp also shards weights and the optimizer's state."""
    keep_checkpoints: int = 2
    """Number of newest checkpoints to keep."""
    strict: bool = False
    """Stop, instead of only warning, if a network does not learn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint_every is None:
            raise ValueError("checkpoint_every must be positive, got None")
        self._check_positive("n_steps", "minutes", "keep_checkpoints")
        self._check_one_of("parallel", Parallel)
