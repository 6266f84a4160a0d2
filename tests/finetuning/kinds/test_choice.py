"""Multiple choice: losses and scores beside transformers, and examples with different numbers of choices."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from kind_cases import SHAPE, assert_same_loss, encode, inputs_for_theirs, scores_in_batches, tokenizer, twins

from electra_fast import ElectraConfig, ElectraForMultipleChoice
from electra_fast.finetuning.data.examples import ChoiceExample
from electra_fast.finetuning.kinds.choice import MultipleChoice

KIND = MultipleChoice()
EXAMPLES = [
    ChoiceExample("c0", 2, "the film was good .", "they", ("ran home", "played", "was bad ?"), 2),
    ChoiceExample("c1", 3, "was it bad ?", "it", ("was not", "ran", "a"), 0),
    ChoiceExample("c2", 4, "they ran", "", ("home .", "the film", "not"), 1),
]
RAGGED = [
    ChoiceExample("r0", 2, "the film was good .", "they", ("ran home", "played"), 1),
    ChoiceExample("r1", 3, "was it bad ?", "it", ("was not", "ran", "a", "played"), 0),
    *EXAMPLES,
]


def by_choice(inputs, n_choices):
    return {name: x.view(-1, n_choices, x.shape[1]) for name, x in inputs.items()}


def test_loss_and_gradients_are_transformers():
    theirs, ours = twins("ElectraForMultipleChoice", KIND)
    features = KIND.features(EXAMPLES, tokenizer(), 64)
    items = [2, 0, 1]
    inputs = by_choice(inputs_for_theirs(features, items), 3)
    assert_same_loss(theirs, ours, KIND, features, items, torch.tensor([1, 2, 0]), **inputs)


def test_different_numbers_of_choices_are_as_each_alone():
    theirs, ours = twins("ElectraForMultipleChoice", KIND)
    features = KIND.features(RAGGED, tokenizer(), 64)
    scores = scores_in_batches(ours, KIND, features, 5)
    their_loss, gradients = 0.0, {}
    for item, example in enumerate(RAGGED):
        inputs = by_choice(inputs_for_theirs(features, [item]), len(example.endings))
        output = theirs(**inputs, labels=torch.tensor([example.label]))
        output.loss.backward()
        their_loss += output.loss.item()
        np.testing.assert_allclose(scores[item], output.logits[0].softmax(-1).detach(), atol=1e-5)
    gradients = {name: p.grad for name, p in theirs.named_parameters() if not name.startswith("electra.")}
    batch = features.batch(range(5))
    loss = KIND.loss(ours, encode(ours, batch, KIND), batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(their_loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(dict(ours.named_parameters())[name].grad, gradient, rtol=1e-5, atol=1e-5)


def test_rows_by_hand():
    ours = tokenizer()
    features = KIND.features(RAGGED[:2], ours, 64)
    assert features.item_rows.tolist() == [0, 2, 6]
    assert features.item_targets["labels"].tolist() == [1, 0]
    row = slice(*features.row_starts[1:3])
    tokens = "[CLS] the film was good . [SEP] they play ##ed [SEP]".split()
    assert ours.convert_ids_to_tokens(features.input_ids[row].tolist()) == tokens
    assert features.token_type_ids[row].tolist() == [0] * 7 + [1] * 4
    assert KIND.features(EXAMPLES, ours, 7).item_lengths.max() == 21


def test_predictions_and_metrics():
    examples = [dataclasses.replace(example, label=None) for example in RAGGED]
    features = KIND.features(examples, tokenizer(), 64)
    assert features.item_targets == {}
    scores = [np.array([0.25, 0.75]), np.array([0.5, 0.25, 0.125, 0.125])]
    predictions = KIND.predictions(examples[:2], features, scores)
    assert predictions == [
        {"id": "r0", "label": 1, "probabilities": [0.25, 0.75]},
        {"id": "r1", "label": 0, "probabilities": [0.5, 0.25, 0.125, 0.125]},
    ]
    assert KIND.metrics(RAGGED[:2], predictions) == {"accuracy": 1.0}
    assert KIND.metrics(RAGGED[:2], predictions[::-1]) == {"accuracy": 0.0}


def test_scores_do_not_depend_on_the_batch():
    _, ours = twins("ElectraForMultipleChoice", KIND)
    features = KIND.features(RAGGED, tokenizer(), 64)
    together, alone = scores_in_batches(ours, KIND, features, 5), scores_in_batches(ours, KIND, features, 1)
    for a, b, example in zip(together, alone, RAGGED, strict=True):
        assert a.shape == (len(example.endings),)
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_constant_loss_is_that_of_equal_scores():
    features = KIND.features(RAGGED, tokenizer(), 64)
    assert KIND.constant_loss(features) == pytest.approx((math.log(2) + math.log(4) + 3 * math.log(3)) / 5)
    _, model = twins("ElectraForMultipleChoice", KIND)
    torch.nn.init.zeros_(model.classifier.weight)
    batch = features.batch(range(5))
    mean = KIND.loss(model, encode(model, batch, KIND), batch).item() / batch.n_targets
    assert mean == pytest.approx(KIND.constant_loss(features))


def test_errors():
    config = ElectraConfig(**SHAPE, summary_type="mean", **KIND.config_changes())
    model = ElectraForMultipleChoice(config)
    batch = KIND.features(EXAMPLES, tokenizer(), 64).batch([0])
    with pytest.raises(ValueError, match="summary_type must be 'first' for packed rows, got 'mean'"):
        KIND.loss(model, encode(model, batch, KIND), batch)
    with pytest.raises(ValueError, match="head must be 'transformers' for multiple choice, got 'paper'"):
        KIND.model_class("paper")
    assert KIND.model_class("transformers") is ElectraForMultipleChoice
