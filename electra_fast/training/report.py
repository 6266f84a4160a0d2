"""What a run says: everything to the log and the trackers, one line for the eye, advice from the guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .progress import ProgressLine
from .trackers import RecordWriter


class TrainingGuard(Protocol):
    """Tells from the records of training when something goes wrong."""

    def check(self, step: int, progress: float, metrics: Mapping[str, float | None]) -> str | None:
        """Advice to show and to log, or None; raises ValueError for what ends the run."""


class RunReport:
    """Says how a run goes; of several processes only the first has somewhere to say it.

    Args:
        writer: where records go; None: nothing is said.
        guard: looks at every record of training, in every process.
        shown: what the line has of the metrics: label, metric, format.
    """

    def __init__(self, writer: RecordWriter | None, guard: TrainingGuard, shown: Sequence[tuple[str, str, str]]):
        self._writer, self._guard, self._shown = writer, guard, shown
        self._line = ProgressLine()

    def record(self, kind: str, **fields: Any) -> None:
        """Writes a record of any kind."""
        if self._writer is not None:
            self._writer.write(kind, **fields)

    def training(self, step: int, progress: float, seconds: float, metrics: dict[str, float]) -> None:
        """A record of training, and the line anew.

        Args:
            progress: the share of the run that is done.
            seconds: of training, so far.
            metrics: the same in every process, so that all stop together.

        Raises:
            ValueError: what the guard has found ends the run.
        """
        self.record("train", step=step, seconds=seconds, **metrics)
        if self._writer is not None:
            shown = {label: format(metrics[name], form) for label, name, form in self._shown if name in metrics}
            self._line.show(step, progress, seconds, shown)
        if advice := self._guard.check(step, progress, metrics):
            self.record("warning", step=step, advice=advice)
            self.say(f"warning: {advice}")

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        if self._writer is not None:
            self._line.end()
            print(text, flush=True)

    def end(self) -> None:
        """Leaves the line, for what is printed next."""
        self._line.end()
