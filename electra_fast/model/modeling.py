"""The model classes with heads: names, arguments, results and numbers of transformers 5, on packed tokens.

Per-token results hold zeros at padding positions, where transformers has values that mean nothing.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Impl
from .arguments import Reads, check_tensor
from .backbone import ElectraModel
from .base import ElectraPreTrainedModel
from .config import ElectraConfig
from .generation import GenerationMixin
from .heads import (
    ElectraClassificationHead,
    ElectraDiscriminatorPredictions,
    ElectraGeneratorPredictions,
    ElectraSequenceSummary,
    classifier_dropout,
)
from .hooks import is_unheard
from .labels import choices, integers, replaced, sequence_loss, token_loss
from .layers import KeyValueCache
from .outputs import (
    CausalLMOutputWithCrossAttentions,
    ElectraForPreTrainingOutput,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from .pretrained import TIED_HEAD


class ElectraForPreTraining(ElectraPreTrainedModel):
    """The discriminator: tells which tokens were replaced."""

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__(config, impl)
        self.electra = ElectraModel(config, impl)
        self.discriminator_predictions = ElectraDiscriminatorPredictions(config, impl)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple | ElectraForPreTrainingOutput:
        """Computes logits [B, S] and the mean loss of real tokens.

        labels: [B, S], 1 where a token was replaced, else 0; tokens with negative labels do not count.
        """
        encoded = self.electra.encode(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        if labels is not None:
            labels = replaced(encoded.pack(labels))
            if encoded.packed is None and attention_mask is not None:
                if attention_mask.dim() != 2:
                    raise ValueError("labels need an attention_mask of 2 dimensions, which says what tokens are real")
                labels = labels.masked_fill(attention_mask == 0, -1)
        loss, logits = self.discriminator_predictions(encoded.hidden, labels)
        return self._result(
            ElectraForPreTrainingOutput, encoded, kwargs, loss=loss, logits=encoded.restore(logits)
        )  # fmt: skip


class ElectraForMaskedLM(ElectraPreTrainedModel):
    """The generator: predicts the tokens at [MASK]."""

    _tied_weights_keys = TIED_HEAD

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__(config, impl)
        self.electra = ElectraModel(config, impl)
        self.generator_predictions = ElectraGeneratorPredictions(config, impl)
        self.generator_lm_head = nn.Linear(config.embedding_size, config.vocab_size)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple | MaskedLMOutput:
        """Computes logits [B, S, V] and the loss; labels: [B, S] token ids, -100 where nothing is predicted."""
        encoded = self.electra.encode(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        logits = self.generator_lm_head(self.generator_predictions(encoded.hidden))
        loss = None if labels is None else token_loss(logits, encoded.pack(labels))
        return self._result(MaskedLMOutput, encoded, kwargs, loss=loss, logits=encoded.restore(logits))


class ElectraForCausalLM(GenerationMixin, ElectraPreTrainedModel):
    """Left-to-right language modelling with the generator's head; use a config with `is_decoder=True`."""

    _tied_weights_keys = ElectraForMaskedLM._tied_weights_keys

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__(config, impl)
        if not config.is_decoder:
            warnings.warn("ElectraForCausalLM sees the tokens to the right too unless config.is_decoder is True")
        self.electra = ElectraModel(config, impl)
        self.generator_predictions = ElectraGeneratorPredictions(config, impl)
        self.generator_lm_head = nn.Linear(config.embedding_size, config.vocab_size)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> tuple | CausalLMOutputWithCrossAttentions:
        """Computes logits [B, S, V] and the loss; labels: [B, S] token ids, where position i predicts label i + 1.

        `logits_to_keep` limits the logits to that many last positions (0: all), or to the positions [n] given.
        """
        encoded = self.electra.encode(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache if labels is None else False,
            # With padding on the left, transformers' loss has its last padding position predict the first token.
            reads="tokens" if labels is None else "first",
            **kwargs,
        )
        hidden = encoded.padded_hidden
        if not isinstance(logits_to_keep, int | Tensor):
            found = type(logits_to_keep).__name__
            raise TypeError(f"logits_to_keep must be a number of positions or a tensor of them, got a {found}")
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.generator_lm_head(self.generator_predictions(hidden[:, keep]))
        loss = None
        if labels is not None:
            labels = integers("labels", labels)
            if labels.dim() != 2:
                raise ValueError(f"labels must have shape {tuple(hidden.shape[:2])}, got {tuple(labels.shape)}")
            shifted = F.pad(labels, (0, 1), value=-100)[:, 1:]
            loss = token_loss(logits, shifted, kwargs.get("num_items_in_batch"))
        return self._result(
            CausalLMOutputWithCrossAttentions,
            encoded,
            kwargs,
            loss=loss,
            logits=logits,
            past_key_values=encoded.past_key_values,
            cross_attentions=encoded.cross_attentions,
        )


class ElectraForSequenceClassification(ElectraPreTrainedModel):
    """One prediction per sequence; `config.problem_type` is inferred from the first labels where it is not set."""

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__(config, impl)
        self.num_labels = config.num_labels
        self.electra = ElectraModel(config, impl)
        self.classifier = ElectraClassificationHead(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple | SequenceClassifierOutput:
        """Computes logits [B, num_labels] and the loss; labels are those of `sequence_loss`."""
        # A head of the user's may read every position.
        reads: Reads = "only_first" if is_unheard(self.classifier, ElectraClassificationHead) else "first"
        encoded = self.electra.encode(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, reads=reads, **kwargs
        )
        logits = self.classifier(encoded.padded_hidden)
        loss = None if labels is None else sequence_loss(self.config, logits, labels)
        return self._result(SequenceClassifierOutput, encoded, kwargs, loss=loss, logits=logits)


class ElectraForTokenClassification(ElectraPreTrainedModel):
    """One prediction per token."""

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__(config, impl)
        self.num_labels = config.num_labels
        self.electra = ElectraModel(config, impl)
        self.dropout = classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple | TokenClassifierOutput:
        """Computes logits [B, S, num_labels] and the loss; labels: [B, S], -100 where there is none."""
        encoded = self.electra.encode(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        logits = self.classifier(self.dropout(encoded.hidden))
        loss = None if labels is None else token_loss(logits, encoded.pack(labels))
        return self._result(TokenClassifierOutput, encoded, kwargs, loss=loss, logits=encoded.restore(logits))


class ElectraForMultipleChoice(ElectraPreTrainedModel):
    """A choice among several continuations; inputs are [B, C, S]."""

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__(config, impl)
        self.electra = ElectraModel(config, impl)
        self.sequence_summary = ElectraSequenceSummary(config)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple | MultipleChoiceModelOutput:
        """Computes logits [B, C] and the loss; labels: [B], the index of the right choice."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        flat = [_by_choice(name, value) for name, value in inputs.items()]
        given = input_ids if input_ids is not None else inputs_embeds
        if given is None:
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        n_choices = given.shape[1]
        reads: Reads = "all"
        if self.config.summary_type == "first":
            reads = "only_first" if is_unheard(self.sequence_summary, ElectraSequenceSummary) else "first"
        encoded = self.electra.encode(*flat, reads=reads, **kwargs)
        logits = self.classifier(self.sequence_summary(encoded.padded_hidden)).view(-1, n_choices)
        loss = None if labels is None else F.cross_entropy(logits, choices(labels, logits))
        return self._result(MultipleChoiceModelOutput, encoded, kwargs, loss=loss, logits=logits)


class ElectraForQuestionAnswering(ElectraPreTrainedModel):
    """The start and the end of an answer in a context."""

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__(config, impl)
        if config.num_labels != 2:
            raise ValueError(f"question answering needs num_labels 2 (start and end), got {config.num_labels}")
        self.num_labels = config.num_labels
        self.electra = ElectraModel(config, impl)
        self.qa_outputs = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple | QuestionAnsweringModelOutput:
        """Computes start and end logits [B, S] and the loss; positions: [B], ignored where outside the sequence.

        Without positions, logits at padding are the lowest number: no answer is found there. transformers' loss sums
        over padding positions too, so with positions the batch stays padded.
        """
        has_labels = start_positions is not None and end_positions is not None
        encoded = self.electra.encode(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            reads="all" if has_labels else "tokens",
            **kwargs,
        )
        logits = self.qa_outputs(encoded.hidden)
        start_logits, end_logits = encoded.restore(logits, torch.finfo(logits.dtype).min).unbind(-1)
        loss = None
        if has_labels:
            length = start_logits.shape[1]
            losses = [
                F.cross_entropy(scores, integers(name, positions).view(-1).clamp(0, length), ignore_index=length)
                for name, scores, positions in (
                    ("start_positions", start_logits, start_positions),
                    ("end_positions", end_logits, end_positions),
                )
            ]
            loss = sum(losses) / 2
        return self._result(
            QuestionAnsweringModelOutput, encoded, kwargs, loss=loss, start_logits=start_logits, end_logits=end_logits
        )


def _by_choice(name: str, value: Any) -> Tensor | None:
    """An argument of several choices a text, [batch, choices, ...], with a row a choice."""
    check_tensor(name, value)
    n_last = 2 if name == "inputs_embeds" else 1
    if value is None or (value.dim() == n_last + 1 and name == "position_ids"):  # one row serves all
        return value
    if value.dim() < n_last + 2 or not value.shape[1]:
        shape = "[batch, choices, length, embedding_size]" if n_last == 2 else "[batch, choices, length]"
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
    return value.flatten(0, 1)
