"""Reranking: the scores of sentence-transformers' CrossEncoder, pairs that are cut as the tokenizer cuts them."""

import gzip
import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import random_model
from tokenizers.processors import TemplateProcessing

from electra_fast import ElectraForSequenceClassification, ElectraTokenizer, load_reranker, rerank
from electra_fast.cli.main import main
from electra_fast.inference import batching

sentence_transformers = pytest.importorskip("sentence_transformers")

LETTERS = "abcdefghij"
TOKENIZER = ElectraTokenizer(
    {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS])}, model_max_length=24
)
PASSAGES = ["a b", "", "c d e", " ".join(LETTERS) * 5, "f", "a b c d e f g", "a b"]


@pytest.fixture(scope="module")
def model():
    return random_model(ElectraForSequenceClassification, num_labels=1)


@pytest.fixture(scope="module")
def directory(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain")
    model.save_pretrained(path)
    TOKENIZER.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def cross_encoder(directory, tmp_path_factory):
    path = tmp_path_factory.mktemp("cross") / "encoder"
    sentence_transformers.CrossEncoder(str(directory), device="cpu").save_pretrained(str(path))
    return path


def edited(path, filename, **fields):
    content = json.loads((path / filename).read_text())
    (path / filename).write_text(json.dumps(content | fields))


def scores_of(ranked):
    assert sorted(index for index, _ in ranked) == list(range(len(ranked)))
    assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    return np.array([score for _, score in sorted(ranked)])


# What it computes


@settings(max_examples=40, deadline=None)
@given(
    query=st.lists(st.sampled_from(LETTERS), max_size=8).map(" ".join),
    passages=st.lists(st.lists(st.sampled_from(LETTERS), max_size=20).map(" ".join), min_size=1, max_size=6),
    max_length=st.integers(11, 24),
    batch_tokens=st.sampled_from([1, 30, 10_000]),
    chunk=st.integers(1, 4),
    side=st.sampled_from(["right", "left"]),
)
def test_scores_are_those_of_each_pair_by_itself(model, query, passages, max_length, batch_tokens, chunk, side):
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(batching, "CHUNK_ITEMS", chunk)
        patch.setattr(TOKENIZER, "truncation_side", side)
        found = rerank(query, passages, model, TOKENIZER, max_length=max_length, batch_tokens=batch_tokens)
        pairs = [
            TOKENIZER([query], [passage], truncation=True, max_length=max_length, return_tensors="pt")
            for passage in passages
        ]
        expected = [model(**pair).logits.sigmoid().item() for pair in pairs]
    np.testing.assert_allclose(scores_of(found), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "activation", [None, torch.nn.Identity(), torch.nn.Tanh()], ids=["default", "identity", "tanh"]
)
def test_scores_and_order_are_those_of_a_cross_encoder(directory, tmp_path, activation):
    theirs = sentence_transformers.CrossEncoder(str(directory), device="cpu", max_length=16, activation_fn=activation)
    theirs.save_pretrained(str(tmp_path / "m"))
    passages = PASSAGES[:-1]  # the last one is the first again, and rounding decides between them there
    expected = theirs.rank("a c", passages)
    found = rerank("a c", passages, tmp_path / "m")
    assert [index for index, _ in found] == [row["corpus_id"] for row in expected]
    np.testing.assert_allclose([score for _, score in found], [row["score"] for row in expected], atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ],
    ids=["version-4", "before-version-4"],
)
def test_activations_that_earlier_versions_saved(directory, tmp_path, fields):
    path = shutil.copytree(directory, tmp_path / "m")
    edited(path, "config.json", **fields)
    expected = sentence_transformers.CrossEncoder(str(path), device="cpu").predict([("a c", p) for p in PASSAGES])
    np.testing.assert_allclose(scores_of(rerank("a c", PASSAGES, path)), expected, atol=1e-6)


def test_the_best_come_first_and_equal_ones_in_their_order(directory, model):
    found = rerank("a c", PASSAGES, directory)
    places = [index for index, _ in found]
    assert places.index(6) == places.index(0) + 1  # the same text
    assert rerank("a c", PASSAGES, model, TOKENIZER, top_k=3) == found[:3]
    assert rerank("a c", [], directory) == []
    reranker = load_reranker(directory, device="cpu")
    assert reranker("a c", iter(PASSAGES)) == reranker("a c", PASSAGES) == found


# The command


def test_the_command_prints_the_best_passages(directory, tmp_path, capsys):
    (tmp_path / "in.txt.gz").write_bytes(gzip.compress("\n".join(PASSAGES).encode()))
    arguments = ["rerank", "--model", str(directory), "--query", "a c", "--device", "cpu"]
    assert main([*arguments, "--input", str(tmp_path / "in.txt.gz"), "--top-k", "2"]) == 0
    printed = capsys.readouterr()
    expected = rerank("a c", PASSAGES, directory, top_k=2)
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [(row["index"], row["score"]) for row in rows] == expected
    assert [row["text"] for row in rows] == [PASSAGES[index] for index, _ in expected]
    assert "7 passages, " in printed.err and " passages/s" in printed.err
    (tmp_path / "in.csv").write_text("title,passage\nx,a b\ny,c d\n")
    table = ["--input", str(tmp_path / "in.csv"), "--text", "passage", "--output", str(tmp_path / "out.jsonl")]
    assert main([*arguments, *table]) == 0
    assert sorted(json.loads(line)["text"] for line in (tmp_path / "out.jsonl").open()) == ["a b", "c d"]


# Mistakes


def test_a_network_with_several_outputs_is_refused(tmp_path):
    random_model(ElectraForSequenceClassification, num_labels=2).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the model must have one output, the relevance, got 2"):
        rerank("a", ["b"], tmp_path)


@pytest.mark.parametrize(
    ("query", "passages", "options", "error", "message"),
    [
        (
            " ".join("a" * 22),
            ["b"],
            {},
            ValueError,
            "the query must have at most 21 tokens, for pairs of 24, got 22: 'a a",
        ),
        ("a b", ["b"], {"max_length": 4}, ValueError, "the query must have at most 1 tokens, for pairs of 4, got 2"),
        (None, ["b"], {}, TypeError, "the query must be a str, got NoneType"),
        ("\ud800", ["b"], {}, ValueError, "the query must be well-formed Unicode"),
        ("a", "b", {}, TypeError, "passages must be a list of str or an iterable of them, got str"),
        ("a", ["b", 7], {}, TypeError, r"passages\[1\] must be a str, got int"),
        ("a", ["b"], {"top_k": 0}, ValueError, "top_k must be positive, got 0"),
        ("a", ["b"], {"max_length": 2}, ValueError, "max_length must be an integer from 3 to the model's 64, got 2"),
    ],
    ids=["long-query", "short-pair", "no-query", "surrogate", "one-passage", "no-text", "top-k", "max-length"],
)
def test_mistakes_are_told(model, query, passages, options, error, message):
    with pytest.raises(error, match=message):
        rerank(query, passages, model, TOKENIZER, **options)


def test_a_model_in_memory_is_ours_and_has_its_tokenizer(model):
    with pytest.raises(TypeError, match="needs its tokenizer beside it"):
        rerank("a", ["b"], model)
    with pytest.raises(TypeError, match=r"an ElectraForSequenceClassification of electra_fast, got torch\.nn"):
        rerank("a", ["b"], torch.nn.Linear(1, 1), TOKENIZER)
    backend = ElectraTokenizer(TOKENIZER.get_vocab()).backend_tokenizer
    special = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", special)
    with pytest.raises(ValueError, match=r"with the types 0 and 1; an empty pair becomes \[2, 3, 3\] with \[0, 0, 0\]"):
        rerank("a", ["b"], model, ElectraTokenizer(tokenizer_object=backend))


def _with_prompt(path):
    edited(path, "config_sentence_transformers.json", prompts={"query": "q: "}, default_prompt_name="query")


def _with_a_further_module(path):
    modules = json.loads((path / "modules.json").read_text())
    (path / "modules.json").write_text(
        json.dumps(modules + [modules[0] | {"type": "sentence_transformers.models.Dense"}])
    )


BROKEN = {
    "a-prompt": (_with_prompt, "must have no default prompt, got 'query'"),
    "further-modules": (_with_a_further_module, "must list a Transformer alone, .* got Transformer, Dense"),
    "sentence-transformer": (
        lambda path: edited(path, "config_sentence_transformers.json", model_type="SentenceTransformer"),
        "must be of a CrossEncoder, got a 'SentenceTransformer'",
    ),
    "unknown-activation": (
        lambda path: edited(path, "config_sentence_transformers.json", activation_fn="mine.Act"),
        "must have an activation function of torch.nn, got 'mine.Act'",
    ),
    "other-task": (
        lambda path: edited(path, "sentence_bert_config.json", transformer_task="fill-mask"),
        "transformer_task = 'fill-mask', which is not supported",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_would_change_the_scores_is_refused(cross_encoder, tmp_path, kind):
    change, message = BROKEN[kind]
    path = shutil.copytree(cross_encoder, tmp_path / "m")
    change(path)
    with pytest.raises(ValueError, match=message):
        rerank("a", ["b"], path)
