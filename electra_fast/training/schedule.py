"""Learning-rate schedules."""

from __future__ import annotations


def warmup_decay(step: int, progress: float, warmup_steps: int, power: float = 1.0, decay_start: float = 0.0) -> float:
    """The learning rate's factor, min(1, step / warmup_steps) * (1 - share of the decay that is done) ** power.

    Warm-up and decay are multiplied, and by default the decay starts at step 0 (google-research/electra,
    model/optimization.py).

    Args:
        step: updates done before this one.
        progress: the share of the training that is done, in [0, 1]: step / n_steps, or the used share of a time budget.
        warmup_steps: updates of warm-up; 0 for none.
        decay_start: the progress from which the rate falls, in [0, 1).
    """
    warmup = min(1.0, step / warmup_steps) if warmup_steps else 1.0
    decayed = (progress - decay_start) / (1.0 - decay_start)
    return warmup * (1.0 - min(1.0, max(0.0, decayed))) ** power
