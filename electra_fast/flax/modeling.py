"""The model classes for JAX: names, arguments and results of transformers 4's Flax classes.

They have no losses, as there: optax has them. `electra_fast.flax.base` says what differs.
"""

from __future__ import annotations

import warnings
from typing import Any

from ..model.config import ElectraConfig
from .base import FlaxElectraPreTrainedModel
from .generation import FlaxGenerationMixin
from .outputs import (
    FlaxBaseModelOutputWithPastAndCrossAttentions,
    FlaxCausalLMOutputWithCrossAttentions,
    FlaxElectraForPreTrainingOutput,
    FlaxMaskedLMOutput,
    FlaxMultipleChoiceModelOutput,
    FlaxQuestionAnsweringModelOutput,
    FlaxSequenceClassifierOutput,
    FlaxTokenClassifierOutput,
)


class FlaxElectraModel(FlaxElectraPreTrainedModel):
    """Embeddings and encoder: last hidden states [B, S, H]."""

    kind = "Model"
    output_class = FlaxBaseModelOutputWithPastAndCrossAttentions


class FlaxElectraForPreTraining(FlaxElectraPreTrainedModel):
    """The discriminator: logits [B, S], above zero where the token looks replaced."""

    kind = "ForPreTraining"
    output_class = FlaxElectraForPreTrainingOutput


class FlaxElectraForMaskedLM(FlaxElectraPreTrainedModel):
    """The generator: logits [B, S, V] of the tokens at [MASK]."""

    kind = "ForMaskedLM"
    output_class = FlaxMaskedLMOutput


class FlaxElectraForCausalLM(FlaxGenerationMixin, FlaxElectraPreTrainedModel):
    """Left-to-right language modelling with the generator's head; use a config with `is_decoder=True`."""

    kind = "ForCausalLM"
    output_class = FlaxCausalLMOutputWithCrossAttentions

    def __init__(self, config: ElectraConfig, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        if not config.is_decoder:
            warnings.warn("FlaxElectraForCausalLM sees the tokens to the right too unless config.is_decoder is True")


class FlaxElectraForSequenceClassification(FlaxElectraPreTrainedModel):
    """One prediction per sequence: logits [B, num_labels]."""

    kind = "ForSequenceClassification"
    output_class = FlaxSequenceClassifierOutput


class FlaxElectraForTokenClassification(FlaxElectraPreTrainedModel):
    """One prediction per token: logits [B, S, num_labels]."""

    kind = "ForTokenClassification"
    output_class = FlaxTokenClassifierOutput


class FlaxElectraForMultipleChoice(FlaxElectraPreTrainedModel):
    """A choice among several continuations: inputs [B, C, S], logits [B, C]."""

    kind = "ForMultipleChoice"
    output_class = FlaxMultipleChoiceModelOutput


class FlaxElectraForQuestionAnswering(FlaxElectraPreTrainedModel):
    """The start and the end of an answer in a context: logits [B, S] each."""

    kind = "ForQuestionAnswering"
    output_class = FlaxQuestionAnsweringModelOutput

    def __init__(self, config: ElectraConfig, *args: Any, **kwargs: Any):
        if config.num_labels != 2:
            raise ValueError(f"question answering needs num_labels 2 (start and end), got {config.num_labels}")
        super().__init__(config, *args, **kwargs)
