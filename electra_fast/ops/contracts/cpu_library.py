"""What the ops in C++ share: when C++ serves a call, and the autograd of a call that it serves.

Another thread may give a parameter other memory at any time. So a call holds tensors of its own, which share the memory
of what it was given: these are checked, and then read by their addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from ...processor import fastest_allowed
from .. import cpu
from ..tracing import is_followed, is_watched
from .library import draw_seeds, needs_grad, reference_gradients

Shapes = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class CpuOp:
    """One op in C++. Its `tensors` are the hidden states [T, H] and all parameters; `others` get no gradient.

    The first of its results has gradients.

    Attributes:
        forward: (hidden, parameters, *others, *options, save) -> (*results, saved for the backward), of torch.library.
        backward: (gradient of the result, saved, hidden, parameters, *others, *options, wanted) -> wanted gradients.
        launchers: what computes `forward` and `backward`.
        reference: (tensors, others, options) -> the first result.
        names: the tensors' names in messages.
        shapes: tensors -> the shape that each must have.
        has_bf16: whether C++ has the op for bfloat16 beside float32.
    """

    forward: Callable
    backward: Callable
    launchers: tuple[Callable, Callable]
    reference: Callable
    names: Sequence[str]
    shapes: Callable[[Sequence[Tensor]], Shapes]
    has_bf16: bool = False

    @property
    def functions(self) -> tuple[Callable, Callable]:
        """The forward and the backward to call: without the dispatcher, which takes as long as C++ with few tokens."""
        return (self.forward, self.backward) if is_watched() else self.launchers

    def why_not(self, tensors: Sequence[Tensor], others: Sequence[Tensor | None]) -> str | None:
        """The reason why C++ cannot serve a call with the tensors that it holds, or None."""
        if is_followed():
            return "a graph is being recorded or transformed"
        if torch.is_autocast_enabled("cpu"):
            return "autocast is on"
        for tensor in (*tensors, *others):
            if type(tensor) not in PLAIN:
                return f"a tensor is a {type(tensor).__name__}"
            if tensor is not None and not tensor.is_cpu:
                return f"a tensor is on {tensor.device}"
        return obstacle() or self.unfit(tensors)

    def unfit(self, tensors: Sequence[Tensor]) -> str | None:
        """What is wrong with tensors that C++ is to read by their addresses; or None."""
        shapes = self.shapes(tensors)
        dtype = torch.float32
        if self.has_bf16 and tensors[0].dtype == torch.bfloat16:
            dtype = torch.bfloat16
            if reason := bf16_obstacle() or self._odd(shapes):
                return reason
        for i, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True)):
            if reason := cpu.unfit(tensor, dtype, shape):
                return f"{self.names[i]} {reason}"
        return None

    def _odd(self, shapes: Shapes) -> str | None:
        """What is wrong with the shapes of parameters in bfloat16, whose columns C++ takes in pairs; or None."""
        for name, shape in list(zip(self.names, shapes, strict=True))[1:]:
            if any(size % 2 for size in shape):
                return f"{name} has an odd size in {shape}"
        return None

    def __call__(
        self, tensors: Sequence[Tensor], held: list[Tensor], others: Sequence[Tensor | None], options: tuple
    ) -> tuple[Tensor, ...]:
        """The results of a call for which `why_not` found nothing; gradients go to `tensors`."""
        if needs_grad(*tensors):
            return _InCpp.apply(self, held, others, options, *tensors)
        forward, _ = self.functions
        return forward(held[0], held[1:], *others, *options, False)[:-1]


PLAIN = (Tensor, nn.Parameter, type(None))


class _InCpp(Function):
    @staticmethod
    def forward(
        ctx: Any,
        op: CpuOp,
        held: list[Tensor],
        others: Sequence[Tensor | None],
        options: tuple,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        forward, _ = op.functions
        *results, saved = forward(held[0], held[1:], *others, *options, True)
        ctx.mark_non_differentiable(*results[1:])
        ctx.save_for_backward(*tensors, *others, saved)
        ctx.op, ctx.options, ctx.n_tensors = op, options, len(tensors)
        ctx.kept = [None if x is None else (x.dtype, x.shape) for x in (*others, saved)]
        ctx.isa = fastest_allowed()  # lays out what is saved
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, dout: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        op, wanted = ctx.op, ctx.needs_input_grad[4:]
        *given, saved = ctx.saved_tensors
        tensors, others = given[: ctx.n_tensors], given[ctx.n_tensors :]
        if torch.is_grad_enabled():
            grads = reference_gradients(lambda *given: op.reference(given, others, ctx.options), tensors, dout, wanted)
            return None, None, None, None, *grads
        else:
            held = hold(tensors)
            *others, saved = (None if x is None else x.detach() for x in (*others, saved))
            if reason := op.unfit(held) or _changed(ctx, (*others, saved)):
                raise RuntimeError(f"a tensor has changed since the forward: {reason}")
            dout = dout.resolve_neg().contiguous()
            _, compute = op.functions
            grads = compute(dout, saved, held[0], held[1:], *others, *ctx.options, wanted)
        grads = iter(grads)
        return None, None, None, None, *(next(grads) if is_wanted else None for is_wanted in wanted)


def _changed(ctx: Any, kept: Sequence[Tensor | None]) -> str | None:
    """What is wrong with what was kept beside the op's tensors: hooks of autograd may have changed it; or None."""
    if ctx.isa != fastest_allowed():
        return f"it was computed with ELECTRA_FAST_ISA={ctx.isa}, now it is {fastest_allowed()}"
    for x, expected in zip(kept, ctx.kept, strict=True):
        if x is not None and (reason := cpu.unfit(x, *expected)):
            return f"what it kept {reason}"
    return None


def hold(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Tensors of the same memory, which is theirs as long as they live."""
    return [x.detach() for x in tensors]


def obstacle() -> str | None:
    """The reason why this processor cannot run the ops in C++; None where it can."""
    if reason := cpu.obstacle():
        return reason
    if not hasattr(cpu.extension, "attention_block_forward"):
        return "the extension electra_fast._cpu was built before it had this op"
    return None


def bf16_obstacle() -> str | None:
    """The reason why this processor cannot run the ops in C++ on bfloat16; None where it can."""
    if reason := obstacle():
        return reason
    if not hasattr(cpu.extension, "bfloat16"):
        return "the extension electra_fast._cpu was built before it had bfloat16"
    if cpu.extension.bfloat16.has_blocks(fastest_allowed()):
        return None
    return f"ELECTRA_FAST_ISA={fastest_allowed()} allows no AVX512_BF16" if cpu.limited() else "no AVX512_BF16"


def functions_for(hidden: Tensor) -> Any:
    """The functions of the extension for tensors of this dtype."""
    return cpu.extension.bfloat16 if hidden.dtype == torch.bfloat16 else cpu.extension


@cache
def threshold(p: float) -> int:
    """The number below which 16 random bits drop an element; raises ValueError for a rate that is none."""
    if not 0 <= p <= 1:
        raise ValueError(f"the rate of a dropout must be between 0 and 1, got {p}")
    return round(p * 65536)


def dropout_seeds(rates: Sequence[float], given: Sequence[Tensor | None]) -> list[int]:
    """The seeds of dropouts with these rates: those that are given, others drawn at once; 0 where nothing is drawn."""
    lacking = [threshold(p) > 0 and seed is None for p, seed in zip(rates, given, strict=True)]
    drawn = iter(draw_seeds(sum(lacking), _CPU).tolist() if any(lacking) else ())
    return [
        next(drawn) if is_lacking else 0 if seed is None else seed.item()
        for is_lacking, seed in zip(lacking, given, strict=True)
    ]


_CPU = torch.device("cpu")


def addresses(tensors: Iterable[Tensor | None]) -> list[int]:
    """Where tensors lie; 0 for None."""
    return [0 if x is None else x.data_ptr() for x in tensors]


def room_to_save(hidden: Tensor, n_columns: int) -> Tensor:
    """Memory for what a backward needs; C++ lays it out."""
    return cpu.room(hidden, hidden.shape[0] + 1, n_columns)


def room_for_gradients(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor | None]:
    """Memory for the wanted gradients, in the order of the tensors."""
    return [cpu.room(x, *x.shape) if is_wanted else None for x, is_wanted in zip(tensors, wanted, strict=True)]


def wanted_only(grads: Iterable[Tensor | None]) -> list[Tensor]:
    """The gradients that were computed, as an op of torch.library returns them: it knows no None in a list."""
    return [x for x in grads if x is not None]
