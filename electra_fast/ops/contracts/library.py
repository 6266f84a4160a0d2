"""Registration with torch.library, and the checks at the beginning of every op."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Triton's interpreter runs kernels on the CPU, slowly, for tests. Triton reads the variable once, and so do we.
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

_LIBRARY = torch.library.Library("electra_fast", "DEF")


def define(schema: str, module: str) -> Callable[[Callable], Any]:
    """Registers `electra_fast::<schema>`; the decorated function is its shape rule, and becomes the op.

    The launcher of the same name in `electra_fast.kernels.<module>` is imported when the op runs for the first time.
    An op defined by hand costs half as much per call as one of torch.library.custom_op.
    """
    name = schema.split("(")[0]

    @cache
    def launcher() -> Callable:
        return getattr(importlib.import_module(f"electra_fast.kernels.{module}"), name)

    return run_by(lambda *args: launcher()(*args), schema)


def run_by(launch: Callable, schema: str) -> Callable[[Callable], Any]:
    """Registers `electra_fast::<schema>`, which `launch` computes; the decorated function is as for `define`."""
    name = schema.split("(")[0]

    def decorate(shape_rule: Callable) -> Any:
        _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, launch, "CompositeExplicitAutograd")
        torch.library.register_fake(f"electra_fast::{name}", shape_rule, lib=_LIBRARY)
        return getattr(torch.ops.electra_fast, name).default

    return decorate


def operands(op: str, **tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The floating inputs of an op, on one device and of one dtype; under autocast they are cast to its dtype.

    Raises:
        ValueError: a tensor of another device or dtype than the first, or that no kernel takes; the message names it.
    """
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        tensors = {name: None if x is None else x.to(dtype) for name, x in tensors.items()}
    given = {name: x for name, x in tensors.items() if x is not None}
    first_name, first = next(iter(given.items()))
    on_device(op, first_name, first)
    if first.dtype not in DTYPES:
        raise ValueError(
            f"{op}: the Triton kernels take float32, bfloat16 and float16, got {first_name} of {first.dtype}; "
            "impl='torch' takes every dtype"
        )
    for name, x in given.items():
        if x.dtype != first.dtype:
            raise ValueError(f"{op}: expected {name} of {first.dtype}, as {first_name} is, got {x.dtype}")
        if x.device != first.device:
            raise ValueError(f"{op}: expected {name} on {first.device}, as {first_name} is, got {x.device}")
    return tuple(tensors.values())


def on_device(op: str, name: str, tensor: Tensor, device: torch.device | None = None) -> None:
    """Raises ValueError for a tensor that no kernel can read, or that is not on the given device."""
    if not (tensor.is_cuda or IS_INTERPRETED):
        raise ValueError(f"{op}: the Triton kernels need CUDA tensors, got {name} on {tensor.device}")
    if device is not None and tensor.device != device:
        raise ValueError(f"{op}: expected {name} on {device}, got {tensor.device}")


def needs_grad(*tensors: Tensor | None) -> bool:
    """Tells whether a backward may follow, so that the forward has to save tensors for it."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def dropout_seed(dropout_p: float, seed: Tensor | None, device: torch.device) -> Tensor | None:
    """The seed [1] int64 of a dropout: the given one, or one drawn from torch's generator; None without dropout."""
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"dropout_p must be between 0 and 1, got {dropout_p}")
    if dropout_p == 0:
        return None
    return draw_seeds(1, device) if seed is None else seed


def draw_seeds(n: int, device: torch.device) -> Tensor:
    """Draws [n] int64 seeds, one per dropout, from torch's generator in one launch."""
    return torch.randint(2**63 - 1, (n,), device=device)


def reference_gradients(
    reference: Callable[..., Tensor], tensors: Sequence[Tensor], dout: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The wanted gradients of reference(*tensors), and None for the others; they can be differentiated again.

    It stands in for a backward that is to be differentiated; a reference draws the same dropout from the same seeds.
    """
    tensors = [x.view_as(x) for x in tensors]  # one tensor may be given twice, and gets two gradients
    with sdpa_kernel(SDPBackend.MATH):  # torch's other attention has no derivative of its derivative
        out = reference(*tensors)
    asked = [x for x, is_wanted in zip(tensors, wanted, strict=True) if is_wanted]
    grads = iter(torch.autograd.grad(out, asked, dout, create_graph=True))
    return [next(grads) if is_wanted else None for is_wanted in wanted]
