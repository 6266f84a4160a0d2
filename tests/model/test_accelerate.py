"""The models under transformers' Trainer and under accelerate: what these do with outputs, state dicts and layers."""

import pytest
import torch
from tiny_models import TINY

from electra_fast import ElectraConfig, ElectraForSequenceClassification

transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

ROWS = [{"input_ids": [2, 5 + i, 6, 3], "labels": i % 2} for i in range(16)]


def train(model, directory, **options):
    arguments = dict(use_cpu=True, max_steps=2, report_to="none", disable_tqdm=True, save_strategy="no")
    arguments = transformers.TrainingArguments(str(directory), **arguments, **options)
    transformers.Trainer(model, arguments, train_dataset=ROWS).train()


@pytest.mark.parametrize("options", [{}, {"bf16": True}, {"activation_checkpointing": True}], ids=str)
def test_trainer_trains(options, tmp_path):
    model = ElectraForSequenceClassification(ElectraConfig(**TINY))
    before = model.electra.embeddings.word_embeddings.weight.clone()
    train(model, tmp_path, **options)
    assert not torch.equal(model.electra.embeddings.word_embeddings.weight, before)
    assert model.is_gradient_checkpointing == ("activation_checkpointing" in options)


@pytest.mark.parametrize("options", [{"offload": True}, {"every_n_layers": 2}, {"use_reentrant": True}], ids=str)
def test_other_ways_of_activation_checkpointing_are_refused(options, tmp_path):
    model = ElectraForSequenceClassification(ElectraConfig(**TINY))
    with pytest.raises(ValueError, match="activation checkpointing is of every layer"):
        train(model, tmp_path, activation_checkpointing=True, activation_checkpointing_kwargs=options)


def test_accelerate_saves_every_weight(tmp_path):
    accelerator = accelerate.Accelerator(cpu=True)
    model = accelerator.prepare(ElectraForSequenceClassification(ElectraConfig(**TINY)))
    expected = [p.clone() for p in model.parameters()]
    accelerator.save_state(tmp_path)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    accelerator.load_state(tmp_path)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), expected, strict=True))
