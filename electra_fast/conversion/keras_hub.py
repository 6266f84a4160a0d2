"""Presets of KerasHub's ElectraBackbone, written and read without Keras.

    config.json, metadata.json         the backbone, as Keras serializes it
    model.weights.h5                   its variables, by the names of `keras_hub_names`
    tokenizer.json                     the tokenizer's options
    assets/tokenizer/vocabulary.txt    its tokens, one a line

KerasHub's GELU is the tanh approximation. Its backbone has a pooler, which gets fresh values: those of KerasHub's own
presets are fresh, too.

Sources: KerasPresetSaver, ElectraBackbone and ElectraTokenizer of keras-hub 0.32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from tokenizers.normalizers import NFD, Sequence, StripAccents
from torch import Tensor, nn

from ..disk import made, read_json_object
from ..hub.files import find_file
from ..hub.foreign_weights import hdf5_tensors, import_h5py
from ..hub.names import origins
from ..model.backbone import ElectraModel
from ..model.modeling import ElectraForMaskedLM, ElectraForPreTraining
from ..ops.reference import ACTIVATIONS, gelu_tanh, is_erf_gelu
from ..tokenizer import ElectraTokenizer
from ..tokenizer.files import read_vocab, write_vocab
from .keras_hub_names import POOLER, as_keras_hub, as_torch, to_keras_hub, to_torch
from .network import Network, build_network

CONFIG_FILE, WEIGHTS_FILE, METADATA_FILE = "config.json", "model.weights.h5", "metadata.json"
TOKENIZER_FILE, VOCABULARY_FILE = "tokenizer.json", "assets/tokenizer/vocabulary.txt"
_BACKBONE, _TOKENIZER = "ElectraBackbone", "ElectraTokenizer"
_LAYOUT = {"keras_version": "3.15.1", "keras_hub_version": "0.32.0"}  # the versions that load what is written here
_NAMED_TOKENS = ("[CLS]", "[SEP]", "[PAD]", "[MASK]")  # the tokenizer's own, with these names
_STRIPPED = Sequence([NFD(), StripAccents()])  # a text as the tokenizer looks for special tokens in it
_EPSILON = 1e-12  # the backbone's, in every LayerNorm
_TANH_GELU = "gelu_pytorch_tanh"

# Names of a config's fields in KerasHub.
_FIELDS = {
    "vocab_size": "vocab_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_size": "hidden_dim",
    "embedding_size": "embedding_dim",
    "intermediate_size": "intermediate_dim",
    "hidden_dropout_prob": "dropout",
    "max_position_embeddings": "max_sequence_length",
    "type_vocab_size": "num_segments",
}


# Writing


def write_preset(directory: Path, network: Network, tokenizer: ElectraTokenizer | None) -> None:
    """Writes the encoder of a network, in fp32, and its tokenizer; what KerasHub has otherwise becomes notes.

    Raises:
        ValueError: a task's head, a network or a vocabulary that KerasHub's classes cannot be.
        ImportError: h5py is not installed.
    """
    network.notes += _check_network(network)
    config = network.config
    named = {name.removeprefix("electra."): tensor.float() for name, tensor in network.tensors.items()}
    tensors = {name: tensor for name, tensor in named.items() if name.startswith(("embeddings", "encoder."))}
    has_projection = "embeddings_project.weight" in tensors
    tensors |= _fresh_pooler(config.hidden_size)
    with import_h5py(WEIGHTS_FILE).File(made(directory) / WEIGHTS_FILE, "w") as file:
        for name, tensor in tensors.items():
            theirs = as_keras_hub(name, tensor, config.num_attention_heads)
            file[to_keras_hub(name, has_projection)] = theirs.contiguous().numpy()
    fields = {theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()}
    _write_object(directory / CONFIG_FILE, _BACKBONE, "electra_backbone", "float32", fields)
    metadata = {
        **_LAYOUT,
        "parameter_count": sum(tensor.numel() for tensor in tensors.values()),
        "date_saved": datetime.now().strftime("%Y-%m-%d@%H:%M:%S"),
        "tasks": [],
    }
    (directory / METADATA_FILE).write_text(json.dumps(metadata, indent=4), encoding="utf-8")
    if tokenizer is not None:
        network.notes += _write_tokenizer(directory, tokenizer)


def _check_network(network: Network) -> list[str]:
    """Refuses what an ElectraBackbone cannot be; returns notes on what it has otherwise."""
    config = network.config
    if network.model_class not in (ElectraForPreTraining, ElectraForMaskedLM, ElectraModel):
        raise ValueError(
            f"a network must be an ElectraModel or one of pre-training for KerasHub's {_BACKBONE}, got an "
            f"{network.model_class.__name__}: save its encoder as an ElectraModel, and convert that"
        )
    is_tanh = ACTIVATIONS[config.hidden_act] is gelu_tanh
    for field, expected, is_right in (
        ("hidden_act", "a GELU", is_tanh or is_erf_gelu(config.hidden_act)),
        ("layer_norm_eps", _EPSILON, config.layer_norm_eps == _EPSILON),
        ("is_decoder", False, not config.is_decoder),
    ):
        if not is_right:
            raise ValueError(f"{field} must be {expected} for KerasHub's {_BACKBONE}, got {getattr(config, field)}")
    notes = ["pooled_dense has fresh values: an ELECTRA has no pooler"]
    if network.model_class is not ElectraModel:
        notes.append(f"the head is left out: {_BACKBONE} is the encoder alone")
    if not is_tanh:
        notes.append(f"hidden_act is {config.hidden_act} with erf, and KerasHub computes its tanh approximation")
    if config.attention_probs_dropout_prob != config.hidden_dropout_prob:
        notes.append(f"attention's dropout becomes that of hidden states, {config.hidden_dropout_prob}")
    return notes


def _fresh_pooler(hidden_size: int) -> dict[str, Tensor]:
    """Values of KerasHub's own distribution, the same for each conversion."""
    weight = torch.empty(hidden_size, hidden_size)
    nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04, generator=torch.Generator().manual_seed(0))
    return {f"{POOLER}.weight": weight, f"{POOLER}.bias": torch.zeros(hidden_size)}


def _write_tokenizer(directory: Path, tokenizer: ElectraTokenizer) -> list[str]:
    """Writes the tokenizer's files; returns notes on what KerasHub has otherwise."""
    vocab, backend = tokenizer.get_vocab(), tokenizer.backend_tokenizer
    added, is_lower = tokenizer.added_tokens_decoder.values(), backend.normalizer.lowercase
    strips = is_lower if backend.normalizer.strip_accents is None else backend.normalizer.strip_accents
    if absent := [token for token in _NAMED_TOKENS if token not in vocab]:
        raise ValueError(
            f"the vocabulary must hold {', '.join(_NAMED_TOKENS)} for KerasHub's {_TOKENIZER}, got one without "
            + ", ".join(absent)
        )
    accented = [t.content for t in added if strips and _STRIPPED.normalize_str(t.content) != t.content]
    unsplit = [t.content for t in added if tokenizer.split_special_tokens and not t.special]
    for tokens, rule, odd in (
        ("tokens", "not end with space", [t for t in vocab if t != t.rstrip() or "\r" in t or "\n" in t]),
        ("added tokens", "have no accents, where those of texts are stripped", accented),
        ("added tokens", "be special, where split_special_tokens is true", unsplit),
    ):
        if odd:
            raise ValueError(f"{tokens} of KerasHub's {_TOKENIZER} must {rule}, got {odd[0]!r}")
    path = directory / VOCABULARY_FILE
    write_vocab(vocab, made(path.parent) / path.name)
    options = {
        "config_file": TOKENIZER_FILE,
        "vocabulary": None,
        "sequence_length": None,
        "lowercase": is_lower,
        "strip_accents": strips,
        "split": True,
        "split_on_cjk": backend.normalizer.handle_chinese_chars,
        "suffix_indicator": backend.model.continuing_subword_prefix,
        "oov_token": backend.model.unk_token,
        # Alternatives of a regular expression, of which the first that fits counts.
        "special_tokens": sorted((token.content for token in added), key=len, reverse=True),
        "special_tokens_in_strings": not tokenizer.split_special_tokens,
    }
    _write_object(directory / TOKENIZER_FILE, _TOKENIZER, "electra_tokenizer", "int32", options)
    loose = sorted(token.content for token in added if token.single_word or (token.normalized and is_lower))
    note = "added tokens are found only as they are written, and inside words, too: "
    return [note + ", ".join(loose)] if loose else []


def _write_object(path: Path, class_name: str, name: str, dtype: str, fields: Mapping[str, Any]) -> None:
    """Writes an object of KerasHub as Keras serializes it."""
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": dtype}, "registered_name": None}
    content = {
        "module": f"keras_hub.src.models.electra.{name}",
        "class_name": class_name,
        "config": {"name": name, "trainable": True, "dtype": policy, **fields},
        "registered_name": _registered(class_name),
    }
    path.write_text(json.dumps(content, indent=4), encoding="utf-8")


def _registered(class_name: str) -> str:
    return f"keras_hub>{class_name}"


# Reading


def is_preset(config: Mapping[str, Any]) -> bool:
    """Tells whether a config.json is of Keras."""
    return "registered_name" in config


def read_preset(source: Any, config_path: Path) -> Network:
    """The encoder of a preset, an ElectraModel with KerasHub's activation.

    Raises:
        FileNotFoundError: no model.weights.h5.
        ValueError: another class than ElectraBackbone, a damaged file, a config that contradicts the tensors.
        ImportError: h5py is not installed.
    """
    fields = _read_object(config_path, _BACKBONE)
    path = find_file(source, WEIGHTS_FILE)
    found = hdf5_tensors(path)
    has_projection = any(name.startswith("layers/dense_1/") for name in found)
    names = origins((to_torch(theirs, has_projection), theirs) for theirs in found)
    tensors = {}
    for ours, theirs in names.items():
        try:
            tensors[f"electra.{ours}"] = as_torch(ours, found[theirs], fields.get("num_heads"))
        except ValueError as error:
            raise ValueError(f"{path} contradicts {config_path}: {theirs}: {error}") from error
    config = {ours: fields[theirs] for ours, theirs in _FIELDS.items() if theirs in fields}
    config |= {"hidden_act": _TANH_GELU, "layer_norm_eps": _EPSILON}
    if "dropout" in fields:
        config["attention_probs_dropout_prob"] = fields["dropout"]
    return build_network(
        path, tensors, config, config_path, lambda name: to_keras_hub(name.removeprefix("electra."), has_projection)
    )


def read_tokenizer(source: Any, max_length: int) -> ElectraTokenizer | None:
    """The tokenizer of a preset, or None if it has none."""
    if (path := find_file(source, TOKENIZER_FILE, required=False)) is None:
        return None
    options, vocab = _read_object(path, _TOKENIZER), read_vocab(find_file(source, VOCABULARY_FILE))
    special = options.get("special_tokens") or []
    if not isinstance(special, list):
        raise ValueError(f"{path} must have a list as special_tokens, got {special!r:.80}")
    added = [AddedToken(token, special=True, normalized=False) for token in vocab if token in special]
    return ElectraTokenizer(
        vocab,
        do_lower_case=options.get("lowercase", False),
        strip_accents=options.get("strip_accents", False),
        tokenize_chinese_chars=options.get("split_on_cjk", True),
        model_max_length=max_length,
        added_tokens_decoder={vocab[token.content]: token for token in added},
    )


def _read_object(path: Path, class_name: str) -> dict[str, Any]:
    """The fields of an object of KerasHub; raises ValueError if the file is of another class."""
    content = read_json_object(path)
    name, fields = content.get("registered_name"), content.get("config")
    if name != _registered(class_name) or not isinstance(fields, dict):
        raise ValueError(f"{path} must be of KerasHub's {class_name}, got {name!r:.80}")
    return fields
