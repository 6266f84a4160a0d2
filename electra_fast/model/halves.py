"""The two halves of a layer by one op each, where all their modules are plain; see `hooks`.

The modules are ours or transformers', which have the same names. Who calls this knows that nobody listens to the parts
that hold them. Where a module has to be called the result is None: then the layer computes the half piece by piece.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import Ops
from ..ops.tracing import is_recorded
from .hooks import dropout_rate, is_plain


def attention_half(
    ops: Ops,
    attention: nn.Module,
    hidden: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    causal: bool = False,
    seed: Tensor | None = None,
    output_seed: Tensor | None = None,
) -> Tensor | None:
    """Attention among packed tokens, its output and their sum's LayerNorm: [T, H] -> [T, H]."""
    inner, end = attention.self, attention.output
    query, key, value, rate = inner.query, inner.key, inner.value, dropout_rate(end.dropout)
    # Other programs know three products by three weights.
    if is_recorded() or rate is None or not (_are_plain(query, key, value, end.dense) and _is_plain_norm(end)):
        return None
    return ops.attention_block(
        hidden,
        (query.weight, key.weight, value.weight),
        (query.bias, key.bias, value.bias),
        *_end(end),
        cu_seqlens,
        max_seqlen,
        inner.num_attention_heads,
        attention_rate(inner),
        rate,
        causal,
        seed,
        output_seed,
    )


def feed_forward_half(ops: Ops, dense: nn.Module, end: nn.Module, hidden: Tensor, seed: Tensor | None) -> Tensor | None:
    """The feed-forward, with the erf-GELU between its two products, and the LayerNorm: [..., H] -> [..., H]."""
    rate = dropout_rate(end.dropout)
    if is_recorded() or rate is None or not (_are_plain(dense, end.dense) and _is_plain_norm(end)):
        return None
    return ops.feed_forward_block(hidden, dense.weight, dense.bias, *_end(end), rate, seed)


def attention_rate(attention: nn.Module) -> float:
    """The rate of an attention's dropout."""
    # By the attention's own mode, as in transformers: an attention interface takes the rate, and calls no dropout.
    return attention.dropout.p if attention.training and isinstance(attention.dropout, nn.Dropout) else 0.0


def _are_plain(*linears: nn.Module) -> bool:
    return all(is_plain(linear, nn.Linear) for linear in linears)


def _is_plain_norm(end: nn.Module) -> bool:
    return is_plain(end.LayerNorm, nn.LayerNorm)


def _end(end: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    dense, norm = end.dense, end.LayerNorm
    return dense.weight, dense.bias, norm.weight, norm.bias, norm.eps
