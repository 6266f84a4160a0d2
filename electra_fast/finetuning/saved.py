"""A fine-tuned network on disk. finetuning.json holds what config.json cannot say about the network's kind."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..disk import read_json, written
from ..hub.files import find_file
from ..model.base import ElectraPreTrainedModel
from ..model.config import ElectraConfig
from ..model.modeling import (
    ElectraForMultipleChoice,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
)
from ..model.pretrained import load_complete
from ..ops import Impl
from ..tokenizer import ElectraTokenizer
from .kinds.kind import Kind
from .kinds.paper_heads import ElectraPaperForQuestionAnswering, ElectraPaperForSequenceClassification
from .kinds.table import make_kind

FILE_NAME = "finetuning.json"

# The kinds of task that each class of network can have.
_OF_TEXT = ("classification", "regression", "multilabel")
_NETWORKS: dict[type[ElectraPreTrainedModel], tuple[str, ...]] = {
    ElectraForSequenceClassification: _OF_TEXT,
    ElectraPaperForSequenceClassification: _OF_TEXT,
    ElectraForTokenClassification: ("tagging",),
    ElectraForMultipleChoice: ("choice",),
    ElectraForQuestionAnswering: ("qa",),
    ElectraPaperForQuestionAnswering: ("qa",),
}
_PROBLEM_TYPES = {
    "single_label_classification": "classification",
    "regression": "regression",
    "multi_label_classification": "multilabel",
}


@dataclass(frozen=True)
class Finetuned:
    """A fine-tuned network with all that is needed to use it.

    Attributes:
        model: the network, in eval mode.
        max_length: the longest row, in tokens.
    """

    model: ElectraPreTrainedModel
    kind: Kind
    tokenizer: ElectraTokenizer
    max_length: int


def save_finetuned(
    directory: str | os.PathLike,
    model: ElectraPreTrainedModel,
    kind_name: str,
    options: Mapping[str, Any],
    max_length: int,
    tokenizer: ElectraTokenizer,
) -> None:
    """Writes a directory for `load_finetuned`; transformers can load it too, if it knows the head.

    Args:
        kind_name: a key of `kinds.table.KINDS`.
        options: the arguments of the kind's class, without its labels: config.json has those.
        max_length: the longest row, in tokens.
    """
    directory = Path(directory)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    content = {"kind": kind_name, "options": dict(options), "max_length": max_length}
    with written(directory / FILE_NAME) as file:
        file.write(json.dumps(content, indent=2) + "\n")


def load_finetuned(
    path: str | os.PathLike,
    *,
    device: str | torch.device = "auto",
    impl: Impl = "auto",
    dtype: torch.dtype | None = None,
) -> Finetuned:
    """A fine-tuned network of ours or of transformers, from a directory or the Hub.

    Without a finetuning.json, the kind follows from config.json. If that has no `problem_type` either, the number of
    labels decides: one is regression, more are classes.

    Args:
        device: "auto" takes CUDA if there is a GPU.
        dtype: type of the weights; None keeps the type in which they were saved.

    Raises:
        FileNotFoundError: there is no such model, or one of its files is missing.
        ValueError: the network is not fine-tuned or lacks its head, or files are damaged.
    """
    config, model_class, kind, saved = _read_kind(path)
    tokenizer = ElectraTokenizer.from_pretrained(path)
    if tokenizer.n_ids > config.vocab_size:
        raise ValueError(
            f"{path}: the tokenizer must have at most the model's {config.vocab_size} tokens, got {tokenizer.n_ids}"
        )
    longest = config.max_position_embeddings
    max_length = min(tokenizer.model_max_length, longest) if saved is None else saved["max_length"]
    if not 0 < max_length <= longest:
        raise ValueError(f"{path}: max_length in {FILE_NAME} must be from 1 to {longest}, got {max_length}")

    model = load_complete(
        model_class,
        path,
        f"a fine-tuned {model_class.__name__}",
        config=config,
        device_map=device,
        impl=impl,
        dtype="auto" if dtype is None else dtype,
    )
    return Finetuned(model, kind, tokenizer, max_length)


def load_kind(path: str | os.PathLike) -> Kind:
    """The kind of a fine-tuned network, without its weights; arguments and errors are those of `load_finetuned`."""
    return _read_kind(path)[2]


def _read_kind(
    path: str | os.PathLike,
) -> tuple[ElectraConfig, type[ElectraPreTrainedModel], Kind, dict[str, Any] | None]:
    """The config, the network's class, its kind, and the content of finetuning.json if there is one."""
    config = ElectraConfig.from_pretrained(path)
    model_class = _model_class(config, path)
    saved = _read_saved(path)
    name = _kind_name(config, model_class, path) if saved is None else saved["kind"]
    if name not in _NETWORKS[model_class]:
        known = " or ".join(_NETWORKS[model_class])
        raise ValueError(f"{path}: the kind of an {model_class.__name__} must be {known}, got {name!r} in {FILE_NAME}")
    return config, model_class, make_kind(name, _labels(config), saved and saved["options"]), saved


def _model_class(config: ElectraConfig, path: str | os.PathLike) -> type[ElectraPreTrainedModel]:
    names = config.architectures or []
    known = {model_class.__name__: model_class for model_class in _NETWORKS}
    if not names or names[0] not in known:
        raise ValueError(
            f"{path} must hold a fine-tuned network, one of {', '.join(known)}; its config.json says "
            f"{names[0] if names else 'nothing of its architecture'}"
        )
    return known[names[0]]


def _kind_name(config: ElectraConfig, model_class: type[ElectraPreTrainedModel], path: str | os.PathLike) -> str:
    if _NETWORKS[model_class] != _OF_TEXT:
        return _NETWORKS[model_class][0]
    if config.problem_type is None:
        return "regression" if config.num_labels == 1 else "classification"
    if config.problem_type not in _PROBLEM_TYPES:
        known = ", ".join(_PROBLEM_TYPES)
        raise ValueError(f"{path}: problem_type in config.json must be one of {known}, got {config.problem_type!r}")
    name = _PROBLEM_TYPES[config.problem_type]
    if name == "regression" and config.num_labels != 1:
        raise ValueError(f"{path}: a network for regression must have one output, got {config.num_labels}")
    return name


def _labels(config: ElectraConfig) -> tuple[str, ...]:
    return tuple(label for _, label in sorted(config.id2label.items()))


def _read_saved(path: str | os.PathLike) -> dict[str, Any] | None:
    """The content of finetuning.json; None if there is no such file."""
    file = find_file(path, FILE_NAME, required=False)
    if file is None:
        return None
    saved = read_json(file)
    types = {"kind": str, "options": dict, "max_length": int}
    is_right = isinstance(saved, dict) and all(isinstance(saved.get(key), type_) for key, type_ in types.items())
    if not is_right:
        raise ValueError(f"{file} must hold an object with the keys kind, options and max_length, got {saved!r:.200}")
    return saved
