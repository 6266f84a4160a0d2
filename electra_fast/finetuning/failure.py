"""Tells a run that does not learn: ELECTRA, the large one above all, sometimes stays where it began."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import mean

# A run is judged at its half and at its end, by its last quarter; what it has learnt by then is far more.
_JUDGED_AT = (0.5, 1.0)
_WINDOW = 0.25
# A run of fewer updates is not given up: it may learn late, and costs little.
_LEAST_STEPS = 100
_LEAST_GAIN = 0.01


class FailedRun(ValueError):
    """A run that is not worth going on with: another seed may do better."""


class FailureGuard:
    """Looks at each record of training.

    - A loss that is not finite is a failure at once.
    - At half of the run and at its end: the mean loss of the quarter before is not 1 % below that of the best constant
      prediction. That ends a run of 100 updates or more, if `stop` is set; otherwise it is said, and kept as `finding`.

    Args:
        constant_loss: of the training examples (`Kind.constant_loss`).
        stop: raise for the second too.

    Attributes:
        finding: what was found, or None.
    """

    def __init__(self, constant_loss: float, stop: bool):
        self.constant_loss, self.stop, self.finding = constant_loss, stop, None
        self._losses: list[tuple[float, float]] = []
        self._waiting = list(_JUDGED_AT)

    def recall(self, progress: float, loss: float) -> None:
        """Takes note of a record from before an interruption."""
        self._losses.append((progress, loss))
        if self._waiting and progress >= self._waiting[0]:
            self._waiting.pop(0)

    def check(self, step: int, progress: float, metrics: Mapping[str, float | None]) -> str | None:
        """What is found for the first time, to show and to log, or None; raises FailedRun."""
        loss = metrics["loss"]
        if not math.isfinite(loss):
            raise FailedRun(f"the loss must stay a finite number, got {loss} at step {step}")
        self._losses.append((progress, loss))
        if not self._waiting or progress < self._waiting[0]:
            return None
        judged = self._waiting.pop(0)
        recent = mean(loss for at, loss in self._losses if at > judged - _WINDOW)
        if recent <= (1 - _LEAST_GAIN) * self.constant_loss:
            self.finding = None
            return None
        text = (
            f"the network has learnt no more than how often each answer is right: at {progress:.0%} of the run the "
            f"loss {recent:.4f} is not below {self.constant_loss:.4f}, that of the best constant prediction"
        )
        is_new, self.finding = self.finding is None, text
        if self.stop and step >= _LEAST_STEPS:
            raise FailedRun(text)
        return text if is_new else None
