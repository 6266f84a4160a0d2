"""Bulk inference that travels: the results of `embed`, options alone in the pickle, one model a process."""

import copy
import multiprocessing
import os
import pickle

import numpy as np
import pytest
from tiny_models import random_model

from electra_fast import ElectraModel, ElectraTokenizer, Embedder, embed
from electra_fast.inference import portable

pyarrow = pytest.importorskip("pyarrow")

TEXTS = ["a b", "", "c d e", "a b c d e f g", "b"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    random_model(ElectraModel).save_pretrained(path)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]
    ElectraTokenizer({token: i for i, token in enumerate(tokens)}).save_pretrained(path)
    return path


@pytest.fixture
def loads(monkeypatch):
    """The names of the models that were loaded."""
    names, load = [], portable.load_embedder

    def note(name, **options):
        names.append(name)
        return load(name, **options)

    monkeypatch.setattr(portable, "load_embedder", note)
    return names


OPTIONS = {"pooling": "cls", "normalize": True, "prompt": "g ", "max_length": 5, "batch_tokens": 7}


def test_results_are_those_of_embed(model):
    found = Embedder(str(model), device="cpu", **OPTIONS)(TEXTS)
    np.testing.assert_array_equal(found, embed(TEXTS, model, **OPTIONS))


def test_a_pickle_has_options_alone(model, loads):
    embedder = Embedder(str(model), device="cpu", **OPTIONS)
    assert len(pickle.dumps(embedder)) < 1000 and loads == []
    expected = embedder(TEXTS)
    assert len(pickle.dumps(embedder)) < 1000
    received = pickle.loads(pickle.dumps(embedder))
    assert received == embedder and "network" not in vars(received)
    np.testing.assert_array_equal(received(TEXTS), expected)


def test_copies_in_a_process_share_the_model(model, loads):
    embedder = Embedder(str(model), device="cpu")
    sent = pickle.dumps(embedder)
    for _ in range(3):
        pickle.loads(sent)(TEXTS)
        pickle.loads(pickle.dumps(pickle.loads(sent)))(TEXTS)
    assert len(loads) == 1
    # Another one with the same options loads what lies in the directory now.
    pickle.loads(pickle.dumps(Embedder(str(model), device="cpu")))(TEXTS)
    assert len(loads) == 2
    copy.deepcopy(embedder)


def test_a_directory_is_found_from_everywhere(model, monkeypatch, tmp_path):
    monkeypatch.chdir(model.parent)
    embedder = Embedder(model.name, device="cpu")
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickle.dumps(embedder))(TEXTS).shape == (5, 32)


def test_other_processes_compute_the_same(model):
    embedder = Embedder(str(model), device="cpu")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(embedder, [TEXTS[:2], TEXTS[2:]])
        (pid,) = set(pool.map(_pid, range(2)))
    assert pid != os.getpid()
    np.testing.assert_array_equal(np.concatenate(found), embedder(TEXTS))


def _pid(_):
    return os.getpid()


# Tables


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.string_view(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    ],
    ids=["text", "large", "view", "dictionary"],
)
def test_tables_of_text(model, kind):
    embedder = Embedder(str(model), device="cpu")
    texts = pyarrow.array([*TEXTS, None])
    texts = texts.dictionary_encode() if pyarrow.types.is_dictionary(kind) else texts.cast(kind)
    found = embedder.of_table(pyarrow.table({"title": pyarrow.chunked_array([texts[:2], texts[2:]])}))
    assert found.type == pyarrow.list_(pyarrow.float32(), 32)
    assert embedder.arrow_type() == pyarrow.list_(pyarrow.float32())
    np.testing.assert_array_equal(np.array(found.to_pylist(), np.float32), embedder([*TEXTS, ""]))


def test_a_table_without_rows(model):
    table = pyarrow.table({"title": pyarrow.array([], pyarrow.string())})
    assert len(Embedder(str(model), device="cpu").of_table(table)) == 0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"title": [1, 2]}, "the column 'title' must hold text, got int64: cast it before"),
        ({"title": [["a"], ["b"]]}, r"the column 'title' must hold text, got list<\w+: string>: cast it before"),
        ({"title": ["a"], "text": ["b"]}, "vectors are of one column of texts, got 2"),
    ],
    ids=["numbers", "lists", "two-columns"],
)
def test_other_tables_are_refused(model, columns, message):
    with pytest.raises(ValueError, match=message):
        Embedder(str(model), device="cpu").of_table(pyarrow.table(columns))


def test_mistakes_are_those_of_embed(model):
    with pytest.raises(TypeError, match=r"texts\[1\] must be a str, got NoneType"):
        Embedder(str(model), device="cpu")(["a", None])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pickle.loads(pickle.dumps(Embedder("./nowhere")))(["a"])
    with pytest.raises(TypeError, match="model must be a directory or a name on the Hub, got NoneType"):
        Embedder(None)
    with pytest.raises(TypeError, match="poling"):
        Embedder("./nowhere", poling="cls")
