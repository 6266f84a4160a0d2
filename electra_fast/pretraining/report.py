"""What a pre-training run says: everything to the log and the trackers, one line for the eye, advice from the guard."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..training.guard import Guard
from ..training.progress import ProgressLine
from ..training.trackers import RecordWriter
from .evaluate import Evaluation

# What the line shows: label, metric, format.
_SHOWN = (
    ("gen", "generator_loss", ".3f"),
    ("disc", "discriminator_loss", ".4f"),
    ("acc", "generator_accuracy", ".1%"),
    ("AUC", "discriminator_auc", ".3f"),
    ("tokens/s", "tokens_per_second", ",.0f"),
    ("MFU", "mfu", ".1%"),
)


class RunReport:
    """Says how a run goes; of several processes only the first has somewhere to say it.

    Args:
        writer: where records go; None: nothing is said.
        guard: looks at every record of training, in every process.
    """

    def __init__(self, writer: RecordWriter | None, guard: Guard):
        self._writer, self._guard = writer, guard
        self._line = ProgressLine()

    def record(self, kind: str, **fields: Any) -> None:
        """Writes a record of any kind."""
        if self._writer is not None:
            self._writer.write(kind, **fields)

    def evaluation(self, step: int, evaluation: Evaluation) -> None:
        self.record("evaluation", step=step, **asdict(evaluation))

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
            shown = {label: format(metrics[name], form) for label, name, form in _SHOWN if name in metrics}
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
