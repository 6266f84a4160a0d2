"""The op `attention_block`, made of the ops on Triton kernels and of torch's products."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ..joining import joined
from .attention import attention
from .norm import dropout_add_norm


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
) -> Tensor:
    """LayerNorm(hidden + dropout(attention(hidden) out' + b)); hidden: [T, H]."""
    qkv = F.linear(hidden, *joined(qkv_weights, qkv_biases)).unflatten(-1, (3, n_heads, -1))
    attended = attention(qkv, cu_seqlens, max_seqlen, attention_p, causal, attention_seed).flatten(-2)
    out = F.linear(attended, out_weight, out_bias)
    return dropout_add_norm(out, hidden, norm_weight, norm_bias, eps, hidden_p, output_seed)
