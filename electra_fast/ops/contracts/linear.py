"""The op `linear_gelu` on the kernels of `electra_fast.kernels.linear`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .library import define, needs_grad, operands


@define("linear_gelu_fwd(Tensor x, Tensor weight, Tensor bias, bool save) -> (Tensor, Tensor)", module="linear")
def linear_gelu_fwd(x, weight, bias, save):
    y = x.new_empty(x.shape[0], weight.shape[0])
    return y, torch.empty_like(y) if save else x.new_empty(0)


@define(
    "linear_gelu_bwd(Tensor dy, Tensor pre, Tensor x, Tensor weight) -> (Tensor, Tensor, Tensor)",
    module="linear",
)
def linear_gelu_bwd(dy, pre, x, weight):
    return torch.empty_like(x), torch.empty_like(weight), weight.new_empty(weight.shape[0])


class _LinearGelu(Function):
    @staticmethod
    def forward(ctx: Any, x, weight, bias):
        y, pre = linear_gelu_fwd(x, weight, bias, True)
        ctx.save_for_backward(pre, x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy):
        return linear_gelu_bwd(dy.contiguous(), *ctx.saved_tensors)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Computes erf-GELU(x weight' + bias): [..., H] -> [..., F]."""
    x, weight, bias = operands("linear_gelu", x=x, weight=weight, bias=bias)
    rows, weight = x.reshape(-1, x.shape[-1]).contiguous(), weight.contiguous()
    if needs_grad(x, weight, bias):
        y = _LinearGelu.apply(rows, weight, bias)
    else:
        y = linear_gelu_fwd(rows, weight, bias, False)[0]
    return y.view(*x.shape[:-1], len(weight))
