"""Result types of the TFElectra classes: ModelOutputs that Keras and tf.function take apart and put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optree
import tensorflow as tf

from ..model.outputs import ModelOutput


class TFModelOutput(ModelOutput):
    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        optree.register_pytree_node(
            cls,
            lambda output: (list(output.values()), tuple(output), tuple(output)),
            lambda keys, values: cls(**dict(zip(keys, values, strict=True))),
            namespace="keras",
        )


@dataclass
class TFBaseModelOutputWithPastAndCrossAttentions(TFModelOutput):
    last_hidden_state: tf.Tensor | None = None
    past_key_values: Any = None
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None
    cross_attentions: tuple[tf.Tensor, ...] | None = None


@dataclass
class TFElectraForPreTrainingOutput(TFModelOutput):
    """Output of the discriminator: `logits [B, S]` are above zero where the token looks replaced."""

    logits: tf.Tensor | None = None
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


@dataclass
class TFMaskedLMOutput(TFModelOutput):
    """Output of the generator: `logits [B, S, V]`; the loss has shape [1]."""

    loss: tf.Tensor | None = None
    logits: tf.Tensor | None = None
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


@dataclass
class TFSequenceClassifierOutput(TFModelOutput):
    """`logits [B, num_labels]`; the loss has shape [B]."""

    loss: tf.Tensor | None = None
    logits: tf.Tensor | None = None
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


@dataclass
class TFTokenClassifierOutput(TFModelOutput):
    """`logits [B, S, num_labels]`; the loss has shape [1]."""

    loss: tf.Tensor | None = None
    logits: tf.Tensor | None = None
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


@dataclass
class TFMultipleChoiceModelOutput(TFModelOutput):
    """`logits [B, C]`; the loss has shape [B]."""

    loss: tf.Tensor | None = None
    logits: tf.Tensor | None = None
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None


@dataclass
class TFQuestionAnsweringModelOutput(TFModelOutput):
    """`start_logits [B, S]` and `end_logits [B, S]`; the loss has shape [B]."""

    loss: tf.Tensor | None = None
    start_logits: tf.Tensor | None = None
    end_logits: tf.Tensor | None = None
    hidden_states: tuple[tf.Tensor, ...] | None = None
    attentions: tuple[tf.Tensor, ...] | None = None
