"""Left-to-right generation for ElectraForCausalLM: greedy and sampling, with a cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Keywords that are not served, and the value of each that changes nothing. None and False never change anything.
_NEUTRAL = dict.fromkeys(("num_beams", "num_beam_groups", "repetition_penalty", "length_penalty", "typical_p"), 1)
_NEUTRAL |= dict.fromkeys(("diversity_penalty", "no_repeat_ngram_size", "min_length", "min_new_tokens"), 0)


class GenerationMixin:
    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        max_new_tokens: int | None = None,
        max_length: int = 20,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 1.0,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int | None = None,
        use_cache: bool = True,
        num_return_sequences: int = 1,
        **unsupported: Any,
    ) -> Tensor:
        """Continues each sequence until an end token or the length limit.

        Args:
            inputs: [B, S] token ids (also as `input_ids`), padded on the left.
            attention_mask: [B, S], nonzero at real tokens; by default found by the padding token.
            token_type_ids: [B, S], default zeros; new tokens have the type of the last one.
            max_new_tokens: number of tokens to add; where it is None, `max_length` limits prompt and new tokens.
            do_sample: draw from softmax(logits / temperature) cut to `top_k` tokens and to `top_p` of the mass; else
                argmax.
            eos_token_id, pad_token_id: by default the config's. A sequence that has ended is continued with padding.
            num_return_sequences: number of samples per prompt.

        Returns:
            [B * num_return_sequences, S + new] int64, the prompt included.

        Raises:
            NotImplementedError: any other keyword (beams, processors, streamers, ...): transformers has those.
        """
        asked = {
            name
            for name, value in unsupported.items()
            if not (value is None or value is False or (name in _NEUTRAL and value == _NEUTRAL[name]))
        }
        if asked:
            raise NotImplementedError(
                f"generate() does greedy search and sampling; for {', '.join(sorted(asked))} load the checkpoint with "
                "transformers.ElectraForCausalLM"
            )
        ids = inputs if inputs is not None else input_ids
        if ids is None or ids.dim() != 2 or ids.shape[1] == 0:
            raise ValueError("generate() needs input_ids [batch, length] with at least one token")
        if not do_sample and num_return_sequences > 1:
            raise ValueError("num_return_sequences > 1 needs do_sample=True: greedy search finds one sequence")
        if do_sample and (temperature <= 0 or top_k < 0 or not 0 < top_p <= 1):
            raise ValueError(
                f"sampling needs temperature > 0, top_k >= 0 and 0 < top_p <= 1, got {temperature}, {top_k}, {top_p}"
            )
        pad = pad_token_id if pad_token_id is not None else (self.config.pad_token_id or 0)
        ends = eos_token_id if eos_token_id is not None else self.config.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        if attention_mask is None:
            attention_mask = (ids != pad).long() if pad not in ends else torch.ones_like(ids)
        types = torch.zeros_like(ids) if token_type_ids is None else token_type_ids.expand(ids.shape)
        types = types.repeat_interleave(num_return_sequences, 0)
        ids = ids.repeat_interleave(num_return_sequences, 0)
        mask = attention_mask.long().repeat_interleave(num_return_sequences, 0)
        n_new = max_length - ids.shape[1] if max_new_tokens is None else max_new_tokens
        if n_new <= 0:
            raise ValueError(f"nothing to generate: the prompt has {ids.shape[1]} tokens, max_length is {max_length}")

        use_cache = use_cache and self.config.is_decoder
        end_ids = torch.tensor(ends, dtype=torch.long, device=ids.device)
        is_open = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        cache = None
        for _ in range(n_new):
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            n_fed = 0 if cache is None else cache.get_seq_length()
            output = self(
                ids[:, n_fed:],
                attention_mask=mask,
                token_type_ids=types[:, n_fed:],
                position_ids=positions[:, n_fed:],
                past_key_values=cache,
                use_cache=use_cache,
                logits_to_keep=1,
                return_dict=True,
            )
            cache = output.past_key_values
            logits = output.logits[:, -1].float()
            chosen = _sample(logits, temperature, top_k, top_p) if do_sample else logits.argmax(-1)
            chosen = torch.where(is_open, chosen, pad)
            ids = torch.cat([ids, chosen[:, None]], dim=1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            types = torch.cat([types, types[:, -1:]], dim=1)
            is_open = is_open & ~torch.isin(chosen, end_ids)
            if not is_open.any():
                break
        return ids


def _sample(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Draws one token per row from [B, V] logits."""
    logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        logits = logits.scatter(1, order, ordered.masked_fill(before >= top_p, -torch.inf))
    return torch.multinomial(logits.softmax(-1), 1).squeeze(1)
