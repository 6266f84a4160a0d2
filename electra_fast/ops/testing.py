"""Comparison of an op with its reference, for the tests and for `electra-fast bench ops`.

The oracle is the op of `ops.reference` in fp64, the yardstick the same op run eagerly in the kernel's dtype: a kernel's
error may be twice the yardstick's, plus one rounding of the result, in the output and in every gradient. All
three see the same inputs, already rounded to the dtype, and the same random bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

BUDGET = 2.0


@dataclass(frozen=True)
class Error:
    """The error of one output or gradient against fp64, RMS over all elements.

    Attributes:
        name: "out", or the input whose gradient it is.
        kernel, eager: errors of the kernel and of eager torch in the same dtype.
        rounding: error that rounding the exact result once to its dtype may add: half an ulp of its RMS.
    """

    name: str
    kernel: float
    eager: float
    rounding: float

    @property
    def ratio(self) -> float:
        """The kernel's error in units of its yardstick; values up to `BUDGET` are within the budget."""
        return self.kernel / max(self.eager + self.rounding / BUDGET, 1e-300)

    @property
    def is_within(self) -> bool:
        return self.kernel <= BUDGET * self.eager + self.rounding


def compare(
    kernel: Callable, reference: Callable, tensors: dict[str, Tensor | None], backward: bool = True, **options: Any
) -> list[Error]:
    """Runs both implementations of an op, forward and backward, and returns the errors of all floating results.

    Args:
        kernel, reference: two functions with one signature, returning a tensor or a tuple of tensors and Nones.
        tensors: the inputs by name, on the kernel's device and in its dtype; floating ones get gradients.
        backward: whether to compare gradients too.
        **options: arguments that are the same in every dtype: numbers, lists of them, tensors that are not cast.

    Raises:
        AssertionError: results that differ in shape or dtype, or integers that differ.
    """
    got = _run(kernel, tensors, options, backward, None)
    eager = _run(reference, tensors, options, backward, None)
    exact = _run(reference, tensors, options, backward, torch.float64)
    errors = []
    for name, truth in exact.items():
        ours, theirs = got[name], eager[name]
        assert ours.shape == truth.shape, f"{name}: expected shape {tuple(truth.shape)}, got {tuple(ours.shape)}"
        assert ours.dtype == theirs.dtype, f"{name}: expected {theirs.dtype}, got {ours.dtype}"
        if not truth.is_floating_point():
            assert torch.equal(ours, truth), f"{name}: integers differ"
            continue
        rounding = torch.finfo(ours.dtype).eps / 2 * _rms(truth)
        errors.append(Error(name, _rms(ours.double() - truth), _rms(theirs.double() - truth), rounding))
    return errors


def assert_within_budget(kernel: Callable, reference: Callable, tensors: dict[str, Tensor | None], **options: Any):
    """Calls `compare`, and fails where an error is over its budget or is NaN."""
    for error in compare(kernel, reference, tensors, **options):
        assert error.is_within, f"{error.name}: error {error.kernel:.3g}, of eager torch {error.eager:.3g}"


def _run(
    op: Callable, tensors: dict[str, Tensor | None], options: dict, backward: bool, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    inputs = {}
    for name, x in tensors.items():
        if x is not None and x.is_floating_point():
            x = _amid_poison(x.detach().to(dtype or x.dtype)).requires_grad_(backward)
        inputs[name] = x
    out = op(**inputs, **options)
    out = {"out": out} if isinstance(out, Tensor) else {f"out[{i}]": x for i, x in enumerate(out) if x is not None}
    results = {name: x.detach() for name, x in out.items()}
    if backward:
        differentiable = {name: x for name, x in out.items() if x.requires_grad}
        weights = torch.Generator(next(iter(out.values())).device).manual_seed(7)
        grads = [
            torch.randn(x.shape, generator=weights, device=x.device).to(tensor_dtype(tensors)).to(x.dtype)
            for x in differentiable.values()
        ]
        torch.autograd.backward(list(differentiable.values()), grads)
        results |= {f"d{name}": x.grad for name, x in inputs.items() if x is not None and x.grad is not None}
    return results


def tensor_dtype(tensors: dict[str, Tensor | None]) -> torch.dtype:
    """The dtype of the first floating tensor."""
    return next(x.dtype for x in tensors.values() if x is not None and x.is_floating_point())


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt()) if x.numel() else 0.0


def _amid_poison(x: Tensor) -> Tensor:
    """Copies a contiguous tensor between NaNs, to show what a kernel reads around it; returns others as they are."""
    if not x.is_contiguous():
        return x
    margin = 128  # elements: as aligned as memory of its own
    buffer = _poison(x.new_empty(x.numel() + 2 * margin))
    return buffer[margin : margin + x.numel()].view(x.shape).copy_(x)


def _poison(x: Tensor) -> Tensor:
    if x.dtype == torch.bool:
        return x.fill_(True)
    return x.fill_(float("nan") if x.is_floating_point() else torch.iinfo(x.dtype).max)


@contextmanager
def poisoned() -> Iterator[None]:
    """Fills tensors that torch leaves uninitialised with NaN or the largest integer, to show what a kernel forgets."""

    def poison(create: Callable) -> Callable:
        return lambda *args, **kwargs: _poison(create(*args, **kwargs))

    with (
        mock.patch.object(torch, "empty", poison(torch.empty)),
        mock.patch.object(torch, "empty_like", poison(torch.empty_like)),
        mock.patch.object(Tensor, "new_empty", poison(Tensor.new_empty)),
    ):
        yield


def repair_interpreter() -> None:
    """Makes Triton's interpreter compute bfloat16 as a GPU does.

    The interpreter multiplies bfloat16 tiles as the integers that hold them, and truncates where a GPU rounds to
    nearest.
    """
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    create_dot, cast_impl = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

    def create_dot_in_fp32(self: Any, a: Any, b: Any, *args: Any) -> Any:
        a, b = (self.cast_impl(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
        return create_dot(self, a, b, *args)

    def cast_to_nearest(self: Any, x: Any, dtype: Any) -> Any:
        if (x.dtype.scalar, dtype.scalar) != (tl.float32, tl.bfloat16):
            return cast_impl(self, x, dtype)
        rounded = torch.tensor(x.data).to(torch.bfloat16).view(torch.uint16).numpy()
        return TensorHandle(rounded, dtype.scalar)

    InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl = create_dot_in_fp32, cast_to_nearest
