"""The seven TFElectra classes: signatures, results, losses and numbers of transformers 4.57's.

Arguments that all of them take:

    input_ids, token_type_ids, position_ids     [B, S] integers; types are zeros, and positions 0, 1, 2, ... by default
    attention_mask                              [B, S], nonzero at real tokens; or [B, S, S] or [B, A, S, S]
    head_mask                                   [A] or [L, A] factors of the probabilities
    inputs_embeds                               [B, S, E] in the place of input_ids
    output_attentions, output_hidden_states, return_dict     None takes the config's
    training                                    whether dropout is on

Errors: ValueError for ids out of range (in eager mode), shapes that do not fit and sequences that are too long;
TypeError for an argument that the class does not take.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from ..model.config import ElectraConfig
from ..model.heads import ElectraSequenceSummary
from .base import TFElectraPreTrainedModel
from .cache import Past, past_of
from .losses import class_loss, sequence_loss, span_loss, token_loss
from .outputs import (
    TFBaseModelOutputWithPastAndCrossAttentions,
    TFElectraForPreTrainingOutput,
    TFMaskedLMOutput,
    TFModelOutput,
    TFMultipleChoiceModelOutput,
    TFQuestionAnsweringModelOutput,
    TFSequenceClassifierOutput,
    TFTokenClassifierOutput,
)


class TFElectraModel(TFElectraPreTrainedModel):
    """The encoder; a decoder with `config.is_decoder`, with cross-attention if the config has that."""

    kind = "Model"
    output_type = TFBaseModelOutputWithPastAndCrossAttentions

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        head_mask: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        encoder_hidden_states: tf.Tensor | None = None,
        encoder_attention_mask: tf.Tensor | None = None,
        past_key_values: Past | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> tuple | TFBaseModelOutputWithPastAndCrossAttentions:
        """Computes last_hidden_state [B, S, H].

        encoder_hidden_states [B, K, H] and their mask [B, K] are for cross-attention. `past_key_values` are those of a
        decoder's earlier result: attention_mask then has P + S columns. `use_cache` (None: the config's) returns them.
        """
        arguments = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "head_mask": head_mask,
            "inputs_embeds": inputs_embeds,
            "encoder_hidden_states": encoder_hidden_states,
            "encoder_attention_mask": encoder_attention_mask,
        }
        caches = self.config.is_decoder and (self.config.use_cache if use_cache is None else use_cache)
        results, encoded = self._forward(
            arguments, output_attentions, output_hidden_states, training, past=past_key_values, caches=caches
        )
        past = past_of(encoded.cache) if caches else None
        return self._result(
            results, encoded, return_dict, past_key_values=past, cross_attentions=encoded.cross_attentions
        )


class TFElectraForPreTraining(TFElectraPreTrainedModel):
    """The discriminator: tells which tokens were replaced. It has no loss of its own, as in transformers 4."""

    kind = "ForPreTraining"
    output_type = TFElectraForPreTrainingOutput

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        head_mask: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> tuple | TFElectraForPreTrainingOutput:
        """Computes logits [B, S], above zero where the token looks replaced."""
        arguments = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "head_mask": head_mask,
            "inputs_embeds": inputs_embeds,
        }
        results, encoded = self._forward(arguments, output_attentions, output_hidden_states, training)
        return self._result(results, encoded, return_dict)


class _Labelled(TFElectraPreTrainedModel):
    """A class whose loss is of one argument, `labels`."""

    @abstractmethod
    def loss_of(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor: ...

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        head_mask: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: tf.Tensor | None = None,
        training: bool = False,
    ) -> tuple | TFModelOutput:
        """Computes logits, and with labels the loss."""
        arguments = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "head_mask": head_mask,
            "inputs_embeds": inputs_embeds,
        }
        results, encoded = self._forward(
            arguments, output_attentions, output_hidden_states, training, has_labels=labels is not None
        )
        loss = None if labels is None else self.loss_of(labels, results["logits"])
        return self._result(results, encoded, return_dict, loss)


class TFElectraForMaskedLM(_Labelled):
    """The generator: predicts the tokens at [MASK]; logits [B, S, V], labels [B, S] with -100 for none, loss [1]."""

    kind = "ForMaskedLM"
    output_type = TFMaskedLMOutput

    def loss_of(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return token_loss(labels, logits, takes_negative=False)


class TFElectraForSequenceClassification(_Labelled):
    """One prediction per sequence; logits [B, num_labels], labels of `losses.sequence_loss`, loss [B]."""

    kind = "ForSequenceClassification"
    output_type = TFSequenceClassifierOutput

    def loss_of(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return sequence_loss(labels, logits, self.config.problem_type)


class TFElectraForTokenClassification(_Labelled):
    """One prediction per token; logits [B, S, num_labels], labels [B, S], negative for none, loss [1]."""

    kind = "ForTokenClassification"
    output_type = TFTokenClassifierOutput

    def loss_of(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return token_loss(labels, logits, takes_negative=True)


class TFElectraForMultipleChoice(_Labelled):
    """A choice among several continuations; inputs are [B, C, S], logits [B, C], labels [B], the loss is [B]."""

    kind = "ForMultipleChoice"
    output_type = TFMultipleChoiceModelOutput
    n_dims = 3

    def __init__(self, config: ElectraConfig, **kwargs: Any):
        if config.summary_type not in ElectraSequenceSummary.TYPES:
            known = ", ".join(ElectraSequenceSummary.TYPES)
            raise ValueError(f"summary_type must be one of {known}, got {config.summary_type!r}")
        super().__init__(config, **kwargs)

    def loss_of(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return class_loss(labels, logits)


class TFElectraForQuestionAnswering(TFElectraPreTrainedModel):
    """The start and the end of an answer in a context."""

    kind = "ForQuestionAnswering"
    output_type = TFQuestionAnsweringModelOutput

    def __init__(self, config: ElectraConfig, **kwargs: Any):
        if config.num_labels != 2:
            raise ValueError(f"question answering needs num_labels 2 (start and end), got {config.num_labels}")
        super().__init__(config, **kwargs)

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        position_ids: tf.Tensor | None = None,
        head_mask: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        start_positions: tf.Tensor | None = None,
        end_positions: tf.Tensor | None = None,
        training: bool = False,
    ) -> tuple | TFQuestionAnsweringModelOutput:
        """Computes start and end logits [B, S], and with positions [B] the loss [B]."""
        arguments = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "head_mask": head_mask,
            "inputs_embeds": inputs_embeds,
        }
        has_labels = start_positions is not None and end_positions is not None
        results, encoded = self._forward(
            arguments, output_attentions, output_hidden_states, training, has_labels=has_labels
        )
        loss = None
        if has_labels:
            loss = span_loss(start_positions, end_positions, results["start_logits"], results["end_logits"])
        return self._result(results, encoded, return_dict, loss)


CLASSES: Mapping[str, type[TFElectraPreTrainedModel]] = {
    cls.kind: cls
    for cls in (
        TFElectraModel,
        TFElectraForPreTraining,
        TFElectraForMaskedLM,
        TFElectraForSequenceClassification,
        TFElectraForTokenClassification,
        TFElectraForMultipleChoice,
        TFElectraForQuestionAnswering,
    )
}
