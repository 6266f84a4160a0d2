"""ElectraModel: embeddings and encoder, from the arguments of a forward to hidden states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops import Impl, resolve
from .arguments import (
    Encoded,
    Reads,
    check_inputs,
    choose_packing,
    is_recorded,
    packed_already,
    packed_context,
    padded_context,
    sequence_mask,
)
from .base import ElectraPreTrainedModel
from .captured import CapturedEncoder
from .config import ElectraConfig
from .cpu_encoder import CpuEncoder
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
        # What an impl that was named serves, it serves itself.
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
                added).
            token_type_ids, position_ids: [B, S]; default zeros, and 0, 1, 2, ...
            encoder_hidden_states, encoder_attention_mask: [B, K, H] and its mask, for cross-attention.
            past_key_values, use_cache: step-by-step decoding, for decoders.
            **kwargs: output_attentions, output_hidden_states, return_dict, head_mask, and cu_seq_lens_q with
                max_length_q for sequences that are packed already.

        Raises:
            ValueError: ids out of range, shapes that do not fit, sequences over max_position_embeddings.
        """
        encoded = self.encode(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            past_key_values,
            use_cache,
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

    def encode(
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
        reads: Reads = "tokens",
        **options: Any,
    ) -> Encoded:
        """`forward` without unpacking: heads compute on the tokens that they read (`reads`) and restore the result."""
        config = self.config
        past_length = 0 if past_key_values is None else past_key_values.get_seq_length()
        batch = {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
        }
        check_inputs(config, batch, past_length, options)
        if encoder_hidden_states is not None and not config.add_cross_attention:
            raise ValueError("encoder_hidden_states need a config with is_decoder=True and add_cross_attention=True")
        if config.is_decoder and use_cache is None:
            use_cache = config.use_cache and not (self.training and self.is_gradient_checkpointing)
        cache = past_key_values
        if config.is_decoder and use_cache and cache is None:
            cache = KeyValueCache()
        wants = {
            name: getattr(config, name) if options.get(name) is None else options[name]
            for name in ("output_attentions", "output_hidden_states")
        }
        shape, device = (input_ids.shape, input_ids.device) if inputs_embeds is None else (
            inputs_embeds.shape[:2], inputs_embeds.device)  # fmt: skip
        head_mask = options.get("head_mask")
        packed = packed_already(shape, attention_mask, position_ids, options) if past_length == 0 else None
        needs_padding = any(x is not None for x in (head_mask, cache, encoder_hidden_states))
        if needs_padding or wants["output_attentions"] or is_recorded():
            if packed is not None:
                attention_mask, packed = sequence_mask(packed, config.is_decoder), None
        elif packed is None:
            packed = choose_packing(shape, device, attention_mask, reads)

        if position_ids is None:
            position_ids = torch.arange(past_length, past_length + shape[1], device=device)[None]
        if token_type_ids is None:
            token_type_ids = torch.zeros(1, 1, dtype=torch.long, device=device)
        token_type_ids, position_ids = token_type_ids.expand(shape), position_ids.expand(shape)
        if packed is not None:
            input_ids, token_type_ids, position_ids, inputs_embeds = (
                None if x is None else packed.pack(x) for x in (input_ids, token_type_ids, position_ids, inputs_embeds)
            )
        if self._replays(packed, input_ids, wants["output_hidden_states"]):
            return Encoded(self.captured(self, input_ids, packed, token_type_ids, position_ids), packed)
        if packed is not None:
            output = self._encode_tokens(
                packed, input_ids, token_type_ids, position_ids, inputs_embeds, wants["output_hidden_states"]
            )
        else:
            if self.cpu_encoder is not None:
                self.cpu_encoder.refuse("it needs the padded form: attentions, head masks, masks of pairs, a cache")
            embedding_seed, seeds = self._draw_seeds(device)
            hidden = self.embeddings(
                input_ids, token_type_ids, position_ids, inputs_embeds, self._project, embedding_seed
            )
            context = padded_context(
                config,
                hidden,
                attention_mask,
                cache,
                encoder_hidden_states,
                encoder_attention_mask,
                head_mask,
                wants["output_attentions"],
                seeds,
            )
            output = self.encoder(hidden, context)
        encoded = Encoded(output.hidden, packed, cache if use_cache else None)
        if wants["output_hidden_states"]:
            encoded.hidden_states = tuple(encoded.restore(x) for x in output.hidden_states)
        if wants["output_attentions"]:
            encoded.attentions = tuple(output.attentions)
            encoded.cross_attentions = tuple(x for x in output.cross_attentions if x is not None)
        return encoded

    def encode_packed(
        self,
        input_ids: Tensor,
        packed: PackedBatch,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Packed tokens [T] -> hidden states [T, H], without checks: for training loops that pack their own batches."""
        if position_ids is None:
            position_ids = packed.position_ids(len(input_ids))
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        return self._encode_tokens(packed, input_ids, token_type_ids, position_ids, None).hidden

    def _encode_tokens(
        self,
        packed: PackedBatch,
        input_ids: Tensor | None,
        token_type_ids: Tensor,
        position_ids: Tensor,
        inputs_embeds: Tensor | None,
        keep_states: bool = False,
    ) -> EncoderOutput:
        """Packed ids [T], or `inputs_embeds` [T, E], through all layers; states are there where they are to be kept."""
        on_cpu = self.cpu_encoder
        serves = on_cpu is not None and on_cpu.serves(self, position_ids)
        if serves and inputs_embeds is None:
            return EncoderOutput(*on_cpu(packed, input_ids, token_type_ids, position_ids, None, keep_states))
        embedding_seed, seeds = self._draw_seeds(position_ids.device)
        hidden = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds, self._project, embedding_seed)
        if serves:
            return EncoderOutput(*on_cpu(packed, None, token_type_ids, position_ids, hidden, keep_states))
        return self.encoder(hidden, packed_context(self.config, packed, seeds))

    def _draw_seeds(self, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Seeds of the dropouts of one forward: [1] of the embeddings and [L, 3] of the layers; None without."""
        n_layers = self.config.num_hidden_layers
        seeds = self.embeddings.ops.draw_seeds(1 + 3 * n_layers, device) if self.training else None
        return (None, None) if seeds is None else (seeds[:1], seeds[1:].view(n_layers, 3))

    def _replays(self, packed: PackedBatch | None, input_ids: Tensor | None, keeps_states: bool) -> bool:
        """Whether a call is served by `capture()`."""
        return (
            self.captured is not None
            and packed is not None
            and input_ids is not None
            and len(input_ids) <= self.captured.max_tokens
            and not (self.training or torch.is_grad_enabled() or keeps_states)
        )

    @property
    def _project(self) -> nn.Linear | None:
        return getattr(self, "embeddings_project", None)
