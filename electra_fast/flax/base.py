"""FlaxElectraPreTrainedModel: what the Flax classes share. A class is a head's name and the type of its results."""

from __future__ import annotations

import dataclasses
import math
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ..functional import heads, jax_ops
from ..functional.core import Network, Params, empty_cache
from ..functional.parameters import flatten, initial_values, is_random, shapes, unflatten
from ..model.config import ElectraConfig
from . import cpu
from .arguments import Layout, Tokens, check_encoder, check_head_mask, tokens_of
from .outputs import FlaxModelOutput
from .pretrained import FlaxHubMixin


class FlaxElectraPreTrainedModel(FlaxHubMixin):
    """Base of all classes: parameters beside pure functions of them.

    A call is a pure function of `params` and its other arguments, for `jax.jit`, `jax.grad`, `jax.vmap` and shardings.
    Where parameters are known fp32 arrays on a CPU, and no gradients are asked for, the C++ encoder computes it; then
    results at padding positions mean nothing, as they do otherwise.

    Args:
        config: the model's shape.
        input_shape: accepted, without effect: shapes of parameters depend on the config alone.
        seed: of the first values.
        dtype: of the arithmetic; parameters are float32.
        _do_init: False makes no parameters; `init_weights` or `from_pretrained` gives them, and each call takes them.
        gradient_checkpointing: compute each layer again in the backward, instead of keeping its activations.

    Raises:
        TypeError: what is no config, or an unknown keyword.
    """

    config_class = ElectraConfig
    base_model_prefix = "electra"
    main_input_name = "input_ids"
    framework = "flax"
    kind: str
    output_class: type[FlaxModelOutput]

    def __init__(
        self,
        config: ElectraConfig,
        input_shape: tuple[int, ...] = (1, 1),
        seed: int = 0,
        dtype: Any = jnp.float32,
        _do_init: bool = True,
        gradient_checkpointing: bool = False,
    ):
        if not isinstance(config, ElectraConfig):
            raise TypeError(f"config must be an electra_fast.ElectraConfig, got {type(config).__name__}")
        config.validate()
        config.check_memory()
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"dtype must be a floating dtype, got {dtype!r}")
        self.config, self.dtype, self.input_shape = config, jnp.dtype(dtype), input_shape
        self.key = jax.random.PRNGKey(seed)
        self.module = Network(jax_ops, config, self.dtype, gradient_checkpointing)
        self._layout = Layout(type(self).__name__, shapes(config, self.kind))
        self._cpu = cpu.CpuPath(config, self.kind)
        self._is_initialized = _do_init
        if _do_init:
            self._params = self.init_weights(self.key, input_shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "module": self.module.checkpoint_layers}  # modules, its operations, are not pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.module = Network(jax_ops, self.config, self.dtype, state["module"])

    @classmethod
    def _from_config(cls, config: ElectraConfig, **kwargs: Any) -> FlaxElectraPreTrainedModel:
        return cls(config, **kwargs)

    # Parameters

    @property
    def params(self) -> Params:
        """The parameters, float32 arrays in dictionaries within dictionaries.

        Setting them raises ValueError unless they have the names and shapes of this model's.
        """
        self._check_initialized("accessed")
        return self._params

    @params.setter
    def params(self, params: Params) -> None:
        self._check_initialized("set")
        self._layout.leaves_of(params)
        self._params = params

    def _check_initialized(self, what: str) -> None:
        if not self._is_initialized:
            raise ValueError(
                f"params cannot be {what} in a model that was created with _do_init=False: keep them outside of it, "
                "from init_weights or from_pretrained, and pass them to each call"
            )

    @property
    def required_params(self) -> set[tuple[str, ...]]:
        """The paths of all parameters."""
        return set(self._layout.shapes)

    @property
    def params_shape_tree(self) -> Params:
        """The shapes and dtypes of the parameters, as `jax.eval_shape` gives them."""
        return unflatten(
            {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in self._layout.shapes.items()}
        )

    def init_weights(self, rng: Array, input_shape: tuple[int, ...] = (1, 1), params: Params | None = None) -> Params:
        """Fresh parameters, or `params` with fresh ones for those that they lack."""
        given = {} if params is None else dict(flatten(params))
        lacking = {path: shape for path, shape in self._layout.shapes.items() if path not in given}
        sizes = [math.prod(shape) for path, shape in lacking.items() if is_random(path)]
        # All at once: JAX compiles the generator anew for each size.
        numbers = jax.random.normal(rng, (sum(sizes),), jnp.float32) * self.config.initializer_range
        parts = iter(jnp.split(numbers, list(accumulate(sizes))[:-1]))
        fresh = initial_values(
            unflatten(lacking),
            lambda shape: next(parts).reshape(shape),
            lambda shape, value: jnp.full(shape, value, jnp.float32),
        )
        fresh = dict(flatten(fresh))
        return unflatten({path: given.get(path, fresh.get(path)) for path in self._layout.shapes})

    def to_bf16(self, params: Params, mask: Any = None) -> Params:
        """A copy of parameters in bfloat16; with a `mask`, a tree of bools, only where that is True."""
        return _cast(params, jnp.bfloat16, mask)

    def to_fp16(self, params: Params, mask: Any = None) -> Params:
        """A copy of parameters in float16; `mask` as for `to_bf16`."""
        return _cast(params, jnp.float16, mask)

    def to_fp32(self, params: Params, mask: Any = None) -> Params:
        """A copy of parameters in float32; `mask` as for `to_bf16`."""
        return _cast(params, jnp.float32, mask)

    def num_params(self, params: Params | None = None) -> int:
        """The number of values in the parameters."""
        return sum(x.size for x in jax.tree.leaves(self.params if params is None else params))

    # Calls

    def enable_gradient_checkpointing(self) -> None:
        """Computes each layer again in the backward from now on, instead of keeping its activations."""
        self.module = dataclasses.replace(self.module, checkpoint_layers=True)

    def init_cache(self, batch_size: int, max_length: int) -> Params:
        """Makes an empty `past_key_values` for step-by-step decoding of a decoder.

        Raises:
            ValueError: a model that is no decoder, or more places than it has positions.
        """
        if not self.config.is_decoder:
            raise ValueError("a cache needs a config with is_decoder=True")
        if max_length > self.config.max_position_embeddings:
            limit = self.config.max_position_embeddings
            raise ValueError(f"max_length must be at most max_position_embeddings {limit}, got {max_length}")
        cache = empty_cache(self.module, batch_size, max_length, lambda shape: jnp.zeros(shape, self.dtype))
        return cache | {"index": jnp.zeros((), jnp.int32)}

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        params: Params | None = None,
        dropout_rng: Array | None = None,
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        past_key_values: Params | None = None,
    ) -> FlaxModelOutput | tuple:
        """Computes the class's results.

        Args:
            input_ids, token_type_ids, position_ids: [B, S] integers; [B, C, S] for several choices. Defaults: types
                zero, positions from 0 on, or from where the cache ends.
            attention_mask: like `input_ids`, nonzero at real tokens; [B, M] beside a cache of M places.
            head_mask: [L, A] or [A] factors of the attention probabilities.
            encoder_hidden_states, encoder_attention_mask: [B, K, H] and [B, K] for cross-attention.
            params: parameters in place of the model's own.
            dropout_rng: a key for dropout, where `train` is True.
            past_key_values: a cache of `init_cache`, or what an earlier call returned.

        Raises:
            ValueError: arguments that do not fit the model or each other, ids that are not in their tables.
        """
        config = self.config
        options = {
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
            "return_dict": return_dict,
        }
        keep_attentions, keep_states, as_dict = (
            getattr(config, name) if value is None else value for name, value in options.items()
        )
        params = self.params if params is None else params
        leaves = self._layout.leaves_of(params)
        n_dims = 3 if self.kind == "ForMultipleChoice" else 2
        tokens = Tokens(input_ids, attention_mask, token_type_ids, position_ids)
        tokens = tokens_of(config, n_dims, tokens, past_key_values)
        check_head_mask(config, head_mask)
        check_encoder(config, tokens.input_ids.shape[0], encoder_hidden_states, encoder_attention_mask)
        if train and dropout_rng is None and self._drops():
            raise ValueError("train=True needs a dropout_rng, a key such as jax.random.PRNGKey(0), got None")

        further = (head_mask, encoder_hidden_states, past_key_values)
        is_plain = not (train or keep_attentions) and all(x is None for x in further)
        twin = self._cpu.twin_of(leaves, tokens) if is_plain and self.dtype == jnp.float32 else None

        def pure(ids: Any, mask: Any, *others: Any) -> Any:
            ids, *others = (None if x is None else jnp.asarray(x, jnp.int32) for x in (ids, *others))
            results, encoded = heads.forward(
                self.module,
                self.kind,
                params,
                ids,
                None if mask is None else jnp.asarray(mask),
                *others,
                head_mask=None if head_mask is None else jnp.asarray(head_mask),
                encoder_hidden_states=encoder_hidden_states,
                encoder_attention_mask=encoder_attention_mask,
                cache=past_key_values,
                key=dropout_rng if train else None,
                keep_states=keep_states,
                keep_attentions=keep_attentions,
            )
            return results, encoded

        if twin is not None:
            results, states = cpu.compute(twin, tokens, keep_states, lambda *x: _without_attentions(*pure(*x)))
            output = self.output_class(**results, hidden_states=states)
        else:
            results, encoded = pure(*tokens)
            output = self._output(results, encoded)
        return output if as_dict else output.to_tuple()

    def _output(self, results: dict[str, Array], encoded: Any) -> FlaxModelOutput:
        further = {"past_key_values": encoded.cache, "cross_attentions": encoded.cross_attentions}
        known = {field.name for field in dataclasses.fields(self.output_class)}
        return self.output_class(
            **results,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            **{name: value for name, value in further.items() if name in known},
        )

    def can_generate(self) -> bool:
        return hasattr(self, "generate")

    def _drops(self) -> bool:
        """Tells whether any rate of dropout is above zero."""
        config = self.config
        rates = [config.hidden_dropout_prob, config.attention_probs_dropout_prob, heads.classifier_dropout(config)]
        return any(rates) or bool(self.kind == "ForMultipleChoice" and config.summary_last_dropout)


def _without_attentions(results: dict[str, Array], encoded: Any) -> tuple[dict[str, Array], Any]:
    return results, encoded.hidden_states


def _cast(params: Params, dtype: Any, mask: Any) -> Params:
    def cast(x: Any, chosen: bool = True) -> Any:
        return x.astype(dtype) if chosen and jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, params) if mask is None else jax.tree.map(cast, params, mask)
