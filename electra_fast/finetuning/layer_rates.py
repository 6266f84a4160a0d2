"""Learning rates by layer: the further a layer is from the head, the less it changes."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from ..training.optim import decay_groups
from .recipe import Recipe

_LAYER = re.compile(r"electra\.encoder\.layer\.(\d+)\.")


def parameter_groups(module: nn.Module, n_layers: int, recipe: Recipe) -> list[dict[str, Any]]:
    """All parameters, each once, in groups with one rate (`lr`, `initial_lr`), one `weight_decay` and a `name`.

    A head learns at r, layer i of n at r d^(n - i), counted from 0, and the embeddings at r d^(n + 1). With
    `google_layer_decay` every exponent but the head's is larger by one, so that the last layer has d^2: this is what
    the code released with the paper does (model/optimization.py).
    """
    depths = {name: _distance(name, n_layers) for name, _ in module.named_parameters()}
    by_parameter = {p: depths[name] for name, p in module.named_parameters()}
    groups = []
    for group in decay_groups(module, recipe.weight_decay):
        for distance in sorted(set(depths.values())):
            if params := [p for p in group["params"] if by_parameter[p] == distance]:
                exponent = distance + (recipe.google_layer_decay and distance > 0)
                rate = recipe.learning_rate * recipe.layer_decay**exponent
                name = "head" if distance == 0 else f"{distance} below the head"
                groups.append({**group, "params": params, "name": name, "lr": rate, "initial_lr": rate})
    return groups


def _distance(name: str, n_layers: int) -> int:
    """How far below the head a parameter is: 0 for a head, 1 for the last layer, n + 1 for the embeddings."""
    if match := _LAYER.search(name):
        return n_layers - int(match[1])
    return n_layers + 1 if "electra.embeddings" in name else 0
