"""The ops `grad_norm` and `adamw` in C++ (csrc/cpu), in float32; what C++ cannot serve goes to the reference.

They are plain functions, as those on the kernels are, and for the same reasons (optim.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from ...processor import fastest_allowed
from .. import cpu, reference_optim
from ..tracing import is_followed
from .cpu_library import PLAIN, obstacle


def grad_norm(grads: Sequence[Tensor]) -> Tensor:
    """`reference_optim.grad_norm`; sums are added up in doubles."""
    norm = None
    if shared := _shared(grads):
        norm = cpu.extension.grad_norm(*shared, torch.get_num_threads(), fastest_allowed())
    if norm is None:
        return reference_optim.grad_norm(grads)
    return torch.tensor(norm, dtype=torch.float32, device="cpu")  # whatever torch's defaults are


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
    """`reference_optim.adamw`; gradients are left as they are.

    Raises:
        ValueError: a gradient or moment of another shape than its parameter.
    """
    if not math.isfinite(grad_scale):
        return
    converted = [grad if grad.dtype == m.dtype else grad.to(m.dtype) for grad, m in zip(grads, exp_avgs, strict=True)]
    is_done = False
    if shared := _shared(converted, masters, exp_avgs, exp_avg_sqs):
        rates, decays, steps = (reference_optim.of_each(values, len(grads)) for values in (lr, weight_decay, step))
        is_done = cpu.extension.adamw(
            shared,
            [(rate, decay, math.inf if n is None else n) for rate, decay, n in zip(rates, decays, steps, strict=True)],
            beta1,
            beta2,
            eps,
            float(grad_scale),
            torch.get_num_threads(),
            fastest_allowed(),
        )
    if not is_done:
        lists = params, masters, grads, exp_avgs, exp_avg_sqs
        return reference_optim.adamw(*lists, lr, beta1, beta2, eps, weight_decay, step, grad_scale)
    torch.autograd.graph.increment_version(masters)
    for p, master in zip(params, masters, strict=True):
        if master is not p:
            p.copy_(master)


def _shared(grads: Sequence[Tensor], *others: Sequence[Tensor]) -> list[list[Any]] | None:
    """Capsules that hold the tensors' memory, for C++ to read and to write; None where C++ cannot serve them.

    Raises:
        RuntimeError: a tensor with less memory than its shape takes; torch's update would write beyond it.
    """
    if not grads or is_followed() or obstacle() or any(grad.is_neg() for grad in grads):
        return None
    for x in chain(grads, *others):
        if type(x) not in PLAIN or x.layout is not torch.strided:
            return None
        if x.untyped_storage().nbytes() < x.itemsize * x.storage_offset() + x.nbytes and x.is_contiguous():
            raise RuntimeError(f"a tensor of shape {tuple(x.shape)} has less memory than its shape takes")
    cpu.share_threads()
    try:
        return [[to_dlpack(x) for x in tensors] for tensors in (grads, *others)]
    except (BufferError, RuntimeError):  # a tensor without memory
        return None
