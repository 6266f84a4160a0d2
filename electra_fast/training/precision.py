"""Training below fp32: parameters in bf16 or fp16, their fp32 values in the optimizer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..model.precision import DTYPES, default_precision, warn_if_slow
from .distributed import World
from .optim import Adam


def chosen_precision(asked: str | None, world: World) -> str:
    """The precision of a run: the one asked for, or the device's default; warns where a CPU is slow in it."""
    precision = asked or default_precision(world.device)
    if world.device.type == "cpu":
        with world.warning_once():
            warn_if_slow(DTYPES[precision])
    return precision


def lower_precision(optimizer: Adam, dtype: torch.dtype) -> None:
    """Rounds an optimizer's parameters to `dtype`; the optimizer keeps their values from before as masters."""
    for p in _parameters(optimizer):
        if p.dtype != dtype:
            optimizer.keep_master(p)
            p.data = p.data.to(dtype)


class LossScale:
    """A factor of the loss that keeps fp16 gradients from vanishing (Micikevicius et al. 2018).

    Each step that is not finite halves the factor, and `interval` finite ones in a row double it. All of it stays on
    the device.

    Attributes:
        value: the factor, an fp32 scalar.
        n_good: finite steps since the factor changed, an int64 scalar.
    """

    def __init__(self, device: torch.device, initial: float = 2.0**16, interval: int = 2000):
        self.value = torch.tensor(initial, device=device)
        self.n_good = torch.zeros((), dtype=torch.long, device=device)
        self._interval = interval

    def update(self, is_finite: Tensor) -> None:
        """Adjusts the factor after a step; is_finite: bool scalar, whether the step's gradients were finite."""
        self.n_good.add_(1).mul_(is_finite)
        is_due = self.n_good >= self._interval
        self.value.mul_(torch.where(is_finite, torch.where(is_due, 2.0, 1.0), 0.5))
        self.n_good.mul_(~is_due)


def _parameters(optimizer: Adam) -> Iterator[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])
