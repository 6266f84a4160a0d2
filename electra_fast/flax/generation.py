"""Left-to-right generation for FlaxElectraForCausalLM: greedy and sampling, one compiled loop with a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..functional.core import Params
from .arguments import integers
from .outputs import FlaxCausalLMOutputWithCrossAttentions, FlaxGreedySearchOutput, FlaxSampleOutput

_DEFAULT_NEW_TOKENS = 20


class FlaxGenerationMixin:
    """`generate` for a class with `init_cache` and logits."""

    def generate(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        *,
        prng_key: Array | None = None,
        params: Params | None = None,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 1.0,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int | None = None,
        trace: bool = True,
    ) -> FlaxGreedySearchOutput | FlaxSampleOutput:
        """Continues each sequence until an end token or the length limit.

        Args:
            input_ids: [B, S] token ids, padded on the left.
            attention_mask: [B, S], nonzero at real tokens; by default found by the padding token.
            token_type_ids: [B, S], default zeros; new tokens have the type of the last one.
            prng_key: a key for sampling; by default that of seed 0.
            params: parameters in place of the model's own.
            max_length: limit of prompt and new tokens; `max_new_tokens` limits the new ones and comes first. Without
                either, 20 tokens are added, or as many as max_position_embeddings allows.
            do_sample: draw from softmax(logits / temperature) cut to `top_k` tokens (0: all) and to `top_p` of the
                mass; else argmax.
            eos_token_id, pad_token_id: by default the config's. A sequence that has ended is continued with padding.
            trace: compile the loop; False runs it step by step.

        Returns:
            `sequences` [B, limit] int32, the prompt included, with padding after the end of a sequence.

        Raises:
            ValueError: a model that is no decoder, arguments that no prompt can be continued with.
            TypeError: any other keyword (beams, processors, ...).
        """
        config = self.config
        if not config.is_decoder:
            raise ValueError("generate() needs a config with is_decoder=True: tokens to the right are not there yet")
        ids = np.asarray(integers("input_ids", input_ids, config.vocab_size))
        if ids.ndim != 2 or ids.shape[1] == 0:
            raise ValueError(f"generate() needs input_ids [batch, length] with at least one token, got {ids.shape}")
        if do_sample and (temperature <= 0 or top_k < 0 or not 0 < top_p <= 1):
            raise ValueError(
                f"sampling needs temperature > 0, top_k >= 0 and 0 < top_p <= 1, got {temperature}, {top_k}, {top_p}"
            )
        limit = self._limit(ids.shape[1], max_length, max_new_tokens)
        ends = config.eos_token_id if eos_token_id is None else eos_token_id
        ends = [] if ends is None else list(np.atleast_1d(ends))
        pad = config.pad_token_id if pad_token_id is None else pad_token_id
        pad = (ends or [0])[0] if pad is None else pad
        if attention_mask is None:
            attention_mask = ids != pad if pad not in ends else np.ones_like(ids)
        mask = np.broadcast_to(np.asarray(attention_mask) != 0, ids.shape)
        if not mask[:, -1].all():
            raise ValueError("prompts must be padded on the left, with at least one real token: the last token is "
                             "what the next one follows")  # fmt: skip
        types = np.zeros_like(ids) if token_type_ids is None else np.broadcast_to(token_type_ids, ids.shape)
        params = self.params if params is None else params
        run = self._loop if trace else self._continue
        key = jax.random.PRNGKey(0) if prng_key is None else prng_key
        choose = Chooser(do_sample, temperature, top_k, top_p)
        ends = jnp.array(ends or [-1])
        sequences = run(params, ids, mask, types, ends, jnp.int32(pad), key, limit=limit, choose=choose)
        return (FlaxSampleOutput if do_sample else FlaxGreedySearchOutput)(sequences=sequences)

    def _limit(self, n_prompt: int, max_length: int | None, max_new_tokens: int | None) -> int:
        """The length of the sequences."""
        limit = max_length
        if max_new_tokens is not None:
            limit = n_prompt + max_new_tokens
        elif max_length is None:
            limit = min(n_prompt + _DEFAULT_NEW_TOKENS, self.config.max_position_embeddings)
        if limit <= n_prompt:
            given = f"max_length is {max_length}" if max_new_tokens is None else f"max_new_tokens is {max_new_tokens}"
            raise ValueError(f"nothing to generate: the prompt has {n_prompt} tokens, {given}")
        return limit

    @cached_property
    def _loop(self) -> Callable[..., Array]:
        return jax.jit(self._continue, static_argnames=("limit", "choose"))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_loop"}

    def _continue(
        self,
        params: Params,
        ids: Array,
        mask: Array,
        types: Array,
        ends: Array,
        pad: Array,
        key: Array,
        *,
        limit: int,
        choose: Chooser,
    ) -> Array:
        """Ids, mask and types [B, S] -> ids [B, limit]."""
        n_rows, n_prompt = ids.shape
        # What comes after a token is hidden from it, so the mask may be of all places.
        mask = jnp.ones((n_rows, limit), bool).at[:, :n_prompt].set(mask)
        positions = jnp.maximum(mask.cumsum(-1, dtype=jnp.int32) - 1, 0)

        def logits_of(tokens: Array, types: Array, positions: Array, cache: Params) -> tuple[Array, Params]:
            output = self(
                tokens,
                attention_mask=mask,
                token_type_ids=types,
                position_ids=positions,
                params=params,
                past_key_values=cache,
                output_attentions=False,
                output_hidden_states=False,
                return_dict=True,
            )
            return output.logits[:, -1].astype(jnp.float32), output.past_key_values

        def appended(state: _State, logits: Array, cache: Params) -> _State:
            key, own = jax.random.split(state.key)
            chosen = jnp.where(state.is_open, choose(logits, own), pad).astype(jnp.int32)
            sequences = jax.lax.dynamic_update_slice_in_dim(state.sequences, chosen[:, None], state.n_tokens, axis=1)
            is_open = state.is_open & ~jnp.isin(chosen, ends)
            return _State(state.n_tokens + 1, sequences, is_open, cache, key)

        def step(state: _State) -> _State:
            tokens, place = (
                jax.lax.dynamic_slice_in_dim(x, state.n_tokens - 1, 1, axis=1) for x in (state.sequences, positions)
            )
            return appended(state, *logits_of(tokens, types[:, -1:], place, state.cache))

        sequences = jnp.full((n_rows, limit), pad, jnp.int32).at[:, :n_prompt].set(ids)
        cache = self.init_cache(n_rows, limit)
        state = _State(jnp.int32(n_prompt), sequences, jnp.ones(n_rows, bool), cache, key)
        state = appended(state, *logits_of(ids, types, positions[:, :n_prompt], cache))
        return jax.lax.while_loop(lambda x: (x.n_tokens < limit) & x.is_open.any(), step, state).sequences

    # For loops of one's own, as in transformers 4

    def prepare_inputs_for_generation(
        self, input_ids: Array, max_length: int, attention_mask: Array | None = None
    ) -> dict[str, Any]:
        """Arguments of the first call of a loop of one's own: a cache of `max_length` places, mask and positions."""
        n_rows, length = input_ids.shape
        given = jnp.ones((n_rows, length), jnp.int32) if attention_mask is None else jnp.asarray(attention_mask)
        return {
            "past_key_values": self.init_cache(n_rows, max_length),
            "attention_mask": jnp.ones((n_rows, max_length), jnp.int32).at[:, :length].set(given),
            "position_ids": jnp.maximum(given.cumsum(-1) - 1, 0),
        }

    def update_inputs_for_generation(
        self, model_outputs: FlaxCausalLMOutputWithCrossAttentions, model_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Arguments of the next call, from the results and arguments of the last one."""
        model_kwargs["past_key_values"] = model_outputs.past_key_values
        model_kwargs["position_ids"] = model_kwargs["position_ids"][:, -1:] + 1
        return model_kwargs


class _State(NamedTuple):
    """The loop's state: sequences [B, limit] whose first `n_tokens` are there, and [B] which of them go on."""

    n_tokens: Array
    sequences: Array
    is_open: Array
    cache: Params
    key: Array


@dataclass(frozen=True)
class Chooser:
    """The function that chooses tokens [B] from logits [B, V]; its fields are the arguments of `generate`."""

    do_sample: bool
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __call__(self, logits: Array, key: Array) -> Array:
        if not self.do_sample:
            return logits.argmax(-1)
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            logits = jnp.where(logits < jax.lax.top_k(logits, self.top_k)[0][:, -1:], -jnp.inf, logits)
        if self.top_p < 1:
            order = jnp.argsort(-logits, axis=-1)
            ordered = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1))
            is_kept = ordered.cumsum(-1) - ordered < self.top_p
            is_kept = jnp.take_along_axis(is_kept, jnp.argsort(order, axis=-1), axis=-1)
            logits = jnp.where(is_kept, logits, -jnp.inf)
        return jax.random.categorical(key, logits)
