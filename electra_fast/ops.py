"""THE registry: one entry per op, and the choice of the code that serves it.

An op's name says what it computes; `impl` says which code does it. "torch" is `electra_fast.reference`; "triton" is a
kernel of `electra_fast.kernels`; "auto" takes the fastest that is there. The choice is made once, when a module is
built: layers hold the functions themselves, and no forward asks about devices. A named impl that cannot be served
raises; nothing falls back in silence.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Literal, get_args

from . import reference

Impl = Literal["auto", "triton", "torch"]


@dataclass(frozen=True)
class Op:
    """One op: its implementations have one signature. `triton` is None until the kernel exists."""

    torch: Callable
    triton: Callable | None = None


OPS: dict[str, Op] = {
    "embed_norm_project": Op(torch=reference.embed_norm_project),
    "attention": Op(torch=reference.attention),
    "dropout_add_norm": Op(torch=reference.dropout_add_norm),
    "linear_gelu": Op(torch=reference.linear_gelu),
    "rtd_head": Op(torch=reference.rtd_head),
    "mlm_head": Op(torch=reference.mlm_head),
    "mask_tokens": Op(torch=reference.mask_tokens),
    "place_samples": Op(torch=reference.place_samples),
    "adamw": Op(torch=reference.adamw),
    "lamb": Op(torch=reference.lamb),
}


def resolve(impl: Impl) -> Impl:
    """The impl that is asked for: the environment's ELECTRA_FAST_IMPL stands in for "auto"."""
    if impl == "auto":
        impl = os.environ.get("ELECTRA_FAST_IMPL", "auto")  # type: ignore[assignment]
    if impl not in get_args(Impl):
        raise ValueError(f"impl must be one of {', '.join(get_args(Impl))}, got {impl!r}")
    return impl


def choose(name: str, impl: Impl) -> tuple[str, str]:
    """(implementation, reason) for one op; raises ValueError where the impl asked for does not exist."""
    op = OPS[name]
    if impl == "torch":
        return "torch", "asked for"
    if op.triton is None:
        if impl == "triton":
            raise ValueError(f"impl='triton' was asked for, but {name} has no Triton kernel yet; use 'auto' or 'torch'")
        return "torch", "no Triton kernel yet"
    return "triton", "asked for" if impl == "triton" else "the fastest there is"


@cache
def _bind(impl: Impl) -> SimpleNamespace:
    return SimpleNamespace(**{name: getattr(op, choose(name, impl)[0]) for name, op in OPS.items()})


def select(impl: Impl = "auto") -> SimpleNamespace:
    """All ops as attributes, each bound to the implementation that serves `impl`."""
    return _bind(resolve(impl))


def explain(impl: Impl = "auto") -> list[tuple[str, str, str]]:
    """(op, implementation, reason) for every op: what `electra-fast info` prints."""
    return [(name, *choose(name, resolve(impl))) for name in OPS]
