"""One update: forward and backward of each part of a batch, then the optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from .gradients import Gradients
from .optim import Adam


class Step:
    """An update of a model, whose gradients are the sums over the parts of a batch.

    Args:
        compute: forward and backward of a part; leaves gradients in `.grad` and returns what its caller wants to know.
        optimizers: optimizers of all parameters; their learning rates may change between calls, and they share one loss
            scale or have none.
        gradients: sums and averages of the gradients that `compute` leaves.
    """

    def __init__(self, compute: Callable[..., Any], optimizers: Sequence[Adam], gradients: Gradients):
        self._compute, self._optimizers, self._gradients = compute, optimizers, gradients

    def __call__(self, parts: Sequence[tuple]) -> Iterator[Any]:
        """Makes an update, which is done when the iterator ends; parts: the arguments of `compute` for each.

        Yields what `compute` returned for each part. The next part may overwrite its memory.
        """
        for i, part in enumerate(parts):
            self._gradients.expect(is_last=i == len(parts) - 1)
            yield self._run(self._begin if i == 0 else self._add, *part)
        self._gradients.finish()
        for optimizer in self._optimizers:
            optimizer.write_lr()
        self._run(self._update)

    def _run(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """Runs one of the three functions below; each depends on its inputs and on what lies on the device."""
        return function(*inputs)

    def _begin(self, *inputs: Any) -> Any:
        self._gradients.clear()
        return self._add(*inputs)

    def _add(self, *inputs: Any) -> Any:
        with self._gradients.collect():
            return self._compute(*inputs)

    def _update(self) -> None:
        for optimizer in self._optimizers:
            optimizer.update()
        found = [optimizer.is_finite for optimizer in self._optimizers if optimizer.is_finite is not None]
        if found and (scale := self._optimizers[0].loss_scale) is not None:
            scale.update(torch.stack(found).all())
