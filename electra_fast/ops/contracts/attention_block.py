"""The op `attention_block` on the kernels of `electra_fast.kernels.attention_block`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .. import reference_blocks
from ..joining import joined
from .attention import attention_fwd, check_attention
from .library import define, dropout_seed, needs_grad, operands, reference_gradients


@define(
    "attention_block_fwd(Tensor hidden, Tensor qkv_weight, Tensor qkv_bias, Tensor out_weight, Tensor out_bias, "
    "Tensor norm_weight, Tensor norm_bias, Tensor cu_seqlens, Tensor? attention_seed, Tensor? output_seed, "
    "int max_seqlen, int n_heads, float eps, float attention_p, float hidden_p, bool causal, bool save) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    module="attention_block",
)
def attention_block_fwd(hidden, *others):
    cu_seqlens, attention_seed, _, max_seqlen, n_heads, _, attention_p, _, causal, save = others[6:]
    n_tokens, width = hidden.shape
    qkv = hidden.new_empty(n_tokens, 3, n_heads, width // n_heads)
    attended, *saved = attention_fwd(qkv, cu_seqlens, max_seqlen, attention_seed, attention_p, causal, save)
    statistics = hidden.new_empty(n_tokens if save else 0, dtype=torch.float32)
    return (
        torch.empty_like(hidden),
        *(x if save else hidden.new_empty(0) for x in (qkv, attended)),
        *saved,
        torch.empty_like(hidden) if save else hidden.new_empty(0),
        statistics,
        torch.empty_like(statistics),
    )


@define(
    "attention_block_bwd(Tensor dy, Tensor hidden, Tensor qkv_weight, Tensor out_weight, Tensor norm_weight, "
    "Tensor cu_seqlens, Tensor? output_seed, Tensor qkv, Tensor attended, Tensor lse, Tensor dropped, Tensor summed, "
    "Tensor mean, Tensor rstd, int max_seqlen, float attention_p, float hidden_p, bool causal, bool[] wanted) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    module="attention_block",
)
def attention_block_bwd(dy, hidden, qkv_weight, out_weight, norm_weight, *others):
    wants_hidden, wants_qkv, _, wants_out = wanted = others[-1]
    return (
        torch.empty_like(hidden) if wants_hidden else dy.new_empty(0),
        torch.empty_like(qkv_weight) if wants_qkv else dy.new_empty(0),
        torch.empty_like(out_weight) if wants_out else dy.new_empty(0),
        dy.new_empty((6 if any(wanted[:3]) else 3) * len(norm_weight)),
    )


class _AttentionBlock(Function):
    @staticmethod
    def forward(ctx: Any, cu_seqlens, attention_seed, output_seed, options, *tensors):
        others = cu_seqlens, attention_seed, output_seed
        y, *saved = attention_block_fwd(*tensors, *others, *options, True)
        ctx.save_for_backward(*tensors, *others, *saved)
        ctx.options = options
        return y

    @staticmethod
    def backward(ctx: Any, dy):
        given = ctx.saved_tensors
        tensors, (cu_seqlens, attention_seed, output_seed), saved = given[:7], given[7:10], given[10:]
        (max_seqlen, n_heads, eps, *rates, causal), wanted = ctx.options, ctx.needs_input_grad[4:]
        if torch.is_grad_enabled():

            def reference(hidden, weight, bias, *end):
                return reference_blocks.attention_block(
                    hidden, weight.chunk(3), bias.chunk(3), *end, eps, cu_seqlens, max_seqlen, n_heads, *rates, causal,
                    attention_seed, output_seed,
                )  # fmt: skip

            return None, None, None, None, *reference_gradients(reference, tensors, dy, wanted)
        hidden, qkv_weight, _, out_weight, _, norm_weight, _ = tensors
        dhidden, dqkv_weight, dout_weight, dvectors = attention_block_bwd(
            dy.contiguous(), hidden, qkv_weight, out_weight, norm_weight, cu_seqlens, output_seed,
            *saved, max_seqlen, *rates, causal, wanted[:4],
        )  # fmt: skip
        dnorm_weight, dnorm_bias, dout_bias = dvectors[: 3 * len(norm_weight)].chunk(3)
        dqkv_bias = dvectors[3 * len(norm_weight) :]
        grads = (dhidden, dqkv_weight, dqkv_bias, dout_weight, dout_bias, dnorm_weight, dnorm_bias)
        return None, None, None, None, *(x if is_wanted else None for x, is_wanted in zip(grads, wanted, strict=True))


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
    """LayerNorm(hidden + dropout(attention(hidden) out' + b)); hidden: [T, H]; all of it, or the rows `read`.

    The gradient of the keys' bias is zero: that bias moves all scores of a query alike.

    Raises:
        ValueError: a head size above 128, or a `cu_seqlens` that the kernels cannot read.
    """
    qkv_weight, qkv_bias = joined(qkv_weights, qkv_biases)
    tensors = operands(
        "attention_block",
        hidden=hidden,
        qkv_weight=qkv_weight,
        qkv_bias=qkv_bias,
        out_weight=out_weight,
        out_bias=out_bias,
        norm_weight=norm_weight,
        norm_bias=norm_bias,
    )
    check_attention("attention_block", hidden.shape[-1] // n_heads, cu_seqlens, hidden.device)
    tensors = tuple(x.contiguous() for x in tensors)
    rates, seeds = (attention_p, hidden_p), (attention_seed, output_seed)
    seeds = [dropout_seed(p, seed, hidden.device) for p, seed in zip(rates, seeds, strict=True)]
    others, options = (cu_seqlens, *seeds), (max_seqlen, n_heads, eps, *rates, causal)
    if needs_grad(*tensors):
        out = _AttentionBlock.apply(*others, options, *tensors)
    else:
        out = attention_block_fwd(*tensors, *others, *options, False)[0]
    return out if read is None else out.index_select(0, read)
