"""Pre-training that starts from checkpoints: a recipe with their shapes, and a model with their weights.

A checkpoint is a directory or a repository on the Hub that `hub/files.py` can read: google/electra-small-generator and
google/electra-small-discriminator, or a network that transformers or an earlier run wrote.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..hub.files import find_file
from ..model.config import ElectraConfig
from ..model.layers import ElectraEmbeddings
from ..model.modeling import ElectraForMaskedLM, ElectraForPreTraining
from ..tokenizer import ElectraTokenizer
from ..tokenizer.files import TOKENIZER_FILE, VOCAB_FILE
from .extend_vocab import extended_rows, pieces_of_new
from .networks.objective import ElectraPretrainingModel
from .networks.options import NetworkName
from .recipes import Recipe

Source = str | os.PathLike

_CLASSES = {"generator": ElectraForMaskedLM, "discriminator": ElectraForPreTraining}
# Fields in which a checkpoint and the network loaded from it must agree, besides the vocabulary.
_SHAPE = (
    "embedding_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "hidden_act",
    "layer_norm_eps",
)
# Fields of a recipe that a config has too.
_FULL_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "embedding_size",
    "max_position_embeddings",
)
_EMBEDDINGS = "electra.embeddings."
_WORD_TABLE, _HEAD_TABLE = f"{_EMBEDDINGS}word_embeddings.weight", "generator_lm_head.weight"
# Tensors with a row for each entry of the vocabulary.
_VOCABULARY_ROWS = (_WORD_TABLE, _HEAD_TABLE, "generator_lm_head.bias")


def pretrained_tokenizer(generator: Source | None = None, discriminator: Source | None = None) -> ElectraTokenizer:
    """The checkpoints' tokenizer: the discriminator's if both are given, and `load_pretrained` compares the two."""
    source = generator if discriminator is None else discriminator
    if source is None:
        raise ValueError("a generator or a discriminator must be given, got neither")
    return ElectraTokenizer.from_pretrained(source)


def fitted_recipe(
    recipe: Recipe,
    generator: Source | None = None,
    discriminator: Source | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe with the shapes of the checkpoints.

    A network without a checkpoint has the recipe's size: a generator its share of the discriminator, a discriminator
    its widths.

    Args:
        changes: other fields to replace, which win over the checkpoints'.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: shapes that no recipe has or that contradict the changes, a checkpoint of a network that is not in
            the recipe.
    """
    changes, configs = dict(changes or {}), _configs(generator, discriminator)
    # One replacement for all fields: with the changes alone the recipe may be invalid.
    fitted = replace(recipe, **{**_sizes({**vars(recipe), **changes}, configs), **changes})
    _check_shapes(fitted, configs)
    return fitted


def load_pretrained(
    model: ElectraPretrainingModel,
    recipe: Recipe,
    tokenizer: ElectraTokenizer,
    generator: Source | None = None,
    discriminator: Source | None = None,
) -> None:
    """Loads checkpoints into a model that `build_model` made from this recipe and tokenizer.

    With shared embeddings (es) or a tied generator the discriminator's weights win, with a warning if the generator's
    differ. With gdes the difference is set so that both are kept. A generator without a checkpoint starts from the
    discriminator's embeddings, unless nothing is shared (nes). A head that a checkpoint lacks stays fresh, with a
    warning; nothing else may be missing.

    The tokenizer's first entries must be the checkpoint's. Further entries get rows in the word table and in the
    generator's bias from their pieces (`extended_rows`); rows of the checkpoint without an entry are left out.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: a shape that is not the recipe's, a vocabulary that is not the tokenizer's, a checkpoint that lacks
            more than its head, a generator whose output is not tied to its word table.
    """
    _check_shapes(recipe, _configs(generator, discriminator))
    given = {"generator": generator, "discriminator": discriminator}
    states = {name: _read(name, source, tokenizer) for name, source in given.items() if source is not None}
    if len(states) == 2:
        _tell_what_loses(recipe, states)
    elif "discriminator" in states and "generator" in model.networks and recipe.embedding_sharing == "gdes":
        embeddings = next(module for module in model.generator.modules() if isinstance(module, ElectraEmbeddings))
        own = {k.removeprefix(_EMBEDDINGS): v for k, v in states["discriminator"].items() if k.startswith(_EMBEDDINGS)}
        embeddings.load_state_dict(own)
    for name, state in states.items():
        model.load_network(name, state)


def _configs(generator: Source | None, discriminator: Source | None) -> dict[NetworkName, ElectraConfig]:
    given = {"generator": generator, "discriminator": discriminator}
    return {name: ElectraConfig.from_pretrained(source) for name, source in given.items() if source is not None}


def _sizes(options: Mapping[str, Any], configs: Mapping[NetworkName, ElectraConfig]) -> dict[str, Any]:
    """The recipe's fields that give networks the shapes of the configs; `options` are the recipe's present fields."""
    generator, discriminator = configs.get("generator"), configs.get("discriminator")
    is_one_network = options["objective"] == "mlm" or options["generator_kind"] == "tied"
    full = discriminator or (generator if is_one_network else None)
    sizes = {} if full is None else {name: getattr(full, name) for name in _FULL_SIZES}
    if generator is None or is_one_network:
        return sizes
    is_shared = options["embedding_sharing"] != "nes"
    if discriminator is None:
        names = ("max_position_embeddings", "embedding_size") if is_shared else ("max_position_embeddings",)
        sizes = {name: getattr(generator, name) for name in names}
    beside = {**options, **sizes}
    sizes["generator_size"] = generator.hidden_size / beside["hidden_size"]
    sizes["generator_layers"] = generator.num_hidden_layers / beside["num_hidden_layers"]
    if not is_shared and generator.embedding_size != beside["embedding_size"]:
        sizes["generator_embedding_size"] = generator.embedding_size
    return sizes


def _check_shapes(recipe: Recipe, configs: Mapping[NetworkName, ElectraConfig]) -> None:
    """Raises ValueError if a checkpoint's shape is not the recipe's; the message names fields that would fit."""
    for name in configs:
        if name not in recipe.networks:
            raise ValueError(
                f"a {name}'s checkpoint needs a recipe with a {name}, got objective {recipe.objective} and "
                f"generator_kind {recipe.generator_kind}"
            )
    if "generator" in configs and recipe.objective == "electric":
        raise ValueError("a generator's checkpoint needs objective electra or mlm, got electric: two towers load none")
    differing = _differences(recipe, configs)
    if not differing:
        return
    sizes = _sizes(vars(recipe), configs)
    changes = {name: value for name, value in sizes.items() if value != getattr(recipe, name)}
    hint = f"no recipe with embedding_sharing {recipe.embedding_sharing} has such networks"
    if not _differences(replace(recipe, **changes), configs):
        hint = f"these fit: --set {' '.join(f'{name}={value}' for name, value in changes.items())}"
    raise ValueError(f"the checkpoints must have the recipe's shapes, got {'; '.join(differing)}; {hint}")


def _differences(recipe: Recipe, configs: Mapping[NetworkName, ElectraConfig]) -> list[str]:
    differing = []
    for name, found in configs.items():
        config_of = recipe.generator_config if name == "generator" else recipe.discriminator_config
        wanted = config_of(found.vocab_size)
        differing += [
            f"{field} {getattr(found, field)} in the {name}'s checkpoint and {getattr(wanted, field)} in the recipe"
            for field in _SHAPE
            if getattr(found, field) != getattr(wanted, field)
        ]
    return differing


def _read(name: NetworkName, source: Source, tokenizer: ElectraTokenizer) -> dict[str, Tensor]:
    """A network's state dict in the Hub's form, in fp32, with a row for each entry of the tokenizer."""
    network, info = _CLASSES[name].from_pretrained(source, dtype=torch.float32, impl="torch", output_loading_info=True)
    if absent := sorted(key for key in info["missing_keys"] if key.startswith("electra.")):
        raise ValueError(f"{source} must hold all of a {name} but its head, it lacks {', '.join(absent)}")
    state = network.state_dict()
    if _HEAD_TABLE in state and not torch.equal(state[_HEAD_TABLE], state[_WORD_TABLE]):
        raise ValueError(
            f"{source} must have one table for input and output, as a generator in pre-training has: its "
            f"{_HEAD_TABLE} differs from its {_WORD_TABLE}"
        )
    n_old = _n_entries(source, len(state[_WORD_TABLE]), tokenizer)
    pieces = pieces_of_new(tokenizer, n_old)
    return {
        key: extended_rows(value[:n_old], pieces) if key in _VOCABULARY_ROWS else value for key, value in state.items()
    }


def _n_entries(source: Source, n_rows: int, tokenizer: ElectraTokenizer) -> int:
    """The number of the tokenizer's entries from a checkpoint; raises ValueError if these are not its first ones."""
    if all(find_file(source, file, required=False) is None for file in (TOKENIZER_FILE, VOCAB_FILE)):
        if n_rows != tokenizer.n_ids:
            raise ValueError(
                f"{source} holds no tokenizer to compare with, so it must have as many entries as the tokenizer, "
                f"{tokenizer.n_ids}, got {n_rows}"
            )
        return n_rows
    theirs, ours = ElectraTokenizer.from_pretrained(source).get_vocab(), tokenizer.get_vocab()
    for token, index in sorted(theirs.items(), key=lambda item: item[1]):
        if ours.get(token) != index:
            raise ValueError(
                f"the tokenizer must begin with the vocabulary of {source}, where {token!r} has id {index}; got "
                f"{'no such entry' if token not in ours else f'id {ours[token]}'}"
            )
    return min(max(theirs.values()) + 1, n_rows)


def _tell_what_loses(recipe: Recipe, states: Mapping[NetworkName, Mapping[str, Tensor]]) -> None:
    """Warns if two checkpoints differ in shared tensors, because the generator's are then not used."""
    if recipe.generator_kind != "tied" and recipe.embedding_sharing != "es":
        return
    ours, theirs = states["generator"], states["discriminator"]
    shared = "electra." if recipe.generator_kind == "tied" else _EMBEDDINGS
    differing = [key for key in ours if key.startswith(shared) and not torch.equal(ours[key], theirs[key])]
    if differing:
        advice = "" if recipe.generator_kind == "tied" else "; embedding_sharing gdes or nes keeps both"
        warnings.warn(
            f"the networks share what differs in their checkpoints, and the discriminator's is taken{advice}: "
            f"{', '.join(differing)}",
            stacklevel=3,
        )
