"""The ops `grad_norm`, `adamw` and `lamb` on the kernels of `electra_fast.kernels.optim`.

These are plain functions and not torch.library ops. A parameter in fp32 is its own master, and a schema cannot express
that two arguments are one tensor, both written to. torch.compile does not trace an optimizer's step, so nothing would
read the schema; and the dispatcher would unpack a thousand tensors per step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .library import DTYPES, on_device


def grad_norm(grads: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all tensors together, a scalar in fp32."""
    from ...kernels import optim

    if not grads:
        return torch.zeros(())
    _check("grad_norm", grads=grads)
    return optim.grad_norm(grads)


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
    """One AdamW update, in place on params, masters, exp_avgs and exp_avg_sqs; see `reference_optim.adamw`."""
    from ...kernels import optim

    _check("adamw", params=params, masters=masters, grads=grads, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs)
    _check_numbers("adamw", len(params), lr=lr, weight_decay=weight_decay, step=step)
    tensors = (params, masters, grads, exp_avgs, exp_avg_sqs)
    optim.adamw(*tensors, lr, beta1, beta2, eps, weight_decay, step, grad_scale)
    torch.autograd.graph.increment_version((*params, *masters))


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
    """One LAMB update, in place on params, masters, exp_avgs and exp_avg_sqs; see `reference_optim.lamb`."""
    from ...kernels import optim

    _check("lamb", params=params, masters=masters, grads=grads, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs)
    _check_numbers("lamb", len(params), lr=lr, weight_decay=weight_decay, step=step)
    tensors = (params, masters, grads, exp_avgs, exp_avg_sqs)
    update = optim.lamb if adapt else optim.adamw  # a ratio of 1
    update(*tensors, lr, beta1, beta2, eps, weight_decay, step, grad_scale)
    torch.autograd.graph.increment_version((*params, *masters))


def _check(op: str, **lists: Sequence[Tensor]) -> None:
    """Raises ValueError for a tensor that the kernels cannot take; the first list has the parameters or the gradients.

    The kernels read contiguous memory, gradients in their parameter's dtype, and all else in fp32.
    """
    first = next(iter(lists.values()))
    for name, tensors in lists.items():
        if len(tensors) != len(first):
            raise ValueError(f"{op}: expected {len(first)} {name}, got {len(tensors)}")
        is_state = name not in ("params", "grads")
        for i, (x, p) in enumerate(zip(tensors, first, strict=True)):
            dtype = torch.float32 if is_state else p.dtype
            if x.dtype == dtype and x.shape == p.shape and x.is_contiguous() and x.device == first[0].device:
                continue
            raise ValueError(
                f"{op}: expected {name}[{i}] of {dtype}, shape {tuple(p.shape)}, contiguous, on {first[0].device}, got "
                f"{x.dtype}, {tuple(x.shape)} with strides {x.stride()}, on {x.device}"
            )
    name = next(iter(lists))
    for i, p in enumerate(first):
        on_device(op, f"{name}[{i}]", p)
        if p.dtype not in DTYPES:
            expected = "float32, bfloat16 and float16"
            raise ValueError(f"{op}: the Triton kernels take {expected}, got {name}[{i}] of {p.dtype}")
    for i, (p, master) in enumerate(zip(first, lists.get("masters", first), strict=True)):
        if p.dtype == torch.float32 and master.data_ptr() != p.data_ptr():
            raise ValueError(f"{op}: expected masters[{i}] to be params[{i}], which is fp32 itself")


def _check_numbers(op: str, n_tensors: int, **numbers: object) -> None:
    """Raises ValueError for numbers of each tensor that are more or fewer than the tensors."""
    for name, given in numbers.items():
        if isinstance(given, Sequence) and len(given) != n_tensors:
            raise ValueError(f"{op}: expected one {name}, or {n_tensors} of them, got {len(given)}")
