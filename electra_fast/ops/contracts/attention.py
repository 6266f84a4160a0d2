"""The op `attention` on the kernels of `electra_fast.kernels.attention`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .library import define, dropout_seed, needs_grad, operands

MAX_HEAD_SIZE = 128


@define(
    "attention_fwd(Tensor qkv, Tensor cu_seqlens, int max_seqlen, Tensor? seed, float dropout_p, bool causal, "
    "bool save) -> (Tensor, Tensor, Tensor)",
    module="attention",
)
def attention_fwd(qkv, cu_seqlens, max_seqlen, seed, dropout_p, causal, save):
    from ...kernels.attention_tiles import empty_dropped

    n_tokens, _, n_heads, d = qkv.shape
    lse = qkv.new_empty((n_heads, n_tokens) if save else (0,), dtype=torch.float32)
    return qkv.new_empty(n_tokens, n_heads, d), lse, empty_dropped(qkv, max_seqlen, save and dropout_p > 0)


@define(
    "attention_bwd(Tensor dout, Tensor qkv, Tensor out, Tensor lse, Tensor dropped, Tensor cu_seqlens, int max_seqlen, "
    "float dropout_p, bool causal) -> Tensor",
    module="attention",
)
def attention_bwd(dout, qkv, out, lse, dropped, cu_seqlens, max_seqlen, dropout_p, causal):
    return qkv.new_empty(qkv.shape)


class _Attention(Function):
    @staticmethod
    def forward(ctx: Any, qkv, cu_seqlens, max_seqlen, seed, dropout_p, causal):
        out, lse, dropped = attention_fwd(qkv, cu_seqlens, max_seqlen, seed, dropout_p, causal, True)
        ctx.save_for_backward(qkv, out, lse, dropped, cu_seqlens)
        ctx.options = max_seqlen, dropout_p, causal
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout):
        dqkv = attention_bwd(dout.contiguous(), *ctx.saved_tensors, *ctx.options)
        return dqkv, None, None, None, None, None


def attention(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    dropout_p: float = 0.0,
    causal: bool = False,
    seed: Tensor | None = None,
) -> Tensor:
    """Attention within each packed sequence: softmax(q k' / sqrt(D)) v.

    qkv: [T, 3, A, D]; cu_seqlens: [B + 1] int32. Returns [T, A, D]. No sequence may be longer than `max_seqlen`; that
    is not checked.

    Raises:
        ValueError: a head size above 128, or a `cu_seqlens` that the kernels cannot read.
    """
    (qkv,) = operands("attention", qkv=qkv)
    check_attention("attention", qkv.shape[-1], cu_seqlens, qkv.device)
    seed = dropout_seed(dropout_p, seed, qkv.device)
    qkv = qkv.contiguous()
    if needs_grad(qkv):
        return _Attention.apply(qkv, cu_seqlens, max_seqlen, seed, dropout_p, causal)
    return attention_fwd(qkv, cu_seqlens, max_seqlen, seed, dropout_p, causal, False)[0]


def check_attention(op: str, head_size: int, cu_seqlens: Tensor, device: torch.device) -> None:
    """Raises ValueError for a head size that no kernel takes, or a `cu_seqlens` that none can read."""
    if head_size > MAX_HEAD_SIZE:
        raise ValueError(f"{op}: the Triton kernels take a head size up to {MAX_HEAD_SIZE}, got {head_size}")
    if cu_seqlens.dtype != torch.int32 or cu_seqlens.device != device or not cu_seqlens.is_contiguous():
        raise ValueError(
            f"{op}: expected contiguous cu_seqlens of torch.int32 on {device}, got {cu_seqlens.dtype} on "
            f"{cu_seqlens.device} with stride {cu_seqlens.stride()}"
        )
