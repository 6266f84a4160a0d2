"""Parameters that lie side by side in memory, seen as one tensor without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .tracing import is_followed


def joined(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The matrix [3H, H] and the bias [3H] of three linear layers: views where they lie side by side, else copies."""
    # Compilers and function transforms know torch.cat, and nothing of where a tensor lies.
    if is_followed() or not (are_side_by_side(weights) and are_side_by_side(biases)):
        return torch.cat(tuple(weights)), torch.cat(tuple(biases))
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
