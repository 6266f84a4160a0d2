"""The heads of the ELECTRA paper, where they are not those of transformers: google-research/electra, finetune/.

Their weights start as in TensorFlow, Glorot uniform with zero biases. Rows begin with [CLS]; padding is on the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model.backbone import ElectraModel
from ...model.base import ElectraPreTrainedModel
from ...model.config import ElectraConfig
from ...model.heads import classifier_dropout
from ...model.modeling import sequence_loss
from ...model.outputs import QuestionAnsweringModelOutput, SequenceClassifierOutput
from ...ops import Impl
from ...ops.reference import linear_gelu
from .answers import context_tokens

# Width of the hidden layers of the question answering head.
HIDDEN_SIZE = 512
NO_ANSWER_WEIGHT = 0.5


class _PaperModel(ElectraPreTrainedModel):
    def post_init(self) -> None:
        super().post_init()
        for name, head in self.named_children():
            if name != self.base_model_prefix and isinstance(head, nn.Linear):
                nn.init.xavier_uniform_(head.weight)


class ElectraPaperForSequenceClassification(_PaperModel):
    """One prediction per sequence, by one linear layer on the first token; `problem_type` as in transformers' class."""

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
    ) -> tuple | SequenceClassifierOutput:
        """Logits [B, num_labels], and the loss if there are labels.

        labels: [B] classes or values, or [B, num_labels] floating for several labels.
        """
        encoded = self.electra.encode(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, reads="only_first", **kwargs
        )
        logits = self.classifier(self.dropout(encoded.padded_hidden[:, 0]))
        loss = None if labels is None else sequence_loss(self.config, logits, labels)
        return self._result(SequenceClassifierOutput, encoded, kwargs, loss=loss, logits=logits)


@dataclass
class PaperQuestionAnsweringOutput(QuestionAnsweringModelOutput):
    """Outputs of transformers' class and `no_answer_logits` [B], above zero if there seems to be no answer."""

    no_answer_logits: Tensor | None = None


class ElectraPaperForQuestionAnswering(_PaperModel):
    """Predicts where the answer starts, where an answer that starts there ends, and whether there is one.

    Only [CLS], which stands for "no answer", and tokens of the context may be a start or an end.

    The logit of an end e for a start s is  v' gelu(W [h_s; h_e] + b) + c.  The logit of "no answer" is the same formula
    with other weights and [h_0; sum_i p(start = i) h_i].
    """

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__(config, impl)
        self.electra = ElectraModel(config, impl)
        self.start_outputs = nn.Linear(config.hidden_size, 1)
        self.end_dense = nn.Linear(2 * config.hidden_size, HIDDEN_SIZE)
        self.end_outputs = nn.Linear(HIDDEN_SIZE, 1)
        self.no_answer_dense = nn.Linear(2 * config.hidden_size, HIDDEN_SIZE)
        self.no_answer_outputs = nn.Linear(HIDDEN_SIZE, 1)
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
        is_impossible: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple | PaperQuestionAnsweringOutput:
        """Start and end logits [B, S], and `no_answer_logits` [B]; the loss is the mean over rows.

        End logits are those for the given start, or else for the likeliest start. Tokens that can be neither start nor
        end have the lowest number as their logits.

        Args:
            attention_mask: [B, S].
            token_type_ids: [B, S], 1 at the context and the [SEP] behind it; must be given.
            start_positions, end_positions: [B], 0 if the row holds no answer.
            is_impossible: [B], nonzero for questions without an answer; by default those that start at 0.

        Raises:
            ValueError: token_type_ids are missing.
        """
        if token_type_ids is None:
            raise ValueError("token_type_ids must be given: they tell the context from the question; got None")
        encoded = self.electra.encode(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, reads="tokens", **kwargs
        )
        hidden = encoded.padded_hidden
        is_real = torch.ones_like(token_type_ids) if attention_mask is None else attention_mask
        candidates = start_or_end_tokens(token_type_ids.expand(is_real.shape), is_real)
        start_logits, end_logits, no_answer_logits = logits = self.logits(hidden, candidates, start_positions)
        loss = None
        if start_positions is not None and end_positions is not None:
            is_impossible = start_positions == 0 if is_impossible is None else is_impossible
            loss = self.loss_sum(logits, start_positions, end_positions, is_impossible) / len(hidden)
        return self._result(
            PaperQuestionAnsweringOutput,
            encoded,
            kwargs,
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            no_answer_logits=no_answer_logits,
        )

    def logits(self, hidden: Tensor, candidates: Tensor, starts: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The logits of starts [B, S], of ends for each row's start [B, S] and of no answer [B]; fp32 or better.

        hidden: [B, S, H]; candidates: [B, S] bool; starts: [B], by default the likeliest.
        """
        start_logits = self.start_logits(hidden, candidates)
        starts = start_logits.argmax(1) if starts is None else starts
        end_logits = self.end_logits(hidden, candidates, starts[:, None])[:, 0]
        return start_logits, end_logits, self.no_answer_logits(hidden, start_logits)

    def loss_sum(
        self, logits: tuple[Tensor, Tensor, Tensor], starts: Tensor, ends: Tensor, is_impossible: Tensor
    ) -> Tensor:
        """The sum over rows of (start loss + end loss) / 2 + 0.5 (loss of no answer).

        logits: results of `logits` for the same starts; starts, ends, is_impossible: [B].
        """
        start_logits, end_logits, no_answer_logits = logits
        spans = sum(
            F.cross_entropy(scores, positions, reduction="sum")
            for scores, positions in ((start_logits, starts), (end_logits, ends))
        )
        no_answer = F.binary_cross_entropy_with_logits(
            no_answer_logits, is_impossible.to(no_answer_logits.dtype), reduction="sum"
        )
        return spans / 2 + NO_ANSWER_WEIGHT * no_answer

    def start_logits(self, hidden: Tensor, candidates: Tensor) -> Tensor:
        """Logits [B, S] from hidden [B, S, H], fp32 or better; the lowest number for tokens that are no candidates."""
        return _masked(self.start_outputs(hidden).squeeze(-1), candidates)

    def end_logits(self, hidden: Tensor, candidates: Tensor, starts: Tensor) -> Tensor:
        """Logits [B, K, S] of each end for each of the starts [B, K]; masked as in `start_logits`.

        Without gradients, only the [B, S, 512] values of one start are in memory at a time.
        """
        weight_of_start, weight_of_end = self.end_dense.weight.split(hidden.shape[2], dim=1)
        of_ends = F.linear(hidden, weight_of_end, self.end_dense.bias)
        rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None]
        of_starts = F.linear(hidden[rows, starts], weight_of_start)
        logits = [self.end_outputs(F.gelu(of_ends + x[:, None])).squeeze(-1) for x in of_starts.unbind(1)]
        return _masked(torch.stack(logits, 1), candidates[:, None])

    def no_answer_logits(self, hidden: Tensor, start_logits: Tensor) -> Tensor:
        """Logits [B] of no answer from start_logits [B, S], fp32 or better."""
        likely_start = torch.einsum("bs,bsh->bh", start_logits.softmax(-1).to(hidden.dtype), hidden)
        dense = self.no_answer_dense
        x = linear_gelu(torch.cat([hidden[:, 0], likely_start], 1), dense.weight, dense.bias)
        return _precise(self.no_answer_outputs(x).squeeze(-1))


def start_or_end_tokens(token_type_ids: Tensor, is_real: Tensor) -> Tensor:
    """Marks [CLS] and the tokens of the context: [B, S] bool."""
    candidates = context_tokens(token_type_ids, is_real)
    candidates[:, 0] = True
    return candidates


def _masked(logits: Tensor, candidates: Tensor) -> Tensor:
    logits = _precise(logits)
    return logits.masked_fill(~candidates, torch.finfo(logits.dtype).min)


def _precise(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
