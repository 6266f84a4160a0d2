"""Checkpoints of a run: written in the background, complete or absent, the last few kept.

A checkpoint is a directory `step-N` of torch.distributed.checkpoint: every process writes its share, and any number of
processes can read it. It has this name only while it is complete: while it is written or deleted, it is `.step-N`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint import SavePlan, SavePlanner

from .joined_states import joined_tensors
from .optim import Adam

State = dict[str, dict[str, Tensor]]

# An error in one process is raised in all as a CheckpointException, which is not an Exception.
_FAILURES = (Exception, checkpoint.CheckpointException)


def training_state(model: nn.Module, optimizers: Sequence[Adam]) -> State:
    """All that training changes, by the names of parameters: their fp32 values, both moments, and step counts.

    The tensors are the optimizers' own, so loading into them takes effect. Only parameters in lower precision need
    `round_parameters` afterwards.
    """
    names = {p: name for name, p in model.named_parameters()}
    masters = {p: p for p in names}
    state: State = {"exp_avg": {}, "exp_avg_sq": {}, "steps": {}, "loss_scale": {}}
    for optimizer in optimizers:
        optimizer.create_state()
        for group in optimizer.param_groups:
            state["steps"][str(len(state["steps"]))] = group["step"]
            for p in group["params"]:
                masters[p] = optimizer.master_of(p)
                for moment in ("exp_avg", "exp_avg_sq"):
                    state[moment][names[p]] = optimizer.state[p][moment]
        if optimizer.loss_scale is not None:
            state["loss_scale"] = {"value": optimizer.loss_scale.value, "n_good": optimizer.loss_scale.n_good}
    return state | {"parameters": {names[p]: master.detach() for p, master in masters.items()}}


@torch.no_grad()
def round_parameters(optimizers: Sequence[Adam]) -> None:
    """Writes the fp32 masters to their parameters in lower precision."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                if (master := optimizer.master_of(p)) is not p:
                    p.copy_(master)


class Checkpoints:
    """The checkpoints in one directory. Every process makes such an object and calls its methods in the same order.

    Args:
        directory: directory of the checkpoints; made when the first is written.
        keep: number of the newest checkpoints that stay.
    """

    def __init__(self, directory: Path, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self._directory, self._keep = directory, keep
        # A group of its own: the background thread writes while training uses the default group.
        self._group = distributed.new_group(backend="gloo")
        self._is_main = distributed.get_rank() == 0
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: tuple[Future, int] | None = None

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order."""
        if not self._directory.is_dir():
            return []
        matches = (re.fullmatch(r"step-(\d+)", path.name) for path in self._directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, state: State) -> None:
        """Copies the state and writes it in the background, after the checkpoint before is done."""
        self.finish()
        temporary = self._directory / f".step-{step}"
        if self._is_main:
            self._directory.mkdir(parents=True, exist_ok=True)
            for leftover in self._directory.glob(".step-*"):
                shutil.rmtree(leftover)
        distributed.barrier(self._group)
        written = checkpoint.async_save(state, storage_writer=_Writer(temporary), process_group=self._group)
        self._pending = self._background.submit(self._complete, step, written), step

    def finish(self) -> None:
        """Waits until the last checkpoint is on disk; raises OSError if it could not be written."""
        if self._pending is None:
            return
        (future, step), self._pending = self._pending, None
        try:
            future.result()
        except _FAILURES as error:
            shutil.rmtree(self._directory / f".step-{step}", ignore_errors=True)
            kept = ", ".join(map(str, self.steps())) or "none"
            raise OSError(
                f"the checkpoint of step {step} could not be written to {self._directory}: {_cause(error)}; "
                f"complete are those of steps: {kept}"
            ) from error
        distributed.barrier(self._group)

    def close(self) -> None:
        """Waits for a checkpoint that is being written, and ignores its errors: a failing run must not lose it."""
        self._background.shutdown()

    def _complete(self, step: int, written: Future) -> None:
        """Renames a checkpoint as soon as it is written, so that a crash before the next one does not lose it."""
        written.result()
        if self._is_main:
            os.replace(self._directory / f".step-{step}", self._directory / f"step-{step}")
            for old in self.steps()[: -self._keep]:
                os.replace(self._directory / f"step-{old}", self._directory / f".step-{old}")
                shutil.rmtree(self._directory / f".step-{old}")

    def load(self, step: int, state: State) -> None:
        """Reads the checkpoint of a step into the tensors of `state`.

        Raises:
            ValueError: the checkpoint holds other tensors than `state`, or is damaged.
        """
        path = self._directory / f"step-{step}"
        try:
            found = checkpoint.FileSystemReader(path).read_metadata().state_dict_metadata
            with _as_saved(state, found) as saved:
                _check_shapes(path, {name: tuple(entry.size) for name, entry in found.items()}, saved)
                checkpoint.load(saved, checkpoint_id=path, process_group=self._group)
        except ValueError:
            raise
        except _FAILURES as error:
            raise ValueError(
                f"{path} must be a complete checkpoint, got: {_cause(error)}; without it the run goes on from the one "
                f"before"
            ) from error


@contextmanager
def _as_saved(state: State, names: Collection[str]) -> Iterator[State]:
    """The state with one tensor where a checkpoint with these names holds three as one; writes it to the three."""
    saved, wholes = {}, []
    for part, tensors in state.items():
        joined = joined_tensors(tensors, {name.removeprefix(f"{part}.") for name in names})
        whole = {name: torch.cat(pieces) for name, pieces in joined.items()}
        pieces = {id(piece) for pieces in joined.values() for piece in pieces}
        saved[part] = {name: x for name, x in tensors.items() if id(x) not in pieces} | whole
        wholes += [(whole[name], pieces) for name, pieces in joined.items()]
    yield saved
    for whole, pieces in wholes:
        for piece, values in zip(pieces, whole.chunk(3), strict=True):
            piece.copy_(values)


def _check_shapes(path: Path, found: dict[str, tuple[int, ...]], state: State) -> None:
    expected = {f"{part}.{name}": tuple(x.shape) for part, tensors in state.items() for name, x in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{path} must fit this model: expected {name} of shape {expected.get(name, 'none')}, got "
                f"{found.get(name, 'none')}"
            )


class _Writer(checkpoint.FileSystemWriter):
    """Raises the first cause of a failed write. On a full disk torch.save complains of an unexpected position, and the
    error before that does not reach the first process."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future:
        try:
            return super().write_data(plan, planner)
        except Exception as error:
            first: BaseException = error
            while first.__context__ is not None:
                first = first.__context__
            raise OSError(str(first)) from error


def _cause(error: BaseException) -> str:
    """The first line of an error, or of the one in a process that failed."""
    if isinstance(error, checkpoint.CheckpointException):
        error, _ = next(iter(error.failures.values()))
    return f"{type(error).__name__}: {error}".splitlines()[0]
