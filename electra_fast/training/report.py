"""Reports of a run: records to the log and the trackers, one line to the screen, advice from the guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .progress import ProgressLine
from .trackers import RecordWriter


class TrainingGuard(Protocol):
    """Tells from the records of training when something goes wrong."""

    def check(self, step: int, progress: float, metrics: Mapping[str, float | None]) -> str | None:
        """Returns advice to show and to log, or None; raises ValueError to end the run."""


class RunReport:
    """Reports how a run goes; with several processes, only the first one has a writer.

    Args:
        writer: takes the records; None reports nothing.
        guard: checks every training record, and what `advise` shows it, in every process.
        shown: the metrics on the progress line, as (label, metric, format).
    """

    def __init__(self, writer: RecordWriter | None, guard: TrainingGuard, shown: Sequence[tuple[str, str, str]]):
        self._writer, self._guard, self._shown = writer, guard, shown
        self._line = ProgressLine()

    def record(self, kind: str, **fields: Any) -> None:
        """Writes a record of any kind."""
        if self._writer is not None:
            self._writer.write(kind, **fields)

    def training(self, step: int, progress: float, seconds: float, metrics: dict[str, float]) -> None:
        """Writes a training record and refreshes the progress line.

        Args:
            progress: the share of the run that is done.
            seconds: training time so far.
            metrics: equal in every process, so that all stop together.

        Raises:
            ValueError: the guard ends the run.
        """
        self.record("train", step=step, seconds=seconds, **metrics)
        if self._writer is not None:
            shown = {label: format(metrics[name], form) for label, name, form in self._shown if name in metrics}
            self._line.show(step, progress, seconds, shown)
        self.advise(step, progress, metrics)

    def advise(self, step: int, progress: float, metrics: Mapping[str, float | None]) -> None:
        """Warns of what the guard finds in metrics, equal in every process; raises ValueError where it ends the run."""
        if advice := self._guard.check(step, progress, metrics):
            self.warn(step, advice)

    def warn(self, step: int, advice: str) -> None:
        """Writes a warning, and prints it."""
        self.record("warning", step=step, advice=advice)
        self.say(f"warning: {advice}")

    def say(self, text: str) -> None:
        """Prints a text on a line of its own."""
        if self._writer is not None:
            self._line.say(text)

    def end(self) -> None:
        """Ends the progress line, so that the next output starts on a new one."""
        self._line.end()
