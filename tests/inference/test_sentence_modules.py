"""Directories of sentence-transformers: the same vectors as its own `encode`, and what is not known refused by name."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from tiny_models import random_model

from electra_fast import ElectraModel, ElectraTokenizer, embed, embed_stream
from electra_fast.cli.embed import EmbedCommand
from electra_fast.inference.embed import load_embedder

sentence_transformers = pytest.importorskip("sentence_transformers")
from sentence_transformers.sentence_transformer import modules  # noqa: E402

WORDS = "abcdefghij"
TEXTS = ["a b", "", "c D e", " ".join(WORDS) * 3, "f", "a b c d e f g"]
SIZE = 32


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    random_model(ElectraModel).save_pretrained(path)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ":", *WORDS, *("##" + letter for letter in WORDS)]
    ElectraTokenizer({token: i for i, token in enumerate(tokens)}, model_max_length=64).save_pretrained(path)
    return path


def saved(path, encoder, *after, max_length=None, pooling="mean", include_prompt=True, **options):
    """A directory of sentence-transformers with random weights in the modules after the pooling."""
    torch.manual_seed(0)
    transformer = modules.Transformer(str(encoder), max_seq_length=max_length)
    pool = modules.Pooling(SIZE, pooling, include_prompt=include_prompt)
    model = sentence_transformers.SentenceTransformer(modules=[transformer, pool, *after], device="cpu", **options)
    model.save(str(path))
    return model


def edited(path, filename, change):
    content = json.loads((path / filename).read_text())
    (path / filename).write_text(json.dumps(change(content) or content))


def assert_same(found, expected):
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(1) / norms).min() > 1 - 1e-6


RESIDUAL = modules.Dense(SIZE, 8, activation_function=torch.nn.GELU(), use_residual=True)
MODELS = {
    "mean": {},
    "cls-normalized": {"pooling": "cls", "after": [modules.Normalize()]},
    "max-cut": {"pooling": "max", "max_length": 7},
    "weighted-mean": {"pooling": "weightedmean"},
    "root-and-last": {"pooling": ("mean_sqrt_len_tokens", "lasttoken"), "after": [modules.Normalize()]},
    "dense": {
        "after": [modules.Dropout(0.5), modules.Dense(SIZE, 7), modules.Dense(7, 5, bias=False), modules.Normalize()]
    },
    "residual": {"after": [RESIDUAL, modules.LayerNorm(8)]},
}
PROMPTS = {"query": "a b: ", "document": "c: "}


@pytest.mark.parametrize("include_prompt", [True, False], ids=["prompt-pooled", "prompt-not-pooled"])
@pytest.mark.parametrize("kind", MODELS)
def test_vectors_are_those_of_encode(encoder, tmp_path, kind, include_prompt):
    options = dict(MODELS[kind])
    after = options.pop("after", [])
    model = saved(
        tmp_path / "m",
        encoder,
        *after,
        include_prompt=include_prompt,
        prompts=PROMPTS,
        default_prompt_name="query",
        **options,
    )
    assert_same(embed(TEXTS, tmp_path / "m"), model.encode(TEXTS))
    assert_same(embed(TEXTS, tmp_path / "m", prompt_name="document"), model.encode(TEXTS, prompt_name="document"))
    assert_same(embed(TEXTS, tmp_path / "m", prompt=""), model.encode(TEXTS, prompt=""))
    found = np.concatenate(list(embed_stream(TEXTS, tmp_path / "m", prompt="d", normalize=True)))
    assert_same(found, model.encode(TEXTS, prompt="d", normalize_embeddings=True))


def test_directories_of_earlier_versions(encoder, tmp_path):
    """A folder of its own for the encoder, the length beside it, modes as flags, weights as a pickle."""
    path = tmp_path / "m"
    model = saved(path, encoder, modules.Dense(2 * SIZE, 4), pooling=("cls", "max"), max_length=9)
    (path / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (path / name).rename(path / "0_Transformer" / name)
    (path / "sentence_bert_config.json").unlink()
    config = {"max_seq_length": 9, "do_lower_case": False}
    (path / "0_Transformer/sentence_bert_config.json").write_text(json.dumps(config))
    edited(path / "0_Transformer", "tokenizer_config.json", lambda config: config.update(model_max_length=64))
    kinds = ["Transformer", "Pooling", "Dense"]
    folders = ["0_Transformer", "1_Pooling", "2_Dense"]
    listed = [
        {"idx": i, "name": str(i), "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, folder) in enumerate(zip(kinds, folders, strict=True))
    ]
    (path / "modules.json").write_text(json.dumps(listed))
    flags = {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}
    (path / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": SIZE, **flags}))
    torch.save(model[2].state_dict(), path / "2_Dense/pytorch_model.bin")
    (path / "2_Dense/model.safetensors").unlink()
    expected = sentence_transformers.SentenceTransformer(str(path), device="cpu").encode(TEXTS)
    assert_same(model.encode(TEXTS), expected)
    assert_same(embed(TEXTS, path), expected)


def test_an_embedder_is_loaded_once_and_the_command_writes_its_vectors(encoder, tmp_path):
    model = saved(tmp_path / "m", encoder, modules.Dense(SIZE, 6), prompts=PROMPTS)
    embedder = load_embedder(tmp_path / "m", prompt_name="query", device="cpu")
    assert embedder.size == 6
    assert embedder([]).shape == (0, 6)
    expected = model.encode(TEXTS, prompt_name="query")
    assert_same(embedder(TEXTS), expected)
    (tmp_path / "in.txt").write_text("\n".join(TEXTS) + "\n")
    EmbedCommand(
        model=str(tmp_path / "m"),
        input=tmp_path / "in.txt",
        output=tmp_path / "out.npy",
        prompt_name="query",
        device="cpu",
    ).run()
    assert_same(np.load(tmp_path / "out.npy"), expected)


def test_a_length_of_the_caller_replaces_the_models(encoder, tmp_path):
    model = saved(tmp_path / "m", encoder, max_length=9)
    model.max_seq_length = 5
    assert_same(embed(TEXTS, tmp_path / "m", max_length=5), model.encode(TEXTS))


# What is refused


def _replace(filename, **fields):
    return lambda path: edited(path, filename, lambda content: content.update(fields))


def _last_module(**fields):
    return lambda path: edited(path, "modules.json", lambda listed: listed[-1].update(fields))


BROKEN = {
    "unknown-module": (
        _last_module(type="sentence_transformers.models.CNN"),
        "modules.json must list, after its Pooling, only Dense, Normalize, LayerNorm, Dropout, got CNN",
    ),
    "code-of-others": (
        _last_module(type="custom_st.Mine"),
        "must list modules of sentence-transformers, got the type 'c",
    ),
    "a-path-outside": (_last_module(path="../2_Dense"), "must give each module a path within the directory, got '"),
    "no-pooling": (
        lambda path: edited(path, "modules.json", lambda m: [m[0], m[2]]),
        "a Pooling, got Transformer, Dense",
    ),
    "empty-list": (lambda path: (path / "modules.json").write_text("[]"), "a Pooling, got nothing"),
    "no-list": (lambda path: (path / "modules.json").write_text("{}"), "modules.json must hold a JSON list of objects"),
    "no-json": (lambda path: (path / "modules.json").write_text("[{"), "modules.json must hold JSON, got: "),
    "modules-missing": (lambda path: (path / "modules.json").unlink(), "must hold modules.json beside sentence_bert"),
    "unknown-mode": (_replace("1_Pooling/config.json", pooling_mode="median"), "pooling_mode of mean, .*'median'"),
    "other-width": (
        _replace("1_Pooling/config.json", embedding_dimension=33),
        "must take the 33 numbers .*got 32 -> 5",
    ),
    "width-of-another": (
        lambda path: [
            _replace("1_Pooling/config.json", embedding_dimension=16)(path),
            edited(path, "modules.json", lambda m: m[:2]),
        ],
        "the pooling of .* must take the encoder's 32 numbers, got 16",
    ),
    "unknown-activation": (
        _replace("2_Dense/config.json", activation_function="mine.Act"),
        "of torch.nn, got 'mine.Act'",
    ),
    "reads-tokens": (
        _replace("2_Dense/config.json", module_input_name="token_embeddings"),
        "must read and write sentence_",
    ),
    "weights-of-other-shape": (
        _replace("2_Dense/config.json", out_features=6),
        "linear.weight must be \\[6, 32\\], got",
    ),
    "residual-missing": (
        _replace("2_Dense/config.json", use_residual=True),
        "must hold residual.weight, which it lacks",
    ),
    "other-task": (
        _replace("sentence_bert_config.json", transformer_task="fill-mask"),
        "transformer_task = 'fill-mask'",
    ),
    "model-arguments": (
        _replace("sentence_bert_config.json", model_args={"a": 1}),
        "model_args = {'a': 1}, which is not",
    ),
    "too-long": (_replace("sentence_bert_config.json", max_seq_length=99), "max_length must be .* 64, got 99"),
    "capitals": (
        lambda path: [
            _replace("sentence_bert_config.json", do_lower_case=True)(path),
            _replace("tokenizer_config.json", do_lower_case=False)(path),
        ],
        "its tokenizer must do that, and keeps capitals",
    ),
    "sparse-encoder": (
        _replace("config_sentence_transformers.json", model_type="SparseEncoder"),
        "must be of a SentenceTransformer, got a 'SparseEncoder'",
    ),
    "unknown-default-prompt": (
        _replace("config_sentence_transformers.json", default_prompt_name="passage"),
        "must have the prompt that it names as default, 'passage'",
    ),
}


@pytest.fixture(scope="module")
def directory(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("sentences") / "m"
    saved(path, encoder, modules.Dense(SIZE, 5), prompts=PROMPTS)
    return path


@pytest.mark.parametrize("kind", BROKEN)
def test_what_would_change_the_vectors_is_refused(directory, tmp_path, kind):
    change, message = BROKEN[kind]
    path = shutil.copytree(directory, tmp_path / "m")
    change(path)
    with pytest.raises(ValueError, match=message):
        embed(["a"], path)


def test_weights_of_a_module_that_are_missing_are_told(directory, tmp_path):
    path = shutil.copytree(directory, tmp_path / "m")
    (path / "2_Dense/model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(f"2_Dense of {path} must hold weights")):
        embed(["a"], path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "cls"}, "is a model of sentence-transformers with its own pooling, mean: give none"),
        ({"prompt_name": "passage"}, "prompt_name must be one of document, query, got 'passage'"),
    ],
    ids=["pooling", "prompt-name"],
)
def test_options_that_contradict_the_directory_are_refused(directory, options, message):
    with pytest.raises(ValueError, match=message):
        embed(["a"], directory, **options)


def test_a_prompt_that_leaves_no_room_is_refused(encoder, tmp_path):
    saved(tmp_path / "m", encoder, include_prompt=False, max_length=5)
    with pytest.raises(ValueError, match="the prompt must be shorter than the 5 tokens of a text, got 'a b c d'"):
        embed(["a"], tmp_path / "m", prompt="a b c d")


def test_prompts_of_a_plain_model(encoder):
    assert_same(embed(TEXTS, encoder, prompt="a: "), embed(["a: " + text for text in TEXTS], encoder))
    with pytest.raises(ValueError, match=r"prompt_name needs a model of sentence-transformers, .* got 'query'"):
        embed(["a"], encoder, prompt_name="query")
