"""ElectraModel: embeddings and encoder, from the arguments of a forward to hidden states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops import Impl, resolve
from ..ops.tracing import is_recorded
from .arguments import Arguments, Encoded, Reads, choose_packing, packed_context
from .base import ElectraPreTrainedModel
from .captured import CapturedEncoder
from .config import ElectraConfig
from .cpu_encoder import CpuEncoder
from .hooks import has_global_hooks, is_hooked
from .layers import ElectraEmbeddings, ElectraEncoder, EncoderOutput, KeyValueCache
from .outputs import BaseModelOutputWithPastAndCrossAttentions
from .packing import PackedBatch


class ElectraModel(ElectraPreTrainedModel):
    """Embeddings and encoder."""

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__(config, impl)
        self.embeddings = ElectraEmbeddings(config, impl)
        if config.embedding_size != config.hidden_size:
            self.embeddings_project = nn.Linear(config.embedding_size, config.hidden_size)
        self.captured: CapturedEncoder | None = None
        # An impl that the caller named serves inference on a CPU itself.
        self.cpu_encoder = CpuEncoder() if resolve(impl) == "auto" else None
        self.encoder = ElectraEncoder(config, impl)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> tuple | BaseModelOutputWithPastAndCrossAttentions:
        """Hidden states of a batch.

        Args:
            input_ids: [B, S] int64; or `inputs_embeds` [B, S, E] in its place.
            attention_mask: [B, S], nonzero at real tokens; or [B, S, K] or [B, 1 or A, S, K] (bool, or floating and
                added to the scores).
            token_type_ids, position_ids: [B, S]; by default zeros, and 0, 1, 2, ...
            encoder_hidden_states, encoder_attention_mask: [B, K, H] and its mask, for cross-attention.
            past_key_values, use_cache: step-by-step decoding, for decoders.
            **kwargs: output_attentions, output_hidden_states, return_dict, head_mask, and cu_seq_lens_q with
                max_length_q for sequences that are packed already. None under any name asks for nothing.

        Raises:
            ValueError: ids out of range, shapes that do not fit, sequences over max_position_embeddings.
            TypeError: an unknown keyword, or an argument that is no tensor.
        """
        encoded = self._encode(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        return self._result(
            BaseModelOutputWithPastAndCrossAttentions,
            encoded,
            kwargs,
            last_hidden_state=encoded.padded_hidden,
            past_key_values=encoded.past_key_values,
            cross_attentions=encoded.cross_attentions,
        )

    def encode(self, *inputs: Tensor | None, reads: Reads = "tokens", **options: Any) -> Encoded:
        """`forward` without unpacking: heads compute on the tokens they read (`reads`) and unpack their results.

        A model that somebody listens to is called, and its result packed again.
        """
        if not is_hooked(self) and not has_global_hooks():
            return self._encode(*inputs, reads=reads, **options)
        output = self(*inputs, **options | {"return_dict": True})
        last, mask = output.last_hidden_state, inputs[1]
        packed = None if is_recorded() else choose_packing(last.shape[:2], last.device, mask, reads)
        return Encoded(
            last if packed is None else packed.pack(last),
            packed,
            output.past_key_values,
            output.hidden_states,
            output.attentions,
            output.cross_attentions,
        )

    def _encode(self, *inputs: Tensor | None, reads: Reads = "tokens", **options: Any) -> Encoded:
        caches = self.config.use_cache and not (self.training and self.is_gradient_checkpointing)
        call = Arguments.of(self.config, *inputs, reads=reads, caches_by_default=caches, **options)
        self._check_dtype(call.inputs_embeds)
        if self._replays(call):
            replayed = self.captured(self, call.input_ids, call.packed, call.token_type_ids, call.position_ids)
            return Encoded(replayed, call.packed)
        tokens = call.input_ids, call.token_type_ids, call.position_ids, call.inputs_embeds
        reads_rows = reads == "only_first" and call.packed is not None
        if call.packed is None:
            output = self._encode_padded(call, *tokens)
        else:
            read = call.packed.first_tokens if reads_rows else None
            output = self._encode_tokens(call.packed, *tokens, call.output_hidden_states, read)
        encoded = Encoded(output.hidden, call.packed, call.cache if call.returns_cache else None)
        if call.output_hidden_states:
            encoded.hidden_states = tuple(encoded.restore(x) for x in output.hidden_states)
        if call.output_attentions:
            encoded.attentions = tuple(output.attentions)
            encoded.cross_attentions = tuple(x for x in output.cross_attentions if x is not None)
        if reads_rows:  # which are a padded batch of one column
            encoded.hidden, encoded.packed = output.hidden[:, None], None
        return encoded

    def encode_packed(
        self,
        input_ids: Tensor,
        packed: PackedBatch,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """Packed tokens [T] -> hidden states [T, H], without checks: for training loops that pack their own batches.

        read: [N] int64, tokens whose states are wanted, in this order: the result is [N, H] then, and the last layer
        computes no others. Raises ValueError for another shape or dtype.
        """
        if read is not None and (read.dim() != 1 or read.dtype is not torch.int64):
            raise ValueError(f"read must be int64 [N], got {read.dtype} {list(read.shape)}")
        if position_ids is None:
            position_ids = packed.position_ids(len(input_ids))
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        return self._encode_tokens(packed, input_ids, token_type_ids, position_ids, None, read=read).hidden

    def _encode_padded(self, call: Arguments, *tokens: Tensor | None) -> EncoderOutput:
        if self.cpu_encoder is not None:
            self.cpu_encoder.refuse("it needs the padded form: attentions, head masks, masks of pairs, a cache")
        embedding_seed, seeds = self._draw_seeds(call.position_ids.device)
        hidden = self._embed(*tokens, embedding_seed)
        return self.encoder(hidden, call.padded_context(self.config, hidden, seeds))

    def _encode_tokens(
        self,
        packed: PackedBatch,
        input_ids: Tensor | None,
        token_type_ids: Tensor,
        position_ids: Tensor,
        inputs_embeds: Tensor | None,
        keep_states: bool = False,
        read: Tensor | None = None,
    ) -> EncoderOutput:
        """Runs packed ids [T], or `inputs_embeds` [T, E], through all layers; `keep_states` keeps their states.

        `read` is as in `encode_packed`.
        """
        on_cpu = self.cpu_encoder
        serves = on_cpu is not None and on_cpu.serves(self, position_ids)
        hidden = None
        if not serves or inputs_embeds is not None:
            embedding_seed, seeds = self._draw_seeds(position_ids.device)
            hidden = self._embed(input_ids, token_type_ids, position_ids, inputs_embeds, embedding_seed)
        if serves:
            ids = None if hidden is not None else input_ids
            return EncoderOutput(*on_cpu(packed, ids, token_type_ids, position_ids, hidden, keep_states, read))
        context = packed_context(self.config, packed, seeds)
        if read is not None and not keep_states and self.encoder.may_read():
            return self.encoder(hidden, context, read)
        output = self.encoder(hidden, context)
        if read is not None:
            output.hidden = output.hidden.index_select(0, read)
        return output

    def _check_dtype(self, embeds: Tensor | None) -> None:
        """Raises ValueError for embeddings on a CPU that are more precise than the model, which torch cannot mix."""
        if embeds is None or not embeds.is_cpu or torch.is_autocast_enabled("cpu"):
            return
        dtype = self.embeddings.LayerNorm.weight.dtype
        if torch.promote_types(embeds.dtype, dtype) != dtype:
            raise ValueError(f"inputs_embeds must have the model's dtype {dtype}, got {embeds.dtype}")

    def _draw_seeds(self, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Seeds for one forward's dropouts: [1] for the embeddings, [L, 3] for the layers; None where none is drawn."""
        n_layers = len(self.encoder.layer)
        seeds = self.embeddings.ops.draw_seeds(1 + 3 * n_layers, device) if self.training else None
        return (None, None) if seeds is None else (seeds[:1], seeds[1:].view(n_layers, 3))

    def _replays(self, call: Arguments) -> bool:
        """Tells whether a recorded CUDA graph (`capture()`) serves this call."""
        return (
            self.captured is not None
            and call.packed is not None
            and call.input_ids is not None
            and 0 < len(call.input_ids) <= self.captured.max_tokens
            and not (self.training or torch.is_grad_enabled() or call.output_hidden_states)
        )

    def _embed(self, *tokens: Tensor | None) -> Tensor:
        """Computes tokens, `inputs_embeds` and a seed -> [..., H]."""
        *tokens, seed = tokens
        project = getattr(self, "embeddings_project", None)
        if project is not None and is_hooked(self.embeddings):  # who listens expects what comes before the projection
            return project(self.embeddings(*tokens, None, seed))
        return self.embeddings(*tokens, project, seed)
