"""Models, tasks and texts for the benchmark of fine-tuning; where none are given, made-up texts and random weights."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...bundled import bundled
from ...finetuning.networks import load_networks
from ...finetuning.recipe import Recipe, recipe_for
from ...finetuning.task_data import TaskData, TaskFiles
from ...model.base import ElectraPreTrainedModel
from ...model.config import ElectraConfig
from ...model.modeling import ElectraForPreTraining
from ...pretraining.text.builtin import builtin_documents
from ...tokenizer import ElectraTokenizer

# Kinds whose items are one row each.
KINDS = ("classification", "regression", "multilabel", "tagging")
# The shape is electra-small's but for its 12 layers.
RANDOM_SHAPE = {"num_hidden_layers": 2}
# A tenth is held out; the others fill 40 batches of 32.
N_SENTENCES = 1422


@dataclass(frozen=True)
class Work:
    """A model, a task and its texts.

    Attributes:
        source: where the checkpoint is, a directory or a model on the Hub.
        model: the network that all begin with, with a new head; on the CPU, in fp32.
    """

    source: str
    data: TaskData
    recipe: Recipe
    model: ElectraPreTrainedModel
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.train) / self.recipe.batch_size)

    @property
    def n_steps(self) -> int:
        """Updates of a run, as `FinetuningLoop` counts them."""
        return max(1, round(self.recipe.n_epochs * self.steps_per_epoch))


def make_work(source: str, files: TaskFiles, seed: int, **changes: object) -> Work:
    """Reads the data and the checkpoint.

    Args:
        changes: fields of the recipe in place of what `recipe_for` says.

    Raises:
        ValueError, FileNotFoundError: what is wrong with the task, the files, or the checkpoint.
    """
    the_task = files.task
    if the_task.kind not in KINDS:
        raise ValueError(f"the task must be one of {', '.join(KINDS)}, got {the_task.name} of kind {the_task.kind}")
    recipe = recipe_for(ElectraConfig.from_pretrained(source), [the_task], **changes)
    tokenizer = ElectraTokenizer.from_pretrained(source)
    data = files.open(tokenizer, recipe, seed)
    return Work(source, data, recipe, _load(source, data, recipe, len(tokenizer), seed), seed)


def first_updates(work: Work, n: int) -> Work:
    """The same weights and items for a run of at most `n` updates, without dropout and warm-up.

    Batches are full, unless all items are fewer than one batch.
    """
    n_steps = max(1, min(n, len(work.data.train) // work.recipe.batch_size))
    recipe = replace(work.recipe, n_epochs=n_steps / work.steps_per_epoch, dropout=0.0, warmup_share=0.0)
    model = _load(work.source, work.data, recipe, work.model.config.vocab_size, work.seed)
    return replace(work, recipe=recipe, model=model)


def _load(source: str, data: TaskData, recipe: Recipe, vocab_size: int, seed: int) -> ElectraPreTrainedModel:
    torch.manual_seed(seed)  # the head is drawn
    name = data.task.name
    return load_networks(source, {name: data.kind}, recipe, vocab_size).models[name]


def write_random_model(directory: str | os.PathLike) -> None:
    """Saves a network of random weights, with the tokenizer of the bundled one."""
    tokenizer = ElectraTokenizer.from_pretrained(bundled("discriminator"))
    torch.manual_seed(0)
    ElectraForPreTraining(ElectraConfig(vocab_size=len(tokenizer), **RANDOM_SHAPE)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def write_sentences(path: Path, kind: str) -> None:
    """Writes sentences of Python's documentation, an object a line, with labels that are easy to tell.

    A label says whether "the" is in the sentence, how many words it has, or which begin with a capital letter.
    """
    documents = (" ".join(document.split()) for document in builtin_documents())
    found = [
        words for document in documents for text in _SENTENCE_END.split(document) if len(words := text.split()) > 2
    ]
    chosen = found[:: len(found) // N_SENTENCES][:N_SENTENCES]
    path.write_text("".join(json.dumps(_labelled(words, kind)) + "\n" for words in chosen), encoding="utf-8")


def _labelled(words: list[str], kind: str) -> dict:
    if kind == "tagging":
        return {"words": words, "tags": ["B-CAPITAL" if word[0].isupper() else "O" for word in words]}
    label = {
        "classification": "the" in words,
        "regression": len(words) / 20,
        "multilabel": [word for word in ("the", "a") if word in words],
    }[kind]
    return {"text": " ".join(words), "label": label}


_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z])")
