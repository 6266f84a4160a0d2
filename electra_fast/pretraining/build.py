"""Networks of a recipe, and their parameter groups for the optimizer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..model.backbone import ElectraModel
from ..ops import Impl
from ..tokenizer import ElectraTokenizer
from ..training.optim import decay_groups
from .networks.neighbours import look_beside
from .networks.objective import ElectraPretrainingModel
from .recipes import Recipe


def build_model(recipe: Recipe, tokenizer: ElectraTokenizer, impl: Impl = "auto") -> ElectraPretrainingModel:
    """The recipe's networks, with fresh weights, for a tokenizer's vocabulary."""
    size, pad = tokenizer.n_ids, tokenizer.pad_token_id
    model = ElectraPretrainingModel(
        recipe.generator_config(size, pad),
        recipe.discriminator_config(size, pad),
        mask_token_id=tokenizer.mask_token_id,
        special_token_ids=(pad, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id),
        mask_prob=recipe.mask_prob,
        temperature=recipe.temperature,
        gen_weight=recipe.gen_weight,
        disc_weight=recipe.disc_weight,
        impl=impl,
        objective=recipe.objective,
        generator_kind=recipe.generator_kind,
        embedding_sharing=recipe.embedding_sharing,
        frozen_generator=recipe.frozen_generator,
        keep_prob=recipe.keep_prob,
        replacement=recipe.replacement,
        never_label=recipe.never_label,
    )
    if recipe.neighbour_heads:
        for module in model.modules():
            if isinstance(module, ElectraModel):
                look_beside(module)
    return model


def parameter_groups(model: ElectraPretrainingModel, recipe: Recipe) -> list[dict[str, Any]]:
    """All parameters, each once, in groups for one optimizer or for one per network.

    A frozen generator's parameters are among them. Without a gradient no optimizer changes them, but lowering the
    precision of an optimizer's parameters must include them.

    Returns:
        Up to six groups with `params`, `weight_decay`, `lr` and `initial_lr` (the peak of the schedule), and `name`:
        "generator", "discriminator" or "shared". Empty groups are left out.
    """
    owned = {name: set(getattr(model, name).parameters()) for name in model.networks}

    def owner(parameter: Tensor) -> str:
        owners = [name for name, parameters in owned.items() if parameter in parameters]
        return owners[0] if len(owners) == 1 else "shared"

    groups = []
    for name in (*model.networks, "shared"):
        lr = recipe.learning_rate
        if name == "discriminator" and recipe.discriminator_learning_rate is not None:
            lr = recipe.discriminator_learning_rate
        for group in decay_groups(model, recipe.weight_decay):
            if params := [p for p in group["params"] if owner(p) == name]:
                groups.append({**group, "params": params, "name": name, "lr": lr, "initial_lr": lr})
    return groups
