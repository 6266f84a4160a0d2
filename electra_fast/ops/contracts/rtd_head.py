"""The op `rtd_head` on the kernels of `electra_fast.kernels.rtd_head`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .library import define, needs_grad, on_device, operands


@define(
    "rtd_head_fwd(Tensor hidden, Tensor dense_weight, Tensor dense_bias, Tensor prediction_weight, "
    "Tensor prediction_bias, Tensor? labels, bool save) -> (Tensor, Tensor, Tensor, Tensor)",
    module="rtd_head",
)
def rtd_head_fwd(hidden, dense_weight, dense_bias, prediction_weight, prediction_bias, labels, save):
    n_rows, has_labels = hidden.shape[0], labels is not None
    loss = hidden.new_empty(() if has_labels else 0, dtype=torch.float32)
    scores = hidden.new_empty(n_rows if save and has_labels else 0, dtype=torch.float32)
    return loss, hidden.new_empty(n_rows), scores, loss.new_empty(2 if has_labels else 0)


@define(
    "rtd_head_bwd(Tensor? dloss, Tensor? dlogits, Tensor hidden, Tensor dense_weight, Tensor dense_bias, "
    "Tensor prediction_weight, Tensor? labels, Tensor scores, Tensor sums) -> (Tensor, Tensor, Tensor)",
    module="rtd_head",
)
def rtd_head_bwd(dloss, dlogits, hidden, dense_weight, dense_bias, prediction_weight, labels, scores, sums):
    return torch.empty_like(hidden), torch.empty_like(dense_weight), hidden.new_empty(2 * hidden.shape[1] + 1)


class _RtdHead(Function):
    @staticmethod
    def forward(ctx: Any, hidden, dense_weight, dense_bias, prediction_weight, prediction_bias, labels):
        ctx.set_materialize_grads(False)
        loss, logits, scores, sums = rtd_head_fwd(
            hidden, dense_weight, dense_bias, prediction_weight, prediction_bias, labels, True
        )
        ctx.save_for_backward(hidden, dense_weight, dense_bias, prediction_weight, labels, scores, sums)
        return None if labels is None else loss, logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss, dlogits):
        dlogits = None if dlogits is None else dlogits.contiguous()
        dhidden, ddense_weight, dvectors = rtd_head_bwd(dloss, dlogits, *ctx.saved_tensors)
        h = dhidden.shape[1]
        ddense_bias, dprediction_weight, dprediction_bias = dvectors.split([h, h, 1])
        return dhidden, ddense_weight, ddense_bias, dprediction_weight[None], dprediction_bias, None


def rtd_head(
    hidden: Tensor,
    dense_weight: Tensor,
    dense_bias: Tensor,
    prediction_weight: Tensor,
    prediction_bias: Tensor,
    labels: Tensor | None = None,
) -> tuple[Tensor | None, Tensor]:
    """The replaced-token head: logit = gelu(hidden dense' + b) . prediction + c, and the mean binary cross-entropy.

    hidden: [..., H]; prediction_weight: [1, H]; labels: [...] bool or int, or None; above zero where the token was
    replaced, below zero where it does not count. Returns (loss, logits [...]); the loss is a scalar in fp32, the mean
    over the tokens that count, None without labels.
    """
    hidden, *parameters = operands(
        "rtd_head", hidden=hidden, dense_weight=dense_weight, dense_bias=dense_bias,
        prediction_weight=prediction_weight, prediction_bias=prediction_bias,
    )  # fmt: skip
    rows = hidden.reshape(-1, hidden.shape[-1]).contiguous()
    parameters = [parameter.contiguous() for parameter in parameters]
    if labels is not None:
        on_device("rtd_head", "labels", labels, hidden.device)
        labels = labels.reshape(len(rows)).contiguous()
    if needs_grad(hidden, *parameters):
        loss, logits = _RtdHead.apply(rows, *parameters, labels)
    else:
        loss, logits, _, _ = rtd_head_fwd(rows, *parameters, labels, False)
        loss = None if labels is None else loss
    return loss, logits.view(hidden.shape[:-1])
