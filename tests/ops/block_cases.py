"""Inputs of `attention_block` and `feed_forward_block`, with all parameters by names of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from electra_fast.model.packing import cu_seqlens_of
from electra_fast.ops import registry

EPS = 1e-12
# A seed whose halves both count, and one that is small.
SEEDS = {"attention_seed": torch.tensor([2**62 + 12345]), "output_seed": torch.tensor([77]), "seed": torch.tensor([99])}


@dataclass(frozen=True)
class Case:
    """One call: `tensors` get gradients, `options` are the other arguments."""

    op: str
    tensors: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)

    def flat(self, op: Callable) -> Callable:
        """The op with a keyword for each tensor."""
        if self.op == "feed_forward_block":
            return lambda **given: op(eps=EPS, **given)

        def attention_block(hidden: Tensor, **given: Any) -> Tensor:
            weights, biases = ([given.pop(f"{part}_{kind}") for part in ("q", "k", "v")] for kind in ("weight", "bias"))
            return op(hidden, weights, biases, eps=EPS, **given)

        return attention_block

    @property
    def cpp(self) -> Callable:
        return self.flat(registry.OPS[self.op].cpu)

    @property
    def reference(self) -> Callable:
        return self.flat(registry.OPS[self.op].torch)

    def leaves(self, *frozen: str) -> dict[str, Tensor]:
        """Copies of the tensors that require gradients, but for the `frozen`."""
        return {name: x.clone().requires_grad_(name not in frozen) for name, x in self.tensors.items()}

    def dropping(self, p: float, seeded: bool = True) -> Case:
        """The case with dropout at rate p everywhere."""
        if self.op == "attention_block":
            rates, seeds = {"attention_p": p, "hidden_p": p}, ("attention_seed", "output_seed")
        else:
            rates, seeds = {"dropout_p": p}, ("seed",)
        more = {name: SEEDS[name] for name in seeds} if seeded else {}
        return replace(self, options=self.options | rates | more)


class _Draw:
    """Numbers of its own: the same ones for every case of these sizes, whichever tests ran before."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=self.generator)

    def linear(self, name: str, n_out: int, n_in: int) -> dict[str, Tensor]:
        weight = self.normal(n_out, n_in, scale=n_in**-0.5)
        return {f"{name}_weight": weight, f"{name}_bias": self.normal(n_out)}

    def norm(self, width: int) -> dict[str, Tensor]:
        return {"norm_weight": 1 + self.normal(width, scale=0.1), "norm_bias": self.normal(width)}


def attention_case(lengths: list[int], n_heads: int, head_size: int, causal: bool = False) -> Case:
    width, draw = n_heads * head_size, _Draw()
    tensors = {"hidden": draw.normal(sum(lengths), width)}
    for part in ("q", "k", "v", "out"):
        tensors |= draw.linear(part, width, width)
    packed = {"cu_seqlens": cu_seqlens_of(lengths), "max_seqlen": max(lengths, default=0)}
    return Case("attention_block", tensors | draw.norm(width), packed | {"n_heads": n_heads, "causal": causal})


def feed_forward_case(n_tokens: int, width: int, inner: int) -> Case:
    draw = _Draw()
    tensors = {"hidden": draw.normal(n_tokens, width)} | draw.linear("inner", inner, width)
    return Case("feed_forward_block", tensors | draw.linear("outer", width, inner) | draw.norm(width))


def both() -> list[Case]:
    """A case of each op, of odd sizes."""
    return [attention_case([3, 0, 17, 1, 9], 3, 20), feed_forward_case(29, 60, 84)]


def gradients(op: Callable, tensors: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """The result of an op as `out`, and the gradients of those tensors that require one."""
    out = op(**tensors, **options)
    asked = {name: x for name, x in tensors.items() if x.requires_grad}
    weights = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.dtype)
    grads = torch.autograd.grad(out, list(asked.values()), weights)
    return {"out": out.detach(), **dict(zip(asked, grads, strict=True))}
