"""Results of a run: the networks in the Hub's form, with model cards and the picture of the run."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..disk import replaced
from ..tokenizer import ElectraTokenizer
from ..training.plot import OPTIMIZER_PANELS, Panel, plot_run
from ..training.progress import read_records
from .build import build_model
from .evaluate import Evaluation
from .model_card import write_model_card
from .networks.objective import ElectraPretrainingModel
from .recipes import Recipe
from .run_directory import RunDirectory

PANELS: tuple[Panel, ...] = (
    ("generator_loss", "generator loss, nats per masked token", "unigram_loss"),
    ("discriminator_loss", "discriminator loss, nats per token", None),
    ("generator_accuracy", "generator accuracy", "unigram_accuracy"),
    ("discriminator_auc", "discriminator AUC", 0.5),
    *OPTIMIZER_PANELS,
)


def export(parameters: Mapping[str, Tensor], recipe: Recipe, tokenizer: ElectraTokenizer) -> ElectraPretrainingModel:
    """The model with these fp32 values, unsharded and on the CPU; every process must call it."""
    model = build_model(recipe, tokenizer, "torch")
    with torch.no_grad():
        for name, p in model.named_parameters():
            value = parameters[name]
            p.copy_(value.full_tensor() if isinstance(value, DTensor) else value)
    return model.eval()


def save_results(
    directory: RunDirectory,
    model: ElectraPretrainingModel,
    recipe: Recipe,
    tokenizer: ElectraTokenizer,
    evaluation: Evaluation,
    data: Mapping[str, Any],
) -> None:
    """Writes every network that has a form on the Hub; each directory appears whole or not at all.

    Args:
        data: facts about the text for the model card.
    """
    plot = None
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture of the run: it needs matplotlib, pip install 'electra_fast[train]'", flush=True)
    elif read_records(directory.log, "train"):
        plot_run(directory.log, directory.plot, PANELS, f"ELECTRA {recipe.name}")
        plot = directory.plot
    # Record of the run's begin, with the step of its last evaluation.
    run = read_records(directory.log, "run")[0] | {"step": read_records(directory.log, "evaluation")[-1]["step"]}
    for name in model.hub_networks:
        with replaced(directory.path / name) as temporary:
            model.save_network(name, temporary)
            tokenizer.save_pretrained(temporary)
            write_model_card(temporary, name, recipe, data, evaluation, run, plot=plot)
