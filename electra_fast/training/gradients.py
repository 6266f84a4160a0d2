"""The gradients of one update: summed over its backwards, averaged over processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule

# Kernels read 16 bytes at a time where every tensor begins at a multiple of them.
_ALIGNMENT = 16


class Gradients:
    """The gradients of a process alone, in `.grad` after each backward: the sums over the update's backwards so far.

    A backward finds no `.grad`, so autograd hands over what it computed and neither copies nor adds. The sums lie in
    the gradients of the first backward, and all others are added to them in a few launches. A parameter without a
    gradient in any backward has none in the update either.
    """

    def __init__(self, model: nn.Module):
        self._params = list(model.parameters())
        self._sums: list[Tensor | None] = []

    def expect(self, is_last: bool) -> None:
        """Prepares for a forward and backward; is_last: whether it is the update's last."""

    def clear(self) -> None:
        """Begins an update: forgets the sums of the one before."""
        self._sums = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Empties `.grad` for the forward and backward within, and then adds what these leave to the sums."""
        for p in self._params:
            p.grad = None
        yield
        grads = [p.grad for p in self._params]
        if self._sums:
            pairs = list(zip(self._sums, grads, strict=True))
            if both := [pair for pair in pairs if pair[0] is not None and pair[1] is not None]:
                torch._foreach_add_(*zip(*both, strict=True))
            new = self._kept([grad if total is None else None for total, grad in pairs])
            self._sums = [first if total is None else total for total, first in zip(self._sums, new, strict=True)]
        else:
            self._sums = self._kept(grads)
        for p, total in zip(self._params, self._sums, strict=True):
            p.grad = total

    def finish(self) -> None:
        """Completes the update's gradients after its last backward."""

    def _kept(self, grads: list[Tensor | None]) -> list[Tensor | None]:
        """First gradients, in memory that stays."""
        return grads


class FlatGradients(Gradients):
    """The gradients of several processes that each have all weights.

    They lie side by side, in one buffer for each dtype, so that an all-reduce of it averages all of them. It runs once
    an update, outside of any CUDA graph.

    Raises:
        RuntimeError: a parameter that should get a gradient got none in an update.
    """

    def __init__(self, model: nn.Module, n_processes: int):
        super().__init__(model)
        self._n_processes = n_processes
        self._names = [name for name, _ in model.named_parameters()]
        self._buffers: list[Tensor] = []
        self._views: list[Tensor | None] = [None] * len(self._params)
        wanted = [i for i, p in enumerate(self._params) if p.requires_grad]
        for dtype in dict.fromkeys(self._params[i].dtype for i in wanted):
            alike = {i: self._params[i] for i in wanted if self._params[i].dtype == dtype}
            unit = _ALIGNMENT // dtype.itemsize
            sizes = [-(-p.numel() // unit) * unit for p in alike.values()]
            buffer = torch.zeros(sum(sizes), dtype=dtype, device=self._params[wanted[0]].device)
            self._buffers.append(buffer)
            for (i, p), piece in zip(alike.items(), buffer.split(sizes), strict=True):
                self._views[i] = piece[: p.numel()].view(p.shape)

    def finish(self) -> None:
        given = zip(self._names, self._views, self._sums, strict=True)
        if missing := [name for name, view, total in given if view is not None and total is None]:
            raise RuntimeError(
                "several processes average the gradients of all parameters: expected a gradient in every update, or "
                f"requires_grad=False, for {missing[0]} and {len(missing) - 1} others"
            )
        for buffer in self._buffers:
            distributed.all_reduce(buffer.div_(self._n_processes))

    def _kept(self, grads: list[Tensor | None]) -> list[Tensor | None]:
        if both := [pair for pair in zip(self._views, grads, strict=True) if pair[1] is not None]:
            torch._foreach_copy_(*zip(*both, strict=True))
        return [None if grad is None else view for view, grad in zip(self._views, grads, strict=True)]


class ShardedGradients(Gradients):
    """The gradients of processes that share out the weights: FSDP sums and averages them in the last backward."""

    def __init__(self, model: FSDPModule):
        super().__init__(model)
        self._model = model

    def expect(self, is_last: bool) -> None:
        self._model.set_requires_gradient_sync(is_last)

    def clear(self) -> None:
        for p in self._params:
            p.grad = None

    @contextmanager
    def collect(self) -> Iterator[None]:
        yield


def gradients_of(model: nn.Module, n_processes: int) -> Gradients:
    """The gradients of a model that `parallelize` prepared; made after its parameters have their final dtypes."""
    if isinstance(model, FSDPModule):
        return ShardedGradients(model)
    return Gradients(model) if n_processes == 1 else FlatGradients(model, n_processes)
