"""A loop of updates that are the same with any number of processes.

An update depends only on the state before it and on (seed, step), so a run can resume at any step.
"""

from __future__ import annotations

import hashlib
import math
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed, nn

from ..model.precision import DTYPES
from ..model.qkv import join_all
from .checkpoint import State, round_parameters, training_state
from .distributed import World, parallelize
from .gradients import gradients_of
from .optim import Adam
from .options import Parallel, RunOptions
from .precision import LossScale, lower_precision
from .report import RunReport
from .schedule import warmup_decay
from .step import Step

# Signals by which users and systems end a process, and those that warn it of its end: a closed terminal, and SIGUSR1 or
# SIGUSR2 before a time limit of Slurm, LSF or Grid Engine, or SIGXCPU at one of processor time.
_ENDS = ("SIGTERM", "SIGINT")
_WARNINGS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
# A signal that comes again within this time is the same one, sent twice.
_REPEAT_SECONDS = 5.0


class Loop(ABC):
    """Updates a model until its steps are done or its time is up; subclasses define batches and the loss.

    Args:
        model: the model, on the device of `world`.
        options: options of the run, with a precision set. Activations have this precision, and so do parameters except
            under FSDP. The optimizer's state is fp32.
        n_steps, minutes: the limits, at least one of them. The learning rate falls with the share of the nearer limit.
        warmup_steps, decay_power, decay_start: arguments of the schedule (`warmup_decay`).
        parallel: "ddp" or "fsdp", as in `parallelize`.

    Attributes:
        step: updates done.
        seconds: training time up to the last update.
        stopped_by: number of the signal by which a process was asked to `stop`, or 0; all processes know it after the
            same update.
    """

    def __init__(
        self,
        model: nn.Module,
        world: World,
        options: RunOptions,
        *,
        n_steps: int | None,
        minutes: float | None = None,
        warmup_steps: int,
        decay_power: float = 1.0,
        decay_start: float = 0.0,
        parallel: Parallel = "ddp",
    ):
        self.model, self.world, self.options, self.n_steps, self.minutes = model, world, options, n_steps, minutes
        self.seed, self.log_every, self.accumulate = options.seed, options.log_every, options.accumulate
        self.warmup_steps, self.decay_power, self.decay_start = warmup_steps, decay_power, decay_start
        self.step, self.seconds, self.stopped_by, self._signal = 0, 0.0, 0, 0
        self._window_start = 0.0
        dtype = DTYPES[options.precision]
        # FSDP replaces parameters by shards, which the optimizers must hold.
        parallelize(model, world, parallel, dtype)
        self.optimizers = self._new_optimizers()
        if options.precision == "fp16":
            scale = LossScale(world.device)
            for optimizer in self.optimizers:
                optimizer.loss_scale = scale
        if parallel == "ddp":
            for optimizer in self.optimizers:
                lower_precision(optimizer, dtype)
            join_all(model)
        self._step = self._new_step()

    def state(self) -> State:
        """The tensors of a checkpoint: all that it holds but the number of the step."""
        clock = {"seconds": torch.tensor(self.seconds, dtype=torch.float64)}
        return training_state(self.model, self.optimizers) | {"clock": clock}

    def resume(self, step: int, state: State) -> None:
        """Resumes after `step`; `state` is the result of `state()` with a checkpoint loaded into it."""
        round_parameters(self.optimizers)
        self.step, self.seconds = step, float(state["clock"]["seconds"])
        self._window_start = self.seconds

    def stop(self, number: int) -> None:
        """Ends the run in all processes, after the current update or the next one; handlers of a signal call it."""
        self._signal = self._signal or number

    @property
    def is_stopping(self) -> bool:
        """True after an update in which a process was asked to `stop`."""
        return self.stopped_by != 0

    def run(self, report: RunReport, until: int | None = None) -> None:
        """Trains to the end of the run, until `until` updates are done, or until `is_stopping`.

        Raises:
            ValueError: the report's guard ends the run.
        """
        self.model.train()
        start = time.perf_counter() - self.seconds
        while self.progress < 1 and self.step != until and not self.is_stopping:
            self._update()
            self.step += 1
            self._agree(time.perf_counter() - start)
            if self.step % self.log_every == 0 or self.progress >= 1:
                # The host runs ahead of a GPU: what the updates took is known once the GPU has caught up.
                if self.world.device.type == "cuda":
                    torch.cuda.synchronize(self.world.device)
                self._agree(time.perf_counter() - start)
                metrics = self._metrics(self.seconds - self._window_start)
                self._window_start = self.seconds
                report.training(self.step, self.progress, self.seconds, metrics)

    @property
    def progress(self) -> float:
        """The share of the run that is done."""
        by_steps = self.step / self.n_steps if self.n_steps else 0.0
        by_time = self.seconds / (60 * self.minutes) if self.minutes else 0.0
        return max(by_steps, by_time)

    @abstractmethod
    def _new_optimizers(self) -> list[Adam]:
        """Makes the optimizers of the model's parameters, for `__init__`; each group has an `initial_lr`."""

    def _new_step(self) -> Step:
        """Makes what runs an update, for `__init__`."""
        return Step(self._compute, self.optimizers, gradients_of(self.model, self.world.size))

    @abstractmethod
    def _batches(self) -> list[tuple]:
        """This process's share of the step's batch: for each forward the arguments of `_compute`."""

    @abstractmethod
    def _compute(self, *batch: Any) -> Mapping[str, Tensor]:
        """Runs forward and `_backward` on a part of the step's batch; returns what the metrics need."""

    @abstractmethod
    def _collect(self, outputs: Mapping[str, Tensor]) -> None:
        """Takes what a `_compute` returned; the next one may overwrite its memory."""

    @abstractmethod
    def _metrics(self, seconds: float) -> dict[str, float]:
        """Metrics since the last record, the same in all processes; `seconds` is how long those updates took."""

    def _update(self) -> None:
        """Makes one update."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * warmup_decay(
                    self.step, self.progress, self.warmup_steps, self.decay_power, self.decay_start
                )
        # Dropout differs between processes, and a resumed run draws the same as one that was never interrupted.
        _seed(mixed_seed(self.seed, self.step, "dropout", self.world.rank), self.world.device)
        for outputs in self._step(self._batches()):
            self._collect(outputs)

    def _backward(self, loss: Tensor, share: float) -> None:
        """Runs the backward of `share` times a loss, which is scaled if the optimizers have a loss scale."""
        scale = self.optimizers[0].loss_scale
        loss.backward(torch.full_like(loss, share) if scale is None else share * scale.value)

    def agree_on_signals(self) -> None:
        """Tells all processes of signals that came after the last update; all call this together."""
        self._agree(self.seconds)

    def _agree(self, seconds: float) -> None:
        """Gives all processes the first one's time, and stops all of them if one was asked to stop."""
        message = torch.tensor([seconds * self.world.is_main, self._signal], dtype=torch.float64)
        if self.world.size > 1:
            distributed.all_reduce(message, distributed.ReduceOp.MAX)
        self.seconds, self.stopped_by = float(message[0]), int(message[1])


def _seed(seed: int, device: torch.device) -> None:
    """Seeds torch's generators of the CPU and, where `device` is a GPU, of the process's GPU.

    torch.manual_seed seeds those of all backends, and for each that is not in use formats the stack: 0.8 ms.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)  # of the current GPU: `device` may have no number


def mixed_seed(*parts: object) -> int:
    """A seed of 63 bits that depends on all parts."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


@contextmanager
def stopped_by_signals(loop: Loop) -> Iterator[None]:
    """Lets signals that would end the process end the loop after the current update.

    SIGTERM or Ctrl-C acts as usual 5 seconds after the first signal, because a user who repeats it means it. Sooner
    repeats do not: Slurm and torchrun, or torchrun and a terminal, send the same signal twice. Outside the main thread
    nothing changes.
    """
    deadline = math.inf
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _handlers()

    def stop(number: int, _: object) -> None:
        nonlocal deadline
        if time.monotonic() > deadline and signal.Signals(number).name in _ENDS:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        deadline = min(deadline, time.monotonic() + _REPEAT_SECONDS)
        loop.stop(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handlers() -> dict[int, Any]:
    """The signals that may stop a loop, with what they do now."""
    found = {}
    for name in (*_ENDS, *_WARNINGS):
        if hasattr(signal, name):  # Windows has few
            handler = signal.getsignal(getattr(signal, name))
            # A background job of a shell ignores Ctrl-C, and one of nohup SIGHUP: both should go on doing so. Python
            # cannot put back what C installed (None), and a warning that the program itself handles is for it.
            if handler == signal.SIG_DFL or (name in _ENDS and handler not in (signal.SIG_IGN, None)):
                found[getattr(signal, name)] = handler
    return found


def end_by_signal(number: int) -> NoReturn:
    """Ends a run that a signal has stopped, so that nobody takes it for a complete one.

    Raises:
        KeyboardInterrupt: Ctrl-C; commands exit with 130.
        SystemExit: another signal, with the exit code that shells know, 128 + its number.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
