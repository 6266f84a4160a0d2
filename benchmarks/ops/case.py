"""One op at one shape: what each provider is given, what is timed, and how results are compared with the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops.registry import OPS
from ...ops.testing import Error, compare

FORWARD, BOTH, UPDATE = "forward", "forward+backward", "update"
RATES = ("dropout_p", "attention_p", "hidden_p")  # the arguments of ops that are rates of a dropout


@dataclass(frozen=True)
class Cost:
    """The least that must be moved and computed."""

    n_bytes: int
    n_flops: int = 0


@dataclass(frozen=True)
class Provider:
    """One implementation of an op.

    Attributes:
        name: the provider's name in tables and rows.
        function: has the signature of the reference; a peer need not take what is left at its default.
        is_seeded: its dropouts take seeds, and its scalars may lie on the device. Others draw their own random bits,
            and are checked without dropout.
        has_dropout: it can drop out at all.
        is_recordable: it can be recorded in a CUDA graph.
        is_fp32: it is an optimizer that takes gradients in fp32 and trains the masters only.
    """

    name: str
    function: Callable
    is_seeded: bool = False
    has_dropout: bool = True
    is_recordable: bool = True
    is_fp32: bool = False


@dataclass(frozen=True)
class Key:
    """Names a case, small enough for another process. `size` and `length` are None where nothing depends on them."""

    op: str
    size: str | None
    length: int | None
    tokens: int
    dtype: torch.dtype
    device: torch.device

    @property
    def name(self) -> str:
        return " ".join(str(part) for part in (self.op, self.size, self.length) if part is not None)


@dataclass
class Case:
    """One op at one shape.

    Attributes:
        tensors: the inputs that have gradients, by the names of the reference's parameters.
        options: all other arguments; dropout as in training.
        costs: the least work of each direction that the op has.
        on_device: arguments of seeded providers instead of, or besides, `options`.
        peers: further implementations.
        is_recordable: the reference can be recorded in a CUDA graph.
    """

    key: Key
    tensors: dict[str, Tensor]
    options: dict[str, Any]
    costs: dict[str, Cost]
    on_device: dict[str, Any] = field(default_factory=dict)
    peers: tuple[Provider, ...] = ()
    is_recordable: bool = True

    def arguments(self, provider: Provider, direction: str) -> dict[str, Any]:
        """The arguments of what is timed: no dropout in a forward alone, which is inference."""
        options = self.options | (self.on_device if provider.is_seeded else {})
        if direction == FORWARD or not provider.has_dropout:
            options |= _without_dropout(options)
        return options

    def run(self, provider: Provider, direction: str) -> Callable[[], object]:
        """The function that is timed."""
        function, options = provider.function, self.arguments(provider, direction)
        if direction == FORWARD:

            def forward() -> object:
                with torch.no_grad():
                    return function(**self.tensors, **options)

            return forward

        inputs = {name: x.detach().requires_grad_() for name, x in self.tensors.items()}

        def result() -> Tensor:
            out = function(**inputs, **options)
            return out if isinstance(out, Tensor) else out[0]  # of several, the first is the loss

        grad = torch.randn_like(result())
        return lambda: torch.autograd.grad(result(), list(inputs.values()), grad)

    def errors(self, provider: Provider, direction: str) -> list[Error]:
        """How far the provider is from the reference in fp64; both drop out alike where it is seeded, else not."""
        options = self.arguments(provider, direction)
        if not provider.is_seeded:
            options |= _without_dropout(options)
        with torch.set_grad_enabled(direction == BOTH):
            return self._errors(provider.function, direction == BOTH, options)

    def _errors(self, function: Callable, backward: bool, options: dict[str, Any]) -> list[Error]:
        return compare(function, OPS[self.key.op].torch, self.tensors, backward, **options)


def _without_dropout(options: dict[str, Any]) -> dict[str, float]:
    return {name: 0.0 for name in RATES if name in options}


class AttentionBlockCase(Case):
    """The case of an op that takes its weights and biases of queries, keys and values as two lists."""

    def run(self, provider: Provider, direction: str) -> Callable[[], object]:
        return super().run(replace(provider, function=_of_tensors(provider.function)), direction)

    def _errors(self, function: Callable, backward: bool, options: dict[str, Any]) -> list[Error]:
        functions = [_of_tensors(f) for f in (function, OPS[self.key.op].torch)]
        return compare(*functions, self.tensors, backward, **options)


def _of_tensors(op: Callable) -> Callable:
    """An attention block with one argument for all weights of queries, keys and values, and one for their biases."""

    def attention_block(hidden: Tensor, qkv_weight: Tensor, qkv_bias: Tensor, **given: Any) -> Tensor:
        return op(hidden, qkv_weight.chunk(3), qkv_bias.chunk(3), **given)

    return attention_block


class MlmHeadCase(Case):
    """The case of an op that also draws samples.

    Losses are compared as everywhere. Samples are not: at the border between two words rounded logits draw another word
    than those in fp64. So it is measured how far the random number lies outside of the drawn word's share.
    """

    def _errors(self, function: Callable, backward: bool, options: dict[str, Any]) -> list[Error]:
        reference = OPS[self.key.op].torch
        losses = [lambda f=f, **kwargs: f(**kwargs)[0] for f in (function, reference)]
        with torch.no_grad():
            ours, eager = (self._misplaced(f(**self.tensors, **options)[2]) for f in (function, reference))
        samples = Error("samples", ours, eager, rounding=2**-20)
        return [*compare(*losses, self.tensors, backward, **options), samples]

    def _misplaced(self, samples: Tensor) -> float:
        hidden, weight, bias = (x.double() for x in self.tensors.values())
        if not bool(((samples >= 0) & (samples < len(bias))).all()):
            return math.inf
        shares = F.linear(hidden, weight, bias).softmax(-1)
        upper = shares.cumsum(-1).gather(1, samples[:, None])
        lower, uniform = upper - shares.gather(1, samples[:, None]), self.options["uniform"][:, None]
        return float(((lower - uniform).clamp(min=0) + (uniform - upper).clamp(min=0)).square().mean().sqrt())


@dataclass
class ListCase(Case):
    """The case of an op on lists of tensors, which changes them where it returns nothing.

    Attributes:
        lists: the arguments that are lists.
    """

    lists: dict[str, list[Tensor]] = field(default_factory=dict)

    def run(self, provider: Provider, direction: str) -> Callable[[], object]:
        lists, options = self._lists_of(provider, self.lists), self.arguments(provider, direction)

        def update() -> object:
            with torch.no_grad():
                return provider.function(**lists, **options)

        return update

    @staticmethod
    def _lists_of(provider: Provider, lists: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
        return lists | {"grads": [x.float() for x in lists["grads"]]} if provider.is_fp32 else lists

    def errors(self, provider: Provider, direction: str) -> list[Error]:
        """Compares one tensor of each shape."""
        shapes = [x.shape for x in self.lists["grads"]]
        chosen = [shapes.index(shape) for shape in dict.fromkeys(shapes)]
        tensors = {f"{name}_{i}": values[i] for name, values in self.lists.items() for i in chosen}
        compared = [name for name in self.lists if name != "grads"]
        if provider.is_fp32 or self.key.dtype == torch.float32:  # then the masters are the parameters
            compared = [name for name in compared if name != "params"]

        def results(function: Callable, convert: bool) -> Callable[..., tuple[Tensor, ...]]:
            def run(**flat: Tensor) -> tuple[Tensor, ...]:
                lists = {name: [flat[f"{name}_{i}"].clone() for i in chosen] for name in self.lists}
                if "masters" in lists and self.key.dtype == torch.float32:
                    lists["masters"] = lists["params"]
                arguments = self._lists_of(provider, lists) if convert else lists
                out = function(**arguments, **self.arguments(provider, direction))
                return tuple(x for name in compared for x in lists[name]) if out is None else (out,)

            return run

        with torch.no_grad():
            reference = OPS[self.key.op].torch
            return compare(results(provider.function, True), results(reference, False), tensors, backward=False)
