"""The optimizers: AdamW as in the original ELECTRA, and LAMB, both behind one clip over all gradients."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from .. import ops
from ..ops import Impl
from .joined_states import split_optimizer_state

Params = Iterable[Tensor] | Iterable[dict[str, Any]]


class Adam(torch.optim.Optimizer):
    """Base of AdamW and LAMB: clipping, fp32 masters, and rates and step counts that a CUDA graph can read.

    A step with a gradient that is not finite changes nothing and does not count. Nobody looks for such gradients where
    there is neither clipping nor a loss scale.

    A CUDA graph can record an `update` after a first eager one. A replay reads the rates that `write_lr` wrote last.

    Attributes:
        grad_norm: the global norm before clipping in the last step, a tensor; None where nobody looks.
        is_finite: whether all gradients of the last step were finite, a bool tensor, true where nobody looks; None
            after a step without gradients.
        loss_scale: the `precision.LossScale` by whose value the loss is multiplied before backward, or None. `step`
            adjusts it, `update` does not: several optimizers may share one.
    """

    _op: str

    def __init__(self, params: Params, defaults: dict[str, Any], max_grad_norm: float | None, impl: Impl):
        lr, betas = defaults["lr"], defaults["betas"]
        if lr < 0:
            raise ValueError(f"lr must be at least 0, got {lr}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {betas}")
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm must be positive or None, got {max_grad_norm}")
        super().__init__(params, defaults)
        self.max_grad_norm, self.grad_norm, self.is_finite, self.loss_scale = max_grad_norm, None, None, None
        selected = ops.select(impl)
        self._apply, self._norm, self._clip = getattr(selected, self._op), selected.grad_norm, selected.clip
        self._rates: list[Tensor] = []

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates every parameter that has a gradient, with the groups' `lr` of now."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.write_lr()
        self.update()
        if self.loss_scale is not None and self.is_finite is not None:
            self.loss_scale.update(self.is_finite)
        return loss

    @torch.no_grad()
    def update(self) -> None:
        """Updates every parameter that has a gradient, with the rates that `write_lr` wrote last."""
        self.is_finite = None
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not grads:
            return
        # Groups that differ in what the op takes for each tensor are updated together.
        alike: dict[Hashable, list[tuple[dict[str, Any], Tensor, Tensor]]] = {}
        counts = []
        for group, rate in zip(self.param_groups, self._rates, strict=True):
            if params := [p for p in group["params"] if p.grad is not None]:
                counts.append(self._count_of(group))
                shared = *group["betas"], group["eps"], group["bias_correction"], *self._options(group).items()
                alike.setdefault(shared, []).extend((group, rate, p) for p in params)
        grad_scale = self._grad_scale(grads, counts)
        for chosen in alike.values():
            groups, rates, params = zip(*chosen, strict=True)
            states = [self._state_of(p) for p in params]
            self._apply(
                _local(params),
                _local(state.get("master", p) for p, state in zip(params, states, strict=True)),
                _local(p.grad for p in params),
                _local(state["exp_avg"] for state in states),
                _local(state["exp_avg_sq"] for state in states),
                rates,
                *groups[0]["betas"],
                groups[0]["eps"],
                [group["weight_decay"] for group in groups],
                [group["step"] for group in groups] if groups[0]["bias_correction"] else None,
                grad_scale,
                **self._options(groups[0]),
            )

    def write_lr(self) -> None:
        """Writes every group's `lr`, a number or scalar tensor, to where `update` reads it on the device."""
        first = next((p for group in self.param_groups for p in group["params"]), None)
        if first is None:
            return
        for _ in range(len(self._rates), len(self.param_groups)):
            self._rates.append(torch.zeros((), dtype=_precise(first.dtype), device=first.device))
        torch._foreach_zero_(self._rates)
        numbers = [0.0 if isinstance(group["lr"], Tensor) else float(group["lr"]) for group in self.param_groups]
        torch._foreach_add_(self._rates, numbers)
        for group, rate in zip(self.param_groups, self._rates, strict=True):
            if isinstance(group["lr"], Tensor):
                rate.copy_(group["lr"])

    def master_of(self, param: Tensor) -> Tensor:
        """The fp32 value of a parameter, which is what to save: its master, or itself if it is fp32."""
        return self.state.get(param, {}).get("master", param)

    def keep_master(self, param: Tensor) -> None:
        """Keeps a parameter's value as its master before the parameter is rounded."""
        self._state_of(param)["master"] = param.detach().clone()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state; torch.optim.Optimizer would round masters and moments to the dtype of their parameters."""
        state_dict = split_optimizer_state(self, state_dict)
        super().load_state_dict(state_dict)
        for saved, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            for index, p in zip(saved["params"], group["params"], strict=True):
                for name, value in state_dict["state"].get(index, {}).items():
                    self.state[p][name] = value.to(p.device, copy=True)
                if "step" in group:
                    group["step"] = torch.as_tensor(group["step"], device=p.device)

    def create_state(self) -> None:
        """Makes all masters, moments and step counts now, instead of with the first gradients."""
        for group in self.param_groups:
            self._count_of(group)
            for p in group["params"]:
                self._state_of(p)

    def _grad_scale(self, grads: list[Tensor], counts: list[Tensor]) -> Tensor:
        """The factor of all gradients; with clipping or a loss scale it is NaN if any gradient is not finite.

        Adds the step to the counts if it is finite.
        """
        scale = None if self.loss_scale is None else self.loss_scale.value
        looks = self.max_grad_norm is not None or scale is not None
        norm = self._norm(_local(grads)) if looks else torch.zeros((), device=grads[0].device)
        if looks and isinstance(grads[0], DTensor):
            squares = norm.square()
            distributed.all_reduce(squares)
            norm = squares.sqrt()
        norm, factor, self.is_finite = self._clip(norm, counts, self.max_grad_norm, scale)
        if looks:
            self.grad_norm = norm
        return factor

    def _count_of(self, group: dict[str, Any]) -> Tensor:
        """The number of steps a group has done, on its device."""
        if "step" not in group:
            group["step"] = torch.zeros((), dtype=torch.long, device=group["params"][0].device)
        return group["step"]

    def _state_of(self, p: Tensor) -> dict[str, Tensor]:
        state, dtype = self.state[p], _precise(p.dtype)
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(p, dtype=dtype) for _ in range(2))
        if p.dtype != dtype and "master" not in state:
            state["master"] = p.to(dtype)
        return state

    def _options(self, group: dict[str, Any]) -> dict[str, Any]:
        """Arguments that only this op takes."""
        return {}


class AdamW(Adam):
    """p -= lr * (m / (sqrt(v) + eps) + weight_decay * p), all gradients together clipped to the norm `max_grad_norm`.

    The defaults give the update of google-research/electra (model/optimization.py): no bias correction, eps outside the
    root, decay decoupled and multiplied by the rate. With `bias_correction` the update is torch.optim.AdamW's.
    Parameters in bf16 and fp16 have fp32 masters: the step updates the masters and rounds them to the parameters.

    Args:
        params: parameters, or groups of them with their own `lr`, `betas`, `eps`, `weight_decay`, `bias_correction`.
        max_grad_norm: largest norm of all groups' gradients together; None does not clip.
        impl: code that serves the op, "auto", "triton" or "torch".
    """

    _op = "adamw"

    def __init__(
        self,
        params: Params,
        lr: float = 5e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = False,
        max_grad_norm: float | None = 1.0,
        impl: Impl = "auto",
    ):
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, bias_correction=bias_correction)
        super().__init__(params, defaults, max_grad_norm, impl)


class LAMB(Adam):
    """AdamW's update u, scaled by |p| / |u| for each tensor (You et al. 2020, algorithm 2): for very large batches.

    Args:
        params, max_grad_norm, impl: as in `AdamW`; groups may have their own `adapt` too.
        adapt: whether to scale updates; None scales those with weight decay, so not LayerNorms and biases, as NVIDIA's
            recipe does.
    """

    _op = "lamb"

    def __init__(
        self,
        params: Params,
        lr: float = 6e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = True,
        adapt: bool | None = None,
        max_grad_norm: float | None = 1.0,
        impl: Impl = "auto",
    ):
        defaults = dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, bias_correction=bias_correction, adapt=adapt
        )
        super().__init__(params, defaults, max_grad_norm, impl)
        if any(isinstance(p, DTensor) for group in self.param_groups for p in group["params"]):
            raise ValueError("LAMB takes the norm of whole tensors, got parameters in shards: use ddp, or AdamW")

    def _options(self, group: dict[str, Any]) -> dict[str, Any]:
        adapt = group["adapt"]
        return {"adapt": group["weight_decay"] != 0 if adapt is None else adapt}


def _local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Tensors, and of sharded ones the parts that this process holds."""
    return [x.to_local() if isinstance(x, DTensor) else x for x in tensors]


def _precise(dtype: torch.dtype) -> torch.dtype:
    """The dtype of masters, moments and rates: fp32, or fp64 for parameters in fp64."""
    return torch.promote_types(dtype, torch.float32)


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of a module, each parameter once: matrices and tables decay, LayerNorms and biases do not."""
    groups = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in module.named_parameters():
        groups["LayerNorm" in name or name.endswith("bias")]["params"].append(parameter)
    return groups
