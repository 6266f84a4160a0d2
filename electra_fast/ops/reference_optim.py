"""The ops over the tensors of a whole network in plain torch: all gradients' norm and clip, and optimizers' updates.

The updates write into their arguments, and say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def grad_norm(grads: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all tensors together, a scalar in fp32."""
    return torch.nn.utils.get_total_norm([grad.float() if grad.dtype.itemsize < 4 else grad for grad in grads])


def clip(
    norm: Tensor, counts: Sequence[Tensor], max_norm: float | None = None, loss_scale: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The factor that takes `loss_scale` out of all gradients and clips them together, and the counts of steps.

    Returns (norm, factor, is_finite), scalars: `norm`, that of the gradients as they are, without `loss_scale`; what to
    multiply them by, so that their norm is at most `max_norm`, which is NaN if the norm is not finite; and whether it
    is finite. If so, 1 is added to all `counts`, scalars in int64, in place.
    """
    norm = norm if loss_scale is None else norm / loss_scale
    # An infinite norm times zero is NaN.
    factor = torch.rsub(norm, 1.0 if max_norm is None else max_norm, alpha=0)
    if max_norm is not None:
        factor = factor / norm.clamp(min=max_norm)
    if loss_scale is not None:
        factor = factor / loss_scale
    is_finite = factor < math.inf  # it is positive or NaN
    torch._foreach_add_(counts, [is_finite.long()] * len(counts))
    return norm, factor, is_finite


def adamw(
    params: Sequence[Tensor],
    masters: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    lr: float | Tensor | Sequence[float | Tensor],
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float | Sequence[float],
    step: int | Tensor | Sequence[int | Tensor] | None = None,
    grad_scale: float | Tensor = 1.0,
) -> None:
    """One AdamW update, in place on params, masters, exp_avgs and exp_avg_sqs.

    p -= lr * (m / (sqrt(v) + eps) + weight_decay * p), with eps outside the root. `step` (from 1) switches bias
    correction on; None leaves it out, as the original ELECTRA does (google-research/electra, model/optimization.py).
    Gradients are multiplied by `grad_scale`, here those in fp32 in place; if it is not finite, nothing changes.

    The moments and `masters` are fp32. A master is the parameter itself if that is fp32, otherwise its precise twin,
    and the parameter is rounded from it. lr, step and grad_scale may be scalars on the device, so that a CUDA graph
    reads them anew at each replay. lr, weight_decay and step are one for all tensors, or one for each.
    """
    if not math.isfinite(grad_scale):
        return
    grads = [grad if grad.dtype == m.dtype else grad.to(m.dtype) for grad, m in zip(grads, exp_avgs, strict=True)]
    numbers = zip(*(of_each(values, len(grads)) for values in (lr, weight_decay, step)), strict=True)
    alike: dict[tuple, list[tuple[Tensor, ...]]] = {}
    for own, *tensors in zip(numbers, masters, grads, exp_avgs, exp_avg_sqs, strict=True):
        alike.setdefault((tensors[0].device, tensors[0].dtype, *own), []).append(tuple(tensors))
    for (device, dtype, rate, decay, count), chosen in alike.items():
        lists = [list(row) for row in zip(*chosen, strict=True)]
        # torch's fused AdamW passes over memory once: on a CPU it is three times as fast as one op after the other. It
        # divides by a number in fp32 alone. At step infinity nothing is corrected.
        divisor = None if dtype == torch.float64 else torch.as_tensor(grad_scale, device=device).float().reciprocal()
        if divisor is None:
            torch._foreach_mul_(lists[1], float(grad_scale))
        counts = [torch.tensor(math.inf if count is None else float(count), device=device)] * len(chosen)
        options = dict(lr=rate, beta1=beta1, beta2=beta2, weight_decay=decay, eps=eps)
        torch._fused_adamw_(*lists, [], counts, **options, amsgrad=False, maximize=False, grad_scale=divisor)
    for p, master in zip(params, masters, strict=True):
        if master is not p:
            p.copy_(master)


def lamb(
    params: Sequence[Tensor],
    masters: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    lr: float | Tensor | Sequence[float | Tensor],
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float | Sequence[float],
    step: int | Tensor | Sequence[int | Tensor] | None = None,
    grad_scale: float | Tensor = 1.0,
    adapt: bool = True,
) -> None:
    """One LAMB update, in place (You et al. 2020, algorithm 2): AdamW's update u, scaled by |p| / |u| of each tensor.

    The ratio is 1 where either norm is 0, and everywhere if `adapt` is false. Other arguments are those of `adamw`.
    """
    if not math.isfinite(grad_scale):
        return
    numbers = zip(*(of_each(values, len(grads)) for values in (lr, weight_decay, step)), strict=True)
    tensors = zip(params, masters, grads, exp_avgs, exp_avg_sqs, strict=True)
    for (p, master, grad, m, v), (rate, decay, count) in zip(tensors, numbers, strict=True):
        correction, denominator = _move_moments(grad.to(m.dtype) * grad_scale, m, v, beta1, beta2, eps, count)
        update = m / correction / denominator + decay * master
        p_norm, u_norm = master.norm(), update.norm()
        ratio = torch.where((p_norm > 0) & (u_norm > 0) & adapt, p_norm / u_norm, 1.0)
        master.sub_(update * (rate * ratio))
        if master is not p:
            p.copy_(master)


def of_each(values: Any, n_tensors: int) -> list[float | None]:
    """Each tensor's number, from one for all or one for each; a number on a device is read once."""
    given = values if isinstance(values, Sequence) else [values] * n_tensors
    read = {id(x): x.item() if isinstance(x, Tensor) else x for x in {id(x): x for x in given}.values()}
    return [read[id(x)] for x in given]


def _move_moments(
    grad: Tensor, m: Tensor, v: Tensor, beta1: float, beta2: float, eps: float, step: int | None
) -> tuple[float, Tensor]:
    """Updates Adam's moments in place; returns the correction to divide m by, and sqrt(v) + eps with v corrected."""
    m.mul_(beta1).add_(grad, alpha=1 - beta1)
    v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    correction1, correction2 = (1.0, 1.0) if step is None else (1 - beta1**step, 1 - beta2**step)
    return correction1, (v / correction2).sqrt_().add_(eps)
