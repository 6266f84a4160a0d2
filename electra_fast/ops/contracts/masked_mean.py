"""The op `masked_mean` on the kernels of `electra_fast.kernels.masked_mean`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .library import define, needs_grad, on_device


@define("masked_mean_fwd(Tensor values, Tensor counts) -> (Tensor, Tensor)", module="masked_mean")
def masked_mean_fwd(values, counts):
    return values.new_empty((), dtype=torch.float32), values.new_empty((), dtype=torch.float32)


@define("masked_mean_bwd(Tensor dmean, Tensor n, Tensor counts) -> Tensor", module="masked_mean")
def masked_mean_bwd(dmean, n, counts):
    return torch.empty_like(counts, dtype=torch.float32)


class _MaskedMean(Function):
    @staticmethod
    def forward(ctx: Any, values, counts):
        mean, n = masked_mean_fwd(values, counts)
        ctx.save_for_backward(n, counts)
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dmean):
        return masked_mean_bwd(dmean, *ctx.saved_tensors), None


def masked_mean(values: Tensor, counts: Tensor) -> Tensor:
    """The mean of the values [N], fp32 or bool, that count, a scalar in fp32; 0 where none does. counts: [N] bool.

    Raises:
        ValueError: another dtype, shape or device.
    """
    on_device("masked_mean", "values", values)
    on_device("masked_mean", "counts", counts, values.device)
    if values.dtype not in (torch.float32, torch.bool) or counts.dtype != torch.bool or values.shape != counts.shape:
        raise ValueError(
            f"masked_mean: expected values [N] of float32 or bool and as many counts of bool, got {values.dtype}, "
            f"{tuple(values.shape)} and {counts.dtype}, {tuple(counts.shape)}"
        )
    values, counts = values.contiguous(), counts.contiguous()
    return _MaskedMean.apply(values, counts) if needs_grad(values) else masked_mean_fwd(values, counts)[0]
