"""Token shards: written whole or not at all, and read as the text they were made from."""

import errno
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import documents, text

from electra_fast.cli.prepare import PrepareCommand
from electra_fast.pretraining.text.corpus import Corpus
from electra_fast.pretraining.text.sequences import make_packing
from electra_fast.pretraining.text.shards import ShardedCorpus, open_corpus, write_shards
from electra_fast.pretraining.text.stream import SequenceStream, held_out_sequences
from electra_fast.pretraining.text.vocab import train_vocab, write_vocab
from electra_fast.tokenizer import ElectraTokenizer

LENGTH = 24
TEXTS = [document.replace(". ", ".\n") for document in documents(100)]


@pytest.fixture(scope="module")
def tokenizer():
    return ElectraTokenizer(vocab={token: i for i, token in enumerate(train_vocab(documents(), 200))})


@pytest.fixture(scope="module")
def shards(tokenizer, tmp_path_factory):
    """A directory of many shards."""
    out = tmp_path_factory.mktemp("shards") / "out"
    write_shards(Corpus.from_texts(TEXTS), tokenizer, out, window_chars=4000)
    return out


@pytest.mark.parametrize("packing", ["dense", "lines", "google"])
def test_one_shard_gives_the_stream_of_its_text(tokenizer, tmp_path, packing):
    corpus = Corpus.from_texts(TEXTS)
    write_shards(corpus, tokenizer, tmp_path / "out")
    sharded = ShardedCorpus(tmp_path / "out")
    with (
        SequenceStream(corpus, tokenizer, LENGTH, 3, packing) as one,
        SequenceStream(sharded, tokenizer, LENGTH, 3, packing) as two,
    ):
        assert torch.equal(one.rows(100, 2000).input_ids, two.rows(100, 2000).input_ids)
    expected = held_out_sequences(corpus, tokenizer, LENGTH, 20)
    assert torch.equal(held_out_sequences(sharded, tokenizer, LENGTH, 20), expected)
    assert sharded.fingerprint() == corpus.fingerprint()


def test_shards_hold_all_training_documents_in_order(tokenizer, shards):
    windows = list(ShardedCorpus(shards).training_windows(tokenizer, None))
    meta = json.loads((shards / "meta.json").read_text(encoding="utf-8"))
    ids, offsets = tokenizer.encode_bulk(list(Corpus.from_texts(TEXTS).training()), add_special_tokens=False)
    assert len(windows) == len(meta["shards"]) > 5
    assert all(window.ids.dtype == np.uint16 for window in windows)
    assert np.array_equal(np.concatenate([window.ids for window in windows]), ids)
    assert (meta["tokens"], meta["documents"]) == (len(ids), len(offsets) - 1)


@pytest.fixture(scope="module")
def stream(tokenizer, shards):
    with SequenceStream(ShardedCorpus(shards), tokenizer, LENGTH, 7) as stream:
        yield stream, stream.rows(0, 900).input_ids


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(1, 300)), min_size=1, max_size=5))
def test_rows_do_not_depend_on_how_they_are_asked_for(stream, asked):
    stream, expected = stream
    for first, count in asked:
        assert torch.equal(stream.rows(first, count).input_ids, expected[first : first + count])


def test_shards_come_in_another_order_in_another_epoch(tokenizer, shards):
    corpus = ShardedCorpus(shards)
    orders = [
        [len(window.ids) for window in corpus.training_windows(tokenizer, np.random.default_rng(seed))]
        for seed in range(2)
    ]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


def test_a_jump_counts_the_shards_of_one_epoch_only(tokenizer, shards, monkeypatch):
    loaded = []
    load = ShardedCorpus._load
    monkeypatch.setattr(ShardedCorpus, "_load", lambda self, shard: loaded.append(1) or load(self, shard))
    corpus = ShardedCorpus(shards)
    with SequenceStream(corpus, tokenizer, LENGTH, 7) as stream:
        stream.rows(10**8, 2)
    assert len(loaded) <= 3 * len(corpus.meta["shards"])


# Mistakes


def test_another_vocabulary_is_refused(shards):
    other = ElectraTokenizer(vocab={token: i for i, token in enumerate(train_vocab(documents(), 150))})
    for use in (
        lambda: held_out_sequences(ShardedCorpus(shards), other, LENGTH, 9),
        lambda: SequenceStream(ShardedCorpus(shards), other, LENGTH, 0).rows(0, 1),
    ):
        with pytest.raises(ValueError, match=r"must be used with the vocabulary .* 166 tokens; got another .* of 150"):
            use()


def test_an_output_that_holds_something_is_left_alone(tokenizer, tmp_path):
    (tmp_path / "out").mkdir()
    write_shards(Corpus.from_texts(TEXTS), tokenizer, tmp_path / "out")
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(FileExistsError, match="out is not empty: shards need a directory of their own"):
        write_shards(Corpus.from_texts(TEXTS), tokenizer, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(FileExistsError, match="file is a file"):
        write_shards(Corpus.from_texts(TEXTS), tokenizer, tmp_path / "file")


def test_a_full_disk_leaves_nothing_behind(tokenizer, tmp_path, monkeypatch):
    save, saved = np.save, []

    def full(path, array):
        if len(saved) == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(path)
        save(path, array)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match=r"shard-00001\.line_offsets\.npy cannot be written: .*No space left on device"):
        write_shards(Corpus.from_texts(TEXTS), tokenizer, tmp_path / "out", window_chars=9000)
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_by_a_killed_run_is_no_hindrance(tokenizer, tmp_path):
    (tmp_path / ".out.4194304.tmp").mkdir()
    (tmp_path / ".out.4194304.tmp" / "shard-99999.ids.npy").write_bytes(b"x")
    write_shards(Corpus.from_texts(TEXTS), tokenizer, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not list((tmp_path / "out").glob("*99999*"))


def test_damage_is_named(tokenizer, tmp_path):
    write_shards(Corpus.from_texts(TEXTS), tokenizer, tmp_path / "out")
    ids = tmp_path / "out" / "shard-00000.ids.npy"
    content = ids.read_bytes()

    def read():
        return list(ShardedCorpus(tmp_path / "out").training_windows(tokenizer, None))

    for damage in (lambda: ids.write_bytes(content[:-100]), lambda: ids.write_bytes(b""), ids.unlink):
        damage()
        with pytest.raises(ValueError, match=r"shard-00000\.ids\.npy must be an array of a token shard"):
            read()
    np.save(ids, np.zeros(5, np.uint16))
    with pytest.raises(ValueError, match=r"shard-00000 in .*out must have \d+ tokens and \d+ documents, got 5 and"):
        read()
    meta = tmp_path / "out" / "meta.json"
    for content, message in (
        ('{"version": 9}', "version 1, got 9"),
        ("{", "must hold JSON"),
        ("[]", "got list"),
    ):
        meta.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            ShardedCorpus(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"must be a directory of token shards, but has no meta\.json"):
        ShardedCorpus(tmp_path)


@pytest.mark.parametrize("field", ["ids", "line_offsets", "document_offsets"])
def test_shards_are_as_they_were_written(tokenizer, tmp_path, field):
    write_shards(Corpus.from_texts(TEXTS), tokenizer, tmp_path)
    for name in ("shard-00000", "held-out"):
        path = tmp_path / f"{name}.{field}.npy"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ValueError, match=rf"{name}\.{field}\.npy is damaged: its checksum is another"):
            held_out_sequences(ShardedCorpus(tmp_path), tokenizer, 8, 1)
            SequenceStream(ShardedCorpus(tmp_path), tokenizer, 8, 0, "google").rows(0, 1)
        path.write_bytes(content)
    meta = json.loads((tmp_path / "meta.json").read_text())
    for shard in (meta["held_out"], *meta["shards"]):
        del shard["sha256"]  # as in shards of earlier versions
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    held_out_sequences(ShardedCorpus(tmp_path), tokenizer, 8, 1)


@pytest.mark.parametrize("packing", ["dense", "lines", "google"])
@pytest.mark.parametrize("field", ["ids", "line_offsets", "document_offsets"])
def test_a_shard_that_is_truncated_while_it_is_in_use_is_named(tokenizer, tmp_path, field, packing):
    """Mapped memory beyond a file's end kills the process that touches it."""
    write_shards(Corpus.from_texts(TEXTS), tokenizer, tmp_path)
    maker = make_packing(packing, tokenizer, LENGTH)
    random = np.random.default_rng(0)
    (window,) = ShardedCorpus(tmp_path).training_windows(tokenizer, None)
    plan = maker.plan(window.loaded(), random)
    os.truncate(tmp_path / f"shard-00000.{field}.npy", 128)
    assert len(plan.build().input_ids) == plan.n_sequences > 0, "what is loaded does not need the file any more"
    with pytest.raises(ValueError, match=rf"shard-00000\.{field}\.npy must be an array of a token shard, got"):
        maker.plan(window, random).build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": 5}, "shards as list, got 5"),
        ({"shards": [5]}, "name as str, got 5"),
        ({"shards": [{"name": "a"}]}, "tokens as int, got None"),
        ({"held_out": None}, "held_out as dict, got None"),
        ({"vocabulary": 1}, "vocabulary as str, got 1"),
    ],
)
def test_fields_of_another_type_are_named(shards, tmp_path, change, message):
    meta = json.loads((shards / "meta.json").read_text()) | change
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match=rf"meta\.json must have {message}"):
        ShardedCorpus(tmp_path)


def test_without_text_nothing_is_written(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="held out; got none"):
        write_shards(Corpus.from_texts([]), tokenizer, tmp_path / "out")
    held_out = list(Corpus.from_texts(TEXTS).held_out())
    with pytest.raises(ValueError, match="must hold documents to train on"):
        write_shards(Corpus.from_texts(held_out), tokenizer, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# The command, and what data may be


def test_the_command_writes_what_a_run_opens(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.txt").write_text(text(100), encoding="utf-8")
    write_vocab(train_vocab(documents(), 200), tmp_path / "vocab.txt")
    command = PrepareCommand(data=(str(tmp_path / "a.txt"),), vocab=tmp_path / "vocab.txt", out=tmp_path / "out")
    command.run()
    assert " documents in 1 shards to " in capsys.readouterr().out
    assert isinstance(open_corpus([tmp_path / "out"]), ShardedCorpus)
    assert isinstance(open_corpus([tmp_path / "a.txt"]), Corpus)
    monkeypatch.setattr("electra_fast.pretraining.text.shards.builtin_documents", documents)
    assert [*open_corpus([]).training(), *open_corpus([]).held_out()]
    with pytest.raises(ValueError, match=r"a directory of shards must be the only data, got .*out and 1 more"):
        open_corpus([tmp_path / "a.txt", tmp_path / "out"])
    with pytest.raises(FileExistsError):
        command.run()


HOSTILE = [
    ({"shards": 3}, "must have shards as list, got 3"),
    ({"shards": [3]}, "must have name as str, got 3"),
    ({"shards": [{"name": "x"}]}, "must have tokens as int, got None"),
    ({"shards": [{"name": "../x", "tokens": 1, "documents": 1}]}, r"files of its own directory, got '\.\./x'"),
    ({"held_out": None}, "must have held_out as dict, got None"),
    ({"vocabulary": 3}, "must have vocabulary as str, got 3"),
    ({"data": None}, "must have data as str, got None"),
    ({"tokens": "9"}, "must have tokens as int, got '9'"),
]


@pytest.mark.parametrize(("changes", "message"), HOSTILE, ids=str)
def test_a_meta_json_of_another_kind_is_refused(tokenizer, tmp_path, changes, message):
    write_shards(Corpus.from_texts(TEXTS), tokenizer, tmp_path / "out")
    path = tmp_path / "out" / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        ShardedCorpus(tmp_path / "out")


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2), np.int64), np.zeros(3, np.float32), np.zeros((), np.int64)], ids=str
)
@pytest.mark.parametrize("field", ["ids", "line_offsets", "document_offsets"])
def test_an_array_of_another_kind_is_refused(tokenizer, tmp_path, field, array):
    write_shards(Corpus.from_texts(TEXTS), tokenizer, tmp_path / "out")
    np.save(tmp_path / "out" / f"shard-00000.{field}.npy", array)
    with pytest.raises(ValueError, match=rf"shard-00000\.{field}\.npy must be a row of u?int"):
        list(ShardedCorpus(tmp_path / "out").training_windows(tokenizer, None))
