"""Labels of every kind: taken as transformers takes them, or refused by name."""

import pytest
import torch
from parity import VOCAB, assert_close, twins

IDS = torch.arange(1, 13).reshape(2, 6)
MASK = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
TOKEN_CLASSES = {"ElectraForMaskedLM": VOCAB, "ElectraForCausalLM": VOCAB, "ElectraForTokenClassification": 2}


@pytest.mark.parametrize("name", TOKEN_CLASSES)
def test_classes_of_tokens(name):
    theirs, ours = twins(name, torch.float32)
    labels = IDS % 2
    expected = theirs(IDS, labels=labels).loss
    for dtype in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool):
        assert_close(str(dtype), ours(IDS, labels=labels.to(dtype)).loss, expected, 1e-5)
    assert ours(IDS, labels=labels * 0 - 100).loss.isnan()
    for value in (-1, TOKEN_CLASSES[name]):
        with pytest.raises(ValueError, match=rf"labels must be in \[0, {TOKEN_CLASSES[name]}\), .* got {value}"):
            ours(IDS, labels=labels * 0 + value)
    with pytest.raises(ValueError, match=r"labels must be integers, got torch.float32"):
        ours(IDS, labels=labels.float())
    with pytest.raises(TypeError, match=r"labels must be a torch tensor, got a list"):
        ours(IDS, labels=labels.tolist())


@pytest.mark.parametrize("attentions", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.float32], ids=str)
@pytest.mark.parametrize("mask", [None, MASK, MASK.bool(), MASK * 0], ids=["full", "padded", "bool", "nothing real"])
def test_replaced_tokens_in_both_forms(attentions, dtype, mask):
    theirs, ours = twins("ElectraForPreTraining", torch.float32, attention="eager")
    inputs = dict(attention_mask=mask, labels=(IDS % 2).to(dtype), output_attentions=attentions)
    assert_close("loss", ours(IDS, **inputs).loss, theirs(IDS, **inputs).loss, 1e-5)


@pytest.mark.parametrize("attentions", [False, True])
def test_replaced_tokens_that_do_not_count_or_are_no_labels(attentions):
    _, ours = twins("ElectraForPreTraining", torch.float32)
    labels = IDS % 2
    ignored = labels.masked_fill(MASK == 0, -100)
    expected = ours(IDS, attention_mask=MASK, labels=labels, output_attentions=attentions).loss
    assert_close("at padding", ours(IDS, labels=ignored, attention_mask=MASK).loss, expected, 1e-5)
    some = ours(IDS, labels=ignored, output_attentions=attentions)
    counts = ignored >= 0
    loss = torch.nn.functional.binary_cross_entropy_with_logits(some.logits[counts], ignored[counts].float())
    assert_close("anywhere", some.loss, loss, 1e-5)
    for wrong in (labels * 3, labels * 0.5):
        with pytest.raises(ValueError, match=r"labels must be 1 where a token was replaced, else 0, got (3|0.5)"):
            ours(IDS, labels=wrong, output_attentions=attentions)
    with pytest.raises(ValueError, match=r"labels need an attention_mask of 2 dimensions"):
        ours(IDS, labels=labels, attention_mask=MASK[:, None, None].bool())


@pytest.mark.parametrize(
    ("n_labels", "problem", "labels"),
    [
        (1, None, torch.tensor([0.2, 0.7])),
        (1, None, torch.tensor([[0.2], [0.7]])),
        (1, None, torch.tensor([2, 7])),
        (3, "regression", torch.rand(2, 3)),
        (3, None, torch.tensor([0, 2])),
        (3, None, torch.tensor([-100, 2])),
        (3, None, torch.tensor([[1], [2]])),
        (3, None, torch.tensor([[0.0, 1, 1], [1, 0, 0]])),
        (3, "multi_label_classification", torch.rand(2, 3)),
    ],
)
def test_labels_of_texts_are_transformers(n_labels, problem, labels):
    theirs, ours = twins("ElectraForSequenceClassification", torch.float32, num_labels=n_labels, problem_type=problem)
    assert_close("loss", ours(IDS, labels=labels).loss, theirs(IDS, labels=labels).loss, 1e-5)
    assert ours.config.problem_type == theirs.config.problem_type


@pytest.mark.parametrize(
    ("n_labels", "problem", "labels", "message"),
    [
        (1, None, torch.tensor(0.5), r"labels must have shape \(2, 1\) for problem_type 'regression', got \(\)"),
        (1, None, torch.rand(3), r"got \(3,\)"),
        (3, "regression", torch.rand(3), r"labels must have shape \(2, 3\) .*, got \(3,\)"),
        (3, None, torch.tensor([0.0, 1.0]), r"'multi_label_classification', got \(2,\); a class of each text is int64"),
        (3, None, torch.tensor([0, 3]), r"labels must be in \[0, 3\), or -100 .* got 3"),
        (3, "single_label_classification", torch.tensor([0.0, 1.7]), "labels must be integers, got torch.float32"),
    ],
)
def test_labels_of_texts_that_do_not_fit_are_named(n_labels, problem, labels, message):
    _, ours = twins("ElectraForSequenceClassification", torch.float32, num_labels=n_labels, problem_type=problem)
    with pytest.raises(ValueError, match=message):
        ours(IDS, labels=labels)


def test_labels_of_choices():
    theirs, ours = twins("ElectraForMultipleChoice", torch.float32)
    ids = torch.stack([IDS, IDS.flip(1)], dim=1)
    for labels in (torch.tensor([0, 1]), torch.tensor([-100, 1]), torch.tensor([[0.2, 0.8], [1.0, 0.0]])):
        assert_close("loss", ours(ids, labels=labels).loss, theirs(ids, labels=labels).loss, 1e-5)
    assert_close("int32", ours(ids, labels=torch.ones(2).int()).loss, ours(ids, labels=torch.ones(2).long()).loss, 0)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\)"):
        ours(ids, labels=torch.tensor([0, 2]))


def test_positions_of_answers():
    theirs, ours = twins("ElectraForQuestionAnswering", torch.float32)
    for positions in (torch.tensor([0, 5]), torch.tensor([[0], [50]]), torch.tensor([-1, 3])):
        inputs = dict(start_positions=positions, end_positions=positions)
        expected = theirs(IDS, **inputs).loss
        assert_close("loss", ours(IDS, **inputs).loss, expected, 1e-5)
        inputs = dict(start_positions=positions.int(), end_positions=positions.int())
        assert_close("int32", ours(IDS, **inputs).loss, expected, 1e-5)
    with pytest.raises(ValueError, match=r"end_positions must be integers, got torch.float32"):
        ours(IDS, start_positions=torch.tensor([0, 5]), end_positions=torch.tensor([0.0, 5.0]))


def test_the_loss_of_a_model_in_16_bits_is_float32():
    _, ours = twins("ElectraForMaskedLM", torch.bfloat16)
    assert ours(IDS, labels=IDS).loss.dtype is torch.float32
