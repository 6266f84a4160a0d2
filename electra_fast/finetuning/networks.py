"""One encoder and the heads of one task or several, trained together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..model.base import ElectraPreTrainedModel
from ..model.pretrained import CheckpointWarning
from ..ops import Impl
from .data.features import Batch
from .kinds.kind import Kind
from .recipe import Recipe


class TaskNetworks(nn.Module):
    """The networks of several tasks, which share one encoder.

    Args:
        models: networks by task; all get the encoder of the first.
        kinds: kinds of the same tasks.
    """

    def __init__(self, models: Mapping[str, ElectraPreTrainedModel], kinds: Mapping[str, Kind]):
        super().__init__()
        first, *others = models.values()
        for model in others:
            model.electra = first.electra
        self.models, self.kinds = nn.ModuleDict(models), dict(kinds)

    @property
    def encoder(self) -> nn.Module:
        return next(iter(self.models.values())).electra

    def forward(self, batches: Mapping[str, Batch], weights: Mapping[str, float]) -> Tensor:
        """The sum over tasks of the task's weight times the sum of its losses, in fp32."""
        loss = torch.zeros((), device=next(self.parameters()).device)
        for name, batch in batches.items():
            kind, text = self.kinds[name], (batch.input_ids, batch.packed, batch.token_type_ids)
            hidden = self.encoder.encode_packed(*text, read=kind.read(batch))
            loss = loss + weights[name] * kind.loss(self.models[name], hidden, batch)
        # Every parameter gets a gradient in every process, so that they can be averaged.
        for name, model in self.models.items():
            if name not in batches:
                loss = loss + 0 * sum(p.float().sum() for p in model.parameters())
        return loss


def load_networks(
    source: str | Path, kinds: Mapping[str, Kind], recipe: Recipe, vocab_size: int, impl: Impl = "auto"
) -> TaskNetworks:
    """A checkpoint's encoder, in fp32, with heads that are new unless the checkpoint has them.

    Args:
        source: a directory, or a model on the Hub.
        vocab_size: size of the tokenizer's vocabulary.

    Raises:
        ValueError: the checkpoint lacks a part of the encoder, or has no room for the vocabulary.
    """
    dropout = {} if recipe.dropout is None else dict.fromkeys(_DROPOUTS, recipe.dropout)
    models = {}
    for name, kind in kinds.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)  # heads are meant to be new
            models[name], loaded = kind.model_class(recipe.head).from_pretrained(
                source,
                dtype=torch.float32,
                impl=impl,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **kind.config_changes(),
                **dropout,
            )
        # A mismatched key is a tuple: the name of the part and both shapes.
        missing = [*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])]
        if missing := sorted(key for key in missing if key.startswith("electra.")):
            raise ValueError(f"{source} must hold an ELECTRA encoder, but lacks {', '.join(missing[:5])}")
        if vocab_size > models[name].config.vocab_size:
            raise ValueError(
                f"{source}: the tokenizer must have at most the model's {models[name].config.vocab_size} entries, got "
                f"{vocab_size}"
            )
    return TaskNetworks(models, kinds)


_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
