"""Sources of `electra-fast convert`: checkpoints of every origin, read as networks of the Hub.

A source is a TensorFlow checkpoint (a prefix, one of its files, its directory), or a model of the Hub: a directory or
a repository with config.json and weights of torch, Keras or Flax, of an ELECTRA or a BERT, or with a preset of
KerasHub. A directory that holds `discriminator` and `generator`, as pre-training leaves it, has two networks.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..disk import read_json_object
from ..hub.files import find_file
from ..hub.names import modern_names, origins
from ..hub.weights import FORMATS, file_names, read_state_dict
from ..tokenizer import ElectraTokenizer
from ..tokenizer.files import TOKENIZER_FILE, VOCAB_FILE, read_vocab
from . import tf1_names
from .keras_hub import is_preset, read_preset, read_tokenizer
from .network import Network, build_network
from .tf1_bundle import Tf1Bundle
from .tf1_names import NetworkName

NETWORKS: tuple[NetworkName, ...] = ("discriminator", "generator")
# Parts of a BERT that an ELECTRA has too, one with the same width for embeddings and encoder.
_BERT_ENCODER = ("electra.embeddings.", "electra.encoder.")


@dataclass
class Checkpoint:
    """All networks of a source, and their tokenizer."""

    networks: list[Network]
    tokenizer: ElectraTokenizer | None
    step: int | None = None
    """Number of updates of pre-training, if the file has it."""


def read_checkpoint(
    source: str | os.PathLike,
    networks: Sequence[NetworkName] | None = None,
    configs: Sequence[str | os.PathLike] = (),
    vocab: str | os.PathLike | None = None,
) -> Checkpoint:
    """Reads networks and tokenizer of a source.

    Args:
        source: a checkpoint of one of the kinds at the top of this file.
        networks: the networks to read. Default: all of the source.
        configs: a config.json for each network, in the order of `networks`; it adds what the tensors do not show and
            must not contradict them. A model of the Hub has its own.
        vocab: a vocab.txt. Default: the tokenizer beside the weights, if there is one.

    Raises:
        FileNotFoundError: no such source, or one of its files is missing.
        ValueError: a damaged file, a tensor that is missing, a config or vocabulary that contradicts the tensors, a
            network that is not there.
        ImportError: a package that the format needs is not installed.
    """
    read = _read_tf1 if _is_tf1(source) else _read_hub
    checkpoint = read(source, networks, configs)
    if vocab is not None:
        checkpoint.tokenizer = tokenizer_of(vocab, checkpoint.networks[0].config.max_position_embeddings)
    if checkpoint.tokenizer is not None:
        for network in checkpoint.networks:
            if checkpoint.tokenizer.n_ids > network.config.vocab_size:
                raise ValueError(
                    f"the vocabulary must fit the {network.name}'s table of {network.config.vocab_size} rows, got "
                    f"{checkpoint.tokenizer.n_ids} entries"
                )
    return checkpoint


def tokenizer_of(vocab: str | os.PathLike, max_length: int) -> ElectraTokenizer:
    """The tokenizer of a vocab.txt; it lower-cases text if the vocabulary has no capital letter outside brackets."""
    entries = read_vocab(vocab)
    tokens = (entry.removeprefix("\ufeff") for entry in entries)  # a byte order mark before [PAD]
    is_lower = all(token == token.lower() for token in tokens if not (token[:1] == "[" and token[-1:] == "]"))
    return ElectraTokenizer(entries, do_lower_case=is_lower, model_max_length=max_length)


# TensorFlow 1


def _is_tf1(source: str | os.PathLike) -> bool:
    path = Path(source)
    if path.is_dir():
        has_hub = any((path / name).is_file() for format in FORMATS for name in file_names(format))
        return not has_hub and any(any(path.glob(pattern)) for pattern in ("*.index", "*.data-*"))
    return path.is_file() or (path.parent.is_dir() and any(path.parent.glob(f"{glob.escape(path.name)}.*")))


def _read_tf1(
    source: str | os.PathLike, networks: Sequence[NetworkName] | None, configs: Sequence[str | os.PathLike]
) -> Checkpoint:
    bundle = Tf1Bundle(source)
    names = bundle.entries.keys()
    try:
        there = tf1_names.networks_of(names)
    except ValueError as error:
        raise ValueError(f"{bundle.prefix} must be a checkpoint of ELECTRA or BERT: {error}") from error
    chosen = _chosen(bundle.prefix, there, networks)
    given = _read_configs(configs, chosen)
    used: set[str] = set()
    for name in there:
        scopes = tf1_names.scopes(names, name)
        used.update(tf1 for tf1 in names if tf1_names.to_hub(tf1, scopes))
    result = [_tf1_network(bundle, name, *given.get(name, (None, {}))) for name in chosen]
    if left := tf1_names.others(names, used):
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        result[0].notes.append(f"no part of pre-training's networks, left out: {', '.join(left[:5])}{more}")
    beside = bundle.prefix.parent / VOCAB_FILE
    tokenizer = tokenizer_of(beside, result[0].config.max_position_embeddings) if beside.is_file() else None
    return Checkpoint(result, tokenizer, _step(bundle) if "global_step" in names else None)


def _step(bundle: Tf1Bundle) -> int:
    step = bundle.read("global_step")
    if step.numel() != 1 or step.is_floating_point():
        raise ValueError(f"{bundle.prefix} must hold a whole number as global_step, got {step.dtype} of shape "
                         f"{list(step.shape)}")  # fmt: skip
    return int(step)


def _tf1_network(bundle: Tf1Bundle, network: NetworkName, config_source: Any, config: dict[str, Any]) -> Network:
    names = bundle.entries.keys()
    scopes = tf1_names.scopes(names, network)
    origin = origins((hub, tf1) for tf1 in names if (hub := tf1_names.to_hub(tf1, scopes)))
    tensors = {hub: tf1_names.transposed(tf1, bundle.read(tf1)) for hub, tf1 in origin.items()}
    return build_network(bundle.prefix, tensors, config, config_source, lambda hub: tf1_names.to_tf1(hub, scopes))


# The Hub


def _read_hub(
    source: str | os.PathLike, networks: Sequence[NetworkName] | None, configs: Sequence[str | os.PathLike]
) -> Checkpoint:
    if configs:
        raise ValueError(f"{source} has a config.json of its own, so no other must be given; got {configs[0]}")
    path = Path(source)
    pair = [name for name in NETWORKS if (path / name / "config.json").is_file()]
    if pair and not (path / "config.json").is_file():
        parts = {name: _read_hub(path / name, None, ()) for name in _chosen(path, pair, networks)}
        for name, part in parts.items():
            part.networks[0].name = name  # two encoders must not both be called so
        return Checkpoint([part.networks[0] for part in parts.values()], next(iter(parts.values())).tokenizer)
    config_path = find_file(source, "config.json")
    config = read_json_object(config_path)
    if is_preset(config):
        network = read_preset(source, config_path)
        tokenizer = read_tokenizer(source, network.config.max_position_embeddings)
    else:
        network = _hub_network(source, config_path, config)
        has_tokenizer = any(find_file(source, name, required=False) for name in (TOKENIZER_FILE, VOCAB_FILE))
        tokenizer = ElectraTokenizer.from_pretrained(source) if has_tokenizer else None
    if networks is not None:
        _chosen(source, [network.name], networks)
    return Checkpoint([network], tokenizer)


def _hub_network(source: str | os.PathLike, config_path: Path, config: dict[str, Any]) -> Network:
    model_type = config.get("model_type", "electra")
    if model_type not in ("electra", "bert"):
        raise ValueError(f"{config_path} must be of an ELECTRA or a BERT, got model_type {model_type!r}")
    weights, tensors = _hub_tensors(source)
    tensors = modern_names({name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)})
    left: list[str] = []
    if model_type == "bert":
        origin = origins((f"electra.{name.removeprefix('bert.')}", name) for name in tensors)
        tensors = {ours: tensors[name] for ours, name in origin.items()}
        left = [name.removeprefix("electra.") for name in tensors if not name.startswith(_BERT_ENCODER)]
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(_BERT_ENCODER)}
    elif not any(name.startswith("electra.") for name in tensors):
        tensors = {f"electra.{name}": tensor for name, tensor in tensors.items()}
    network = build_network(weights, tensors, config, config_path)
    if left:
        network.notes.append(f"no part of an ELECTRA, left out: {', '.join(left)}")
    return network


def _hub_tensors(source: str | os.PathLike) -> tuple[Path, dict[str, Tensor]]:
    find = partial(find_file, source, required=False)
    if (found := read_state_dict(find, FORMATS)) is None:
        raise FileNotFoundError(f"{source} must hold weights: {', '.join(file_names(format)[0] for format in FORMATS)}")
    return found


# Both kinds of source


def _chosen(source: Any, there: Sequence[str], wanted: Sequence[NetworkName] | None) -> Sequence[Any]:
    if wanted is None:
        return there
    if absent := [name for name in wanted if name not in there]:
        raise ValueError(f"{source} must hold a {absent[0]}, got: {', '.join(there)}")
    return wanted


def _read_configs(
    configs: Sequence[str | os.PathLike], networks: Sequence[NetworkName]
) -> dict[NetworkName, tuple[str | os.PathLike, dict[str, Any]]]:
    if configs and len(configs) != len(networks):
        raise ValueError(f"a config must be given for each of {', '.join(networks)}, got {len(configs)}")
    return {name: (path, read_json_object(path)) for name, path in zip(networks, configs, strict=False)}
