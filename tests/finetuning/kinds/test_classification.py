"""Classes, numbers and several labels of texts: losses and scores beside transformers, predictions and metrics."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from kind_cases import (
    SHAPE,
    assert_same_loss,
    encode,
    inputs_for_theirs,
    scores_in_batches,
    tokenizer,
    transformers,
    twins,
)

from electra_fast import ElectraConfig, ElectraForSequenceClassification
from electra_fast.finetuning.data.examples import TextExample
from electra_fast.finetuning.kinds.classification import Classification, MultiLabel, Regression
from electra_fast.finetuning.kinds.paper_heads import ElectraPaperForSequenceClassification

CLASSIFICATION, REGRESSION, MULTI_LABEL = Classification(["no", "yes", "unsure"]), Regression(), MultiLabel("abc")
LABELS = {
    CLASSIFICATION: ["yes", "no", "yes", "unsure", "yes"],
    REGRESSION: [0.0, 5.0, 2.5, 3.25, 1.0],
    MULTI_LABEL: [("a",), (), ("a", "c"), ("b",), ("c", "a")],
}
TEXTS = [
    ("the film was good", None),
    ("they ran home", "was it bad ?"),
    ("a", None),
    ("the play was not bad .", "it was good , the film playing"),
    ("", None),
]
KINDS = pytest.mark.parametrize("kind", LABELS, ids=lambda kind: type(kind).__name__)


def examples_for(kind, labels=True):
    return [
        TextExample(f"e{i}", i + 2, text, pair, label if labels else None)
        for i, ((text, pair), label) in enumerate(zip(TEXTS, LABELS[kind], strict=True))
    ]


def expected_targets(kind, items):
    numbers = {
        CLASSIFICATION: torch.tensor([1, 0, 1, 2, 1]),
        REGRESSION: torch.tensor(LABELS[REGRESSION]),
        MULTI_LABEL: torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0], [1, 0, 1]]),
    }
    return numbers[kind][items]


@KINDS
def test_loss_and_gradients_are_transformers(kind):
    theirs, ours = twins("ElectraForSequenceClassification", kind)
    features = kind.features(examples_for(kind), tokenizer(), 64)
    items = [3, 0, 1, 4]
    assert_same_loss(theirs, ours, kind, features, items, expected_targets(kind, items))


@KINDS
def test_scores_are_transformers(kind):
    theirs, ours = twins("ElectraForSequenceClassification", kind)
    features = kind.features(examples_for(kind, labels=False), tokenizer(), 64)
    with torch.no_grad():
        logits = theirs(**inputs_for_theirs(features, [0, 1, 2, 3, 4])).logits
    expected = {CLASSIFICATION: logits.softmax(-1), REGRESSION: logits[:, 0], MULTI_LABEL: logits.sigmoid()}[kind]
    scores = scores_in_batches(ours, kind, features, 2)
    np.testing.assert_allclose(np.stack(scores), expected.numpy(), atol=1e-5)


@KINDS
def test_the_papers_head_is_one_layer_on_the_first_token(kind):
    torch.manual_seed(0)
    config = ElectraConfig(**SHAPE, **kind.config_changes())
    model = kind.model_class("paper")(config).eval()
    assert type(model) is ElectraPaperForSequenceClassification
    features = kind.features(examples_for(kind), tokenizer(), 64)
    batch = features.batch([1, 3])
    hidden = encode(model, batch, kind)
    assert hidden.shape == (2, SHAPE["hidden_size"])
    logits = hidden @ model.classifier.weight.T + model.classifier.bias
    activation = {CLASSIFICATION: lambda x: x.softmax(-1), REGRESSION: lambda x: x[:, 0], MULTI_LABEL: torch.sigmoid}
    scores = np.stack(kind.scores(model, hidden, batch))
    np.testing.assert_allclose(scores, activation[kind](logits).detach().numpy(), atol=1e-6)
    model.train()
    model.dropout.p = 1.0  # then nothing but the bias is left
    only_bias = activation[kind](model.classifier.bias.expand_as(logits)).detach().numpy()
    np.testing.assert_array_equal(np.stack(kind.scores(model, hidden, batch)), only_bias)


@KINDS
def test_loss_is_a_sum_over_items_in_fp32(kind):
    ours = kind.model_class("transformers")(ElectraConfig(**SHAPE, **kind.config_changes())).eval()
    features = kind.features(examples_for(kind), tokenizer(), 64)
    losses = [kind.loss(ours, encode(ours, b, kind), b).item() for b in map(features.batch, ([0], [1], [2], [0, 1, 2]))]
    assert losses[3] == pytest.approx(sum(losses[:3]), rel=1e-5)
    half = ours.bfloat16()
    batch = features.batch([0, 1, 2])
    loss = kind.loss(half, encode(half, batch, kind), batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(losses[3], rel=0.05)
    assert all(np.asarray(score).dtype == np.float32 for score in kind.scores(half, encode(half, batch, kind), batch))


@KINDS
def test_predictions_are_what_json_holds_in_order(kind):
    examples = examples_for(kind, labels=False)
    features = kind.features(examples, tokenizer(), 64)
    assert features.item_targets == {} and len(features) == 5
    model = kind.model_class("transformers")(ElectraConfig(**SHAPE, **kind.config_changes())).eval()
    predictions = kind.predictions(examples, features, scores_in_batches(model, kind, features, 3))
    assert [prediction["id"] for prediction in predictions] == ["e0", "e1", "e2", "e3", "e4"]
    assert json.loads(json.dumps(predictions)) == predictions


def test_predictions_by_hand():
    examples = examples_for(CLASSIFICATION)[:1]
    assert CLASSIFICATION.predictions(examples, None, [np.array([0.25, 0.25, 0.5])]) == [
        {"id": "e0", "label": "unsure", "probabilities": {"no": 0.25, "yes": 0.25, "unsure": 0.5}}
    ]
    assert REGRESSION.predictions(examples, None, [np.float32(1.5)]) == [{"id": "e0", "value": 1.5}]
    assert MULTI_LABEL.predictions(examples, None, [np.array([0.75, 0.5, 0.625])]) == [
        {"id": "e0", "labels": ["a", "c"], "probabilities": {"a": 0.75, "b": 0.5, "c": 0.625}}
    ]


def test_metrics_of_predictions():
    predictions = [{"label": label} for label in ["yes", "yes", "yes", "unsure", "no"]]
    metrics = CLASSIFICATION.metrics(examples_for(CLASSIFICATION), predictions)
    assert list(metrics) == ["accuracy", "f1", "matthews"] and metrics["accuracy"] == pytest.approx(0.6)
    metrics = REGRESSION.metrics(examples_for(REGRESSION), [{"value": 2 * x} for x in LABELS[REGRESSION]])
    mse = np.mean(np.square(LABELS[REGRESSION]))
    assert metrics == pytest.approx({"pearson": 1.0, "spearman": 1.0, "mse": mse})
    predictions = [{"labels": list(labels)} for labels in [("a",), (), ("c",), ("b",), ("a", "c")]]
    metrics = MULTI_LABEL.metrics(examples_for(MULTI_LABEL), predictions)
    assert metrics == pytest.approx({"f1": 2 * 5 / (6 + 5), "accuracy": 0.8})


def test_f1_of_two_classes_is_of_the_second_label():
    kind = Classification(["other", "same"])
    examples = [TextExample(str(i), 1, "", None, label) for i, label in enumerate(["same", "other", "other"])]
    assert kind.metrics(examples, [{"label": "other"}] * 3)["f1"] == 0.0
    assert kind.metrics(examples, [{"label": "same"}] * 3)["f1"] == pytest.approx(0.5)


def test_constant_losses_by_hand():
    def constant_loss(kind):
        return kind.constant_loss(kind.features(examples_for(kind), tokenizer(), 64))

    assert constant_loss(CLASSIFICATION) == pytest.approx(-0.6 * math.log(0.6) - 2 * 0.2 * math.log(0.2))
    assert constant_loss(REGRESSION) == pytest.approx(np.var(LABELS[REGRESSION]))
    of_shares = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.6, 0.2, 0.4)]
    assert constant_loss(MULTI_LABEL) == pytest.approx(sum(of_shares) / 3)


@KINDS
def test_constant_loss_is_the_least_of_a_constant_prediction(kind):
    features = kind.features(examples_for(kind), tokenizer(), 64)
    batch = features.batch(range(5))
    model = ElectraForSequenceClassification(ElectraConfig(**SHAPE, **kind.config_changes())).eval()
    out = model.classifier.out_proj
    torch.nn.init.zeros_(out.weight)
    optimizer = torch.optim.LBFGS([out.bias], max_iter=100, line_search_fn="strong_wolfe")
    hidden = encode(model, batch, kind).detach()

    def closure():
        optimizer.zero_grad()
        loss = kind.loss(model, hidden, batch) / batch.n_targets
        loss.backward()
        return loss

    optimizer.step(closure)
    assert closure().item() == pytest.approx(kind.constant_loss(features), rel=1e-3)


def test_pairs_are_cut_longest_first_as_transformers_does():
    ours = tokenizer()
    theirs = transformers.BertTokenizer(vocab=ours.get_vocab())
    examples = [TextExample("0", 1, "the film was good and it was bad .", "they ran home"), *examples_for(REGRESSION)]
    for max_length in (3, 7, 10):
        features = CLASSIFICATION.features([dataclasses.replace(e, label=None) for e in examples], ours, max_length)
        for row, example in enumerate(examples):
            expected = theirs(example.text, example.pair, truncation=True, max_length=max_length)
            span = slice(*features.row_starts[row : row + 2])
            assert features.input_ids[span].tolist() == expected["input_ids"]
            assert features.token_type_ids[span].tolist() == expected["token_type_ids"]


def test_config_is_the_one_transformers_reads():
    for kind, n_labels in ((CLASSIFICATION, 3), (REGRESSION, 1), (MULTI_LABEL, 3)):
        old = ElectraConfig(**SHAPE, num_labels=7, problem_type="other")
        config = ElectraConfig.from_dict({**old.to_dict(), **kind.config_changes()})
        theirs = transformers.ElectraConfig(**config.to_dict())
        assert config.num_labels == theirs.num_labels == n_labels
        assert theirs.id2label == config.id2label and theirs.label2id == config.label2id
        assert theirs.problem_type == config.problem_type == kind.config_changes()["problem_type"]
        if kind.labels:
            assert config.id2label == dict(enumerate(kind.labels))
            assert config.label2id == {label: number for number, label in enumerate(kind.labels)}


def test_a_label_outside_the_set_names_its_line():
    example = TextExample("0", 17, "a", None, "maybe")
    with pytest.raises(ValueError, match="line 17: the label must be one of no, yes, unsure, got 'maybe'"):
        CLASSIFICATION.features([example], tokenizer(), 64)
    with pytest.raises(ValueError, match="line 17: the label must be one of a, b, c, got 'd'"):
        MULTI_LABEL.features([dataclasses.replace(example, label=("a", "d"))], tokenizer(), 64)


def test_labels_and_heads_are_checked():
    with pytest.raises(ValueError, match="must be at least 2, got 1: yes"):
        Classification(["yes"])
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        MultiLabel([])
    with pytest.raises(ValueError, match="head must be one of transformers, paper, got 'linear'"):
        REGRESSION.model_class("linear")
    with pytest.raises(ValueError, match="each label must occur once, got a, b, a"):
        MultiLabel("aba")
