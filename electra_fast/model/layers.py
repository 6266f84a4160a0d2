"""Embeddings, attention, layer and encoder. Module names are transformers', so that state dicts agree key by key.

The layers do not know whether they run on packed tokens [T, H] or on a padded batch [B, S, H]: everything in them
works on the last dimension, except attention among tokens, and that is left to the `context`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .. import ops
from ..ops import Impl, reference
from .config import ElectraConfig
from .halves import attention_half, attention_rate, feed_forward_half
from .hooks import dropout_rate, is_heard_within, is_hooked, is_plain, is_unheard
from .qkv import QueriesKeysValues, project


class KeyValueCache:
    """Keys and values of the tokens seen so far, for step-by-step decoding: one [B, K, A, D] pair per layer."""

    def __init__(self) -> None:
        self.self_attention: dict[int, tuple[Tensor, Tensor]] = {}
        self.cross_attention: dict[int, tuple[Tensor, Tensor]] = {}

    def get_seq_length(self) -> int:
        return self.self_attention[0][0].shape[1] if self.self_attention else 0

    def update(self, layer_idx: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Appends k and v [B, S, A, D]; returns all keys and values."""
        if layer_idx in self.self_attention:
            past_k, past_v = self.self_attention[layer_idx]
            k, v = torch.cat([past_k, k], dim=1), torch.cat([past_v, v], dim=1)
        self.self_attention[layer_idx] = k, v
        return k, v


@dataclass(frozen=True, kw_only=True)
class _Context:
    """The context that all layers of a forward share.

    Attributes:
        seeds: [L, 3] int64, for each layer's dropouts: attention, its output, the layer's output; None where the ops
            draw from torch's generator.
    """

    seeds: Tensor | None = None

    def layer_seeds(self, layer_idx: int) -> tuple[Tensor | None, ...]:
        return (None, None, None) if self.seeds is None else self.seeds[layer_idx].split(1)


@dataclass(frozen=True)
class PackedContext(_Context):
    """Attention within packed sequences: the fast form."""

    cu_seqlens: Tensor
    max_seqlen: int
    causal: bool = False

    def attend(self, module: ElectraSelfAttention, qkv: Tensor, seed: Tensor | None) -> tuple[Tensor, None]:
        rate = attention_rate(module)
        return module.ops.attention(qkv, self.cu_seqlens, self.max_seqlen, rate, self.causal, seed), None


@dataclass(frozen=True)
class PaddedContext(_Context):
    """Attention over a padded batch: probabilities as an output, any mask, head masks, caches, cross-attention.

    Dropouts here draw from torch's generator.

    Attributes:
        mask: broadcastable to [B, A, S, K]; True where attention is allowed, or floating and added to the scores.
        explicit: compute the probabilities, which a fused attention does not give.
        head_mask: [L, 1, A, 1, 1] factors of the probabilities, or None.
        cache: keys and values of earlier tokens, extended in place, or None.
        encoder_hidden_states, encoder_mask: the states [B, K, H] that cross-attention reads, and their mask.
    """

    mask: Tensor | None = None
    explicit: bool = False
    head_mask: Tensor | None = None
    cache: KeyValueCache | None = None
    encoder_hidden_states: Tensor | None = None
    encoder_mask: Tensor | None = None

    def attend(self, module: ElectraSelfAttention, qkv: Tensor, seed: Tensor | None) -> tuple[Tensor, Tensor | None]:
        q, k, v = qkv.unbind(-3)
        if self.cache is not None:
            k, v = self.cache.update(module.layer_idx, k, v)
        return self._attend(module, q, k, v, self.mask)

    def attend_encoder(self, module: ElectraCrossAttention, q: Tensor) -> tuple[Tensor, Tensor | None]:
        cached = None if self.cache is None else self.cache.cross_attention.get(module.layer_idx)
        k, v = cached or module.keys_and_values(self.encoder_hidden_states)
        if self.cache is not None:
            self.cache.cross_attention[module.layer_idx] = k, v
        return self._attend(module, q, k, v, self.encoder_mask)

    def _attend(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if not self.explicit:
            return reference.padded_attention(q, k, v, mask, attention_rate(module)), None
        head_mask = None if self.head_mask is None else self.head_mask[module.layer_idx]
        return reference.explicit_attention(q, k, v, mask, attention_rate(module), head_mask)


Context = PackedContext | PaddedContext


class ElectraEmbeddings(nn.Module):
    """Word, position and token-type tables, and LayerNorm of their sum; the projection E -> H is the model's."""

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__()
        size = config.embedding_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.ops = ops.select(impl)

    def forward(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor,
        position_ids: Tensor,
        inputs_embeds: Tensor | None = None,
        project: nn.Linear | None = None,
        seed: Tensor | None = None,
    ) -> Tensor:
        """Computes ids [...] (or `inputs_embeds [..., E]`) -> [..., H]."""
        if inputs_embeds is None and not is_plain(self.word_embeddings, nn.Embedding):
            inputs_embeds, input_ids = self.word_embeddings(input_ids), None
        rate = dropout_rate(self.dropout)
        tables = self.position_embeddings, self.token_type_embeddings
        is_fused = rate is not None and all(is_plain(x, nn.Embedding) for x in tables)
        if not is_fused or not is_plain(self.LayerNorm, nn.LayerNorm):
            words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
            summed = words + self.token_type_embeddings(token_type_ids) + self.position_embeddings(position_ids)
            embedded = self.dropout(self.LayerNorm(summed))
            return embedded if project is None else project(embedded)
        fused = project if is_plain(project, nn.Linear) else None
        embedded = self.ops.embed_norm_project(
            input_ids,
            token_type_ids,
            position_ids,
            # With `inputs_embeds` only the table's width is read.
            (self.word_embeddings if inputs_embeds is None else self.position_embeddings).weight,
            self.position_embeddings.weight,
            self.token_type_embeddings.weight,
            self.LayerNorm.weight,
            self.LayerNorm.bias,
            self.LayerNorm.eps,
            None if fused is None else fused.weight,
            None if fused is None else fused.bias,
            inputs_embeds,
            self.word_embeddings.padding_idx if inputs_embeds is None else None,
            rate,
            seed,
        )
        return embedded if project is fused else project(embedded)


class ElectraSelfAttention(QueriesKeysValues):
    """Self-attention, with queries, keys and values by one product."""

    def __init__(self, config: ElectraConfig, layer_idx: int = 0, impl: Impl = "auto"):
        super().__init__(config.hidden_size)
        self.num_attention_heads, self.attention_head_size = config.num_attention_heads, config.head_size
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.layer_idx = layer_idx
        self.ops = ops.select(impl, config.head_size)

    def forward(self, hidden: Tensor, context: Context, seed: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        qkv = project((self.query, self.key, self.value), hidden)
        qkv = qkv.unflatten(-1, (3, self.num_attention_heads, self.attention_head_size))
        out, probabilities = context.attend(self, qkv, seed)
        return out.flatten(-2), probabilities


class ElectraCrossAttention(nn.Module):
    """Cross-attention: queries from the decoder, keys and values from an encoder's hidden states."""

    def __init__(self, config: ElectraConfig, layer_idx: int = 0):
        super().__init__()
        self.head_shape = (config.num_attention_heads, config.head_size)
        self.query, self.key, self.value = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(3))
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.layer_idx = layer_idx

    def keys_and_values(self, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.key(encoder_hidden_states), self.value(encoder_hidden_states)
        return key.unflatten(-1, self.head_shape), value.unflatten(-1, self.head_shape)

    def forward(self, hidden: Tensor, context: PaddedContext, seed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        out, probabilities = context.attend_encoder(self, self.query(hidden).unflatten(-1, self.head_shape))
        return out.flatten(-2), probabilities


class _ResidualNorm(nn.Module):
    """LayerNorm(residual + dropout(dense(x))): the end of both halves of a layer."""

    def __init__(self, config: ElectraConfig, in_features: int, impl: Impl = "auto"):
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.ops = ops.select(impl)

    def forward(self, x: Tensor, residual: Tensor, seed: Tensor | None = None) -> Tensor:
        norm, rate = self.LayerNorm, dropout_rate(self.dropout)
        if rate is None or not is_plain(norm, nn.LayerNorm):
            return norm(self.dropout(self.dense(x)) + residual)
        return self.ops.dropout_add_norm(self.dense(x), residual, norm.weight, norm.bias, norm.eps, rate, seed)


class ElectraSelfOutput(_ResidualNorm):
    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__(config, config.hidden_size, impl)


class ElectraOutput(_ResidualNorm):
    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__(config, config.intermediate_size, impl)


class ElectraAttention(nn.Module):
    def __init__(
        self, config: ElectraConfig, layer_idx: int = 0, is_cross_attention: bool = False, impl: Impl = "auto"
    ):
        super().__init__()
        self.self = (
            ElectraCrossAttention(config, layer_idx)
            if is_cross_attention
            else ElectraSelfAttention(config, layer_idx, impl)
        )
        self.output = ElectraSelfOutput(config, impl)
        self.ops = ops.select(impl, config.head_size)

    def forward(
        self,
        hidden: Tensor,
        context: Context,
        seed: Tensor | None = None,
        output_seed: Tensor | None = None,
        read: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        is_whole = is_unheard(self.self, ElectraSelfAttention) and is_unheard(self.output, ElectraSelfOutput)
        if is_whole and isinstance(context, PackedContext):
            packed = context.cu_seqlens, context.max_seqlen, context.causal
            whole = attention_half(self.ops, self, hidden, *packed, seed, output_seed, read)
            if whole is not None:
                return whole, None
        attended, probabilities = self.self(hidden, context, seed)
        out = self.output(attended, hidden, output_seed)
        return out if read is None else out.index_select(0, read), probabilities


class ElectraIntermediate(nn.Module):
    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.linear_gelu = ops.select(impl, activation=config.hidden_act).linear_gelu
        self.activation = reference.activation_of(config.hidden_act)

    def forward(self, hidden: Tensor) -> Tensor:
        if not is_plain(self.dense, nn.Linear):
            return self.activation(self.dense(hidden))
        return self.linear_gelu(hidden, self.dense.weight, self.dense.bias)


class ElectraLayer(nn.Module):
    def __init__(self, config: ElectraConfig, layer_idx: int = 0, impl: Impl = "auto"):
        super().__init__()
        self.layer_idx = layer_idx
        self.chunk_size_feed_forward = config.chunk_size_feed_forward
        self.attention = ElectraAttention(config, layer_idx, impl=impl)
        if config.add_cross_attention:
            self.crossattention = ElectraAttention(config, layer_idx, is_cross_attention=True, impl=impl)
        self.intermediate = ElectraIntermediate(config, impl)
        self.output = ElectraOutput(config, impl)
        self.ops = ops.select(impl, activation=config.hidden_act)
        self.is_gelu = reference.is_erf_gelu(config.hidden_act)

    def forward(
        self, hidden: Tensor, context: Context, read: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns (hidden, attention probabilities, cross-attention probabilities).

        read: [N] int64, the packed tokens whose states are returned, and no others computed; None for all.
        """
        attention_seed, attended_seed, output_seed = context.layer_seeds(self.layer_idx)
        reads = () if read is None else (read,)
        hidden, probabilities = self.attention(hidden, context, attention_seed, attended_seed, *reads)
        cross_probabilities = None
        if isinstance(context, PaddedContext) and context.encoder_hidden_states is not None:
            hidden, cross_probabilities = self.crossattention(hidden, context)
        if self.chunk_size_feed_forward:
            chunks = hidden.split(self.chunk_size_feed_forward, dim=-2)
            hidden = torch.cat([self.feed_forward(chunk) for chunk in chunks], dim=-2)
        else:
            hidden = self.feed_forward(hidden, output_seed)
        return hidden, probabilities, cross_probabilities

    def feed_forward(self, hidden: Tensor, seed: Tensor | None = None) -> Tensor:
        inner, end = self.intermediate, self.output
        if self.is_gelu and is_unheard(inner, ElectraIntermediate) and is_unheard(end, ElectraOutput):
            whole = feed_forward_half(self.ops, inner.dense, end, hidden, seed)
            if whole is not None:
                return whole
        return end(inner(hidden), hidden, seed)


@dataclass
class EncoderOutput:
    """The last hidden state and, with one entry per layer, the states and probabilities on the way."""

    hidden: Tensor
    hidden_states: list[Tensor] = field(default_factory=list)
    attentions: list[Tensor | None] = field(default_factory=list)
    cross_attentions: list[Tensor | None] = field(default_factory=list)


def checkpoint_activations(
    module: nn.Module, options: Mapping[str, Any] | None = None, every_n_layers: int = 1, offload: bool = False
) -> None:
    """Makes a module's encoders compute each layer again in the backward, instead of keeping its activations.

    The arguments are those of transformers' `activation_checkpointing_enable`; raises ValueError for anything but
    every layer, without offloading, non-reentrant.
    """
    others = dict(options or {})
    if others not in ({}, {"use_reentrant": False}) or every_n_layers != 1 or offload:
        raise ValueError(
            "activation checkpointing is of every layer, without offloading and non-reentrant here: expected "
            "every_n_layers 1, offload False and no options but use_reentrant=False, got "
            f"every_n_layers {every_n_layers}, offload {offload} and options {others}"
        )
    for part in module.modules():
        if isinstance(part, ElectraEncoder):
            part.gradient_checkpointing = True


class ElectraEncoder(nn.Module):
    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__()
        self.layer = nn.ModuleList(ElectraLayer(config, i, impl) for i in range(config.num_hidden_layers))
        self.gradient_checkpointing = False

    def forward(self, hidden: Tensor, context: Context, read: Tensor | None = None) -> EncoderOutput:
        """Computes states before the layers -> those after them; read: as in `ElectraLayer`, for the last layer.

        Needs `may_read` where `read` is given.
        """
        output = EncoderOutput(hidden, hidden_states=[hidden])
        for i, layer in enumerate(self.layer, 1):
            is_read_from = read is not None and i == len(self.layer)
            inputs = (hidden, context, read) if is_read_from else (hidden, context)
            if self.gradient_checkpointing and self.training:
                hidden, probabilities, cross = checkpoint(layer, *inputs, use_reentrant=False)
            else:
                hidden, probabilities, cross = layer(*inputs)
            output.hidden_states.append(hidden)
            output.attentions.append(probabilities)
            output.cross_attentions.append(cross)
        output.hidden = hidden
        return output

    def may_read(self) -> bool:
        """Tells whether the last layer may compute some states alone: it is ours, and nobody listens to any part."""
        if not len(self.layer) or is_hooked(self) or not is_unheard(self.layer[-1], ElectraLayer):
            return False
        last = self.layer[-1]
        return type(last.attention) is ElectraAttention and not is_heard_within(last)
