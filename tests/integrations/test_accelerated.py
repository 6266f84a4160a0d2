"""sentence-transformers' models served by `accelerate`: the same results, by our path where it is meant to serve."""

import copy
import pickle
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tiny_models import random_model
from tokenizers.normalizers import BertNormalizer

from electra_fast import ElectraForSequenceClassification, ElectraModel, ElectraTokenizer
from electra_fast.inference.bulk import TextNetwork

sentence_transformers = pytest.importorskip("sentence_transformers")
from sentence_transformers.sentence_transformer import modules  # noqa: E402

from electra_fast.integrations.sentence_transformers import accelerate, restore  # noqa: E402

WORDS = "abcdefghij"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ":", *WORDS]
TEXTS = ["a b", "", "c D e", " ".join(WORDS) * 3, "f", "a b c d e f g"]
PAIRS = [("a b", text) for text in TEXTS] + [[" ".join(WORDS), "a b"]]
SIZE = 32


def saved(path, model):
    model.save_pretrained(path)
    ElectraTokenizer({token: i for i, token in enumerate(TOKENS)}, model_max_length=20).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("encoder"), random_model(ElectraModel))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("one"), random_model(ElectraForSequenceClassification, num_labels=1))


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("three"), random_model(ElectraForSequenceClassification, num_labels=3))


def sentence_model(encoder, *after, pooling="mean", include_prompt=True):
    torch.manual_seed(0)
    pool = modules.Pooling(SIZE, pooling, include_prompt=include_prompt)
    return sentence_transformers.SentenceTransformer(
        modules=[modules.Transformer(encoder), pool, *after], device="cpu", prompts={"query": "a b: "}
    )


@contextmanager
def served(n_calls):
    """Counts the calls that our path computes."""
    found = []
    compute = TextNetwork._compute
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextNetwork, "_compute", lambda self, *rest: found.append(1) or compute(self, *rest))
        yield
    assert len(found) == n_calls


def assert_same(found, expected, atol=2e-6):
    assert type(found) is type(expected)
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_same(*pair, atol)
        return
    assert found.dtype == expected.dtype and found.shape == expected.shape
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=atol)


MODELS = {
    "mean": {},
    "joined": {"pooling": ("cls", "weightedmean"), "after": [modules.Normalize()]},
    "dense": {"after": [modules.Dense(SIZE, 7), modules.LayerNorm(7)]},
    "prompt-not-pooled": {"include_prompt": False},
}


@pytest.mark.parametrize("kind", MODELS)
def test_encode_gives_the_same(encoder, kind):
    options = dict(MODELS[kind])
    after = options.pop("after", [])
    model = sentence_model(encoder, *after, **options)
    calls = [
        lambda: model.encode(TEXTS),
        lambda: model.encode(np.array(TEXTS), convert_to_tensor=True),
        lambda: model.encode(TEXTS, convert_to_numpy=False, normalize_embeddings=True),
        lambda: model.encode("a b", truncate_dim=3),
        lambda: model.encode_query(TEXTS),
        lambda: model.encode(TEXTS, prompt="c ", batch_size=2),
    ]
    expected = [call() for call in calls]
    assert accelerate(model) is model
    with served(len(calls)):
        for call, own in zip(calls, expected, strict=True):
            assert_same(call(), own)
    assert model.encode([]).shape == (0,)


def test_other_calls_go_their_way(encoder):
    model = sentence_model(encoder)
    own = model.encode(TEXTS, output_value="token_embeddings")
    accelerate(model)
    with served(0):
        found = model.encode(TEXTS, output_value="token_embeddings")
        for row, expected in zip(found, own, strict=True):
            assert_same(row, expected, atol=1e-5)
        handle = model[1].register_forward_hook(lambda module, inputs, output: None)
        model.encode(TEXTS)
        handle.remove()
        with pytest.raises(ValueError, match="nonsense"):
            model.encode(TEXTS, nonsense=1)
        with pytest.raises(ValueError, match="passage"):
            model.encode(TEXTS, prompt_name="passage")
    with served(1):
        model.encode(TEXTS)


def test_changes_of_the_model_count(encoder):
    model, own = accelerate(sentence_model(encoder)), sentence_model(encoder)
    for changed in (model, own):
        with torch.no_grad():
            changed[0].model.encoder.layer[0].output.dense.weight.mul_(1.5)
        changed.max_seq_length = 6
        changed.tokenizer.add_tokens(["xyz"])
        changed.tokenizer.backend_tokenizer.normalizer = BertNormalizer(lowercase=False)
        changed[0].model.resize_token_embeddings(99)
    with served(1):
        assert_same(model.encode([*TEXTS, "a xyz b"]), own.encode([*TEXTS, "a xyz b"]))


@pytest.mark.parametrize("labels", ["classifier", "three_classes"])
def test_predict_gives_the_same(labels, request):
    model = sentence_transformers.CrossEncoder(request.getfixturevalue(labels), device="cpu")
    calls = [
        lambda: model.predict(PAIRS),
        lambda: model.predict(PAIRS[0]),
        lambda: model.predict(PAIRS, activation_fn=torch.nn.Tanh(), convert_to_tensor=True),
        lambda: model.predict(PAIRS, apply_softmax=True, convert_to_numpy=False),
    ]
    expected = [call() for call in calls]
    accelerate(model)
    with served(len(calls)):
        for call, own in zip(calls, expected, strict=True):
            assert_same(call(), own)


def test_rank_gives_the_same(classifier):
    model = sentence_transformers.CrossEncoder(classifier, device="cpu")
    expected = model.rank("a c", TEXTS, return_documents=True)
    with served(1):
        found = accelerate(model).rank("a c", TEXTS, return_documents=True)
    assert [row["text"] for row in found] == [row["text"] for row in expected]
    np.testing.assert_allclose([row["score"] for row in found], [row["score"] for row in expected], atol=1e-6)


def test_copies_and_pickles_are_served_and_restored_models_are_not(encoder):
    model = accelerate(accelerate(sentence_model(encoder)))
    expected = model.encode(TEXTS)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other._inference.model is other
        with served(1):
            assert_same(other.encode(TEXTS), expected)
    assert restore(restore(model)) is model
    with served(0):
        assert_same(model.encode(TEXTS), expected)
    assert not [name for name in vars(model) if name == "_inference"]


def test_what_cannot_be_served_is_refused(encoder):
    with pytest.raises(TypeError, match=r"expected a SentenceTransformer or a CrossEncoder, got <class 'torch\.nn"):
        accelerate(torch.nn.Linear(1, 1))
    bow = modules.BoW(["a", "b"])
    model = sentence_transformers.SentenceTransformer(modules=[bow], device="cpu")
    with pytest.raises(ValueError, match="expected a model with one of transformers' ELECTRA classes in it"):
        accelerate(model)
    assert "_inference" not in vars(model)
