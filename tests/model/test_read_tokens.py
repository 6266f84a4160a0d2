"""The last layer computes the states that somebody reads, and no others; what is read is the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from electra_fast import (
    ElectraConfig,
    ElectraForMultipleChoice,
    ElectraForSequenceClassification,
    ElectraModel,
)
from electra_fast.model.packing import PackedBatch

SHAPE = dict(
    vocab_size=60, embedding_size=24, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=80,
    max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2,
    summary_last_dropout=0.0,
)  # fmt: skip
MASK = torch.tensor([[1] * 9, [1] * 4 + [0] * 5, [1] + [0] * 8, [1] * 7 + [0] * 2])
IDS = torch.arange(36).view(4, 9) % 53 + 5
READ = torch.tensor([20, 0, 13, 9, 0, 3])  # not in order, and one twice


def made(model_class: type, **changes) -> nn.Module:
    torch.manual_seed(0)
    return model_class(ElectraConfig(**SHAPE | changes)).train()


def gradients(model: nn.Module, out: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (out.double() * torch.linspace(-1, 2, out.numel()).view(out.shape)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_all_close(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def packed_batch(model: ElectraModel) -> tuple:
    packed = PackedBatch.from_mask(MASK)
    return packed.pack(IDS), packed


def lengths_at_the_end(model: ElectraModel, run) -> int:
    """The number of tokens that the last layer's feed-forward computes, by an op in its place that counts."""
    layer, seen = model.encoder.layer[-1], []
    whole = layer.feed_forward

    def counted(hidden, *rest):
        seen.append(len(hidden))
        return whole(hidden, *rest)

    layer.__dict__["feed_forward"] = counted
    run()
    del layer.__dict__["feed_forward"]
    (n,) = seen
    return n


@pytest.mark.parametrize("impl", ["auto", "torch"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_states_that_are_read_are_those_of_all(impl, checkpointing):
    torch.manual_seed(0)
    model = ElectraModel(ElectraConfig(**SHAPE), impl).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    ids, packed = packed_batch(model)
    expected = model.encode_packed(ids, packed)[READ]
    expected_gradients = gradients(model, expected)
    found = model.encode_packed(ids, packed, read=READ)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_all_close(gradients(model, found), expected_gradients)
    if not checkpointing:
        assert lengths_at_the_end(model, lambda: model.encode_packed(ids, packed, read=READ)) == len(READ)
    with torch.no_grad():
        torch.testing.assert_close(model.eval().encode_packed(ids, packed, read=READ), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("where", ["encoder", "encoder.layer.1", "encoder.layer.1.output.dense"])
def test_who_listens_hears_all_tokens(where):
    model = made(ElectraModel)
    ids, packed = packed_batch(model)
    expected, heard = model.encode_packed(ids, packed)[READ], []

    def hear(module, inputs, output):
        heard.append(len(output.hidden if where == "encoder" else output[0] if where[-1] == "1" else output))

    with_hook = model.get_submodule(where).register_forward_hook(hear)
    torch.testing.assert_close(model.encode_packed(ids, packed, read=READ), expected, rtol=1e-5, atol=1e-5)
    assert heard == [len(ids)]
    with_hook.remove()


def test_a_layer_of_another_class_is_called_as_ever():
    class Own(nn.Module):
        def forward(self, hidden, context):
            return hidden * 2, None, None

    model = made(ElectraModel)
    model.encoder.layer[1] = Own()
    ids, packed = packed_batch(model)
    expected = model.encode_packed(ids, packed)[READ]
    torch.testing.assert_close(model.encode_packed(ids, packed, read=READ), expected)


def test_a_model_without_layers_reads_its_embeddings():
    model = made(ElectraModel, num_hidden_layers=0)
    ids, packed = packed_batch(model)
    torch.testing.assert_close(model.encode_packed(ids, packed, read=READ), model.encode_packed(ids, packed)[READ])


@pytest.mark.parametrize("mask", [MASK, torch.ones_like(MASK), None], ids=["padded", "full", "none"])
@pytest.mark.parametrize("model_class", [ElectraForSequenceClassification, ElectraForMultipleChoice])
def test_a_head_on_first_tokens(model_class, mask):
    model = made(model_class)
    heard = copy.deepcopy(model)
    heard.electra.encoder.register_forward_hook(lambda *_: None)  # so that all tokens are computed
    ids, masks = IDS, mask
    if model_class is ElectraForMultipleChoice:
        ids, masks = IDS.view(2, 2, 9), None if mask is None else mask.view(2, 2, 9)
    results = [x(ids, attention_mask=masks) for x in (model, heard)]
    torch.testing.assert_close(results[0].logits, results[1].logits, rtol=1e-5, atol=1e-5)
    found, expected = (gradients(x, y.logits) for x, y in zip((model, heard), results, strict=True))
    assert_all_close(found, expected)
    assert lengths_at_the_end(model.electra, lambda: model(ids, attention_mask=masks)) == len(IDS)
    # Padding in the first column is read as in transformers, in the padded form.
    hidden_first = MASK.flip(1) if masks is None or masks.dim() == 2 else MASK.flip(1).view(2, 2, 9)
    hidden_first = hidden_first.view_as(ids)
    torch.testing.assert_close(
        model(ids, attention_mask=hidden_first).logits, heard(ids, attention_mask=hidden_first).logits
    )


def test_hidden_states_and_heads_of_the_users_have_all_tokens():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(SHAPE["hidden_size"], 2)

        def forward(self, features):
            return self.out(features.mean(1))

    model = made(ElectraForSequenceClassification)
    out = model(IDS, attention_mask=MASK, output_hidden_states=True)
    assert [x.shape for x in out.hidden_states] == [(4, 9, 48)] * 3
    torch.testing.assert_close(out.logits, model.classifier(out.hidden_states[-1]))
    model.classifier = Mean()
    expected = model.classifier(model.electra(IDS, attention_mask=MASK).last_hidden_state)
    torch.testing.assert_close(model(IDS, attention_mask=MASK).logits, expected)
