"""Training below fp32: parameters in bf16 or fp16, their precise values in the optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .optim import Adam

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def default_precision(device: torch.device) -> str:
    """bf16 where the kernels run, fp32 elsewhere: a CPU is slower in bf16."""
    return "bf16" if device.type == "cuda" else "fp32"


def lower_precision(optimizer: Adam, dtype: torch.dtype) -> None:
    """Rounds an optimizer's parameters to `dtype`; what they were stays with it, as their masters."""
    for p in _parameters(optimizer):
        if p.dtype != dtype:
            optimizer.keep_master(p)
            p.data = p.data.to(dtype)


@contextmanager
def precise_weights(optimizer: Adam) -> Iterator[None]:
    """Within, the parameters have their masters' values: to save them. Their own memory is there again afterwards."""
    rounded = {p: p.data for p in _parameters(optimizer)}
    try:
        for p in rounded:
            p.data = optimizer.master_of(p).data
        yield
    finally:
        for p, data in rounded.items():
            p.data = data


def _parameters(optimizer: Adam) -> Iterator[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])
