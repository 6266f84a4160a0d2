"""The op `mlm_head` on the kernels of `electra_fast.kernels.mlm_head`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .library import define, needs_grad, on_device, operands


@define(
    "mlm_head_fwd(Tensor hidden, Tensor weight, Tensor bias, Tensor labels, Tensor? uniform, "
    "Tensor? inverse_temperature, bool never_label) -> (Tensor, Tensor, Tensor, Tensor)",
    module="mlm_head",
)
def mlm_head_fwd(hidden, weight, bias, labels, uniform, inverse_temperature, never_label):
    n_rows = hidden.shape[0]
    losses = hidden.new_empty(n_rows, dtype=torch.float32)
    is_correct = hidden.new_empty(n_rows, dtype=torch.bool)
    samples = hidden.new_empty(0 if uniform is None else n_rows, dtype=torch.int64)
    return losses, is_correct, samples, torch.empty_like(losses)


@define(
    "mlm_head_bwd(Tensor dlosses, Tensor lse, Tensor hidden, Tensor weight, Tensor bias, Tensor labels) "
    "-> (Tensor, Tensor, Tensor)",
    module="mlm_head",
)
def mlm_head_bwd(dlosses, lse, hidden, weight, bias, labels):
    return torch.empty_like(hidden), torch.empty_like(weight), torch.empty_like(bias)


class _MlmHead(Function):
    @staticmethod
    def forward(ctx: Any, hidden, weight, bias, labels, *sampling):
        losses, is_correct, samples, lse = mlm_head_fwd(hidden, weight, bias, labels, *sampling)
        ctx.mark_non_differentiable(is_correct, samples)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(lse, hidden, weight, bias, labels)
        return losses, is_correct, samples

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlosses, _is_correct, _samples):
        return *mlm_head_bwd(dlosses.contiguous(), *ctx.saved_tensors), None, None, None, None


def mlm_head(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    uniform: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    never_label: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Vocabulary logits of the masked rows, their cross-entropy, and one exact sample per row.

    hidden: [N, E]; weight: [V, E]; bias: [V]; labels: [N] int64; uniform: [N] fp32 in [0, 1), one number per row, or
    None for no sample. A sample is drawn from softmax(logits / temperature) by inverting its cumulative sum;
    `never_label` leaves the true token out of it. A temperature that changes is a tensor [] on the device, which a CUDA
    graph reads at each replay. Returns (losses [N] fp32, is_correct [N] bool: no logit is above the label's, samples
    [N] int64 or None).
    """
    tensors = operands("mlm_head", hidden=hidden, weight=weight, bias=bias)
    on_device("mlm_head", "labels", labels, hidden.device)
    if uniform is not None:
        on_device("mlm_head", "uniform", uniform, hidden.device)
        uniform = uniform.contiguous()
    if isinstance(temperature, Tensor):
        on_device("mlm_head", "temperature", temperature, hidden.device)
        inverse = temperature.float().reciprocal()
    else:
        inverse = None if temperature == 1 else labels.new_full((), 1 / temperature, dtype=torch.float32)
    args = (*(x.contiguous() for x in tensors), labels.contiguous(), uniform, inverse, never_label)
    losses, is_correct, samples = _MlmHead.apply(*args) if needs_grad(*tensors) else mlm_head_fwd(*args)[:3]
    return losses, is_correct, None if uniform is None else samples
