"""The heads. Names and mathematics are transformers'; the two heads of pre-training go through their ops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..ops import Impl, reference
from .config import ElectraConfig
from .hooks import is_plain


class ElectraDiscriminatorPredictions(nn.Module):
    """The replaced-token head: one logit per token, above zero where the token looks replaced."""

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dense_prediction = nn.Linear(config.hidden_size, 1)
        self.rtd_head = ops.select(impl, activation=config.hidden_act).rtd_head
        self.activation = reference.activation_of(config.hidden_act)

    def forward(self, hidden: Tensor, labels: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """Computes hidden [..., H], labels [...] -> (mean loss or None, logits [...])."""
        dense, prediction = self.dense, self.dense_prediction
        if not (is_plain(dense, nn.Linear) and is_plain(prediction, nn.Linear)):
            logits = prediction(self.activation(dense(hidden))).squeeze(-1)
            return None if labels is None else reference.rtd_loss(logits, labels), logits
        return self.rtd_head(hidden, dense.weight, dense.bias, prediction.weight, prediction.bias, labels)


class ElectraGeneratorPredictions(nn.Module):
    """LayerNorm(gelu(dense)), the input of the vocabulary logits; GELU whatever `hidden_act` says."""

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__()
        self.LayerNorm = nn.LayerNorm(config.embedding_size, eps=config.layer_norm_eps)
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)
        self.linear_gelu = ops.select(impl).linear_gelu

    def forward(self, hidden: Tensor) -> Tensor:
        """Computes hidden [..., H] -> [..., E]."""
        if not is_plain(self.dense, nn.Linear):
            return self.LayerNorm(F.gelu(self.dense(hidden)))
        return self.LayerNorm(self.linear_gelu(hidden, self.dense.weight, self.dense.bias))


def classifier_dropout(config: ElectraConfig) -> nn.Dropout:
    rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
    return nn.Dropout(rate)


class ElectraClassificationHead(nn.Module):
    """Dropout, dense, GELU, dropout, labels; on the hidden state of the first token."""

    def __init__(self, config: ElectraConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = classifier_dropout(config)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, features: Tensor) -> Tensor:
        """Computes features [B, S, H] -> logits [B, num_labels]."""
        return self.out_proj(self.dropout(F.gelu(self.dense(self.dropout(features[:, 0])))))


class ElectraSequenceSummary(nn.Module):
    """One vector per sequence; `config.summary_type` is "first", "last", "mean" or "cls_index"."""

    TYPES = ("first", "last", "mean", "cls_index")

    def __init__(self, config: ElectraConfig):
        super().__init__()
        if config.summary_type not in self.TYPES:
            raise ValueError(f"summary_type must be one of {', '.join(self.TYPES)}, got {config.summary_type!r}")
        if isinstance(config.summary_activation, str) and config.summary_activation not in reference.ACTIVATIONS:
            known = ", ".join(reference.ACTIVATIONS)
            raise ValueError(f"summary_activation must be one of {known}, got {config.summary_activation!r}")
        self.summary_type = config.summary_type
        self.summary: nn.Module = nn.Identity()
        if config.summary_use_proj:
            to_labels = getattr(config, "summary_proj_to_labels", False) and config.num_labels > 0
            self.summary = nn.Linear(config.hidden_size, config.num_labels if to_labels else config.hidden_size)
        self.activation = reference.activation_of(config.summary_activation or "linear")
        self.first_dropout = nn.Dropout(getattr(config, "summary_first_dropout", 0.0))
        self.last_dropout = nn.Dropout(config.summary_last_dropout)

    def forward(self, hidden: Tensor, cls_index: Tensor | None = None) -> Tensor:
        """Computes hidden [B, S, H], cls_index [B] (default: the last position) -> [B, H]."""
        if self.summary_type == "mean":
            x = hidden.mean(dim=1)
        elif self.summary_type == "first":
            x = hidden[:, 0]
        elif self.summary_type == "last" or cls_index is None:
            x = hidden[:, -1]
        else:
            x = hidden[torch.arange(len(hidden), device=hidden.device), cls_index]
        return self.last_dropout(self.activation(self.summary(self.first_dropout(x))))
