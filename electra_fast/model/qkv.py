"""Queries, keys and values: three linear layers by transformers' names, served by one product.

One product by a matrix [3H, H] is faster than three by [H, H]. So the weights of the three layers are views of one
tensor, and so are their biases; every parameter keeps its name, its gradient and its place in an optimizer. Whatever
gives the parameters memory of their own (a cast, a move, a copy, `load_state_dict(assign=True)`) is followed by
`join`, which puts them back side by side. Where they are apart nevertheless, the product takes a copy of all three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .hooks import is_plain
from .packing import is_recorded

NAMES = ("query", "key", "value")


class QueriesKeysValues(nn.Module):
    """The three linear layers [..., H] -> [..., H], and their product [..., H] -> [..., 3H]."""

    def __init__(self, size: int):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in NAMES)
        self.join()
        self.register_state_dict_post_hook(_own_memory)
        self.register_load_state_dict_post_hook(_join_loaded)

    def join(self) -> None:
        """Puts the three weights, and the three biases, side by side in one tensor each; values stay."""
        linears = [self.query, self.key, self.value]
        if not all(type(linear) is nn.Linear for linear in linears):
            return  # somebody's layers, such as LoRA's or quantised ones: they are called one by one
        for parts in ([linear.weight for linear in linears], [linear.bias for linear in linears]):
            if _is_joinable(parts) and not are_side_by_side(parts):
                for part, piece in zip(parts, torch.cat([part.data for part in parts]).chunk(3), strict=True):
                    part.data = piece

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QueriesKeysValues:
        # All of torch's casts and moves of modules come here.
        super()._apply(fn, recurse)
        self.join()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        # copy.deepcopy and pickle end here.
        super().__setstate__(state)
        self.join()


def join_all(model: nn.Module) -> None:
    """Puts a model's queries, keys and values back side by side, after something else than a module's own methods."""
    for part in model.modules():
        if isinstance(part, QueriesKeysValues):
            part.join()


def project(linears: Sequence[nn.Module], hidden: Tensor) -> Tensor:
    """Computes [..., H] -> [..., 3H] by the layers of queries, keys and values.

    Plain layers share one product. Others, and those that somebody listens to, are called; so are all where a graph is
    recorded, since other programs know three products by three weights.
    """
    if is_recorded() or not all(is_plain(linear, nn.Linear) for linear in linears):
        return torch.cat([linear(hidden) for linear in linears], dim=-1)
    return F.linear(hidden, *_joined([linear.weight for linear in linears], [linear.bias for linear in linears]))


def _joined(weights: list[Tensor], biases: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The matrix [3H, H] and the bias [3H]: views where the parameters lie side by side, else copies."""
    # Compilers and function transforms know torch.cat, and nothing of where a tensor lies.
    is_traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if is_traced or not (are_side_by_side(weights) and are_side_by_side(biases)):
        return torch.cat(weights), torch.cat(biases)
    if not torch.is_grad_enabled():
        return _spanning(weights), _spanning(biases)
    return _Joined.apply(*weights, *biases)


class _Joined(torch.autograd.Function):
    """Three weights and three biases side by side -> the tensors that span them; gradients are views of theirs."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*parts)
        return _spanning(parts[:3]), _spanning(parts[3:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.saved_tensors  # noqa: B018 - torch looks here whether a parameter was changed since the forward
        return tuple(piece for grad in grads for piece in ((None,) * 3 if grad is None else grad.chunk(3)))


def _spanning(parts: Sequence[Tensor]) -> Tensor:
    first = parts[0].data  # not the parameter's view in autograd's books: a view of three of them it does not know
    return first.as_strided((3 * first.shape[0], *first.shape[1:]), first.stride())


def are_side_by_side(parts: Sequence[Tensor]) -> bool:
    """Tells whether three tensors are parameters of one shape that follow each other in one storage."""
    # A parameter that is computed, sharded or replaced for the time of a call has another type.
    if not all(type(part) is nn.Parameter for part in parts):
        return False
    first, second, third = parts
    size = first.numel()
    return (
        first.dtype == second.dtype == third.dtype
        and first.shape == second.shape == third.shape
        and first.is_contiguous()
        and second.is_contiguous()
        and third.is_contiguous()
        and first.storage_offset() + size == second.storage_offset() == third.storage_offset() - size
        and first.untyped_storage()._cdata == second.untyped_storage()._cdata == third.untyped_storage()._cdata
    )


def _is_joinable(parts: Sequence[Tensor | None]) -> bool:
    if not all(type(part) is nn.Parameter and type(part.data) is Tensor for part in parts):
        return False
    return len({(part.dtype, part.device, part.shape, part.is_inference()) for part in parts}) == 1


def _own_memory(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    # Libraries that save by storage (accelerate, huggingface_hub) take views of one storage for one tensor, and would
    # drop all but the first: so a state dict holds copies.
    for name in NAMES:
        for key in (f"{prefix}{name}.weight", f"{prefix}{name}.bias"):
            if type(state.get(key)) is Tensor:
                state[key] = state[key].clone()


def _join_loaded(module: QueriesKeysValues, incompatible_keys: Any) -> None:
    module.join()
