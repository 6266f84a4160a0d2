"""The parts that benchmarks of pre-training and of fine-tuning share: trainings that take turns, and who gets no time.

Ours is the loop of the command, with its records; a turn is a few updates, and ends when the GPU is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from tqdm import tqdm

from ..training.loop import Loop
from ..training.report import RunReport, TrainingGuard
from . import OURS
from .measure import time_in_turn

STEPS_A_TURN = 5


class Training(Protocol):
    """One provider's training."""

    def train(self, n_steps: int) -> object:
        """Makes so many updates more, or those that are left."""


class ElectraFastTraining:
    """A loop of ours, trained some updates at a time.

    Attributes:
        records: the metrics of each record that the loop has made.
    """

    def __init__(self, loop: Loop, guard: TrainingGuard):
        self.loop, self._report = loop, _KeptRecords(guard)
        self.records = self._report.records

    def train(self, n_steps: int) -> None:
        self.loop.run(self._report, until=self.loop.step + n_steps)


class _KeptRecords(RunReport):
    """Keeps what the loop finds, and says nothing."""

    def __init__(self, guard: TrainingGuard):
        super().__init__(None, guard, ())
        self.records: list[dict[str, float]] = []

    def training(self, step: int, progress: float, seconds: float, metrics: dict[str, float]) -> None:
        super().training(step, progress, seconds, metrics)
        self.records.append(metrics)


# Time


def time_trainings(
    trainings: Mapping[str, Training], n_turns: int, device: torch.device, bar: tqdm
) -> dict[str, list[float]]:
    """The seconds of each provider's turns, each of `STEPS_A_TURN` updates."""
    turns = {name: partial(_turn, training, device) for name, training in trainings.items()}
    return time_in_turn(turns, [()], n_turns, bar)


def _turn(training: Training, device: torch.device) -> Callable[[], None]:
    def run() -> None:
        training.train(STEPS_A_TURN)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def milliseconds(seconds: Iterable[float]) -> list[float]:
    """Seconds as rows have them: milliseconds of four digits."""
    return [float(f"{1e3 * t:.4g}") for t in seconds]


# What has no time


class WrongLosses(Exception):
    """The first losses of a provider are not those of the reference."""

    def __init__(self, losses: object, expected: object):
        super().__init__(f"is wrong: its first losses are {losses}, expected {expected}")


@contextmanager
def noting_fault(faults: dict[str, str], name: str) -> Iterator[None]:
    """Notes by the provider's name what goes wrong within, and goes on: the others shall have their times."""
    try:
        yield
    except WrongLosses as wrong:
        faults[name] = str(wrong)
    except Exception as problem:
        faults[name] = f"fails: {type(problem).__name__}: {problem}"[:300]


def print_faults(rows: Sequence[Mapping[str, Any]], name_of: Callable[[Mapping[str, Any]], str]) -> None:
    """Prints a line for each row that has no time.

    Args:
        name_of: what a row's line begins with.

    Raises:
        SystemExit: one of the rows is ours.
    """
    bad = [row for row in rows if row["status"] != "right"]
    for row in bad:
        print(f"{name_of(row)} {row['status']}")
    if any(row["provider"] == OURS for row in bad):
        raise SystemExit("electra_fast is wrong, or fails: it has no time")
