"""The op `dropout_add_norm` on the kernels of `electra_fast.kernels.norm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .library import define, dropout_seed, needs_grad, operands


@define(
    "dropout_add_norm_fwd(Tensor x, Tensor residual, Tensor weight, Tensor bias, Tensor? seed, float eps, "
    "float dropout_p, bool save) -> (Tensor, Tensor, Tensor, Tensor)",
    module="norm",
)
def dropout_add_norm_fwd(x, residual, weight, bias, seed, eps, dropout_p, save):
    statistics = x.new_empty(x.shape[0] if save else 0, dtype=torch.float32)
    summed = torch.empty_like(x) if save else x.new_empty(0)
    return torch.empty_like(x), summed, statistics, torch.empty_like(statistics)


@define(
    "dropout_add_norm_bwd(Tensor dy, Tensor summed, Tensor mean, Tensor rstd, Tensor weight, Tensor? seed, "
    "float dropout_p) -> (Tensor, Tensor, Tensor)",
    module="norm",
)
def dropout_add_norm_bwd(dy, summed, mean, rstd, weight, seed, dropout_p):
    dx = torch.empty_like(dy) if dropout_p > 0 else dy.new_empty(0)
    return dx, torch.empty_like(dy), weight.new_empty(2, dy.shape[1])


class _DropoutAddNorm(Function):
    @staticmethod
    def forward(ctx: Any, x, residual, weight, bias, seed, eps, dropout_p):
        y, summed, mean, rstd = dropout_add_norm_fwd(x, residual, weight, bias, seed, eps, dropout_p, True)
        ctx.save_for_backward(summed, mean, rstd, weight, seed)
        ctx.dropout_p = dropout_p
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy):
        dx, dresidual, dparameters = dropout_add_norm_bwd(dy.contiguous(), *ctx.saved_tensors, ctx.dropout_p)
        return dx if ctx.dropout_p > 0 else dresidual, dresidual, *dparameters, None, None, None


def dropout_add_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """LayerNorm(residual + dropout(x)); all [..., H]."""
    x, residual, weight, bias = operands("dropout_add_norm", x=x, residual=residual, weight=weight, bias=bias)
    seed = dropout_seed(dropout_p, seed, x.device)
    rows = [tensor.reshape(-1, x.shape[-1]).contiguous() for tensor in (x, residual)]
    if needs_grad(x, residual, weight, bias):
        y = _DropoutAddNorm.apply(*rows, weight, bias, seed, eps, dropout_p)
    else:
        y = dropout_add_norm_fwd(*rows, weight, bias, seed, eps, dropout_p, False)[0]
    return y.view(x.shape)
