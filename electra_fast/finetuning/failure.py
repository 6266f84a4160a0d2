"""Recognises a run that does not learn: ELECTRA, above all the large one, sometimes stays where it began."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import mean

# A run is judged at its half and at its end, by the quarter before; a run that learns has gained far more by then.
_JUDGED_AT = (0.5, 1.0)
_WINDOW = 0.25
# A run with fewer updates is not given up: it may learn late, and costs little.
_LEAST_STEPS = 100
_LEAST_GAIN = 0.01


class FailedRun(ValueError):
    """Says that a run is not worth continuing: another seed may do better."""


class FailureGuard:
    """Judges a run by the records of its training.

    - A loss that is not finite is a failure immediately.
    - A run has learnt nothing if, at its half or at its end, the mean loss of the quarter before is not 1 % below the
      loss of the best constant prediction. If `stop` is set, that ends a run of 100 updates or more; otherwise the
      guard reports it and keeps it as `finding`.

    Args:
        constant_loss: loss of the best constant prediction on the training examples (`Kind.constant_loss`).
        stop: whether to raise FailedRun for a run that has learnt nothing, too.

    Attributes:
        finding: the sentence that says that the run has learnt nothing, or None.
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
        """Returns a new finding, to show and to log, or None; raises FailedRun."""
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
