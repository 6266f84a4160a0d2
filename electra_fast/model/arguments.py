"""The arguments of a forward: checked, and turned into packed tokens or a padded batch; and results turned back.

This file decides which form a call takes. Packed is the rule. The padded form serves calls that packed tokens cannot
express: attention probabilities as an output, head masks, 3-D and 4-D masks, caches, cross-attention, and heads that
read the hidden state at a padding position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from ..ops.tracing import is_recorded
from .config import ElectraConfig
from .layers import Context, KeyValueCache, PackedContext, PaddedContext
from .packing import PackedBatch, packed_row

# Positions that a head reads: real tokens only, these and the first column (even if that is padding), that column and
# nothing else, or every column.
Reads = Literal["tokens", "first", "only_first", "all"]

# Keywords that a forward takes beyond its named parameters: those of transformers 4, of packed input, and those that
# transformers 5 knows for all models.
OPTIONS = {
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "head_mask",
    "cu_seq_lens_q",
    "cu_seq_lens_k",
    "max_length_q",
    "max_length_k",
    "num_items_in_batch",
    "is_causal",
    "seq_idx",
    "output_router_logits",
}
# Keywords that change nothing, as in transformers 5: what else a tokenizer returns, and places in a cache, which knows
# its own.
WITHOUT_EFFECT = {
    "cache_position",
    "special_tokens_mask",
    "offset_mapping",
    "length",
    "overflow_to_sample_mapping",
    "overflowing_tokens",
    "num_truncated_tokens",
}


@dataclass
class Encoded:
    """The encoder's results for a batch.

    Attributes:
        hidden: [T, H] where `packed` is given, else [B, S, H], or [B, 1, H] for a head that reads "only_first".
        packed: where the tokens belong.
        hidden_states, attentions, cross_attentions: padded, for the caller; None unless asked for.
    """

    hidden: Tensor
    packed: PackedBatch | None
    past_key_values: KeyValueCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None

    def pack(self, labels: Tensor) -> Tensor:
        """Labels [B, S] in the form of `hidden`; raises ValueError unless there is one a position."""
        check_tensor("labels", labels)
        shape = self.hidden.shape[:2] if self.packed is None else (self.packed.batch_size, self.packed.seq_length)
        if labels.numel() != shape[0] * shape[1]:
            raise ValueError(f"labels must have shape {tuple(shape)}, got {tuple(labels.shape)}")
        labels = labels.reshape(shape)
        return labels if self.packed is None else self.packed.pack(labels)

    def restore(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """Unpacks a tensor computed from `hidden`, to [B, S, ...] with `fill` at padding positions."""
        return x if self.packed is None else self.packed.unpack(x, fill)

    @property
    def padded_hidden(self) -> Tensor:
        return self.restore(self.hidden)


@dataclass(frozen=True)
class Arguments:
    """The arguments of a forward: checked, defaults filled in, and in the form that the call takes.

    Attributes:
        packed: where the tokens belong in the packed form; None in the padded one.
        input_ids, token_type_ids, position_ids: [T] where packed, else [B, S]; ids are None where `inputs_embeds` are.
        inputs_embeds: [T, E] or [B, S, E].
        attention_mask, head_mask, encoder_hidden_states, encoder_attention_mask: the caller's, for the padded form.
        cache: keys and values to read and extend, in the padded form; `returns_cache`: whether the caller gets it.
        output_attentions, output_hidden_states: results wanted beside the last hidden states.
    """

    packed: PackedBatch | None
    input_ids: Tensor | None
    token_type_ids: Tensor
    position_ids: Tensor
    inputs_embeds: Tensor | None
    attention_mask: Tensor | None
    head_mask: Tensor | None
    encoder_hidden_states: Tensor | None
    encoder_attention_mask: Tensor | None
    cache: KeyValueCache | None
    returns_cache: bool
    output_attentions: bool
    output_hidden_states: bool

    @classmethod
    def of(
        cls,
        config: ElectraConfig,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        use_cache: bool | None = None,
        reads: Reads = "tokens",
        caches_by_default: bool = False,
        **options: Any,
    ) -> Arguments:
        """Checks and completes `ElectraModel.forward`'s arguments; `caches_by_default` is the default of `use_cache`.

        Raises:
            ValueError, TypeError: arguments that no model can take.
        """
        if not isinstance(past_key_values, KeyValueCache | None):
            found = type(past_key_values).__name__
            raise TypeError(f"past_key_values must be what an earlier call of this model returned, got a {found}")
        past_length = 0 if past_key_values is None else past_key_values.get_seq_length()
        batch = {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
        }
        check_options(config, options)
        check_inputs(config, batch, past_length, options)
        if encoder_hidden_states is not None:
            check_encoder_states(config, encoder_hidden_states, encoder_attention_mask)
        if use_cache is None:
            use_cache = config.is_decoder and caches_by_default
        cache = KeyValueCache() if config.is_decoder and use_cache and past_key_values is None else past_key_values
        output_attentions, output_hidden_states = (
            getattr(config, name) if options.get(name) is None else options[name]
            for name in ("output_attentions", "output_hidden_states")
        )
        given = input_ids if inputs_embeds is None else inputs_embeds
        shape, device = given.shape[:2], given.device

        packed = packed_already(shape, attention_mask, position_ids, options, device) if past_length == 0 else None
        padded_only = (options.get("head_mask"), cache, encoder_hidden_states)
        if output_attentions or is_recorded() or any(x is not None for x in padded_only):
            if packed is not None:
                attention_mask, packed = sequence_mask(packed, config.is_decoder), None
        elif packed is None:
            packed = choose_packing(shape, device, attention_mask, reads)

        if position_ids is None:
            position_ids = torch.arange(past_length, past_length + shape[1], device=device)[None]
        if token_type_ids is None:
            token_type_ids = torch.zeros(1, 1, dtype=torch.long, device=device)
        tokens = [input_ids, token_type_ids.expand(shape), position_ids.expand(shape), inputs_embeds]
        if packed is not None:
            tokens = [None if x is None else packed.pack(x) for x in tokens]
        return cls(
            packed,
            *tokens,
            attention_mask=attention_mask,
            head_mask=options.get("head_mask"),
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            cache=cache,
            returns_cache=bool(use_cache),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )

    def padded_context(self, config: ElectraConfig, hidden: Tensor, seeds: Tensor | None) -> Context:
        """The context of attention over the padded batch [B, S, H] of these arguments."""
        mask, head_mask = broadcast_mask(self.attention_mask), self.head_mask
        if mask is not None and mask.is_floating_point():
            mask = mask.to(hidden.dtype)
        if config.is_decoder and (mask is None or self.attention_mask.dim() == 2):
            past_length, length = 0 if self.cache is None else self.cache.get_seq_length(), hidden.shape[1]
            seen = torch.ones(length, past_length + length, dtype=torch.bool, device=hidden.device).tril(past_length)
            mask = seen[None, None] if mask is None else mask & seen
        if head_mask is not None:
            head_mask = head_mask[None] if head_mask.dim() == 1 else head_mask  # [A] -> [1, A] -> [L, 1, A, 1, 1]
            head_mask = head_mask.to(hidden.dtype).expand(config.num_hidden_layers, -1)[:, None, :, None, None]
        return PaddedContext(
            mask=mask,
            explicit=self.output_attentions or head_mask is not None,
            head_mask=head_mask,
            cache=self.cache,
            encoder_hidden_states=self.encoder_hidden_states,
            encoder_mask=broadcast_mask(self.encoder_attention_mask),
            seeds=seeds,
        )


def check_inputs(config: ElectraConfig, batch: dict[str, Tensor | None], past_length: int, options: dict) -> None:
    """Raises ValueError or TypeError for arguments that no model can take; ids are checked only on the CPU."""
    for name, tensor in {**batch, "head_mask": options.get("head_mask")}.items():
        check_tensor(name, tensor)
    ids, embeds = batch["input_ids"], batch["inputs_embeds"]
    if (ids is None) == (embeds is None):
        raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
    given = ids if embeds is None else embeds
    expected_dim = 2 if embeds is None else 3
    if given.dim() != expected_dim:
        name = "input_ids [batch, length]" if embeds is None else "inputs_embeds [batch, length, embedding_size]"
        raise ValueError(f"expected {name}, got shape {tuple(given.shape)}")
    batch_size, length = given.shape[:2]
    if length == 0:
        raise ValueError("expected sequences of at least one token, got length 0")
    if past_length + length > config.max_position_embeddings and batch["position_ids"] is None:
        raise ValueError(
            f"sequence length {past_length + length} is over max_position_embeddings {config.max_position_embeddings}: "
            "truncate the text (tokenizer(..., truncation=True, max_length=...)) or split it"
        )
    limits = {
        "input_ids": config.vocab_size,
        "token_type_ids": config.type_vocab_size,
        "position_ids": config.max_position_embeddings,
    }
    for name, limit in limits.items():
        tensor = batch[name]
        if tensor is None:
            continue
        if tensor.dim() != 2 or tensor.shape[1] != length or tensor.shape[0] not in (1, batch_size):
            raise ValueError(f"{name} must have shape {(batch_size, length)}, got {tuple(tensor.shape)}")
        if tensor.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"{name} must be int64 or int32, got {tensor.dtype}")
        if tensor.device.type == "cpu" and tensor.numel() and not torch.compiler.is_compiling():
            low, high = (int(x) for x in tensor.aminmax())
            if low < 0 or high >= limit:
                raise ValueError(f"{name} must be in [0, {limit}), got values from {low} to {high}")
    mask = batch["attention_mask"]
    if mask is not None and mask.dim() == 2 and tuple(mask.shape) != (batch_size, past_length + length):
        raise ValueError(
            f"attention_mask must have shape {(batch_size, past_length + length)}, got {tuple(mask.shape)}"
        )
    if mask is not None and mask.dim() not in (2, 3, 4):
        raise ValueError(f"attention_mask must have 2, 3 or 4 dimensions, got shape {tuple(mask.shape)}")
    n_layers, n_heads = config.num_hidden_layers, config.num_attention_heads
    if mask is not None and mask.dim() > 2:
        heads = (n_heads,) if mask.dim() == 4 else ()
        _check_broadcast("attention_mask", mask, (batch_size, *heads, length, past_length + length))
    head_mask = options.get("head_mask")
    if head_mask is not None:
        _check_broadcast("head_mask", head_mask, (n_heads,) if head_mask.dim() == 1 else (n_layers, n_heads))
    if embeds is not None and embeds.shape[2] != config.embedding_size:
        raise ValueError(f"inputs_embeds must be {config.embedding_size} wide (embedding_size), got {embeds.shape[2]}")
    if options.get("cu_seq_lens_q") is not None:
        if past_length:
            raise ValueError("cu_seq_lens_q cannot be served with past_key_values: a cache holds one sequence a row")
    elif options.get("cu_seq_lens_k") is not None:
        raise ValueError("cu_seq_lens_k needs cu_seq_lens_q beside it: it is the same marks")
    elif options.get("seq_idx") is not None and batch["position_ids"] is None:
        raise ValueError("seq_idx needs cu_seq_lens_q or position_ids beside it: these mark the sequences of a row")


def check_options(config: ElectraConfig, options: dict[str, Any]) -> None:
    """Raises ValueError or TypeError for keywords that ELECTRA does not know, unless they are None."""
    given = {name for name, value in options.items() if value is not None}
    if unknown := given - OPTIONS - WITHOUT_EFFECT:
        raise TypeError(f"unexpected keyword {', '.join(sorted(unknown))}; known beyond the named: {sorted(OPTIONS)}")
    is_causal = options.get("is_causal")
    if is_causal is not None and is_causal != config.is_decoder:
        raise ValueError(f"is_causal must be what config.is_decoder is, {config.is_decoder}, got {is_causal!r}")
    if options.get("output_router_logits"):
        raise ValueError("output_router_logits must be False or None, got True: ELECTRA has no router")


def check_tensor(name: str, value: Any) -> None:
    """Raises TypeError for an argument that is neither a tensor nor None."""
    if not isinstance(value, Tensor | None):
        raise TypeError(f"{name} must be a torch tensor, got a {type(value).__name__}")


def check_marks(n_tokens: int, mask: Tensor | None, options: dict[str, Any]) -> None:
    """Raises ValueError or TypeError for marks of sequences that do not fit a batch of `n_tokens`, or each other."""
    marks, others, longest = (options.get(name) for name in ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q"))
    check_tensor("cu_seq_lens_q", marks)
    check_tensor("cu_seq_lens_k", others)
    if marks.dim() != 1 or marks.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"cu_seq_lens_q must be int32 or int64 [sequences + 1], got {marks.dtype} of shape {tuple(marks.shape)}"
        )
    if torch.compiler.is_compiling():
        return
    if isinstance(mask, Tensor) and (mask.dim() != 2 or not bool((mask != 0).all())):
        raise ValueError("attention_mask must be None or all ones beside cu_seq_lens_q, got one that hides tokens")
    if marks.device.type != "cpu":
        return
    starts = marks.tolist()
    if starts != sorted(starts) or starts[:1] != [0] or starts[-1] != n_tokens:
        raise ValueError(f"cu_seq_lens_q must rise from 0 to {n_tokens} tokens, got {starts}")
    needed = max((end - start for start, end in pairwise(starts)), default=0)
    if longest is not None and int(longest) < needed:
        raise ValueError(f"max_length_q must be at least {needed}, the longest sequence, got {longest}")
    if others is not None and others.tolist() != starts:
        raise ValueError(f"cu_seq_lens_k must equal cu_seq_lens_q, got {others.tolist()} and {starts}")


def check_encoder_states(config: ElectraConfig, states: Tensor, mask: Tensor | None) -> None:
    """Raises ValueError or TypeError for states that cross-attention cannot read."""
    check_tensor("encoder_hidden_states", states)
    check_tensor("encoder_attention_mask", mask)
    if not config.add_cross_attention:
        raise ValueError("encoder_hidden_states need a config with is_decoder=True and add_cross_attention=True")
    if states.dim() != 3 or states.shape[2] != config.hidden_size:
        expected = f"[batch, length, {config.hidden_size}]"
        raise ValueError(f"encoder_hidden_states must have shape {expected}, got {tuple(states.shape)}")
    if mask is not None and mask.dim() not in (2, 3, 4):
        raise ValueError(f"encoder_attention_mask must have 2, 3 or 4 dimensions, got shape {tuple(mask.shape)}")


def _check_broadcast(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.dim() != len(shape) or any(n not in (1, m) for n, m in zip(tensor.shape, shape, strict=True)):
        raise ValueError(f"{name} must have shape {shape}, or 1 where it is repeated, got {tuple(tensor.shape)}")


def packed_already(
    shape: tuple[int, int],
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    options: dict[str, Any],
    device: torch.device | None = None,
) -> PackedBatch | None:
    """The sequences that the caller packed, found by cu_seq_lens_q or by the positions of a single row; else None.

    Marks move to `device`, where it is given.

    Raises:
        ValueError, TypeError: marks that do not fit the batch.
    """
    cu_seqlens = options.get("cu_seq_lens_q")
    if cu_seqlens is not None:
        check_marks(math.prod(shape), attention_mask, options)
        longest = options.get("max_length_q") or (cu_seqlens.diff().max() if len(cu_seqlens) > 1 else 0)
        return PackedBatch.from_cu_seqlens(*shape, cu_seqlens.to(device=device), int(longest))
    if attention_mask is None and position_ids is not None and shape[0] == 1 and not is_recorded():
        return packed_row(position_ids)
    return None


def choose_packing(
    shape: tuple[int, int], device: torch.device, attention_mask: Tensor | None, reads: Reads
) -> PackedBatch | None:
    """The packed form of a batch that the caller did not pack, or None where it has to stay padded."""
    if attention_mask is None:
        return PackedBatch.full(*shape, device)
    if attention_mask.dim() != 2:
        return None
    packed = PackedBatch.from_mask(attention_mask)
    if packed.indices is None or reads == "tokens":
        return packed
    if reads != "all" and bool((attention_mask[:, 0] != 0).all()):
        return packed
    return None


def sequence_mask(packed: PackedBatch, causal: bool) -> Tensor:
    """The mask [B, 1, S, S] of rows that hold several sequences, for the padded form: True within a sequence."""
    shape = packed.batch_size, packed.seq_length
    tokens = torch.arange(math.prod(shape), device=packed.cu_seqlens.device, dtype=torch.int32)
    sequence = torch.searchsorted(packed.cu_seqlens[1:], tokens, right=True).view(shape)
    mask = (sequence[:, :, None] == sequence[:, None])[:, None]
    return mask.tril() if causal else mask


def broadcast_mask(mask: Tensor | None) -> Tensor | None:
    """A user's mask, 2-D [B, K], 3-D [B, S, K] or 4-D, in the form that attention takes, [B, 1 or A, 1 or S, K].

    A floating 4-D mask is added to the scores, as in transformers; any other mask is nonzero where attention is
    allowed.
    """
    if mask is None or (mask.dim() == 4 and mask.is_floating_point()):
        return mask
    mask = mask != 0
    return mask[:, None, None, :] if mask.dim() == 2 else mask[:, None] if mask.dim() == 3 else mask


def packed_context(config: ElectraConfig, packed: PackedBatch, seeds: Tensor | None) -> Context:
    return PackedContext(packed.cu_seqlens, packed.max_seqlen, causal=config.is_decoder, seeds=seeds)
