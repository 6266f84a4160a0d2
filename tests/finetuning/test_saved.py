"""Fine-tuned directories, ours and transformers'."""

import json
import warnings

import pytest
import torch
from finetuned_models import KINDS, MAX_LENGTH, TINY, tokenizer, write_finetuned
from tiny_models import assert_same_weights, edit, random_model

from electra_fast import ElectraForPreTraining
from electra_fast.finetuning.kinds.classification import Classification, Regression
from electra_fast.finetuning.kinds.question_answering import QuestionAnswering
from electra_fast.finetuning.kinds.table import KINDS as KIND_CLASSES
from electra_fast.finetuning.kinds.table import kind_name, make_kind
from electra_fast.finetuning.saved import load_finetuned

WITH_HEADS = [(name, "transformers") for name in KINDS]
WITH_HEADS += [(name, "paper") for name in ("classification", "regression", "multilabel", "qa")]


def test_every_kind_has_a_case():
    assert KINDS.keys() == KIND_CLASSES.keys()


@pytest.mark.parametrize(("name", "head"), WITH_HEADS)
def test_what_was_saved_is_loaded(tmp_path, name, head):
    model = write_finetuned(tmp_path, name, head)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_finetuned(tmp_path, device="cpu")
    assert type(found.model) is type(model) and not found.model.training
    assert_same_weights(found.model, model.state_dict())
    assert type(found.kind) is KIND_CLASSES[name] and kind_name(found.kind) == name
    labels, options = KINDS[name]
    assert tuple(found.kind.labels) == labels
    for option, value in options.items():
        assert getattr(found.kind, option) == value
    assert found.max_length == MAX_LENGTH
    assert found.tokenizer.get_vocab() == tokenizer().get_vocab()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("class_name", "fields", "kind_class", "labels"),
    [
        ("SequenceClassification", {"num_labels": 1}, "regression", ()),
        ("SequenceClassification", {"id2label": {0: "z", 1: "y", 2: "x"}}, "classification", ("z", "y", "x")),
        ("SequenceClassification", {"num_labels": 2}, "classification", ("LABEL_0", "LABEL_1")),
        ("SequenceClassification", {"problem_type": "regression", "num_labels": 1}, "regression", ()),
        (
            "SequenceClassification",
            {"problem_type": "multi_label_classification", "id2label": {0: "a", 1: "b"}},
            "multilabel",
            ("a", "b"),
        ),
        ("TokenClassification", {"id2label": {i: f"T{i}" for i in range(12)}}, "tagging", [f"T{i}" for i in range(12)]),
        ("MultipleChoice", {}, "choice", ()),
        ("QuestionAnswering", {}, "qa", ()),
    ],
)
def test_the_kind_of_what_transformers_wrote_is_in_its_config(tmp_path, class_name, fields, kind_class, labels):
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, f"ElectraFor{class_name}")(transformers.ElectraConfig(**TINY, **fields))
    theirs.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    found = load_finetuned(tmp_path, device="cpu")
    assert type(found.kind) is KIND_CLASSES[kind_class]
    assert tuple(found.kind.labels) == tuple(labels)
    assert_same_weights(found.model, theirs.state_dict())
    # The tokenizer says 512, the network has 64 positions.
    assert found.max_length == 64


def test_transformers_loads_what_we_saved(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = write_finetuned(tmp_path, "classification")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert theirs.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    assert theirs.config.problem_type == "single_label_classification"
    assert_same_weights(model, theirs.state_dict())


def test_weights_are_of_the_dtype_that_is_asked_for(tmp_path):
    write_finetuned(tmp_path, "regression")
    assert load_finetuned(tmp_path, device="cpu").model.dtype == torch.float32
    assert load_finetuned(tmp_path, device="cpu", dtype=torch.bfloat16).model.dtype == torch.bfloat16


def assert_refused(path, match):
    with pytest.raises(ValueError, match=match):
        load_finetuned(path, device="cpu")


def change(path, file="finetuning.json", **values):
    content = json.loads((path / file).read_text()) | values
    (path / file).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_a_network_that_is_not_fine_tuned_is_refused(tmp_path):
    random_model(ElectraForPreTraining).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    assert_refused(tmp_path, r"must hold a fine-tuned network, one of Electra.*; its config.json says ElectraForPreTr")
    change(tmp_path, "config.json", architectures=None)
    assert_refused(tmp_path, "its config.json says nothing of its architecture")
    # Somebody wrote the name over it, but the head is still not there.
    change(tmp_path, "config.json", architectures=["ElectraForSequenceClassification"])
    assert_refused(tmp_path, "must be a fine-tuned ElectraForSequenceClassification, but lacks classifier.dense.bias")


def test_a_checkpoint_without_a_part_of_its_head_is_refused(tmp_path):
    write_finetuned(tmp_path, "tagging")
    edit(tmp_path, lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "classifier.bias"})
    assert_refused(tmp_path, r"fine-tuned ElectraForTokenClassification, but lacks classifier\.bias$")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"kind": "poetry"}, "kind of an ElectraForQuestionAnswering must be qa, got 'poetry' in finetuning.json"),
        ({"kind": "tagging"}, "kind of an ElectraForQuestionAnswering must be qa, got 'tagging' in finetuning.json"),
        ({"options": {"colour": 3}}, "options must be those of the kind 'qa', got: .*colour"),
        ({"options": {"stride": 0}}, "stride must be at least 1, got 0"),
        ({"max_length": 65}, "max_length in finetuning.json must be from 1 to 64, got 65"),
        ({"max_length": 0}, "max_length in finetuning.json must be from 1 to 64, got 0"),
        ({"max_length": "long"}, "must hold an object with the keys kind, options and max_length, got"),
        ({"kind": None}, "must hold an object with the keys kind, options and max_length, got"),
    ],
)
def test_a_wrong_finetuning_json_is_refused(tmp_path, values, match):
    write_finetuned(tmp_path, "qa")
    change(tmp_path, **values)
    assert_refused(tmp_path, match)


def test_a_finetuning_json_that_is_cut_off_is_refused(tmp_path):
    write_finetuned(tmp_path, "qa")
    (tmp_path / "finetuning.json").write_text('{"kind": ')
    assert_refused(tmp_path, r"finetuning\.json must hold JSON, got")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"problem_type": "ranking"}, "problem_type in config.json must be one of .*, got 'ranking'"),
        ({"problem_type": "regression"}, "a network for regression must have one output, got 3"),
        ({"vocab_size": 7}, "the tokenizer must have at most the model's 7 tokens, got 57"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, values, match):
    write_finetuned(tmp_path, "classification")
    (tmp_path / "finetuning.json").unlink()
    change(tmp_path, "config.json", **values)
    assert_refused(tmp_path, match)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_finetuned(tmp_path, device="cpu")


def test_kinds_are_made_by_name():
    assert isinstance(make_kind("regression", ("LABEL_0",)), Regression)
    assert make_kind("classification", ("a", "b")).labels == ("a", "b")
    assert make_kind("qa", (), {"stride": 7}) == QuestionAnswering(stride=7)
    assert isinstance(make_kind("classification", ("a", "b")), Classification)
    with pytest.raises(ValueError, match=r"must be one of classification, .*, got 'poetry'"):
        make_kind("poetry")
