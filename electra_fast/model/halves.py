"""The two halves of a layer by one op each, where all their modules are plain; see `hooks`.

The modules are ours or transformers', which have the same names. Who calls this knows that nobody listens to the parts
that hold them. Where a module has to be called the result is None: then the layer computes the half piece by piece.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import Ops
from ..ops.tracing import is_recorded
from .hooks import dropout_rate, weight_and_bias


def attention_half(
    ops: Ops,
    attention: nn.Module,
    hidden: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    causal: bool = False,
    seed: Tensor | None = None,
    output_seed: Tensor | None = None,
    read: Tensor | None = None,
) -> Tensor | None:
    """Attention among packed tokens, its output and their sum's LayerNorm: [T, H] -> [T, H], or its rows `read`."""
    inner, end = attention.self, _end(attention.output)
    projections = [weight_and_bias(linear, nn.Linear) for linear in (inner.query, inner.key, inner.value)]
    # Other programs know three products by three weights.
    if is_recorded() or end is None or None in projections:
        return None
    return ops.attention_block(
        hidden,
        *zip(*projections, strict=True),
        *end[:-1],
        cu_seqlens,
        max_seqlen,
        inner.num_attention_heads,
        attention_rate(inner),
        end[-1],
        causal,
        seed,
        output_seed,
        read,
    )


def feed_forward_half(ops: Ops, dense: nn.Module, end: nn.Module, hidden: Tensor, seed: Tensor | None) -> Tensor | None:
    """The feed-forward, with the erf-GELU between its two products, and the LayerNorm: [..., H] -> [..., H]."""
    first, last = weight_and_bias(dense, nn.Linear), _end(end)
    if is_recorded() or first is None or last is None:
        return None
    return ops.feed_forward_block(hidden, *first, *last, seed)


def attention_rate(attention: nn.Module) -> float:
    """The rate of an attention's dropout."""
    # By the attention's own mode, as in transformers: an attention interface takes the rate, and calls no dropout.
    dropout = attention.dropout
    return dropout.p if attention.training and isinstance(dropout, nn.Dropout) else 0.0


def _end(end: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor, float, float] | None:
    """The end of a half as an op takes it: its product, its LayerNorm with eps, and its dropout's rate."""
    norm, rate = end.LayerNorm, dropout_rate(end.dropout)
    product, scale = weight_and_bias(end.dense, nn.Linear), weight_and_bias(norm, nn.LayerNorm)
    return None if rate is None or product is None or scale is None else (*product, *scale, norm.eps, rate)
