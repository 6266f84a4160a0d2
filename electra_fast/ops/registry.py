"""The registry: one entry per op, and the choice of the code that serves it.

An op's name says what it computes; `impl` says which code does it. "torch" is `ops.reference`; "triton" is the op of
the same name in `ops.contracts`, on the kernels of `electra_fast.kernels`; "auto" takes the kernels for CUDA tensors
where there is a GPU that runs them, C++ for tensors on a CPU where the op has it, and torch for all others. The choice
is made once, when a module is built: layers hold the functions themselves. A named impl that cannot be served raises;
nothing falls back in silence.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from . import cpu, reference, reference_blocks, reference_optim

Impl = Literal["auto", "triton", "torch"]
Activation = str | Callable[[Tensor], Tensor]

# The kernels' dots need the matrix units of Ampere, and bfloat16.
MIN_CAPABILITY = (8, 0)
MAX_HEAD_SIZE = 128


@dataclass(frozen=True)
class Op:
    """One op, whose implementations have one signature.

    Attributes:
        torch: the reference.
        module: the file of `electra_fast.ops.contracts` that has the op on Triton kernels.
        torch_with: the reference with an activation as its first argument, where the kernels know the erf-GELU alone.
        cpu_module: the file of `electra_fast.ops.contracts` that has the op in C++ for tensors on a CPU.
    """

    torch: Callable
    module: str
    torch_with: Callable | None = None
    cpu_module: str | None = None

    @property
    def triton(self) -> Callable:
        """The op on its kernels."""
        return self._contract(self.module)

    @property
    def cpu(self) -> Callable:
        """The op for tensors on a CPU: in C++, which leaves to the reference what it cannot serve; or the reference."""
        return self.torch if self.cpu_module is None else self._contract(self.cpu_module)

    def _contract(self, module: str) -> Callable:
        return getattr(importlib.import_module(f"{__package__}.contracts.{module}"), self.torch.__name__)


OPS: dict[str, Op] = {
    op.torch.__name__: op
    for op in (
        Op(reference.embed_norm_project, "embedding", cpu_module="cpu_embedding"),
        Op(reference.attention, "attention"),
        Op(reference.dropout_add_norm, "norm"),
        Op(reference.linear_gelu, "linear", reference.linear_with, cpu_module="cpu_linear_gelu"),
        Op(reference_blocks.attention_block, "attention_block", cpu_module="cpu_attention_block"),
        Op(
            reference_blocks.feed_forward_block,
            "feed_forward_block",
            reference_blocks.feed_forward_block_with,
            cpu_module="cpu_feed_forward_block",
        ),
        Op(reference.rtd_head, "rtd_head", reference.rtd_head_with, cpu_module="cpu_rtd_head"),
        Op(reference.mlm_head, "mlm_head", cpu_module="cpu_mlm_head"),
        Op(reference.masked_mean, "masked_mean"),
        Op(reference.mask_tokens, "masking", cpu_module="cpu_masking"),
        Op(reference.place_samples, "masking", cpu_module="cpu_masking"),
        Op(reference_optim.grad_norm, "optim", cpu_module="cpu_optim"),
        Op(reference_optim.clip, "clip"),
        Op(reference_optim.adamw, "optim", cpu_module="cpu_optim"),
        Op(reference_optim.lamb, "optim"),
    )
}


def resolve(impl: Impl) -> Impl:
    """The impl that is asked for; the environment's ELECTRA_FAST_IMPL stands in for "auto"."""
    if impl == "auto":
        impl = os.environ.get("ELECTRA_FAST_IMPL") or "auto"  # type: ignore[assignment]
    if impl not in get_args(Impl):
        raise ValueError(f"impl must be one of {', '.join(get_args(Impl))}, got {impl!r}")
    return impl


@cache
def obstacle() -> str | None:
    """The reason why the Triton kernels cannot run on this machine; None where they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if not torch.cuda.is_available():
        return "no CUDA GPU"
    capability = torch.cuda.get_device_capability()
    if capability < MIN_CAPABILITY:
        return f"the GPU is sm_{capability[0]}{capability[1]}, the kernels need sm_80 or newer"
    return None


def choose(name: str, impl: Impl, head_size: int | None = None, activation: Activation = "gelu") -> tuple[str, str]:
    """Chooses (implementation, reason) for one op; raises ValueError where the impl asked for cannot run.

    The implementation "auto" goes by the device of the tensors; "C++" serves those in float32 on a CPU, and in
    bfloat16 where the processor multiplies it. `head_size` is
    that of the attention, `activation` a config's `hidden_act`.
    """
    reference.activation_of(activation)  # raises for a name that is not known
    if impl == "torch":
        return "torch", "asked for"
    reason = obstacle()
    if name in ("attention", "attention_block") and head_size is not None and head_size > MAX_HEAD_SIZE:
        reason = f"heads of size {head_size}; the kernels go up to {MAX_HEAD_SIZE}"
    unknown = _unknown_activation(name, activation)
    reason = unknown or reason
    if impl == "auto":
        return _choose_by_device(name, reason, unknown)
    if reason is None:
        return impl, "asked for"
    from .contracts.library import IS_INTERPRETED

    if reason == "no CUDA GPU" and IS_INTERPRETED:
        return "triton", "in Triton's interpreter"
    raise ValueError(f"impl='triton' was asked for, but {name} cannot run on it: {reason}; use 'auto' or 'torch'")


def _unknown_activation(name: str, activation: Activation) -> str | None:
    if OPS[name].torch_with is None or reference.is_erf_gelu(activation):
        return None
    shown = activation if isinstance(activation, str) else getattr(activation, "__name__", repr(activation))
    return f"the activation is {shown}; the kernel has gelu alone"


def _choose_by_device(name: str, no_triton: str | None, no_cpp: str | None) -> tuple[str, str]:
    """(implementation, reason) of an op that goes by the device, by the reasons against the two that are not torch."""
    if OPS[name].cpu_module is None:
        return ("auto", "the kernels on the GPU, torch elsewhere") if no_triton is None else ("torch", no_triton)
    from .contracts import cpu_library

    no_cpp = no_cpp or cpu_library.obstacle()
    if no_triton is None:
        return "auto", f"the kernels on the GPU, {'torch' if no_cpp else f'C++ ({cpu.instructions()})'} elsewhere"
    if no_cpp is None:
        return "C++", f"{cpu.instructions()}, {_cpp_dtypes(name)}; {no_triton}"
    return "torch", no_cpp if no_cpp == no_triton else f"{no_triton}; {no_cpp}"


def _cpp_dtypes(name: str) -> str:
    """The dtypes that an op in C++ serves on this processor."""
    from .contracts import cpu_library

    module = importlib.import_module(f"{__package__}.contracts.{OPS[name].cpu_module}")
    served = getattr(module, "IN_CPP", None)  # ops without a backward have none
    if served is None or not served.has_bf16:
        return "for float32"
    no_bf16 = cpu_library.bf16_obstacle()
    return "for float32 and bfloat16" if no_bf16 is None else f"for float32, not bfloat16: {no_bf16}"


@dataclass(frozen=True)
class ByDevice:
    """An op on its kernels if its first tensor is on CUDA, else on `cpu`; an object, so that models can be pickled."""

    cpu: Callable
    triton: Callable

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        first = next(_tensors((*args, *kwargs.values())))
        return (self.triton if first.is_cuda else self.cpu)(*args, **kwargs)


def _tensors(args: Iterable[Any]) -> Iterable[Tensor]:
    for arg in args:
        if isinstance(arg, Tensor):
            yield arg
        elif isinstance(arg, list | tuple):
            yield from _tensors(arg)


def no_seeds(n: int, device: torch.device) -> None:
    """Returns None: the reference's dropouts draw from torch's generator themselves, which is faster on a CPU."""


def draw_seeds(n: int, device: torch.device) -> Tensor | None:
    """Draws [n] int64 seeds for the kernels' dropouts in one launch from torch's generator; None where torch serves."""
    from .contracts import library

    return library.draw_seeds(n, device) if device.type == "cuda" or library.IS_INTERPRETED else None


@dataclass(frozen=True)
class Ops:
    """All ops, each bound to the implementation that serves it, and the seeds for the dropouts of a forward.

    Signatures and shapes are those of `electra_fast.ops.reference`, `reference_blocks` and `reference_optim`.
    `linear_gelu`, `rtd_head` and `feed_forward_block` compute the activation that was given to `select`.
    `draw_seeds(n, device)` gives [n] int64, or None where torch, or C++, draws by itself.
    """

    embed_norm_project: Callable[..., Tensor]
    attention: Callable[..., Tensor]
    dropout_add_norm: Callable[..., Tensor]
    linear_gelu: Callable[..., Tensor]
    attention_block: Callable[..., Tensor]
    feed_forward_block: Callable[..., Tensor]
    rtd_head: Callable[..., tuple[Tensor | None, Tensor]]
    mlm_head: Callable[..., tuple[Tensor, Tensor, Tensor]]
    masked_mean: Callable[..., Tensor]
    mask_tokens: Callable[..., tuple[Tensor, ...]]
    place_samples: Callable[..., tuple[Tensor, Tensor]]
    grad_norm: Callable[..., Tensor]
    clip: Callable[..., tuple[Tensor, Tensor, Tensor]]
    adamw: Callable[..., None]
    lamb: Callable[..., None]
    draw_seeds: Callable[[int, torch.device], Tensor | None]


@cache
def _bind(impl: Impl, head_size: int | None) -> Ops:
    bound: dict[str, Callable] = {}
    for name, op in OPS.items():
        served, _ = choose(name, impl, head_size)
        without_triton = op.cpu if impl == "auto" else op.torch
        if served == "auto":
            bound[name] = ByDevice(without_triton, op.triton)
        else:
            bound[name] = op.triton if served == "triton" else without_triton
    has_kernels = choose("dropout_add_norm", impl)[0] != "torch"
    return Ops(**bound, draw_seeds=draw_seeds if has_kernels else no_seeds)


def select(impl: Impl = "auto", head_size: int | None = None, activation: Activation = "gelu") -> Ops:
    """All ops, each bound to the implementation that serves `impl`.

    Args:
        head_size: the size of the heads that `attention` will get.
        activation: a config's `hidden_act`; the ops whose reference has one compute it in GELU's place.

    Raises:
        ValueError: an impl or an activation that is not known, or an impl that cannot serve one of the ops.
    """
    impl = resolve(impl)
    bound = _bind(impl, head_size)
    if reference.is_erf_gelu(activation):
        return bound
    # A function of the user's may be anything, also equal to another one, so nothing is remembered by it.
    function, others = reference.activation_of(activation), {}
    for name, op in OPS.items():
        if op.torch_with is not None:
            choose(name, impl, head_size, activation)
            others[name] = partial(op.torch_with, function)
    return replace(bound, **others)


def explain(
    impl: Impl = "auto", head_size: int | None = None, activation: Activation = "gelu"
) -> list[tuple[str, str, str]]:
    """Lists (op, implementation, reason) for every op of a model with such heads; `electra-fast info` prints it."""
    return [(name, *choose(name, resolve(impl), head_size, activation)) for name in OPS]
