"""The op `feed_forward_block` on the kernels of `electra_fast.kernels.feed_forward`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .. import reference_blocks
from .library import define, dropout_seed, needs_grad, operands, reference_gradients


@define(
    "feed_forward_block_fwd(Tensor hidden, Tensor inner_weight, Tensor inner_bias, Tensor outer_weight, "
    "Tensor outer_bias, Tensor norm_weight, Tensor norm_bias, Tensor? seed, float eps, float dropout_p, bool save) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    module="feed_forward",
)
def feed_forward_block_fwd(hidden, inner_weight, *others):
    save, n_rows = others[-1], hidden.shape[0]
    wide, rows = (n_rows, inner_weight.shape[0]) if save else (0,), hidden.shape if save else (0,)
    statistics = (n_rows if save else 0,)
    return (
        torch.empty_like(hidden),
        hidden.new_empty(wide),
        hidden.new_empty(wide),
        hidden.new_empty(rows),
        hidden.new_empty(statistics, dtype=torch.float32),
        hidden.new_empty(statistics, dtype=torch.float32),
    )


@define(
    "feed_forward_block_bwd(Tensor dy, Tensor hidden, Tensor inner_weight, Tensor outer_weight, Tensor norm_weight, "
    "Tensor? seed, Tensor pre, Tensor inner, Tensor summed, Tensor mean, Tensor rstd, float dropout_p, bool[] wanted) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    module="feed_forward",
)
def feed_forward_block_bwd(dy, hidden, inner_weight, outer_weight, norm_weight, *others):
    wants_hidden, wants_inner, _, wants_outer = wanted = others[-1]
    f, h = inner_weight.shape
    return (
        torch.empty_like(hidden) if wants_hidden else dy.new_empty(0),
        torch.empty_like(inner_weight) if wants_inner else dy.new_empty(0),
        torch.empty_like(outer_weight) if wants_outer else dy.new_empty(0),
        dy.new_empty(3 * h + f if any(wanted[:3]) else 3 * h),
    )


class _FeedForwardBlock(Function):
    @staticmethod
    def forward(ctx: Any, seed, eps, dropout_p, *tensors):
        y, *saved = feed_forward_block_fwd(*tensors, seed, eps, dropout_p, True)
        ctx.save_for_backward(*tensors, seed, *saved)
        ctx.options = eps, dropout_p
        return y

    @staticmethod
    def backward(ctx: Any, dy):
        *tensors, seed, pre, inner, summed, mean, rstd = ctx.saved_tensors
        (eps, dropout_p), wanted = ctx.options, ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():
            grads = reference_gradients(
                lambda *given: reference_blocks.feed_forward_block(*given, eps, dropout_p, seed), tensors, dy, wanted
            )
            return None, None, None, *grads
        hidden, inner_weight, inner_bias, outer_weight, _, norm_weight, _ = tensors
        dhidden, dinner_weight, douter_weight, dvectors = feed_forward_block_bwd(
            dy.contiguous(), hidden, inner_weight, outer_weight, norm_weight, seed, pre, inner, summed, mean, rstd,
            dropout_p, wanted[:4],
        )  # fmt: skip
        sizes = [len(norm_weight)] * 3 + ([len(inner_bias)] if any(wanted[:3]) else [])
        dnorm_weight, dnorm_bias, douter_bias, *dinner_bias = dvectors.split(sizes)
        grads = (
            dhidden,
            dinner_weight,
            dinner_bias[0] if dinner_bias else None,
            douter_weight,
            douter_bias,
            dnorm_weight,
            dnorm_bias,
        )
        return None, None, None, *(x if is_wanted else None for x, is_wanted in zip(grads, wanted, strict=True))


def feed_forward_block(
    hidden: Tensor,
    inner_weight: Tensor,
    inner_bias: Tensor,
    outer_weight: Tensor,
    outer_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """LayerNorm(hidden + dropout(gelu(hidden inner' + b) outer' + c)); hidden: [..., H]."""
    tensors = operands(
        "feed_forward_block",
        hidden=hidden,
        inner_weight=inner_weight,
        inner_bias=inner_bias,
        outer_weight=outer_weight,
        outer_bias=outer_bias,
        norm_weight=norm_weight,
        norm_bias=norm_bias,
    )
    seed = dropout_seed(dropout_p, seed, hidden.device)
    first, *parameters = tensors
    tensors = (first.reshape(-1, first.shape[-1]).contiguous(), *(x.contiguous() for x in parameters))
    if needs_grad(*tensors):
        y = _FeedForwardBlock.apply(seed, eps, dropout_p, *tensors)
    else:
        y = feed_forward_block_fwd(*tensors, seed, eps, dropout_p, False)[0]
    return y.view(hidden.shape)
