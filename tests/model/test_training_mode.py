"""Dropout in its places, and 16-bit numbers: what exact comparison cannot reach."""

import copy

import pytest
import torch
from parity import VOCAB, gradients, twins

N_DRAWS = 4000
RATES = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "summary_last_dropout",
    "summary_first_dropout",
)
LENGTH = 4


def moments(model, inputs: dict, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation over the draws of dropout: each row of the batch is one, but for the last."""
    torch.manual_seed(seed)
    with torch.no_grad():
        output = model(**inputs)[0].flatten(1)[:-1]
    return output.mean(0), output.std(0)


@pytest.mark.parametrize("form", ["packed", "ragged", "explicit"])
@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("ElectraModel", "hidden_dropout_prob"),
        ("ElectraModel", "attention_probs_dropout_prob"),
        ("ElectraForSequenceClassification", "classifier_dropout"),
        ("ElectraForTokenClassification", "classifier_dropout"),
        ("ElectraForMultipleChoice", "summary_last_dropout"),
        ("ElectraForMultipleChoice", "summary_first_dropout"),
    ],
)
def test_dropout_falls_where_it_does_in_transformers(name, rate, form):
    """One rate at a time: the same mean and spread of every output over 4000 draws."""
    shape = {**dict.fromkeys(RATES, 0.0), rate: 0.4, "num_hidden_layers": 1, "hidden_size": 16}
    theirs, ours = twins(name, torch.float32, attention="eager", **shape)
    with torch.no_grad():  # large weights: every site matters
        for parameter in theirs.parameters():
            parameter.mul_(4)
    ours.load_state_dict(theirs.state_dict())
    ids = torch.randint(1, VOCAB, (LENGTH,)).expand(N_DRAWS, LENGTH)
    inputs = dict(input_ids=ids[:, None] if name == "ElectraForMultipleChoice" else ids)
    if form == "ragged":  # one row is shorter, so that the packed sequences differ in length
        mask = torch.ones_like(ids)
        mask[-1, -1] = 0
        inputs["attention_mask"] = mask[:, None] if name == "ElectraForMultipleChoice" else mask
    if form == "explicit":
        inputs["output_attentions"] = True
    mean, std = moments(ours.train(), inputs, 0)
    their_mean, their_std = moments(theirs.train(), inputs, 1)
    standard_error = their_std * (2 / N_DRAWS) ** 0.5
    assert ((mean - their_mean).abs() < 6 * standard_error + 1e-5).all()
    torch.testing.assert_close(std, their_std, rtol=0.12, atol=1e-5)
    assert abs(std.mean() / their_std.mean() - 1) < 0.03
    assert their_std.max() > 0.01
    assert moments(ours.eval(), inputs, 0)[1].max() < 1e-4, "no dropout in evaluation"


def rms(tensors) -> float:
    return torch.cat([x.double().flatten() for x in tensors]).square().mean().sqrt().item()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, "autocast"], ids=str)
def test_16_bit_errors_are_within_those_of_transformers(precision):
    """Against fp64; logits and gradients; a batch with padding."""
    exact, ours = twins("ElectraForTokenClassification", attention="eager")
    dtype = torch.float32 if precision == "autocast" else precision
    theirs, ours = copy.deepcopy(exact).to(dtype), ours.to(dtype)
    ids = torch.randint(1, VOCAB, (4, 9))
    mask = (torch.arange(9) < torch.tensor([9, 4, 1, 7])[:, None]).long()
    labels = torch.randint(0, 2, ids.shape).masked_fill(mask == 0, -100)
    results = []
    for model in (exact, theirs, ours):
        is_cast = precision == "autocast" and model is not exact
        with torch.autocast("cpu", torch.bfloat16, enabled=is_cast):
            output = model(ids, attention_mask=mask, labels=labels)
        output.loss.backward()
        results.append((output.logits[mask.bool()], gradients(model)))
    (logits, grads), (their_logits, their_grads), (our_logits, our_grads) = results
    assert our_logits.dtype == their_logits.dtype
    assert rms([our_logits - logits]) < 1.5 * rms([their_logits - logits])
    their_error = rms(their_grads[name] - grad for name, grad in grads.items())
    assert rms(our_grads[name] - grad for name, grad in grads.items()) < 1.5 * their_error


def test_a_table_row_of_padding_learns_nothing():
    """transformers' padding_idx: id 0 gets no gradient, wherever it stands."""
    theirs, ours = twins("ElectraForPreTraining")
    ids = torch.tensor([[0, 3, 0, 5]])
    for model in (theirs, ours):
        model(ids).logits.sin().sum().backward()
        grad = model.electra.embeddings.word_embeddings.weight.grad
        assert grad[0].abs().sum() == 0
        assert grad[3].abs().sum() > 0
