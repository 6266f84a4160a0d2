"""Tags of words: rows that hold every word, losses beside transformers, predictions and metrics."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kind_cases import SHAPE, assert_same_loss, encode, inputs_for_theirs, padded, scores_in_batches, tokenizer, twins

from electra_fast import ElectraConfig, ElectraForTokenClassification
from electra_fast.finetuning.data.examples import TaggedExample
from electra_fast.finetuning.kinds.tagging import Tagging

TAGS = ("O", "B-X", "I-X")
KIND = Tagging(TAGS)
TOKENIZER = tokenizer()
UNREAD = "\u200b\x07"  # nothing is left of it
EXAMPLES = [
    TaggedExample("s0", 1, ("the", "film", "played", "home"), ("O", "O", "B-X", "I-X")),
    TaggedExample("s1", 6, ("playing",), ("B-X",)),
    TaggedExample("s2", 8, ("they", "filmed", "filming", "bad", "."), ("B-X", "O", "I-X", "O", "O")),
]
WORDS = st.sampled_from(["a", "played", "playeding", "the", UNREAD, "home.", "zzz", "filmeded?"])
SENTENCES = st.lists(st.lists(st.tuples(WORDS, st.sampled_from(TAGS)), min_size=1, max_size=9), min_size=1, max_size=5)


def examples_of(sentences):
    return [TaggedExample(str(i), i + 1, *zip(*pairs, strict=True)) for i, pairs in enumerate(sentences)]


def tiny_model():
    torch.manual_seed(0)
    return ElectraForTokenClassification(ElectraConfig(**SHAPE, **KIND.config_changes())).eval()


def test_loss_and_gradients_are_transformers():
    theirs, ours = twins("ElectraForTokenClassification", KIND)
    features = KIND.features(EXAMPLES, TOKENIZER, 64)
    for items in ([2, 0], [0, 1, 2]):
        labels = padded(features, features.token_targets["labels"], items, fill=-100)
        ours.zero_grad()
        theirs.zero_grad()
        assert_same_loss(theirs, ours, KIND, features, items, labels)


def test_scores_are_transformers_at_the_first_piece_of_each_word():
    theirs, ours = twins("ElectraForTokenClassification", KIND)
    features = KIND.features(EXAMPLES, TOKENIZER, 64)
    with torch.no_grad():
        expected = theirs(**inputs_for_theirs(features, [0, 1, 2])).logits.softmax(-1).numpy()
    scores = scores_in_batches(ours, KIND, features, 2)
    first_pieces = [[1, 2, 3, 5], [1], [1, 2, 4, 6, 7]]  # "played", "filmed" and "filming" are two pieces
    for score, row, pieces in zip(scores, expected, first_pieces, strict=True):
        np.testing.assert_allclose(score, row[pieces], atol=1e-5)


def test_rows_by_hand():
    features = KIND.features(EXAMPLES[:2], TOKENIZER, 64)
    tokens = TOKENIZER.convert_ids_to_tokens(features.input_ids.tolist())
    assert tokens == "[CLS] the film play ##ed home [SEP] [CLS] play ##ing [SEP]".split()
    assert features.token_targets["labels"].tolist() == [-100, 0, 0, 1, -100, 2, -100, -100, 1, -100, -100]
    assert features.token_targets["words"].tolist() == [-1, 0, 1, 2, -1, 3, -1, -1, 0, -1, -1]
    assert features.row_starts.tolist() == [0, 7, 11]
    assert features.n_targets.tolist() == [4, 1]
    assert not features.token_type_ids.any()


@settings(max_examples=60, deadline=None)
@given(SENTENCES)
def test_ids_are_those_of_words_given_to_the_tokenizer(sentences):
    examples = examples_of(sentences)
    encoded = TOKENIZER([list(e.words) for e in examples], is_split_into_words=True)
    features = KIND.features(examples, TOKENIZER, 512)
    assert features.input_ids.tolist() == [token for row in encoded["input_ids"] for token in row]
    expected = []
    for row, example in enumerate(examples):
        word_ids = encoded.word_ids(row)
        begins = [w is not None and w not in word_ids[:i] for i, w in enumerate(word_ids)]
        expected += [TAGS.index(example.tags[w]) if b else -100 for w, b in zip(word_ids, begins, strict=True)]
    assert features.token_targets["labels"].tolist() == expected


@settings(max_examples=100, deadline=None)
@given(SENTENCES, st.integers(3, 12))
def test_every_word_is_in_one_row_at_any_length(sentences, max_length):
    examples = examples_of(sentences)
    features = KIND.features(examples, TOKENIZER, max_length)
    assert features.item_lengths.max() <= max_length
    assert features.item_rows.tolist() == list(range(len(features) + 1))
    words = features.token_targets["words"]
    assert features.n_targets.tolist() == [
        int((words[a:b] >= 0).sum()) for a, b in zip(features.row_starts, features.row_starts[1:], strict=False)
    ]
    assert features.input_ids[features.row_starts[:-1]].tolist() == [TOKENIZER.cls_token_id] * len(features)
    assert features.input_ids[features.row_starts[1:] - 1].tolist() == [TOKENIZER.sep_token_id] * len(features)
    example_of_token = np.repeat(features.item_examples, features.item_lengths)
    found = [(int(e), int(w)) for e, w in zip(example_of_token, words, strict=True) if w >= 0]
    assert found == [(n, w) for n, e in enumerate(examples) for w, word in enumerate(e.words) if word != UNREAD]
    # Rows are full: the first word of a sentence's next row had no room in the one before.
    for row in range(1, len(features)):
        if features.item_examples[row] == features.item_examples[row - 1]:
            first = words[features.row_starts[row] + 1]
            word = examples[features.item_examples[row]].words[first]
            n_pieces = min(len(TOKENIZER.tokenize(word)), max_length - 2)
            assert features.item_lengths[row - 1] + n_pieces > max_length


@settings(max_examples=60, deadline=None)
@given(SENTENCES, st.integers(3, 12), st.integers(1, 4))
def test_a_network_that_is_always_right_gets_every_tag_back(sentences, max_length, batch_size):
    examples = examples_of(sentences)
    features = KIND.features(examples, TOKENIZER, max_length)
    scores = []
    for first in range(0, len(features), batch_size):
        batch = features.batch(range(first, min(first + batch_size, len(features))))
        scores += KIND.scores(Right(), right_hidden(batch.targets["labels"]), batch)
    predictions = KIND.predictions(examples, features, scores)
    for example, prediction in zip(examples, predictions, strict=True):
        read = [word != UNREAD for word in example.words]
        assert prediction["words"] == list(example.words)
        assert prediction["tags"] == [tag if r else "O" for tag, r in zip(example.tags, read, strict=True)]
        assert [p is not None for p in prediction["probabilities"]] == read
    assert json.loads(json.dumps(predictions)) == predictions


class Right(torch.nn.Module):
    """Logits that are the hidden states."""

    dropout = classifier = staticmethod(lambda hidden: hidden)


def right_hidden(labels):
    return torch.nn.functional.one_hot(labels.clamp(min=0), len(TAGS)).float() * 9


def test_words_that_are_not_read_count_in_nothing():
    words, tags = ("the", UNREAD, "film"), ("O", "B-X", "I-X")
    examples = [TaggedExample("0", 1, words, tags), TaggedExample("1", 5, (UNREAD,), ("I-X",))]
    features = KIND.features(examples, TOKENIZER, 64)
    assert features.n_targets.tolist() == [2, 0]
    model = tiny_model()
    batch = features.batch([1])
    assert KIND.loss(model, encode(model, batch, KIND), batch).item() == 0.0
    scores = scores_in_batches(model, KIND, features, 1)
    assert [score.shape for score in scores] == [(2, 3), (0, 3)]
    scores[0] = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]])
    predictions = KIND.predictions(examples, features, scores)
    assert predictions[0] == {
        "id": "0",
        "words": list(words),
        "tags": ["O", "O", "I-X"],
        "probabilities": [0.9, None, 0.5],
    }
    assert predictions[1]["tags"] == ["O"] and predictions[1]["probabilities"] == [None]
    assert KIND.metrics(examples, predictions) == {"f1": 1.0, "precision": 1.0, "recall": 1.0, "accuracy": 1.0}
    for labels, tag in ((["B-X", "I-X"], "B-X"), (["B-X", "O"], "O")):
        found = Tagging(labels).predictions(examples[1:], features_of_one(examples[1]), [np.zeros((0, 2))])
        assert found == [{"id": "1", "words": [UNREAD], "tags": [tag], "probabilities": [None]}]


def features_of_one(example):
    return KIND.features([dataclasses.replace(example, tags=None)], TOKENIZER, 64)


def test_loss_is_a_sum_over_words_in_fp32():
    model = tiny_model()
    features = KIND.features(EXAMPLES, TOKENIZER, 64)
    losses = [
        KIND.loss(model, encode(model, b, KIND), b).item() for b in map(features.batch, ([0], [1], [2], [2, 0, 1]))
    ]
    assert losses[3] == pytest.approx(sum(losses[:3]), rel=1e-5)
    half = model.bfloat16()
    batch = features.batch([0, 1, 2])
    loss = KIND.loss(half, encode(half, batch, KIND), batch)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(losses[3], rel=0.05)


def test_sentences_of_nothing_make_rows_of_nothing():
    examples = [TaggedExample("0", 1, (), ()), TaggedExample("1", 2, (UNREAD, UNREAD), ("O", "B-X"))]
    features = KIND.features(examples, TOKENIZER, 64)
    assert features.input_ids.tolist() == [TOKENIZER.cls_token_id, TOKENIZER.sep_token_id] * 2
    assert features.n_targets.tolist() == [0, 0]
    predictions = KIND.predictions(examples, features, scores_in_batches(tiny_model(), KIND, features, 2))
    assert [prediction["tags"] for prediction in predictions] == [[], ["O", "O"]]


def test_without_tags_there_are_words_and_no_labels():
    features = features_of_one(EXAMPLES[0])
    assert features.token_targets.keys() == {"words"}
    assert features.n_targets.tolist() == [4]


def test_metrics_are_of_spans_where_tags_mark_them():
    predictions = [
        {"tags": tags, "probabilities": [1.0] * len(tags)}
        for tags in (["O", "O", "B-X", "I-X"], ["O"], ["B-X", "O", "O", "O", "O"])
    ]
    metrics = KIND.metrics(EXAMPLES, predictions)
    # Of four spans two are found, and no other.
    assert metrics == pytest.approx({"f1": 2 / 3, "precision": 1.0, "recall": 0.5, "accuracy": 0.8})
    assert list(metrics) == ["f1", "precision", "recall", "accuracy"]
    parts_of_speech = Tagging(["NN", "VB"])
    example = TaggedExample("0", 1, ("film", "ran"), ("NN", "VB"))
    assert parts_of_speech.metrics([example], [{"tags": ["NN", "NN"], "probabilities": [1.0, 1.0]}]) == {
        "accuracy": 0.5
    }


def test_constant_loss_is_the_entropy_of_tags():
    features = KIND.features(EXAMPLES, TOKENIZER, 64)
    shares = [5 / 10, 3 / 10, 2 / 10]
    assert KIND.constant_loss(features) == pytest.approx(-sum(p * math.log(p) for p in shares))


def test_errors():
    with pytest.raises(ValueError, match="line 6: the label must be one of O, B-X, I-X, got 'B-Y'"):
        KIND.features([dataclasses.replace(EXAMPLES[1], tags=("B-Y",))], TOKENIZER, 64)
    with pytest.raises(ValueError, match="max_length must be at least 3"):
        KIND.features(EXAMPLES, TOKENIZER, 2)
    with pytest.raises(ValueError, match="head must be 'transformers' for tagging, got 'paper'"):
        KIND.model_class("paper")
    assert KIND.model_class("transformers") is ElectraForTokenClassification
