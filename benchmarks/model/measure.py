"""One workload of the benchmark of the models: every provider compared with the reference, then timed in turns.

The reference is transformers' eager attention in fp32, at real tokens. Right is, for a provider that computes in

- fp32: nowhere more than 1e-4 off;
- 16 bits: an RMS error of at most twice that of transformers' eager attention in the same dtype;
- int8: a relative RMS error of at most 0.2, on random weights too. The error stands beside the time.

A turn is all batches of a workload, one call each, after nothing but a pause (`take_turns`). For the latency of single
rows a turn is an untimed call, since the caches hold what the provider before left there, and 20 timed ones.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import OURS
from ..measure import quantiles, ratio_figures, seconds_of_calls, take_turns
from .peers import Entry, Provider, Setup, Transformers, text_runner
from .work import CALLS_A_TURN, Workload

_WORKLOAD_SECONDS = 12.0  # a workload's rounds take so long, unless the least number takes longer
_MIN_ROUNDS, _MAX_ROUNDS = 5, 50
_LARGEST_FP32, _RELATIVE_INT8 = 1e-4, 0.2


@dataclass(frozen=True)
class Judged:
    """What is known of a provider before its time is taken.

    Attributes:
        error: how far off it is, None where that could not be found.
        status: "right", or a line that says why it gets no figure.
        turn: gives the seconds of each call of a turn.
    """

    error: float | None
    status: str
    turn: Callable[[], list[float]] | None


def measure_right(
    entries: Sequence[Entry],
    judge: Callable[[Entry], Judged],
    workload: Workload,
    repeats: int | None,
    bar: tqdm,
) -> list[dict]:
    """A row for each provider: status and error; if it is right, times, speed and the ratio to electra_fast.

    Args:
        judge: builds a provider and compares it; what it raises is the provider's failure.
        repeats: the number of rounds; None takes as many as fit into some seconds, at least five.
        bar: moves on by one a turn.
    """
    rows, turns = {}, {}
    for entry in entries:
        try:
            judged = judge(entry)
        except Exception as error:  # the others shall have their times
            judged = Judged(None, failure(entry.name, error), None)
        rows[entry.name] = {
            "provider": entry.name,
            "status": judged.status,
            "error": None if judged.error is None else float(f"{judged.error:.3g}"),
            "milliseconds": None,
        }
        if judged.status == "right":
            turns[entry.name] = judged.turn
    if turns:
        n_rounds = repeats or _n_rounds(turns)
        bar.total += n_rounds * len(turns)
        results = take_turns(turns, n_rounds, bar)
        for name, rounds in results.items():
            rows[name] |= figures(workload, rounds, results.get(OURS))
    return list(rows.values())


@dataclass
class Contest:
    """The providers of one model, built when this is made.

    Attributes:
        entries: who takes part.
        dtype: the dtype of the run.
        max_length: where texts are cut; None measures ids, without a tokenizer.
        built: by name the provider, or why it cannot be built.
    """

    entries: list[Entry]
    setup: Setup
    dtype: str
    max_length: int | None
    built: dict[str, Provider | str] = field(init=False)

    def __post_init__(self) -> None:
        self.built = {}
        for entry in self.entries:
            try:
                self.built[entry.name] = entry.make(self.setup, self.dtype)
            except Exception as error:  # the others shall have their times
                self.built[entry.name] = failure(entry.name, error)
        self.eager = {"fp32": Transformers(self.setup, "fp32", attention="eager")}
        if self.dtype in ("bf16", "fp16"):
            self.eager[self.dtype] = Transformers(self.setup, self.dtype, attention="eager")

    def measure(self, workload: Workload, repeats: int | None, bar: tqdm) -> list[dict]:
        """The rows of `measure_right`, of which every provider is held against the reference."""
        expected = _states(self.eager["fp32"], *self._calls("", self.eager["fp32"], workload), workload)
        return measure_right(self.entries, lambda entry: self._judge(entry, workload, expected), workload, repeats, bar)

    def _judge(self, entry: Entry, workload: Workload, expected: np.ndarray) -> Judged:
        provider = self.built[entry.name]
        if isinstance(provider, str):
            return Judged(None, provider, None)
        run, calls = self._calls(entry.name, provider, workload)
        largest, relative = errors(_states(provider, run, calls, workload), expected)
        status = "right"
        if not self._is_right(entry, largest, relative, workload, expected):
            status = f"{entry.name} is wrong by up to {largest:.1e}, {relative:.1e} relative RMS: no figure"
        return Judged(
            largest if self.dtype == "fp32" else relative, status, partial(turn_seconds, run, calls, workload)
        )

    def _calls(self, name: str, provider: Provider, workload: Workload) -> tuple[Callable[..., Any], list[tuple]]:
        """(what is timed, its arguments for each batch)."""
        if self.max_length is None:
            return provider.run, [provider.inputs(batch.ids, batch.mask) for batch in workload.batches]
        run = text_runner(name, provider, self.setup, self.max_length)
        return run, [batch.texts for batch in workload.batches]

    def _is_right(
        self, entry: Entry, largest: float, relative: float, workload: Workload, expected: np.ndarray
    ) -> bool:
        dtype = entry.own_dtype or self.dtype
        if dtype == "fp32":
            return largest <= _LARGEST_FP32
        if dtype == "int8":
            return relative <= _RELATIVE_INT8
        eager = self.eager[dtype]
        _, allowed = errors(_states(eager, *self._calls("", eager, workload), workload), expected)
        return relative <= 2 * allowed


def _states(provider: Provider, run: Callable[..., Any], calls: list[tuple], workload: Workload) -> np.ndarray:
    """Hidden states at the real tokens of all batches [T, H]."""
    found = []
    for arguments, batch in zip(calls, workload.batches, strict=True):
        states = provider.states(run(*arguments))
        if states.shape[:2] != batch.mask.shape:
            raise ValueError(f"hidden states must be for {batch.mask.shape} positions, got {states.shape[:2]}")
        found.append(states[batch.mask.astype(bool)])
    return np.concatenate(found)


def errors(got: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """(the largest difference, the RMS difference relative to the RMS of what is expected)."""
    difference = got.astype(np.float64) - expected
    rms = np.sqrt(np.square(difference).mean() / np.square(expected, dtype=np.float64).mean())
    return float(np.abs(difference).max()), float(rms)


def turn_seconds(run: Callable[..., Any], calls: list[tuple], workload: Workload) -> list[float]:
    """The seconds of each timed call."""
    if workload.is_latency:
        run(*calls[0])
        return seconds_of_calls(run, calls * CALLS_A_TURN)
    return seconds_of_calls(run, calls)


def _n_rounds(turns: Mapping[str, Callable[[], object]]) -> int:
    """How many rounds fill the time of a workload."""
    begin = time.perf_counter()
    for turn in turns.values():  # this also warms up what the comparison left cold
        turn()
    return min(max(int(_WORKLOAD_SECONDS / (time.perf_counter() - begin)), _MIN_ROUNDS), _MAX_ROUNDS)


def figures(workload: Workload, rounds: list[list[float]], ours: list[list[float]] | None) -> dict[str, Any]:
    """The columns of times, from the seconds of each call of each round; ratios compare turns of the same round.

    Milliseconds are those of a call: the average over a turn's batches, but for latency every single call.
    """
    if workload.is_latency:
        each = [statistics.median(turn) for turn in rounds]
        seconds = sorted(second for turn in rounds for second in turn)
        p99 = round(1e3 * seconds[round(0.99 * (len(seconds) - 1))], 3)
    else:
        each = seconds = [statistics.mean(turn) for turn in rounds]
        p99 = None
    found = {
        "milliseconds": [round(1e3 * q, 3) for q in quantiles(seconds)],
        "p99": p99,
        "tokens_per_second": round(workload.lengths.sum() / len(workload.batches) / quantiles(seconds)[1]),
        "rounds": len(rounds),
    }
    if ours is None:
        return found | {"ratio": None, "ratios_20_80": None}
    average = statistics.median if workload.is_latency else statistics.mean
    return found | ratio_figures(each, [average(turn) for turn in ours])


def failure(name: str, error: Exception) -> str:
    """One line that says how a provider fails."""
    return " ".join(f"{name} fails: {type(error).__name__}: {error}".split())[:300]
