"""PEFT on our own classes, beside transformers': adapters for queries and values, in training and in inference."""

import copy

import pytest
import torch
from parity import twins

from electra_fast import ElectraForSequenceClassification
from electra_fast.ops.joining import are_side_by_side

peft = pytest.importorskip("peft")

LABELS = torch.tensor([0, 2, 1])
CONFIGS = {
    "lora": lambda: peft.LoraConfig(
        target_modules=["query", "value"], r=4, lora_alpha=8, modules_to_save=["classifier"]
    ),
    "lora with dropout": lambda: peft.LoraConfig(target_modules=["query", "value"], lora_dropout=0.5),
    "by task": lambda: peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "key", "value"]),
    "dora": lambda: peft.LoraConfig(target_modules=["query", "value"], use_dora=True),
    "ia3": lambda: peft.IA3Config(target_modules=["key", "value"], feedforward_modules=[]),
    "bias": lambda: peft.LoraConfig(target_modules=["value"], bias="all"),
}


def batch(seed, is_full=False):
    drawn = torch.Generator().manual_seed(seed)
    mask = torch.ones(3, 9, dtype=torch.long)
    if not is_full:
        mask[1, 5:] = 0
    return {"input_ids": torch.randint(5, 40, (3, 9), generator=drawn) * mask, "attention_mask": mask}


def adapted(kind):
    """(transformers' model, ours) with equal weights and equal fresh adapters."""
    models = []
    for network in twins("ElectraForSequenceClassification", num_labels=3):
        torch.manual_seed(1)
        models.append(peft.get_peft_model(network, CONFIGS[kind]()))
    return models


def train(model, is_full=False):
    model.train()
    torch.manual_seed(2)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for step in range(10):
        loss = model(**batch(step, is_full), labels=LABELS).loss
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


@torch.no_grad()
def logits(model):
    return model.eval()(**batch(99)).logits


@pytest.mark.parametrize("kind", CONFIGS)
def test_ten_steps_and_what_follows_are_transformers(kind):
    theirs, ours = adapted(kind)
    assert [name for name, p in ours.named_parameters() if p.requires_grad] == [
        name for name, p in theirs.named_parameters() if p.requires_grad
    ]
    before = logits(ours)
    # An adapter's dropout draws for the tokens that it sees: without padding those are the same.
    is_full = "dropout" in kind
    assert train(ours, is_full) == pytest.approx(train(theirs, is_full), rel=0, abs=1e-5)
    expected = theirs.state_dict()
    for name, x in ours.state_dict().items():
        # The gradient of a key's bias is rounding, of which Adam makes whole steps.
        if not (kind == "bias" and name.endswith("key.bias")):
            torch.testing.assert_close(x, expected[name], rtol=0, atol=1e-5, msg=name)
    trained = logits(ours)
    assert (trained - before).abs().max() > 1e-4
    torch.testing.assert_close(trained, logits(theirs), rtol=0, atol=1e-5)
    with ours.disable_adapter(), theirs.disable_adapter():
        torch.testing.assert_close(logits(ours), logits(theirs), rtol=0, atol=1e-5)
    merged = copy.deepcopy(ours).merge_and_unload()
    torch.testing.assert_close(logits(merged), trained, rtol=0, atol=1e-5)
    unloaded = copy.deepcopy(ours).unload()
    torch.testing.assert_close(logits(unloaded), logits(copy.deepcopy(theirs).unload()), rtol=0, atol=1e-5)
    theirs = theirs.merge_and_unload()
    assert list(merged.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(logits(merged), logits(theirs), rtol=0, atol=1e-5)
    plain = copy.deepcopy(merged)
    part = plain.electra.encoder.layer[1].attention.self
    assert are_side_by_side([part.query.weight, part.key.weight, part.value.weight]), "a copy has one product again"
    torch.testing.assert_close(logits(plain), trained, rtol=0, atol=1e-5)


def test_adapters_in_fp32_are_served_as_the_merged_model(tmp_path):
    """In fp32 the encoder in C++ serves the merged model."""
    _, ours = twins("ElectraForSequenceClassification", dtype=torch.float32, num_labels=3)
    model = peft.get_peft_model(ours, CONFIGS["lora"]())
    train(model)
    expected = logits(model)
    model.save_pretrained(tmp_path / "adapter")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        logits(ElectraForSequenceClassification.from_pretrained(tmp_path / "merged")), expected, rtol=0, atol=1e-5
    )
    _, fresh = twins("ElectraForSequenceClassification", dtype=torch.float32, num_labels=3)
    again = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter")
    torch.testing.assert_close(logits(again), expected, rtol=0, atol=1e-5)
