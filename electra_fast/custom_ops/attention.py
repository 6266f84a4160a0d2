"""attention on the kernels of `electra_fast.kernels.attention`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..ops import MAX_HEAD_SIZE
from .library import define, dropout_seed, needs_grad, on_device, operands


@define(
    "attention_fwd(Tensor qkv, Tensor cu_seqlens, SymInt max_seqlen, Tensor? seed, float dropout_p, bool causal, "
    "bool save) -> (Tensor, Tensor)",
    module="attention",
)
def attention_fwd(qkv, cu_seqlens, max_seqlen, seed, dropout_p, causal, save):
    n_tokens, _, n_heads, d = qkv.shape
    lse = qkv.new_empty((n_heads, n_tokens) if save else 0, dtype=torch.float32)
    return qkv.new_empty(n_tokens, n_heads, d), lse


@define(
    "attention_bwd(Tensor dout, Tensor qkv, Tensor out, Tensor lse, Tensor cu_seqlens, SymInt max_seqlen, "
    "Tensor? seed, float dropout_p, bool causal) -> Tensor",
    module="attention",
)
def attention_bwd(dout, qkv, out, lse, cu_seqlens, max_seqlen, seed, dropout_p, causal):
    return qkv.new_empty(qkv.shape)


class _Attention(Function):
    @staticmethod
    def forward(ctx: Any, qkv, cu_seqlens, max_seqlen, dropout_p, causal, seed):
        out, lse = attention_fwd(qkv, cu_seqlens, max_seqlen, seed, dropout_p, causal, True)
        ctx.save_for_backward(qkv, out, lse, cu_seqlens, seed)
        ctx.max_seqlen, ctx.dropout_p, ctx.causal = max_seqlen, dropout_p, causal
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout):
        qkv, out, lse, cu_seqlens, seed = ctx.saved_tensors
        dqkv = attention_bwd(
            dout.contiguous(), qkv, out, lse, cu_seqlens, ctx.max_seqlen, seed, ctx.dropout_p, ctx.causal
        )
        return dqkv, None, None, None, None, None


def attention(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    dropout_p: float = 0.0,
    causal: bool = False,
    seed: Tensor | None = None,
) -> Tensor:
    """softmax(q k' / sqrt(D)) v within each packed sequence.

    qkv: [T, 3, A, D], queries, keys and values of one GEMM; cu_seqlens: [B + 1] int32. Returns [T, A, D].
    """
    (qkv,) = operands("attention", qkv=qkv)
    on_device("attention", "cu_seqlens", cu_seqlens, qkv.device)
    if cu_seqlens.dtype != torch.int32:
        raise ValueError(f"attention: expected cu_seqlens of torch.int32, got {cu_seqlens.dtype}")
    if qkv.shape[-1] > MAX_HEAD_SIZE:
        raise ValueError(f"attention: head sizes go up to {MAX_HEAD_SIZE}, got {qkv.shape[-1]}")
    if qkv.stride(-1) != 1:
        qkv = qkv.contiguous()
    cu_seqlens, seed = cu_seqlens.contiguous(), dropout_seed(dropout_p, seed, qkv.device)
    if needs_grad(qkv):
        return _Attention.apply(qkv, cu_seqlens, max_seqlen, dropout_p, causal, seed)
    return attention_fwd(qkv, cu_seqlens, max_seqlen, seed, dropout_p, causal, False)[0]
