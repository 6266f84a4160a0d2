"""TFElectraPreTrainedModel: everything that the TFElectra classes share besides their signatures and losses."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..functional import heads, tf_ops
from ..functional.core import Encoded, Network
from ..functional.parameters import initial_values, shapes
from ..model.config import ElectraConfig
from .arguments import LABELS, check, named
from .cache import cache_of, n_past_of
from .cpu import TOKENS, CpuPath, compute, obstacle
from .outputs import TFModelOutput
from .parts import Part
from .pretrained import TFHubMixin
from .training import TrainingMixin


class TFElectraPreTrainedModel(TrainingMixin, TFHubMixin, keras.Model):
    """Base of all classes: a Keras model whose variables exist as soon as it is made.

    `call` computes the same functions in eager mode and in graphs. In eager mode on a CPU the C++ encoder serves what
    it can, on real tokens alone; results of tokens are then zeros at padding, and -3.4e38 in the logits of spans.

    Args:
        config: the model's shape.
        seed: of first values and dropout; None draws one, as `keras.utils.set_random_seed` says.
        values: first values of all parameters, arrays in dictionaries within dictionaries (`functional.parameters`).
        **kwargs: those of `keras.Model`, such as name, dtype and trainable.
    """

    config_class = ElectraConfig
    base_model_prefix = "electra"
    main_input_name = "input_ids"
    framework = "tf"
    kind: str
    """What follows `TFElectra` in the class's name: a key of `functional.heads.HEADS`."""
    output_type: type[TFModelOutput]
    n_dims = 2
    """Dimensions of input_ids."""

    def __init__(
        self,
        config: ElectraConfig,
        *,
        seed: int | None = None,
        values: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)  # labels keep their dtype, and `Network` casts
        if not isinstance(config, ElectraConfig):
            raise TypeError(f"config must be an electra_fast.ElectraConfig, got {type(config).__name__}")
        config.validate()
        config.check_memory()
        self.config = config
        self.jit_compile = False  # as `compile` does: what is not compiled predicts, too
        self._seeds = keras.random.SeedGenerator(seed)
        self._cpu = CpuPath()
        values = fresh_values(config, self.kind, seed) if values is None else values
        values = {"electra": values} if self.kind == "Model" else values
        self._part_names = tuple(values)
        for name, value in values.items():
            setattr(self, name, Part(value, name, self.dtype_policy))
        self.build()

    def build(self, input_shape: Any = None) -> None:
        for name in self._part_names:
            getattr(self, name).build()
        self.built = True

    def tree(self) -> dict[str, Any]:
        """The variables of TensorFlow, in dictionaries within dictionaries (`functional.parameters`)."""
        tree = {name: getattr(self, name).tree() for name in self._part_names}
        return tree["electra"] if self.kind == "Model" else tree

    def get_config(self) -> dict[str, Any]:
        dtype = keras.saving.serialize_keras_object(self.dtype_policy)
        return {"config": self.config.to_dict(), "name": self.name, "dtype": dtype}

    @classmethod
    def from_config(cls, config: ElectraConfig | Mapping[str, Any], **kwargs: Any) -> TFElectraPreTrainedModel:
        """Makes a model with fresh weights of a config, or of what `get_config` returned."""
        if isinstance(config, Mapping):
            dtype = keras.saving.deserialize_keras_object(config["dtype"])
            return cls(ElectraConfig.from_dict(config["config"]), name=config["name"], dtype=dtype)
        return cls(config, **kwargs)

    _from_config = from_config

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable("electra_fast")(cls)

    @classmethod
    @cache
    def call_names(cls) -> tuple[str, ...]:
        """The arguments of `call`, in order."""
        return tuple(inspect.signature(cls.call).parameters)[1:]

    @classmethod
    @cache
    def argument_names(cls) -> tuple[str, ...]:
        """The arguments of `call` that are no flags, in order."""
        flags = ("output_attentions", "output_hidden_states", "return_dict", "use_cache", "training")
        return tuple(name for name in cls.call_names() if name not in flags)

    @classmethod
    @cache
    def label_names(cls) -> tuple[str, ...]:
        return tuple(name for name in cls.argument_names() if name in LABELS)

    @tf.autograph.experimental.do_not_convert
    def __call__(self, inputs: Any = None, *others: Any, **options: Any) -> Any:
        """Calls the model.

        Args:
            inputs: input_ids [B, S]; or a list or tuple of arguments in the order of `call`; or a mapping of them by
                name, such as what a tokenizer returns.
            others: further arguments in the order of `call`.
            options: arguments of `call` by name.
        """
        arguments = named(type(self).__name__, self.call_names(), inputs, others, options)
        return super().__call__(**{"input_ids": None} | arguments)  # Keras wants the first one

    def _forward(
        self,
        arguments: Mapping[str, Any],
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        training: bool | None,
        has_labels: bool = False,
        past: Any = None,
        caches: bool = False,
    ) -> tuple[dict[str, Any], Encoded]:
        """Computes the results of the head by name, and those of the encoder.

        Args:
            arguments: arguments of `functional.heads.forward`.
            past: keys and values of earlier tokens (`cache`), or None.
            caches: whether the result has keys and values.
        """
        config = self.config
        keep_attentions = config.output_attentions if output_attentions is None else output_attentions
        keep_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        arguments = {name: value for name, value in arguments.items() if value is not None}
        check(config, self.n_dims, arguments, n_past_of(config, past))
        tree, caches = self.tree(), caches or past is not None
        is_plain = arguments.keys() <= set(TOKENS) and not (training or has_labels or keep_attentions or caches)
        mask = arguments.get("attention_mask")
        if is_plain and (mask is None or mask.shape.rank == self.n_dims) and not self._cpu_obstacle(arguments.values()):
            tokens = {name: arguments.get(name) for name in TOKENS}
            twin = self._cpu.twin_of(config, self.kind, tree)
            results, states = compute(twin, self._words, tokens, keep_states)
            return results, Encoded(None, states)
        net = Network(tf_ops, config, tf.as_dtype(self.compute_dtype))
        if caches:
            given = arguments["input_ids"] if "input_ids" in arguments else arguments["inputs_embeds"]
            arguments["cache"] = cache_of(net, past, *tf_ops.shape(given)[:2])
        key = tf.cast(self._seeds.next(), tf.int32) if training else None
        return heads.forward(
            net, self.kind, tree, **arguments, key=key, keep_states=keep_states, keep_attentions=keep_attentions
        )

    def _cpu_obstacle(self, tensors: Iterable[tf.Tensor]) -> str | None:
        """The reason why the C++ encoder does not serve a call on these tensors; None if it does."""
        if self.compute_dtype != "float32":
            return f"the model computes in {self.compute_dtype}"
        return obstacle(self.config, tensors, self._words)

    @property
    def _words(self) -> tf.Variable:
        return self.get_input_embeddings()["embedding"]._value

    def _result(
        self,
        results: Mapping[str, Any],
        encoded: Encoded,
        return_dict: bool | None,
        loss: tf.Tensor | None = None,
        **further: Any,
    ) -> tuple | TFModelOutput:
        values = {} if loss is None else {"loss": loss}
        values |= {**results, **further, "hidden_states": encoded.hidden_states, "attentions": encoded.attentions}
        output = self.output_type(**values)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()

    # Embeddings and sizes

    def num_parameters(self, only_trainable: bool = False) -> int:
        weights = self.trainable_weights if only_trainable else self.weights
        return sum(int(np.prod(weight.shape)) for weight in weights)

    def get_input_embeddings(self) -> Part:
        """The part with the word table, whose variable is `embedding`."""
        return self.electra["embeddings"]["word_embeddings"]

    def get_lm_head(self) -> Part | None:
        return getattr(self, "generator_lm_head", None)

    def get_output_embeddings(self) -> Part | None:
        """The part with the table that gives the logits of words; None for a model that has none."""
        head = self.get_lm_head()
        return head if head is None or "kernel" in head.tree() else self.get_input_embeddings()

    def get_bias(self) -> dict[str, keras.Variable] | None:
        head = self.get_lm_head()
        return None if head is None else {"bias": head["bias"]}

    def set_bias(self, value: Mapping[str, Any]) -> None:
        """Sets the bias of the words' logits; another length needs `resize_token_embeddings` first."""
        if (head := self.get_lm_head()) is None:
            raise ValueError(f"{type(self).__name__} has no bias of words to set")
        head["bias"].assign(value["bias"])

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> Part:
        """Gives the word table, and the head's bias, another number of rows; new ones are drawn, and zeros.

        An optimizer is of the old variables: call `compile` again afterwards.
        """
        words, head = self.get_input_embeddings(), self.get_lm_head()
        if new_num_tokens is None or new_num_tokens == self.config.vocab_size:
            return words
        config = copy.copy(self.config)
        config.vocab_size = new_num_tokens
        config.validate()
        self.config.vocab_size = new_num_tokens
        _resize(words, "embedding", new_num_tokens, self.config.initializer_range)
        if head is not None:
            _resize(head, "bias", new_num_tokens, 0)
            if "kernel" in head.tree():
                _resize(head, "kernel", new_num_tokens, self.config.initializer_range, axis=1)
        self._cpu.forget()
        return words


def _resize(part: Part, key: str, n: int, std: float, axis: int = 0) -> None:
    old = np.moveaxis(part[key].numpy(), axis, 0)
    new = _generator().standard_normal((n, *old.shape[1:])) * std
    n_kept = min(n, len(old))
    new[:n_kept] = old[:n_kept]
    part.replace(key, np.moveaxis(new, 0, axis).astype(old.dtype))


def _generator(seed: int | None = None) -> np.random.Generator:
    """Random numbers; without a seed of those that `keras.utils.set_random_seed` governs, as Keras's own are."""
    return np.random.default_rng(random.randrange(2**32) if seed is None else seed)


def fresh_values(config: ElectraConfig, kind: str, seed: int | None) -> dict[str, Any]:
    """First values of a class's parameters in fp32; the word table's row of padding is zero."""
    draw = _generator(seed)
    std = np.float32(config.initializer_range)
    values = initial_values(
        shapes(config, kind),
        lambda shape: draw.standard_normal(shape, np.float32) * std,
        lambda shape, value: np.full(shape, value, np.float32),
    )
    if config.pad_token_id is not None:
        base = values if kind == "Model" else values["electra"]
        base["embeddings"]["word_embeddings"]["embedding"][config.pad_token_id] = 0
    return values
