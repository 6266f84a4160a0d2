"""Left-to-right generation for ElectraForCausalLM: greedy and sampling, with a cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .arguments import check_tensor

# Keywords that are not served, and the value of each that changes nothing. None and False never change anything.
_NEUTRAL = dict.fromkeys(("num_beams", "num_beam_groups", "repetition_penalty", "length_penalty", "typical_p"), 1)
_NEUTRAL |= dict.fromkeys(("diversity_penalty", "no_repeat_ngram_size", "min_length", "min_new_tokens"), 0)
_DEFAULT_NEW_TOKENS = 20


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
        max_length: int | None = None,
        do_sample: bool = False,
        temperature: float | None = 1.0,
        top_k: int | None = 50,
        top_p: float | None = 1.0,
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
                Without either, 20 tokens are added, or as many as max_position_embeddings allows.
            do_sample: draw from softmax(logits / temperature) cut to `top_k` tokens and to `top_p` of the mass; else
                argmax. None for one of the three changes nothing.
            eos_token_id, pad_token_id: by default the config's; a number, a list of them or a tensor. A sequence that
                has ended is continued with padding.
            num_return_sequences: number of samples per prompt.

        Returns:
            [B * num_return_sequences, S + new] int64, the prompt included.

        Raises:
            ValueError, TypeError: arguments that no prompt can be continued with.
            NotImplementedError: any other keyword (beams, processors, streamers, ...): transformers has those.
        """
        asked = {
            name
            for name, value in unsupported.items()
            if not (value is None or value is False or _is_neutral(name, value))
        }
        if asked:
            raise NotImplementedError(
                f"generate() does greedy search and sampling; for {', '.join(sorted(asked))} load the checkpoint with "
                "transformers.ElectraForCausalLM"
            )
        ids = inputs if inputs is not None else input_ids
        for name, value in (("input_ids", ids), ("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
            check_tensor(name, value)
        if ids is None or ids.dim() != 2 or ids.shape[1] == 0:
            raise ValueError("generate() needs input_ids [batch, length] with at least one token")
        counts = {
            "max_new_tokens": max_new_tokens,
            "max_length": max_length,
            "num_return_sequences": num_return_sequences,
            "top_k": top_k,
        }
        for name, value in counts.items():
            if not isinstance(value, int | None) or isinstance(value, bool):
                raise ValueError(f"{name} must be an integer, got {value!r}")
        if num_return_sequences is None or num_return_sequences < 1:
            raise ValueError(f"num_return_sequences must be at least 1, got {num_return_sequences}")
        temperature, top_p = (1.0 if x is None else x for x in (temperature, top_p))
        top_k = top_k or 0
        if not do_sample and num_return_sequences > 1:
            raise ValueError("num_return_sequences > 1 needs do_sample=True: greedy search finds one sequence")
        if do_sample and (temperature <= 0 or top_k < 0 or not 0 < top_p <= 1):
            raise ValueError(
                f"sampling needs temperature > 0, top_k >= 0 and 0 < top_p <= 1, got {temperature}, {top_k}, {top_p}"
            )
        pads = _token_ids("pad_token_id", self.config.pad_token_id if pad_token_id is None else pad_token_id)
        ends = _token_ids("eos_token_id", self.config.eos_token_id if eos_token_id is None else eos_token_id)
        pad = pads[0] if pads else 0
        if attention_mask is None:
            attention_mask = (ids != pad).long() if pad not in ends else torch.ones_like(ids)
        elif attention_mask.dim() != 2:
            raise ValueError(f"attention_mask must have shape {tuple(ids.shape)}, got {tuple(attention_mask.shape)}")
        attention_mask = (attention_mask != 0).long().expand(ids.shape)
        if not bool(attention_mask[:, -1].all()):
            raise ValueError("prompts must be padded on the left, with at least one real token: the last token is "
                             "what the next one follows")  # fmt: skip
        types = torch.zeros_like(ids) if token_type_ids is None else token_type_ids.expand(ids.shape)
        types = types.repeat_interleave(num_return_sequences, 0)
        ids = ids.repeat_interleave(num_return_sequences, 0)
        mask = attention_mask.repeat_interleave(num_return_sequences, 0)
        n_new = max_new_tokens
        if n_new is None and max_length is None:
            n_new = min(_DEFAULT_NEW_TOKENS, self.config.max_position_embeddings - ids.shape[1])
        elif n_new is None:
            n_new = max_length - ids.shape[1]
        if n_new <= 0:
            limit = f"max_new_tokens is {max_new_tokens}" if max_length is None else f"max_length is {max_length}"
            raise ValueError(f"nothing to generate: the prompt has {ids.shape[1]} tokens, {limit}")

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


def _is_neutral(name: str, value: Any) -> bool:
    return isinstance(value, int | float) and value == _NEUTRAL.get(name)


def _token_ids(name: str, given: int | list[int] | Tensor | None) -> list[int]:
    """Ids that were given as one number, several or a tensor; raises ValueError for anything but integers."""
    ids = given.flatten().tolist() if isinstance(given, Tensor) else given
    ids = [] if ids is None else list(ids) if isinstance(ids, list | tuple) else [ids]
    if not all(isinstance(x, int) and not isinstance(x, bool) for x in ids):
        raise ValueError(f"{name} must be an integer or a list of integers, got {given!r}")
    return ids
