"""One workload of training steps: every provider's gradients compared with the reference's, then timed in turns.

The reference is transformers' eager attention in fp32, one step without dropout. Right is, for a provider that computes
in

- fp32: gradients with a relative RMS error of at most 1e-4;
- bf16: one of at most twice that of transformers' eager attention under autocast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from tqdm import tqdm

from .cold_start import write_batches
from .files import write_network
from .measure import Judged, errors, failure, measure_right, turn_seconds
from .peers import Entry, Setup
from .step_memory import step_peak_mb
from .train_peers import TrainingSteps, of_eager
from .work import Workload

_RELATIVE_FP32 = 1e-4


@dataclass
class TrainingContest:
    """The providers of one model's training steps.

    Attributes:
        entries: who takes part.
        setup: with the folder of the encoder.
        dtype: the dtype of the run.
        has_memory: whether fresh processes measure the peak memory of steps.
    """

    entries: list[Entry]
    setup: Setup
    dtype: str
    has_memory: bool
    _trained: str | None = None
    _built: dict[str, TrainingSteps] = field(default_factory=dict)

    def measure(self, workload: Workload, repeats: int | None, bar: tqdm) -> list[dict]:
        """The rows of `measure_right`, of which every provider is held against the reference, with `peak_mb`."""
        if workload.trained != self._trained:
            self._trained = workload.trained
            self._built.clear()  # what is of another class
            write_network(self.setup.folder, workload.trained)
        setup = replace(self.setup, folder=self.setup.folder / workload.trained)
        expected = _gradients(of_eager, setup, "fp32", workload)
        allowed = _RELATIVE_FP32
        if self.dtype != "fp32":
            allowed = 2 * errors(_gradients(of_eager, setup, self.dtype, workload), expected)[1]

        def judge(entry: Entry) -> Judged:
            _, relative = errors(_gradients(entry.make, setup, self.dtype, workload), expected)
            if not relative <= allowed:
                return Judged(relative, f"{entry.name} is wrong by {relative:.1e} relative RMS: no figure", None)
            if entry.name not in self._built:
                self._built[entry.name] = entry.make(setup, self.dtype)
            steps = self._built[entry.name]
            calls = [steps.inputs(batch.ids, batch.mask) for batch in workload.batches]
            steps.run(*calls[0])  # compiles, and makes the moments
            return Judged(relative, "right", partial(turn_seconds, steps.run, calls, workload))

        rows = measure_right(self.entries, judge, workload, repeats, bar)
        write_batches(setup.folder, workload.batches[0].ids, workload.batches[0].mask)
        return [row | {"peak_mb": self._peak(row, setup)} for row in rows]

    def _peak(self, row: dict, setup: Setup) -> int | None:
        if not self.has_memory or row["status"] != "right":
            return None
        try:
            peak = step_peak_mb(row["provider"], self.dtype, setup)
        except RuntimeError as error:
            tqdm.write(failure(row["provider"], error), file=sys.stderr)
            return None
        return peak and round(peak)


def _gradients(make: Callable[..., TrainingSteps], setup: Setup, dtype: str, workload: Workload) -> np.ndarray:
    """The gradients of a step without dropout, by a network of its own."""
    steps = make(setup, dtype, dropout=0.0)
    return steps.gradients(*steps.inputs(workload.batches[0].ids, workload.batches[0].mask))
