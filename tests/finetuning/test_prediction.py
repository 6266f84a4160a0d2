"""Bulk inference: the same predictions as one by one, in order, in constant memory; and from several processes."""

import gc
import itertools
import random
import threading

import numpy as np
import pytest
import torch
from finetuned_models import LETTERS, MAX_LENGTH, write_finetuned

from electra_fast.finetuning import prediction
from electra_fast.finetuning.data.examples import ChoiceExample, QuestionExample, TaggedExample, TextExample
from electra_fast.finetuning.prediction import predict, score_features
from electra_fast.finetuning.saved import Finetuned, load_finetuned
from electra_fast.inference import batching
from electra_fast.inference.batching import Counts


def words(draw: random.Random, most: int) -> tuple[str, ...]:
    return tuple(draw.choices(LETTERS, k=draw.randint(1, most)))


def examples_of(name: str, n: int) -> list:
    """Examples of a kind, many of them longer than a row."""
    draw = random.Random(0)
    text = lambda most=40: " ".join(words(draw, most))  # noqa: E731
    make = {
        "tagging": lambda i: TaggedExample(f"id{i}", i + 1, words(draw, 60)),
        "qa": lambda i: QuestionExample(f"id{i}", i + 1, text(9), text(60)),
        "choice": lambda i: ChoiceExample(f"id{i}", i + 1, text(), text(3), tuple(text() for _ in range(i % 3 + 1))),
    }.get(name, lambda i: TextExample(f"id{i}", i + 1, text(), text()))
    return [make(i) for i in range(n)]


@pytest.fixture
def finetuned(tmp_path):
    def load(name, head="transformers"):
        write_finetuned(tmp_path / name, name, head)
        return load_finetuned(tmp_path / name, device="cpu")

    return load


def assert_close(found, expected):
    """Equal, numbers up to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_close(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b)
    else:
        assert found == (pytest.approx(expected, rel=1e-4, abs=1e-5) if isinstance(expected, float) else expected)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *((name, "transformers") for name in ("classification", "regression", "multilabel", "tagging", "choice", "qa")),
        ("classification", "paper"),
        ("qa", "paper"),
    ],
)
def test_many_at_once_are_predicted_as_one_by_one(finetuned, monkeypatch, name, head):
    network, examples = finetuned(name, head), examples_of(name, 23)
    expected = [next(predict(network, [example])) for example in examples]
    assert [prediction["id"] for prediction in expected] == [f"id{i}" for i in range(23)]
    monkeypatch.setattr(batching, "CHUNK_ITEMS", 10)
    for batch_tokens in (1, 100, 10_000):
        assert_close(list(predict(network, iter(examples), batch_tokens=batch_tokens)), expected)


def test_predictions_are_those_of_the_model_on_padded_batches(finetuned):
    network, examples = finetuned("classification"), examples_of("classification", 20)
    pairs = [(example.text, example.pair) for example in examples]
    inputs = network.tokenizer(pairs, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
    with torch.no_grad():
        expected = network.model(**inputs).logits.softmax(-1)
    found = [list(p["probabilities"].values()) for p in predict(network, examples, batch_tokens=64)]
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-5)
    assert expected.std(0).max() > 1e-3  # else their order would not show


def live_examples() -> int:
    gc.collect()
    return sum(type(thing) is TextExample for thing in gc.get_objects())


def test_an_endless_input_takes_constant_memory(finetuned, monkeypatch):
    monkeypatch.setattr(batching, "CHUNK_ITEMS", 50)
    n_read = 0

    def endless():
        nonlocal n_read
        for n_read in itertools.count(1):
            yield TextExample(str(n_read - 1), n_read, "a b c"[: n_read % 5 + 1])

    predictions = predict(finetuned("classification"), endless())
    for expected in range(1000):
        assert next(predictions)["id"] == str(expected)
        assert n_read <= expected + 1 + 100
        if expected % 250 == 249:
            assert live_examples() <= 150
    predictions.close()
    assert n_read <= 1100


def test_few_long_examples_are_read_at_a_time(monkeypatch):
    monkeypatch.setattr(batching, "CHUNK_CHARS", 100)
    examples = [TextExample(str(i), i, "a" * 30, "b" * 15) for i in range(10)]
    assert [len(chunk) for chunk in batching.chunks(examples, prediction._n_chars)] == [3, 3, 3, 1]
    others = [
        TaggedExample("", 1, ("a" * 50, "b" * 50)),
        QuestionExample("", 1, "a" * 50, "b" * 50),
        ChoiceExample("", 1, "a" * 10, "b" * 10, ("c" * 30, "d" * 30)),
    ]
    assert [len(chunk) for chunk in batching.chunks(others, prediction._n_chars)] == [1, 1, 1]


def test_the_next_examples_are_tokenised_while_the_first_are_computed(finetuned, monkeypatch):
    monkeypatch.setattr(batching, "CHUNK_ITEMS", 2)
    network = finetuned("classification")
    tokenising, computing = ([threading.Event() for _ in range(3)] for _ in range(2))
    numbers = {"features": itertools.count(), "scores": itertools.count()}

    class Kind(type(network.kind)):
        """Waits for the other to be at work too."""

        def features(self, *arguments):
            number = next(numbers["features"])
            tokenising[number].set()
            assert number == 0 or computing[number - 1].wait(timeout=60)
            return super().features(*arguments)

        def scores(self, *arguments):
            number = next(numbers["scores"])
            computing[number].set()
            assert number == 2 or tokenising[number + 1].wait(timeout=60)
            return super().scores(*arguments)

    network = Finetuned(network.model, Kind(network.kind.labels), network.tokenizer, network.max_length)
    assert len(list(predict(network, examples_of("classification", 6)))) == 6


def test_what_goes_wrong_while_reading_or_tokenising_is_told(finetuned, monkeypatch):
    monkeypatch.setattr(batching, "CHUNK_ITEMS", 2)
    network = finetuned("classification")

    def broken():
        yield from examples_of("classification", 5)
        raise ValueError("file, line 6: broken")

    found = []
    with pytest.raises(ValueError, match="file, line 6: broken"):
        found += predict(network, broken())
    with pytest.raises(ValueError, match="surrogate"):
        list(predict(network, [TextExample("0", 1, "\ud800")]))
    with pytest.raises(ValueError, match="batch_tokens must be positive, got 0"):
        list(predict(network, [], batch_tokens=0))
    assert not [thread.name for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_no_examples_give_no_predictions(finetuned):
    counts = Counts()
    assert list(predict(finetuned("tagging"), [], counts=counts)) == []
    assert counts == Counts(0, 0)


def test_examples_and_tokens_are_counted(finetuned, monkeypatch, capsys):
    monkeypatch.setattr(batching, "CHUNK_ITEMS", 2)
    texts = ["a", "b c", "d e f", " ".join("a" * 40)]
    counts = Counts()
    list(
        predict(
            finetuned("classification"),
            [TextExample(str(i), i, text) for i, text in enumerate(texts)],
            progress=True,
            counts=counts,
        )
    )
    assert counts == Counts(4, 1 + 2 + 3 + 3 * 2 + MAX_LENGTH)
    printed = capsys.readouterr()
    assert "4.00/4.00" in printed.err and not printed.out


@pytest.mark.parametrize("is_training", [True, False])
def test_scores_of_items_are_in_order_and_the_mode_is_restored(finetuned, is_training):
    network = finetuned("tagging")
    features = network.kind.features(examples_of("tagging", 9), network.tokenizer, MAX_LENGTH)
    assert len(features) > 9  # sentences are cut
    network.model.train(is_training)
    scores = score_features(network.model, network.kind, features, 64, "cpu")
    assert network.model.training == network.model.electra.training == is_training
    n_words = [int((features.batch([item]).targets["words"] >= 0).sum()) for item in range(len(features))]
    assert [len(score) for score in scores] == n_words
    again = score_features(network.model, network.kind, features, 10_000, "cpu")  # no dropout
    for a, b in zip(scores, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
