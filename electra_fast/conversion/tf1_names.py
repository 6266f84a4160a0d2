"""Names of tensors in Google's TensorFlow 1 checkpoints and on the Hub; pure functions.

One checkpoint of pre-training holds both networks:

    electra/                        the discriminator: embeddings/, embeddings_project/, encoder/
    generator/                      the generator; where it shares the tables, its embeddings are electra/embeddings/
    discriminator_predictions/      dense, dense_1
    generator_predictions/          dense, LayerNorm, output_bias; on electra/ where there is no generator/encoder/

A checkpoint of BERT has bert/. Matrices of dense layers, `kernel`, are transposed between the two; tables are not.

Source: run_pretraining.py and model/modeling.py of https://github.com/google-research/electra
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

from torch import Tensor

NetworkName = Literal["discriminator", "generator"]

_OUTPUT_BIAS = ("generator_predictions/output_bias", "generator_lm_head.bias")
# The last part of a variable's name, in TensorFlow and on the Hub.
_LEAVES = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
_HEADS = {"discriminator": "discriminator_predictions", "generator": "generator_predictions"}


def networks_of(names: Collection[str]) -> list[NetworkName]:
    """The networks that a checkpoint holds. An encoder without a head, BERT's too, counts as a discriminator.

    Raises:
        ValueError: a checkpoint that holds neither.
    """
    has_generator = _begins(names, "generator_predictions/")
    has_encoder = _begins(names, "electra/encoder/") or _begins(names, "bert/encoder/")
    # After MLM pre-training alone the encoder of electra/ is the generator's.
    is_generators = has_generator and not _begins(names, "generator/encoder/")
    found: list[NetworkName] = []
    if _begins(names, "discriminator_predictions/") or (has_encoder and not is_generators):
        found.append("discriminator")
    if has_generator:
        found.append("generator")
    if not found:
        raise ValueError(f"variables of electra/, generator/ or bert/ must be there, got {_few(names)}")
    return found


def scopes(names: Collection[str], network: NetworkName) -> dict[str, str]:
    """Beginnings of the names of a network's parts: {beginning in TensorFlow: beginning on the Hub}."""
    if network == "generator" and _begins(names, "generator/encoder/"):
        has_tables = _begins(names, "generator/embeddings/")
        return network_scopes(network, "generator", "generator" if has_tables else "electra")
    own = "electra" if _begins(names, "electra/encoder/") else "bert"
    return network_scopes(network, own, own)


def network_scopes(network: NetworkName, own: str, tables: str) -> dict[str, str]:
    """The result of `scopes` for a network with its encoder under `own` and its embeddings under `tables`."""
    head = _HEADS[network]
    return {
        f"{tables}/embeddings/": "electra.embeddings.",
        f"{own}/embeddings_project/": "electra.embeddings_project.",
        f"{own}/encoder/": "electra.encoder.",
        f"{head}/": f"{head}.",
    }


def to_hub(name: str, scopes: Mapping[str, str]) -> str | None:
    """The Hub's name of a variable; None if it is no part of the network (the optimizer's, another network's)."""
    if name == _OUTPUT_BIAS[0]:
        return _OUTPUT_BIAS[1] if "generator_predictions/" in scopes else None
    scope = next((scope for scope in scopes if name.startswith(scope)), None)
    if scope is None:
        return None
    *path, leaf = name.removeprefix(scope).split("/")
    if leaf in _TABLES:
        path, leaf = [*path, leaf], "weight"
    elif leaf in _LEAVES:
        leaf = _LEAVES[leaf]
    else:
        return None
    path = [re.sub(r"^layer_(\d+)$", r"layer.\1", part) for part in path]
    if scopes[scope] == "discriminator_predictions.":
        path = ["dense_prediction" if part == "dense_1" else part for part in path]
    return scopes[scope] + ".".join([*path, leaf])


def to_tf1(name: str, scopes: Mapping[str, str]) -> str:
    """TensorFlow's name of a tensor of a network; the inverse of `to_hub`.

    Raises:
        ValueError: a tensor that such checkpoints have no name for.
    """
    if name == _OUTPUT_BIAS[1]:
        return _OUTPUT_BIAS[0]
    scope = next((scope for scope, hub in scopes.items() if name.startswith(hub)), None)
    if scope is None:
        raise ValueError(f"{name} has no name in a TensorFlow checkpoint of pre-training")
    *path, leaf = name.removeprefix(scopes[scope]).split(".")
    module = path[-1] if path else ""
    if module in _TABLES:
        return scope + module
    if module == "LayerNorm":
        leaf = {"weight": "gamma", "bias": "beta"}[leaf]
    elif leaf == "weight":
        leaf = "kernel"
    if scope == "discriminator_predictions/":
        path = ["dense_1" if part == "dense_prediction" else part for part in path]
    return scope + re.sub(r"layer/(\d+)/", r"layer_\1/", "/".join([*path, leaf]))


def transposed(tf1_name: str, tensor: Tensor) -> Tensor:
    """A tensor in the other side's layout: matrices of dense layers are transposed, in both directions.

    Raises:
        ValueError: the name of a matrix, and a tensor that is none.
    """
    if not tf1_name.endswith("/kernel"):
        return tensor
    if tensor.ndim != 2:
        raise ValueError(f"{tf1_name} must have 2 dimensions, got {list(tensor.shape)}")
    return tensor.t().contiguous()


def others(names: Collection[str], used: Collection[str]) -> list[str]:
    """Variables that neither a network nor the optimizer uses: heads of tasks, a pooler.

    The optimizer's variables are under the one that they belong to (`.../kernel/adam_m`), or have no path
    (`global_step`).
    """
    left = set(names).difference(used)
    return sorted(name for name in left if "/" in name and name.rsplit("/", 1)[0] not in names)


def _begins(names: Collection[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _few(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:3]) or "none"
