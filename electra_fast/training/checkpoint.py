"""Checkpoints of a run: written in the background, complete or absent, the last few kept, checked when they are read.

A checkpoint is a directory `step-N` of torch.distributed.checkpoint: every process writes its share, and any number of
processes can read it. It has this name only while it is complete: while it is written or deleted, it is `.step-N`. Its
last file is the manifest (`training.manifest`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint import SavePlan, SavePlanner

from ..disk import made
from .joined_states import joined_tensors
from .manifest import NAME as MANIFEST
from .manifest import check_manifest, write_manifest
from .optim import Adam
from .plain_reader import PlainReader

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
        settings: the run's settings and seed, and fingerprints of what it reads.
        keep: number of the newest checkpoints that stay.
        defaults: values of settings that an old checkpoint does not have, because they could not be set then.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, Any],
        keep: int = 2,
        defaults: Mapping[str, Any] | None = None,
    ):
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self._directory, self._keep = directory, keep
        self._settings, self._defaults = settings, dict(defaults or {})
        self._unfit: set[int] = set()
        # A group of its own: the background thread writes while training uses the default group.
        self._group = distributed.new_group(backend="gloo")
        self._is_main = distributed.get_rank() == 0
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: tuple[Future, int] | None = None

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order."""
        if not self._directory.is_dir():
            return []
        matches = (re.fullmatch(r"step-(\d+)", path.name) for path in self._directory.iterdir() if path.is_dir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, state: State) -> None:
        """Copies the state and writes it in the background, after the checkpoint before is done."""
        self.finish()
        temporary = self._directory / f".step-{step}"
        if self._is_main:
            made(self._directory)
            for leftover in self._directory.glob(".step-*"):
                _remove(leftover)
            if step in self._unfit:
                self._drop(step)
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
            temporary = self._directory / f".step-{step}"
            write_manifest(temporary, step, self._settings)
            os.replace(temporary, self._directory / f"step-{step}")
            done = [old for old in self.steps() if old <= step]
            kept = [old for old in done if old not in self._unfit][-self._keep :]
            for old in done:
                if old not in kept:
                    self._drop(old)

    def _drop(self, step: int) -> None:
        dropped = self._directory / f".step-{step}"
        os.replace(self._directory / f"step-{step}", dropped)
        _remove(dropped)
        self._unfit.discard(step)

    def resume(self, state: State) -> tuple[int, list[str]]:
        """Reads the newest checkpoint that fits the run into the tensors of `state`.

        Returns:
            Its step, and a line for the user about each checkpoint that is not taken, or is taken unchecked.

        Raises:
            ValueError: no checkpoint fits; the contents of `state` are undefined then.
        """
        lines = []
        for step in reversed(self._shared(self.steps)):
            try:
                unchecked = self.load(step, state)
            except ValueError as error:
                lines.append(str(error))
                self._unfit.add(step)
            else:
                return step, [*(f"{line}; the run goes on from step {step} instead" for line in lines), *unchecked]
        raise ValueError(f"no checkpoint fits this run: {'; '.join(lines)}. To begin it anew, remove {self._directory}")

    def load(self, step: int, state: State) -> list[str]:
        """Reads the checkpoint of a step into the tensors of `state`.

        Returns:
            A line that warns of a checkpoint without a manifest, from before there were any; nothing otherwise.

        Raises:
            ValueError: the checkpoint does not fit its manifest or the run, holds other tensors, or is damaged; in all
                processes alike.
        """
        path = self._directory / f"step-{step}"
        if misfit := self._shared(lambda: self._misfit(path, step)):
            raise ValueError(f"{path} does not fit: {misfit}")
        try:
            found = self._shared(PlainReader(path).read_metadata).state_dict_metadata
            with _as_saved(state, found) as saved:
                _check_shapes(path, {name: tuple(entry.size) for name, entry in found.items()}, saved)
                checkpoint.load(saved, storage_reader=PlainReader(path), process_group=self._group)
        except ValueError:
            raise
        except _FAILURES as error:
            raise ValueError(f"{path} must be a complete checkpoint, got: {_cause(error)}") from error
        if self._shared((path / MANIFEST).is_file):
            return []
        return [f"{path} has no {MANIFEST}, so whether its files are as they were written could not be checked"]

    def _misfit(self, path: Path, step: int) -> str | None:
        """What speaks against a checkpoint by its manifest; none has one that is older than manifests."""
        if not (path / MANIFEST).is_file():
            before = [self._directory / f"step-{old}" for old in self.steps() if old < step]
            return f"its {MANIFEST} is missing" if any((old / MANIFEST).is_file() for old in before) else None
        try:
            check_manifest(path, step, self._settings, self._defaults)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    def _shared(self, make: Callable[[], Any]) -> Any:
        """What `make` gives in the first process, or the ValueError that it ends with there, in all processes."""
        answer: list[Any] = [None]
        if self._is_main:
            try:
                answer = [make()]
            except (ValueError, OSError) as error:
                answer = [ValueError(_cause(error) if isinstance(error, OSError) else str(error))]
        distributed.broadcast_object_list(answer, src=0, group=self._group)
        if isinstance(answer[0], ValueError):
            raise answer[0]
        return answer[0]


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


def _remove(directory: Path) -> None:
    """Removes a checkpoint; of one that lies elsewhere, only the link to it."""
    directory.unlink() if directory.is_symlink() else shutil.rmtree(directory)


def _cause(error: BaseException) -> str:
    """The first line of an error, or of the one in a process that failed."""
    if isinstance(error, checkpoint.CheckpointException):
        error, _ = next(iter(error.failures.values()))
    return f"{type(error).__name__}: {error}".splitlines()[0]
