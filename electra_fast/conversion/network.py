"""A network between two forms: its config, found from its tensors, and the check that it is whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..hub.weights import differing_ties, fit, merge_ties
from ..model.backbone import ElectraModel
from ..model.base import ElectraPreTrainedModel
from ..model.config import ElectraConfig
from ..model.modeling import (
    ElectraForMaskedLM,
    ElectraForMultipleChoice,
    ElectraForPreTraining,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
)
from ..model.pretrained import refuse_quantized
from ..model.without_values import WithoutValues

# Names of a tensor that only this class's head has; the first that a checkpoint holds decides.
_CLASS_OF_HEAD: dict[str, type[ElectraPreTrainedModel]] = {
    "discriminator_predictions.": ElectraForPreTraining,
    "generator_predictions.": ElectraForMaskedLM,
    "classifier.out_proj.": ElectraForSequenceClassification,
    "sequence_summary.": ElectraForMultipleChoice,
    "qa_outputs.": ElectraForQuestionAnswering,
    "classifier.": ElectraForTokenClassification,
}
_LAYER = re.compile(r"electra\.encoder\.layer\.(\d+)\.")


@dataclass
class Network:
    """A network as the Hub has it: the contents of its directory."""

    model_class: type[ElectraPreTrainedModel]
    config: ElectraConfig
    tensors: dict[str, Tensor]
    """Tensors by the names of `model_class`."""
    notes: list[str] = field(default_factory=list)
    """Lines for the user: parts that were left out, sizes that were assumed."""
    name: str = ""
    """Name of the network. Default: discriminator or generator, or encoder for any other class."""

    def __post_init__(self) -> None:
        names = {ElectraForPreTraining: "discriminator", ElectraForMaskedLM: "generator"}
        self.name = self.name or names.get(self.model_class, "encoder")

    def __str__(self) -> str:
        c, n = self.config, sum(tensor.numel() for tensor in self.tensors.values())
        return (
            f"{self.model_class.__name__}: {c.num_hidden_layers} layers, hidden {c.hidden_size}, heads "
            f"{c.num_attention_heads}, feed-forward {c.intermediate_size}, embeddings {c.embedding_size}, vocabulary "
            f"{c.vocab_size}, positions {c.max_position_embeddings}; {len(self.tensors)} tensors, {n:,} parameters"
        )


def build_network(
    source: Any,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    config_source: Any,
    their_name: Callable[[str], str] = str,
) -> Network:
    """Makes a network of tensors under the Hub's names, with the prefix `electra.`.

    The head decides the network's class, and the tensors its sizes. They do not show the number of attention heads: it
    is the config's, or else Google's rule, one for every 64 of the hidden size (get_generator_config in
    run_pretraining.py of google-research/electra).

    Args:
        source: name of the file, for errors.
        config: the known fields of the config, possibly none; contradictions are refused.
        config_source: name of the config, for errors.
        their_name: function that gives a tensor's name in the file, for errors.

    Raises:
        ValueError: a tensor that is missing or has another shape than the others imply, a config that contradicts them.
    """
    model_class = next(
        (cls for head, cls in _CLASS_OF_HEAD.items() if any(name.startswith(head) for name in tensors)), ElectraModel
    )
    sizes = _sizes(source, tensors, their_name)
    wrong = [
        f"{name} is {config[name]} there and {size} in the tensors"
        for name, size in sizes.items()
        if config.get(name) not in (None, size)
    ]
    if wrong:
        raise ValueError(f"{config_source} contradicts {source}: {'; '.join(wrong)}")
    known = {name: value for name, value in config.items() if name not in ("model_type", "architectures", "dtype")}
    heads = {"num_attention_heads": max(1, sizes["hidden_size"] // 64)}
    try:
        full = ElectraConfig(**{**heads, **known, **sizes})
    except ValueError as error:
        raise ValueError(f"{config_source or source}: {error}") from error
    refuse_quantized(full, config_source)

    with torch.device("meta"), WithoutValues():
        model = model_class(full, impl="torch")
    if differing_ties(tensors, model_class._tied_weights_keys):
        full.tie_word_embeddings = False
    ties = model_class._tied_weights_keys if full.tie_word_embeddings else {}
    expected = {name: tensor for name, tensor in model.state_dict().items() if name not in ties}
    fitted = fit(merge_ties(tensors, ties), expected, "electra.")

    def theirs(name: str) -> str:
        return their_name(name if name in tensors or model_class is not ElectraModel else f"electra.{name}")

    if fitted.missing:
        raise ValueError(
            f"{source} must hold all of an {model_class.__name__}, it lacks {_join(fitted.missing, theirs)}"
        )
    if fitted.mismatched:
        name, found, wanted = fitted.mismatched[0]
        raise ValueError(
            f"{source} contradicts itself: {theirs(name)} is {list(found)} as the Hub has it, and config and other "
            f"tensors ask for {list(wanted)}"
        )
    full.architectures = [model_class.__name__]
    full.dtype = next(str(tensor.dtype) for tensor in fitted.tensors.values())
    notes = []
    if "num_attention_heads" not in known:
        notes.append(f"heads: {full.num_attention_heads}, by Google's rule, one for every 64 of the hidden size")
    if fitted.unexpected:
        notes.append(f"no part of an {model_class.__name__}, left out: {_join(fitted.unexpected, theirs)}")
    return Network(model_class, full, fitted.tensors, notes)


def _sizes(source: Any, tensors: Mapping[str, Tensor], their_name: Callable[[str], str]) -> dict[str, int]:
    """The fields of a config that follow from the tensors."""

    def shape(name: str) -> torch.Size:
        if name not in tensors:
            raise ValueError(f"{source} must hold the tensors of an ELECTRA network, it lacks {their_name(name)}")
        if tensors[name].ndim != 2:
            raise ValueError(f"{their_name(name)} of {source} must have 2 dimensions, got {list(tensors[name].shape)}")
        return tensors[name].shape

    # Names may hold any number, and a network has as many layers as the highest says.
    layers = {match[1] for name in tensors if (match := _LAYER.match(name))}
    if absent := next((number for number in map(str, range(len(layers))) if number not in layers), None):
        lacks = their_name(f"electra.encoder.layer.{absent}.intermediate.dense.weight")
        raise ValueError(f"{source} must hold layers from 0 on without gaps, got {len(layers)}, and lacks {lacks}")
    vocab_size, embedding_size = shape("electra.embeddings.word_embeddings.weight")
    intermediate_size, hidden_size = shape("electra.encoder.layer.0.intermediate.dense.weight")
    return {
        "vocab_size": vocab_size,
        "embedding_size": embedding_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": len(layers),
        "intermediate_size": intermediate_size,
        "max_position_embeddings": shape("electra.embeddings.position_embeddings.weight")[0],
        "type_vocab_size": shape("electra.embeddings.token_type_embeddings.weight")[0],
    }


def _join(names: list[str], rename: Callable[[str], str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(rename, names[:5])) + more
