"""Checkpoints of a run: written in the background, complete or absent, the last few kept.

A checkpoint is a directory `step-N` of torch.distributed.checkpoint: every process writes its share, and any number of
processes can read it. It is written as `.step-N` and gets its name when all of it is there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint

from .optim import Adam

State = dict[str, dict[str, Tensor]]


def training_state(model: nn.Module, optimizers: Sequence[Adam]) -> State:
    """All that training changes, by the names of parameters: their precise values, both moments, and step counts.

    The tensors are the optimizers' own, so that what is loaded into them is in force, but for parameters in lower
    precision: `round_parameters`.
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
    """Writes the precise values to the parameters in lower precision."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                if (master := optimizer.master_of(p)) is not p:
                    p.copy_(master)


class Checkpoints:
    """The checkpoints below one directory.

    Args:
        directory: where they lie; made when the first is written.
        keep: how many of the newest stay.

    Every process of the group makes one and calls the same methods in the same order.
    """

    def __init__(self, directory: Path, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self._directory, self._keep = directory, keep
        # Of its own: the background writes while training talks over the default one.
        self._group = distributed.new_group(backend="gloo")
        self._is_main = distributed.get_rank() == 0
        self._pending: tuple[Future, int] | None = None

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order."""
        if not self._directory.is_dir():
            return []
        matches = (re.fullmatch(r"step-(\d+)", path.name) for path in self._directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, state: State) -> None:
        """Copies the state, and writes it in the background; waits for the checkpoint before."""
        self.finish()
        temporary = self._directory / f".step-{step}"
        if self._is_main:
            self._directory.mkdir(parents=True, exist_ok=True)
            for leftover in self._directory.glob(".step-*"):
                shutil.rmtree(leftover)
        distributed.barrier(self._group)
        self._pending = checkpoint.async_save(state, checkpoint_id=temporary, process_group=self._group), step

    def finish(self) -> None:
        """Waits until what was saved last is on disk; raises OSError where it could not be written."""
        if self._pending is None:
            return
        (future, step), self._pending = self._pending, None
        try:
            future.result()
        except Exception as error:
            shutil.rmtree(self._directory / f".step-{step}", ignore_errors=True)
            kept = ", ".join(map(str, self.steps())) or "none"
            raise OSError(
                f"the checkpoint of step {step} could not be written to {self._directory}: {_cause(error)}; "
                f"complete are those of steps: {kept}"
            ) from error
        if self._is_main:
            os.replace(self._directory / f".step-{step}", self._directory / f"step-{step}")
            for old in self.steps()[: -self._keep]:
                shutil.rmtree(self._directory / f"step-{old}")
        distributed.barrier(self._group)

    def load(self, step: int, state: State) -> None:
        """Reads the checkpoint of a step into the tensors of `state`.

        Raises:
            ValueError: it holds other tensors than these, or is damaged.
        """
        path = self._directory / f"step-{step}"
        try:
            found = checkpoint.FileSystemReader(path).read_metadata().state_dict_metadata
            _check_shapes(path, {name: tuple(entry.size) for name, entry in found.items()}, state)
            checkpoint.load(state, checkpoint_id=path, process_group=self._group)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(
                f"{path} must be a complete checkpoint, got: {_cause(error)}; without it the run goes on from the one "
                f"before"
            ) from error


def _check_shapes(path: Path, found: dict[str, tuple[int, ...]], state: State) -> None:
    expected = {f"{part}.{name}": tuple(x.shape) for part, tensors in state.items() for name, x in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{path} must fit this model: expected {name} of shape {expected.get(name, 'none')}, got "
                f"{found.get(name, 'none')}"
            )


def _cause(error: BaseException) -> str:
    """The first line of what lies at the bottom of an error of torch.distributed.checkpoint."""
    failures = getattr(error, "failures", None)
    if failures:
        error = next(iter(failures.values()))
        error = error[0] if isinstance(error, tuple) else error
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__
    return f"{type(error).__name__}: {error}".splitlines()[0]
