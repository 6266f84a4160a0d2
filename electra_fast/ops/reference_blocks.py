"""The two halves of a layer in plain torch, made of the ops of `reference`.

Each half reads its hidden states, and writes the next ones. Shapes are the letters of `reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from .joining import joined
from .reference import attention, dropout_add_norm, linear_with


def attention_block(
    hidden: Tensor,
    qkv_weights: Sequence[Tensor],
    qkv_biases: Sequence[Tensor],
    out_weight: Tensor,
    out_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    cu_seqlens: Tensor,
    max_seqlen: int,
    n_heads: int,
    attention_p: float = 0.0,
    hidden_p: float = 0.0,
    causal: bool = False,
    attention_seed: Tensor | None = None,
    output_seed: Tensor | None = None,
    read: Tensor | None = None,
) -> Tensor:
    """LayerNorm(hidden + dropout(attention(hidden) out' + b)), with attention within each packed sequence.

    hidden: [T, H]; qkv_weights, qkv_biases: those of queries, keys and values, three [H, H] and three [H]; out_weight:
    [H, H]; cu_seqlens: [B + 1] int32. Probabilities drop out by `attention_p` and `attention_seed`, what is added to
    `hidden` by `hidden_p` and `output_seed`. Returns [T, H], or the rows `read` [N] int64 of it, [N, H].
    """
    qkv = F.linear(hidden, *joined(qkv_weights, qkv_biases)).unflatten(-1, (3, n_heads, -1))
    attended = attention(qkv, cu_seqlens, max_seqlen, attention_p, causal, attention_seed).flatten(-2)
    out = F.linear(attended, out_weight, out_bias)
    out = dropout_add_norm(out, hidden, norm_weight, norm_bias, eps, hidden_p, output_seed)
    return out if read is None else out.index_select(0, read)


def feed_forward_block(
    hidden: Tensor,
    inner_weight: Tensor,
    inner_bias: Tensor,
    outer_weight: Tensor,
    outer_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """LayerNorm(hidden + dropout(gelu(hidden inner' + b) outer' + c)), with the erf-GELU.

    hidden: [..., H]; inner_weight: [F, H]; outer_weight: [H, F]. Returns [..., H].
    """
    return feed_forward_block_with(
        F.gelu,
        hidden,
        inner_weight,
        inner_bias,
        outer_weight,
        outer_bias,
        norm_weight,
        norm_bias,
        eps,
        dropout_p,
        seed,
    )


def feed_forward_block_with(
    activation: Callable[[Tensor], Tensor],
    hidden: Tensor,
    inner_weight: Tensor,
    inner_bias: Tensor,
    outer_weight: Tensor,
    outer_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """`feed_forward_block` with another activation."""
    inner = linear_with(activation, hidden, inner_weight, inner_bias)
    out = F.linear(inner, outer_weight, outer_bias)
    return dropout_add_norm(out, hidden, norm_weight, norm_bias, eps, dropout_p, seed)
