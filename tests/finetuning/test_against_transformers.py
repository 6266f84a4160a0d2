"""The same weights, batches and hyperparameters: the loss curve of transformers in a plain loop of torch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from electra_fast import ElectraConfig, ElectraTokenizer
from electra_fast.finetuning import TaskFiles, finetune, task
from electra_fast.finetuning.layer_rates import parameter_groups
from electra_fast.finetuning.loop import ItemOrder
from electra_fast.finetuning.networks import load_networks
from electra_fast.finetuning.recipe import recipe_for
from electra_fast.training.progress import read_records
from electra_fast.training.schedule import warmup_decay

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BERT_TINY = DATA / "bert-tiny"
FILES = TaskFiles(task("sst2"), DATA / "sst2", n_train=4000)

pytestmark = pytest.mark.skipif(not (DATA / "sst2").is_dir(), reason=f"needs SST-2 and bert-tiny in {DATA}")


def encoded(tokenizer, examples):
    texts = [example.text for example in examples]
    return tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")


def labels(examples):
    return torch.tensor([int(example.label) for example in examples])


def plain_loop(model, tokenizer, data, recipe, seed):
    """The losses of all updates."""
    groups = parameter_groups(model, model.config.num_hidden_layers, recipe)
    optimizer = torch.optim.AdamW(groups, betas=recipe.adam_betas, eps=recipe.adam_eps)
    examples, order = (
        data.splits["train"].examples,
        ItemOrder({"sst2": data.train}, recipe.batch_size, seed, recipe.group_by_length),
    )
    n_steps, losses = round(recipe.n_epochs * order.steps_per_epoch), []
    model.train()
    for step in range(n_steps):
        batch = [examples[item] for item in order.items(step)["sst2"]]
        loss = model(**encoded(tokenizer, batch), labels=labels(batch)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        factor = warmup_decay(step, step / n_steps, int(recipe.warmup_share * n_steps))
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def accuracy(model, tokenizer, examples):
    model.eval()
    examples = sorted(examples, key=lambda example: len(example.text))
    n_right = 0
    for first in range(0, len(examples), 64):
        batch = examples[first : first + 64]
        n_right += int((model(**encoded(tokenizer, batch)).logits.argmax(-1) == labels(batch)).sum())
    return n_right / len(examples)


def beside_transformers(directory, seed, **changes):
    """Our losses and dev accuracy, and those of transformers' network from the same initial weights."""
    finetune(BERT_TINY, [FILES], directory / "ours", seed=seed, log_every=1, device="cpu", **changes)
    curve = [record["loss"] for record in read_records(directory / "ours" / f"seed-{seed}" / "log.jsonl", "train")]
    results = json.loads((directory / "ours" / "results.json").read_text())

    tokenizer = ElectraTokenizer.from_pretrained(BERT_TINY)
    recipe = recipe_for(ElectraConfig.from_pretrained(BERT_TINY), [FILES.task], **changes)
    data = FILES.open(tokenizer, recipe, seed)
    torch.manual_seed(seed)
    load_networks(str(BERT_TINY), {"sst2": data.kind}, recipe, len(tokenizer)).models["sst2"].save_pretrained(
        directory / "initial"
    )
    theirs = transformers.ElectraForSequenceClassification.from_pretrained(directory / "initial")
    their_curve = plain_loop(theirs, tokenizer, data, recipe, seed)
    examples = data.splits["dev"].examples
    ours = transformers.ElectraForSequenceClassification.from_pretrained(directory / "ours" / "model")
    accuracies = results["metrics"]["dev"]["accuracy"]["median"], accuracy(theirs, tokenizer, examples)
    assert accuracy(ours, tokenizer, examples) == pytest.approx(accuracies[0], abs=2e-4), (
        "transformers loads what we save"
    )
    return np.array(curve), np.array(their_curve), *accuracies


def test_without_dropout_the_loss_curve_is_that_of_transformers(tmp_path):
    curve, theirs, accuracy, their_accuracy = beside_transformers(tmp_path, seed=0, n_epochs=1.0, dropout=0.0)
    assert len(curve) == 125
    assert theirs[-20:].mean() < 0.5 < theirs[:5].mean(), "it learns"
    assert np.abs(curve - theirs).max() < 1e-4
    assert accuracy == pytest.approx(their_accuracy, abs=2e-3)


@pytest.mark.slow
def test_with_dropout_the_accuracy_is_within_the_noise(tmp_path):
    pairs = [beside_transformers(tmp_path / str(seed), seed, n_epochs=3.0)[2:] for seed in range(3)]
    ours, theirs = np.array(pairs).T
    print(f"dev accuracy: {ours} of ours, {theirs} of transformers")
    assert abs(ours.mean() - theirs.mean()) < 0.02
