"""ELECTRA as pure functions of parameters and arrays, for JAX and TensorFlow.

Parameters are nested dictionaries in the layout of Flax (`parameters.py`): dense layers have `kernel [in, out]` and
`bias`, tables `embedding`, LayerNorms `scale` and `bias`. Arithmetic is in `Network.dtype`, whatever dtype parameters
have; LayerNorm and softmax are in fp32 at least.

A backend is a module with these operations on its arrays (`jax_ops`):

    float32, boolean                     the dtypes
    shape(x) -> tuple                    sizes; ints where they are known, else what `reshape` and `arange` take
    cast(x, dtype)                       x itself where it has this dtype
    widest(dtype, dtype) -> dtype        the dtype that holds the numbers of both
    lowest(dtype) -> float               the lowest finite number of a dtype
    take(table [N, E], ids [...])        rows [..., E]; NaN or an error for an id that is not in the table
    matmul(x [..., I], kernel [I, O])    [..., O]
    einsum(equation, x, y)
    reshape(x, shape)
    softmax(x)                           over the last axis
    mean(x, axis, keepdims=False)
    rsqrt(x), erf(x), tanh(x), sigmoid(x), softplus(x), maximum(x, y), minimum(x, y), where(condition, x, y)
    arange(n) -> [n] int32
    split(key, n)                        n keys of a key, an array or a sequence that can be unpacked
    dropout(x, rate, key)                zero with probability `rate`, else x / (1 - rate)
    write(buffer [B, M, ...], rows [B, S, ...], start)    the buffer with rows from place `start` (int32) on replaced
    checkpoint(function)                 the function, computed again in its backward

Beside these, arrays have `+ - * / & <=`, and indexing by slices, ints and None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

from .activations import activate

Array = Any
"""An array of the backend."""
Params = dict[str, Any]
"""Parameters: arrays in dictionaries within dictionaries."""


class Encoded(NamedTuple):
    """The encoder's results.

    Attributes:
        hidden: [B, S, H].
        hidden_states: those of the embeddings and of each layer, [B, S, H]; None unless kept.
        attentions, cross_attentions: probabilities of each layer, [B, A, S, K]; None unless kept.
        cache: the cache that was given, with the keys and values of these tokens.
    """

    hidden: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None
    cache: Params | None = None


class LayerInputs(NamedTuple):
    """What a layer reads beside hidden states and parameters.

    Attributes:
        allowed: broadcastable to [B, A, S, K], bool: where attention is allowed.
        head_mask: [A] factors of the probabilities, or None.
        encoder_hidden_states, encoder_allowed: states [B, K, H] for cross-attention and where it is allowed, or None.
        cache: keys and values [B, M, A, D] of this layer, or None; `start`: the place of the first of these tokens.
        key: random numbers for dropout; None where there is none.
    """

    allowed: Array | None
    head_mask: Array | None = None
    encoder_hidden_states: Array | None = None
    encoder_allowed: Array | None = None
    cache: Params | None = None
    start: Array | int = 0
    key: Array | None = None


@dataclass(frozen=True)
class Network:
    """The functions of a network, for one backend and config.

    Attributes:
        ops: the backend.
        config: an ElectraConfig.
        dtype: the backend's dtype for arithmetic.
        checkpoint_layers: compute each layer again in the backward, instead of keeping its activations.
    """

    ops: ModuleType
    config: Any
    dtype: Any
    checkpoint_layers: bool = False

    # Parts

    def cast(self, x: Array) -> Array:
        return self.ops.cast(x, self.dtype)

    def split(self, key: Array | None, n: int) -> Any:
        """Splits a key into n, one for each place that needs one; None stays None."""
        return [None] * n if key is None else self.ops.split(key, n)

    def as_mask(self, mask: Array | None) -> Array | None:
        """A mask of 2, 3 or 4 dimensions as bool, broadcastable to [B, A, S, K]."""
        if mask is None:
            return None
        places = {2: (slice(None), None, None), 3: (slice(None), None), 4: ()}
        return self.ops.cast(mask, self.ops.boolean)[places[len(mask.shape)]]

    def dropout(self, x: Array, rate: float, key: Array | None) -> Array:
        return x if key is None or not rate else self.ops.dropout(x, rate, key)

    def dense(self, params: Params, x: Array) -> Array:
        return self.ops.matmul(self.cast(x), self.cast(params["kernel"])) + self.cast(params["bias"])

    def norm(self, params: Params, x: Array) -> Array:
        """LayerNorm over the last axis: (x - mean) / sqrt(variance + eps) * scale + bias."""
        wide = self.ops.widest(self.dtype, self.ops.float32)
        x, scale, bias = (self.ops.cast(array, wide) for array in (x, params["scale"], params["bias"]))
        x = x - self.ops.mean(x, -1, keepdims=True)
        variance = self.ops.mean(x * x, -1, keepdims=True)
        return self.cast(x * self.ops.rsqrt(variance + self.config.layer_norm_eps) * scale + bias)

    def activate(self, x: Array) -> Array:
        return activate(self.ops, self.config.hidden_act, x)

    def embed(
        self,
        params: Params,
        input_ids: Array | None,
        token_type_ids: Array | None,
        position_ids: Array,
        inputs_embeds: Array | None = None,
        key: Array | None = None,
    ) -> Array:
        """dropout(LayerNorm(word + type + position)), projected E -> H where the widths differ: [B, S] -> [B, S, H].

        Token types that are not given are zeros; `inputs_embeds [B, S, E]` takes the place of the word lookup.
        """
        tables = params["embeddings"]
        words, types, positions = (
            self.cast(tables[f"{kind}_embeddings"]["embedding"]) for kind in ("word", "token_type", "position")
        )
        x = self.ops.take(words, input_ids) if inputs_embeds is None else self.cast(inputs_embeds)
        x = x + (types[0] if token_type_ids is None else self.ops.take(types, token_type_ids))
        x = self.norm(tables["LayerNorm"], x + self.ops.take(positions, position_ids))
        x = self.dropout(x, self.config.hidden_dropout_prob, key)
        return self.dense(params["embeddings_project"], x) if "embeddings_project" in params else x

    def residual(self, params: Params, x: Array, residual: Array, key: Array | None) -> Array:
        """LayerNorm(residual + dropout(dense(x))): the end of both halves of a layer."""
        x = self.dropout(self.dense(params["dense"], x), self.config.hidden_dropout_prob, key)
        return self.norm(params["LayerNorm"], x + residual)

    def attend(
        self,
        params: Params,
        hidden: Array,
        source: Array,
        allowed: Array | None,
        head_mask: Array | None = None,
        cache: Params | None = None,
        start: Array | int = 0,
        key: Array | None = None,
    ) -> tuple[Array, Array, Params | None]:
        """The first half of a layer: softmax(q k' / sqrt(D)) v, with queries of `hidden` and keys of `source`.

        Returns (hidden states [B, S, H], probabilities [B, A, S, K], the cache).
        """
        ops, n_heads, head_size = self.ops, self.config.num_attention_heads, self.config.head_size
        q, k, v = (
            ops.reshape(x, (*ops.shape(x)[:2], n_heads, head_size))
            for x in (
                self.dense(params["self"]["query"], hidden),
                self.dense(params["self"]["key"], source),
                self.dense(params["self"]["value"], source),
            )
        )
        if cache is not None:
            new = {"key": k, "value": v}
            cache = {name: ops.write(cache[name], ops.cast(x, cache[name].dtype), start) for name, x in new.items()}
            k, v = self.cast(cache["key"]), self.cast(cache["value"])
        wide = ops.widest(self.dtype, ops.float32)
        scores = ops.cast(ops.einsum("bsad,bkad->bask", q * (1 / math.sqrt(head_size)), k), wide)
        if allowed is not None:
            scores = ops.where(allowed, scores, ops.lowest(wide))
        attention_key, output_key = self.split(key, 2)
        probabilities = self.cast(ops.softmax(scores))
        probabilities = self.dropout(probabilities, self.config.attention_probs_dropout_prob, attention_key)
        if head_mask is not None:
            probabilities = probabilities * self.cast(head_mask)[:, None, None]
        attended = ops.einsum("bask,bkad->bsad", probabilities, v)
        attended = ops.reshape(attended, (*ops.shape(hidden)[:2], self.config.hidden_size))
        return self.residual(params["output"], attended, hidden, output_key), probabilities, cache

    def layer(
        self, params: Params, hidden: Array, inputs: LayerInputs
    ) -> tuple[Array, Array, Array | None, Params | None]:
        """Returns (hidden states, probabilities, those of cross-attention, the layer's cache)."""
        self_key, cross_key, output_key = self.split(inputs.key, 3)
        hidden, probabilities, cache = self.attend(
            params["attention"], hidden, hidden, inputs.allowed, inputs.head_mask, inputs.cache, inputs.start, self_key
        )
        cross_probabilities = None
        if inputs.encoder_hidden_states is not None:
            hidden, cross_probabilities, _ = self.attend(
                params["crossattention"],
                hidden,
                inputs.encoder_hidden_states,
                inputs.encoder_allowed,
                inputs.head_mask,
                key=cross_key,
            )
        inner = self.activate(self.dense(params["intermediate"]["dense"], hidden))
        return self.residual(params["output"], inner, hidden, output_key), probabilities, cross_probabilities, cache

    # The whole encoder

    def encode(
        self,
        params: Params,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        *,
        inputs_embeds: Array | None = None,
        head_mask: Array | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_attention_mask: Array | None = None,
        cache: Params | None = None,
        key: Array | None = None,
        keep_states: bool = False,
        keep_attentions: bool = False,
    ) -> Encoded:
        """Embeddings and all layers, of the base model's parameters.

        Args:
            input_ids, token_type_ids, position_ids: [B, S] integers; or `inputs_embeds` [B, S, E] for the first.
            attention_mask: nonzero where a token may be attended to: [B, K], [B, S, K] or [B, A, S, K]. K is S, or M
                with a cache of M places.
            head_mask: [A] or [L, A] factors of the probabilities.
            encoder_hidden_states, encoder_attention_mask: [B, K, H] and [B, K] for cross-attention.
            cache: of `empty_cache`, or what an earlier call returned.
            key: random numbers for dropout; None is inference.
        """
        ops, config = self.ops, self.config
        start = 0 if cache is None else cache["index"]
        length = ops.shape(input_ids if inputs_embeds is None else inputs_embeds)[1]
        if position_ids is None:
            position_ids = (start + ops.arange(length))[None]
        allowed = self.as_mask(attention_mask)
        if config.is_decoder:
            n_keys = length if cache is None else ops.shape(cache["layer"]["0"]["key"])[1]
            seen = (ops.arange(n_keys)[None] <= start + ops.arange(length)[:, None])[None, None]
            allowed = seen if allowed is None else allowed & seen
        keys = self.split(key, 1 + config.num_hidden_layers)
        hidden = self.embed(params, input_ids, token_type_ids, position_ids, inputs_embeds, keys[0])
        if encoder_hidden_states is not None:
            encoder_hidden_states = self.cast(encoder_hidden_states)

        run = ops.checkpoint(self.layer) if self.checkpoint_layers else self.layer
        states, attentions, cross_attentions, caches = [hidden], [], [], {}
        for i in range(config.num_hidden_layers):
            inputs = LayerInputs(
                allowed,
                head_mask if head_mask is None or len(head_mask.shape) == 1 else head_mask[i],
                encoder_hidden_states,
                self.as_mask(encoder_attention_mask),
                None if cache is None else cache["layer"][str(i)],
                start,
                keys[1 + i],
            )
            hidden, probabilities, cross, caches[str(i)] = run(params["encoder"]["layer"][str(i)], hidden, inputs)
            states.append(hidden)
            attentions.append(probabilities)
            cross_attentions.append(cross)
        has_cross = keep_attentions and encoder_hidden_states is not None
        return Encoded(
            hidden,
            tuple(states) if keep_states else None,
            tuple(attentions) if keep_attentions else None,
            tuple(cross_attentions) if has_cross else None,
            None if cache is None else {"index": start + length, "layer": caches},
        )


def empty_cache(net: Network, batch_size: int, n_places: int, zeros: Callable[[tuple[int, ...]], Array]) -> Params:
    """Makes a cache for step-by-step decoding, with room for `n_places` tokens a row.

    It is {"index": the number of tokens so far, "layer": {"0": {"key": [B, M, A, D], "value": [B, M, A, D]}, ...}}.

    Args:
        zeros: makes an array of zeros of a shape.
    """
    shape = (batch_size, n_places, net.config.num_attention_heads, net.config.head_size)
    layers = range(net.config.num_hidden_layers)
    return {"index": 0, "layer": {str(i): {"key": zeros(shape), "value": zeros(shape)} for i in layers}}
