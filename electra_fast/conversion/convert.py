"""Converts a checkpoint of any origin to directories of the Hub or of KerasHub, or to a TensorFlow checkpoint.

The output is whole or absent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ..disk import replaced
from ..hub.weights import write_checkpoint
from ..model.backbone import ElectraModel
from ..model.modeling import ElectraForMaskedLM, ElectraForPreTraining
from . import tf1_names
from .keras_hub import write_preset
from .network import Network
from .sources import Checkpoint, read_checkpoint
from .tf1_bundle import write_bundle
from .tf1_names import NetworkName

_TF1_NAME = "model.ckpt"
_TABLES = "electra.embeddings."


def convert_to_hub(
    source: str | os.PathLike,
    out: str | os.PathLike,
    networks: Sequence[NetworkName] | None = None,
    configs: Sequence[str | os.PathLike] = (),
    vocab: str | os.PathLike | None = None,
) -> Checkpoint:
    """Writes config.json, model.safetensors and, if there is one, the tokenizer of each network.

    One network is written into `out`, two into `out/discriminator` and `out/generator`. The other arguments and their
    errors are those of `sources.read_checkpoint`.

    Raises:
        FileExistsError: `out` is there already.
    """
    with _new_directory(out) as directory:
        checkpoint = read_checkpoint(source, networks, configs, vocab)
        for network, place in _places(checkpoint, directory):
            write_checkpoint(place, network.tensors, network.config.to_json_string())
            if checkpoint.tokenizer is not None:
                checkpoint.tokenizer.save_pretrained(place)
    return checkpoint


def convert_to_keras_hub(
    source: str | os.PathLike,
    out: str | os.PathLike,
    networks: Sequence[NetworkName] | None = None,
    configs: Sequence[str | os.PathLike] = (),
    vocab: str | os.PathLike | None = None,
) -> Checkpoint:
    """Writes the encoder of each network and the tokenizer as a preset for KerasHub's `ElectraBackbone.from_preset`.

    Keras is not needed. KerasHub computes GELU by tanh, and has no class for the heads, which are left out; the
    networks' notes tell. Arguments and places are those of `convert_to_hub`.

    Raises:
        FileExistsError: `out` is there already.
        ImportError: h5py is not installed.
        ValueError: a task's head, or a network or a vocabulary that KerasHub's classes cannot be, besides what
            `sources.read_checkpoint` raises.
    """
    with _new_directory(out) as directory:
        checkpoint = read_checkpoint(source, networks, configs, vocab)
        for network, place in _places(checkpoint, directory):
            write_preset(place, network, checkpoint.tokenizer)
    return checkpoint


def convert_to_tf1(
    source: str | os.PathLike,
    out: str | os.PathLike,
    networks: Sequence[NetworkName] | None = None,
    configs: Sequence[str | os.PathLike] = (),
    vocab: str | os.PathLike | None = None,
) -> Checkpoint:
    """Writes one TensorFlow checkpoint of all networks, `out/model.ckpt`, with the configs and vocab.txt beside it.

    The generator shares the discriminator's embeddings where they are equal. The checkpoint is for fine-tuning: it has
    no variables of an optimizer. The arguments are those of `convert_to_hub`.

    Raises:
        FileExistsError: `out` is there already.
        ValueError: a network that such checkpoints do not hold, besides what `sources.read_checkpoint` raises.
    """
    with _new_directory(out) as directory:
        checkpoint = read_checkpoint(source, networks, configs, vocab)
        write_bundle(directory / _TF1_NAME, tf1_variables(checkpoint.networks))
        # TensorFlow's `latest_checkpoint` looks for this file.
        (directory / "checkpoint").write_text(f'model_checkpoint_path: "{_TF1_NAME}"\n', encoding="utf-8")
        for network in checkpoint.networks:
            name = f"{network.name}_config.json"
            (directory / name).write_text(network.config.to_json_string(), encoding="utf-8")
        if checkpoint.tokenizer is not None:
            checkpoint.tokenizer.save_vocabulary(directory)
    return checkpoint


def tf1_variables(networks: Sequence[Network]) -> dict[str, Tensor]:
    """The variables of one TensorFlow checkpoint of a discriminator or an encoder, a generator, or both.

    Raises:
        ValueError: a task's head, a generator without its head, or one whose output table is not its word table.
    """
    variables: dict[str, Tensor] = {}
    tables: dict[str, Tensor] = {}
    for network in networks:
        if network.model_class not in (ElectraForPreTraining, ElectraForMaskedLM, ElectraModel):
            raise ValueError(
                f"a TensorFlow checkpoint holds networks of pre-training, got {network.model_class.__name__}"
            )
        tensors = network.tensors
        if network.model_class is ElectraModel:
            tensors = {f"electra.{name}": tensor for name, tensor in tensors.items()}
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(_TABLES)}
        if network.model_class is ElectraForMaskedLM:
            is_shared = not tables or _are_equal(own, tables)
            scopes = tf1_names.network_scopes("generator", "generator", "electra" if is_shared else "generator")
        elif tables:
            raise ValueError("a TensorFlow checkpoint tells a generator by its head, got two networks without that")
        else:
            scopes, tables = tf1_names.network_scopes("discriminator", "electra", "electra"), own
        for name, tensor in tensors.items():
            tf1 = tf1_names.to_tf1(name, scopes)
            variables[tf1] = tf1_names.transposed(tf1, tensor)
    return variables


def _are_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        theirs[name].shape == tensor.shape and torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
    )


def _places(checkpoint: Checkpoint, directory: Path) -> Iterator[tuple[Network, Path]]:
    """The networks and their directories: `directory` itself for one, directories in it for two."""
    for network in checkpoint.networks:
        yield network, directory if len(checkpoint.networks) == 1 else directory / network.name


@contextmanager
def _new_directory(path: str | os.PathLike) -> Iterator[Path]:
    """A directory to write into, which then gets its name; nothing is left of it after an error."""
    _check_new(path)
    with replaced(path) as directory:
        yield directory
        _check_new(path)  # others may have made it meanwhile


def _check_new(path: str | os.PathLike) -> None:
    if Path(path).exists():
        raise FileExistsError(f"the output must be a new directory, {path} is there already")
