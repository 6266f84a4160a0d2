"""The optimizer of the original ELECTRA: AdamW without bias correction, behind one clip over all gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..ops import Impl


class AdamW(torch.optim.Optimizer):
    """p -= lr * (m / (sqrt(v) + eps) + weight_decay * p), all gradients together clipped to the norm `max_grad_norm`.

    With its defaults the update of google-research/electra (model/optimization.py): no bias correction, eps outside the
    root, decay decoupled and multiplied by the rate. With `bias_correction` it is torch.optim.AdamW's.

    Args:
        params: parameters, or groups of them with their own `lr`, `betas`, `eps`, `weight_decay`, `bias_correction`.
        max_grad_norm: of all groups together; None does not clip.
        impl: which code serves the op, "auto", "triton" or "torch".

    Attributes:
        grad_norm: the global norm before clipping in the last step, a tensor; None where nothing was clipped.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 5e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = False,
        max_grad_norm: float | None = 1.0,
        impl: Impl = "auto",
    ):
        if lr < 0:
            raise ValueError(f"lr must be at least 0, got {lr}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {betas}")
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm must be positive or None, got {max_grad_norm}")
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, bias_correction=bias_correction)
        super().__init__(params, defaults)
        self.max_grad_norm, self.grad_norm = max_grad_norm, None
        self._update = ops.select(impl).adamw

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grad_scale: float | Tensor = 1.0
        if self.max_grad_norm is not None:
            grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            self.grad_norm = torch.nn.utils.get_total_norm(grads)
            grad_scale = self.max_grad_norm / self.grad_norm.clamp(min=self.max_grad_norm)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            group["step"] = group.get("step", 0) + 1
            for p in params:
                if not self.state[p]:
                    self.state[p] = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            self._update(
                params,
                [p.grad for p in params],
                [self.state[p]["exp_avg"] for p in params],
                [self.state[p]["exp_avg_sq"] for p in params],
                group["lr"],
                *group["betas"],
                group["eps"],
                group["weight_decay"],
                group["step"] if group["bias_correction"] else None,
                grad_scale,
            )
        return loss


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of a module: matrices and tables decay, LayerNorms and biases do not. Shared ones occur once."""
    groups = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in module.named_parameters():
        groups["LayerNorm" in name or name.endswith("bias")]["params"].append(parameter)
    return groups
