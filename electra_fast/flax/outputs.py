"""Result types of the Flax classes, by their names in transformers 4; JAX sees the arrays inside."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import jax
from jax import Array

from ..model.outputs import ModelOutput


class FlaxModelOutput(ModelOutput):
    """A `ModelOutput` that is a pytree of JAX, and has the `replace` of Flax's dataclasses."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        jax.tree_util.register_pytree_with_keys(
            cls,
            lambda output: ([(jax.tree_util.GetAttrKey(f.name), getattr(output, f.name)) for f in fields(cls)], None),
            lambda _, values: cls(*values),
        )

    def replace(self, **changes: Any) -> FlaxModelOutput:
        return type(self)(**{field.name: getattr(self, field.name) for field in fields(self)} | changes)


@dataclass
class FlaxBaseModelOutputWithPastAndCrossAttentions(FlaxModelOutput):
    last_hidden_state: Array | None = None
    past_key_values: dict[str, Any] | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None


@dataclass
class FlaxElectraForPreTrainingOutput(FlaxModelOutput):
    """Output of the discriminator: `logits [B, S]` are above zero where the token looks replaced."""

    logits: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclass
class FlaxMaskedLMOutput(FlaxModelOutput):
    logits: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclass
class FlaxCausalLMOutputWithCrossAttentions(FlaxModelOutput):
    logits: Array | None = None
    past_key_values: dict[str, Any] | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None


@dataclass
class FlaxSequenceClassifierOutput(FlaxModelOutput):
    logits: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclass
class FlaxTokenClassifierOutput(FlaxModelOutput):
    logits: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclass
class FlaxMultipleChoiceModelOutput(FlaxModelOutput):
    logits: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclass
class FlaxQuestionAnsweringModelOutput(FlaxModelOutput):
    start_logits: Array | None = None
    end_logits: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclass
class FlaxGreedySearchOutput(FlaxModelOutput):
    """Result of greedy `generate`: ids [B, max_length], the prompt included."""

    sequences: Array | None = None


@dataclass
class FlaxSampleOutput(FlaxModelOutput):
    """Result of sampling `generate`: ids [B, max_length], the prompt included."""

    sequences: Array | None = None
