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

from ..ops.joining import are_side_by_side, joined
from ..ops.tracing import is_recorded
from .hooks import is_plain

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
                for part, piece in zip(parts, _side_by_side(parts).chunk(3), strict=True):
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
    return F.linear(hidden, *joined([linear.weight for linear in linears], [linear.bias for linear in linears]))


def _is_joinable(parts: Sequence[Tensor | None]) -> bool:
    if not all(type(part) is nn.Parameter and type(part.data) is Tensor for part in parts):
        return False
    return len({(part.dtype, part.device, part.shape, part.is_inference()) for part in parts}) == 1


def _side_by_side(parts: Sequence[nn.Parameter]) -> Tensor:
    """One tensor of three."""
    first = parts[0]
    if first.is_meta:  # where torch.cat would import torch's compiler
        return torch.empty(3 * first.shape[0], *first.shape[1:], dtype=first.dtype, device="meta")
    return torch.cat([part.data for part in parts])


def _own_memory(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    # Libraries that save by storage (accelerate, huggingface_hub) take views of one storage for one tensor, and would
    # drop all but the first: so a state dict holds copies.
    for name in NAMES:
        for key in (f"{prefix}{name}.weight", f"{prefix}{name}.bias"):
            if type(state.get(key)) is Tensor:
                state[key] = state[key].clone()


def _join_loaded(module: QueriesKeysValues, incompatible_keys: Any) -> None:
    module.join()
