"""The stream of sequences: a function of seed and position, however it is asked."""

import subprocess
import sys
import threading
from itertools import chain, islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import documents

from electra_fast.pretraining.text.corpus import Corpus
from electra_fast.pretraining.text.sequences import DensePacking
from electra_fast.pretraining.text.stream import SequenceStream, held_out_sequences
from electra_fast.pretraining.text.vocab import SPECIAL_TOKENS, train_vocab
from electra_fast.pretraining.text.windows import token_windows
from electra_fast.tokenizer import ElectraTokenizer

LENGTH, COUNT = 24, 1500
PACKINGS = ["dense", "lines", "google"]


@pytest.fixture(scope="module")
def tokenizer():
    return ElectraTokenizer(vocab={token: i for i, token in enumerate(train_vocab(documents(), 200))})


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """The same text in one place and in four files."""
    texts = [document.replace(". ", ".\n") for document in documents(80)]
    directory = tmp_path_factory.mktemp("corpus")
    for i, (first, end) in enumerate(pairwise([0, 3, 20, 57, 80])):
        (directory / f"{i}.txt").write_text("\n".join(texts[first:end]), encoding="utf-8")
    return {"one": Corpus.from_texts(texts), "files": Corpus([directory])}


@pytest.fixture(scope="module")
def streams(tokenizer, corpora):
    """Streams of many windows and several epochs, and their first rows."""
    opened = {}
    for place, corpus in corpora.items():
        for packing in PACKINGS:
            stream = SequenceStream(corpus, tokenizer, LENGTH, 7, packing, window_chars=5000, threads=1)
            opened[place, packing] = stream, values(stream.rows(0, COUNT))
    yield opened
    for stream, _ in opened.values():
        stream.close()


def values(rows):
    columns = (rows.input_ids, rows.word_starts, rows.token_type_ids, rows.lengths)
    return [column for column in columns if column is not None]


def assert_rows(rows, expected, first):
    columns = values(rows)
    assert len(columns) == len(expected)
    for column, all_rows in zip(columns, expected, strict=True):
        assert torch.equal(column, all_rows[first : first + len(column)])


@settings(deadline=None, max_examples=15)
@given(
    place=st.sampled_from(["one", "files"]),
    packing=st.sampled_from(PACKINGS),
    asked=st.lists(st.tuples(st.integers(0, COUNT - 300), st.integers(1, 300)), min_size=1, max_size=5),
)
def test_rows_do_not_depend_on_how_they_are_asked_for(streams, place, packing, asked):
    stream, expected = streams[place, packing]
    for first, count in asked:
        rows = stream.rows(first, count)
        assert len(rows.input_ids) == count
        assert_rows(rows, expected, first)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_gives_the_same_batches(streams, tokenizer, corpora, packing, world_size):
    _, expected = streams["files", packing]
    batch, share = 12, 12 // world_size
    for rank in range(world_size):
        with SequenceStream(corpora["files"], tokenizer, LENGTH, 7, packing, 5000) as stream:
            for step in range(COUNT // batch):
                first = step * batch + rank * share
                assert_rows(stream.rows(first, share), expected, first)


@pytest.mark.parametrize("packing", PACKINGS)
def test_equal_seeds_are_equal_and_others_are_not(streams, tokenizer, corpora, packing):
    _, expected = streams["one", packing]
    with SequenceStream(corpora["one"], tokenizer, LENGTH, 7, packing, 5000, threads=3) as stream:
        assert_rows(stream.rows(0, COUNT), expected, 0)
    with SequenceStream(corpora["one"], tokenizer, LENGTH, 8, packing, 5000) as stream:
        assert not torch.equal(stream.rows(0, COUNT).input_ids, expected[0])


def test_every_document_occurs_in_every_epoch():
    # Each document is one word, often enough that no window's tail could hide it.
    words = [f"w{i}" for i in range(60)]
    corpus = Corpus.from_texts([" ".join([word] * 40) for word in words])
    tokenizer = ElectraTokenizer(vocab={token: i for i, token in enumerate([*SPECIAL_TOKENS, *words])})
    windows = list(token_windows(corpus.training(), tokenizer, 1000, 1))
    per_epoch = sum((window.n_tokens + window.n_documents) // (LENGTH - 2) for window in windows)
    assert len(windows) > 5
    training = set(tokenizer.convert_tokens_to_ids([text.split()[0] for text in corpus.training()]))
    orders = []
    with SequenceStream(corpus, tokenizer, LENGTH, 0, window_chars=1000) as stream:
        for epoch in range(3):
            ids = stream.rows(epoch * per_epoch, per_epoch).input_ids
            assert (ids[:, 0] == tokenizer.cls_token_id).all() and (ids[:, -1] == tokenizer.sep_token_id).all()
            assert not (ids == tokenizer.pad_token_id).any()
            assert set(ids.flatten().tolist()) - set(range(len(SPECIAL_TOKENS))) == training
            orders.append(ids)
    assert not torch.equal(orders[0], orders[1])


def test_files_come_in_another_order_in_another_epoch(tmp_path):
    words = ["one", "two", "three", "four"]
    for word in words:
        # Documents of equal size, until ten of them are there to train on.
        texts = (f"{word} {'x ' * 30}{n}\n" for n in range(100, 200))
        training = list(islice(Corpus.from_texts(list(texts)).training(), 10))
        (tmp_path / f"{word}.txt").write_text("\n".join(training), encoding="utf-8")
    numbers = [str(n) for n in range(100, 200)]
    vocab = [*SPECIAL_TOKENS, "x", *words, *numbers]
    tokenizer = ElectraTokenizer(vocab={token: i for i, token in enumerate(vocab)})
    per_file = (10 * 33) // 30
    with SequenceStream(Corpus([tmp_path]), tokenizer, 32, 0, window_chars=640) as stream:
        orders = set()
        for epoch in range(6):
            ids = stream.rows(4 * per_file * epoch, 4 * per_file).input_ids.reshape(4, -1)
            found = [[word for word in words if (file == tokenizer.vocab[word]).any()] for file in ids]
            assert sorted(chain(*found)) == sorted(words)
            orders.add(str(found))
    assert len(orders) > 2


def test_columns_describe_the_rows(streams, tokenizer):
    _, (ids, starts, types, lengths) = streams["one", "google"]
    pad, cls, sep = tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id
    assert ids.dtype == types.dtype == lengths.dtype == torch.int64 and starts.dtype == torch.bool
    columns = torch.arange(LENGTH)
    assert torch.equal(ids == pad, columns >= lengths[:, None])
    assert (ids[:, 0] == cls).all() and (ids[torch.arange(COUNT), lengths - 1] == sep).all()
    assert (types[ids == pad] == 0).all() and 0 < types.float().mean() < 1
    # A second segment begins behind a [SEP], and its tokens go on to the last one.
    after = types[:, 1:] > types[:, :-1]
    assert (ids[:, :-1][after] == sep).all()
    for token, is_start in zip(ids[:50].flatten().tolist(), starts[:50].flatten().tolist(), strict=True):
        assert is_start != tokenizer.convert_ids_to_tokens(token).startswith("##")


def test_what_is_jumped_over_is_not_built(tokenizer, corpora, monkeypatch):
    built = []
    build = DensePacking._build
    monkeypatch.setattr(DensePacking, "_build", lambda self, *args: built.append(1) or build(self, *args))
    with SequenceStream(corpora["files"], tokenizer, LENGTH, 0, window_chars=3000) as stream:
        stream.rows(5000, 1)
        assert len(built) <= 3  # this one, one that waits, one in the making
        n_before = len(built)
        stream.rows(10000, 1)
        assert len(built) <= n_before + 3


def test_epochs_of_the_same_size_are_not_read_again(tokenizer, corpora, monkeypatch):
    reads = []
    training = Corpus.training
    monkeypatch.setattr(Corpus, "training", lambda self, random: reads.append(1) or training(self, random))
    with SequenceStream(corpora["one"], tokenizer, LENGTH, 7, window_chars=9000) as stream:
        far = stream.rows(40_000, 3).input_ids
    assert len(reads) <= 4
    with SequenceStream(corpora["one"], tokenizer, LENGTH, 7, window_chars=9000) as stream:
        for first in range(0, 40_000, 500):
            stream.rows(first, 500)
        assert torch.equal(stream.rows(40_000, 3).input_ids, far)


# Threads and mistakes


def n_threads():
    return sum(thread.name == "windows" for thread in threading.enumerate())


def test_close_ends_the_thread_and_waiting_is_counted(tokenizer, corpora):
    before = n_threads()
    with SequenceStream(corpora["one"], tokenizer, LENGTH, 0) as stream:
        assert stream.wait_seconds == 0
        first = stream.rows(0, 2)
        assert stream.wait_seconds > 0
        assert n_threads() == before + 1
    assert n_threads() == before
    # It may be used again.
    assert torch.equal(stream.rows(0, 2).input_ids, first.input_ids)
    stream.close()
    stream.close()


def test_a_process_ends_while_windows_are_made():
    program = """
from electra_fast import ElectraTokenizer
from electra_fast.pretraining.text.corpus import Corpus
from electra_fast.pretraining.text.stream import SequenceStream
words = [f"w{i}" for i in range(500)]
corpus = Corpus.from_texts([" ".join(words[i:] * 20) for i in range(500)])
special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
tokenizer = ElectraTokenizer(vocab={token: i for i, token in enumerate([*special, *words])})
stream = SequenceStream(corpus, tokenizer, 64, 0, window_chars=10**6, threads=1)
print(len(stream.rows(0, 3).input_ids))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_a_broken_file_is_told_when_it_is_reached(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("\n".join(documents(40)), encoding="utf-8")
    (tmp_path / "b.gz").write_bytes(b"damaged")
    before = n_threads()
    with SequenceStream(Corpus([tmp_path / "a.txt", tmp_path / "b.gz"]), tokenizer, LENGTH, 0) as stream:
        for _ in range(2):
            with pytest.raises(ValueError, match=r"b\.gz, line 1: the compressed file is damaged"):
                stream.rows(0, 1)
    assert n_threads() == before


def test_too_little_text_is_told(tokenizer):
    with (
        SequenceStream(Corpus.from_texts(["a file\n"]), tokenizer, 64, 0) as stream,
        pytest.raises(ValueError, match="must fill at least one sequence of 64 tokens"),
    ):
        stream.rows(0, 1)


def test_wrong_arguments_are_named(tokenizer, corpora):
    with pytest.raises(ValueError, match="seed must be at least 0"):
        SequenceStream(corpora["one"], tokenizer, LENGTH, -1)
    with pytest.raises(ValueError, match="packing must be"):
        SequenceStream(corpora["one"], tokenizer, LENGTH, 0, "loose")
    stream = SequenceStream(corpora["one"], tokenizer, LENGTH, 0)
    with pytest.raises(ValueError, match="first must be at least 0 and count at least 1, got -1 and 1"):
        stream.rows(-1, 1)
    with pytest.raises(ValueError, match="got 0 and 0"):
        stream.rows(0, 0)


# Held-out text


def test_held_out_sequences_are_spread_evenly(tokenizer):
    corpus = Corpus.from_texts(documents(300))
    rows, some = (held_out_sequences(corpus, tokenizer, LENGTH, n) for n in (10**6, 10))
    assert some.dtype == torch.int64 and some.shape == (10, LENGTH)
    assert torch.equal(some[5], rows[5 * len(rows) // 10])
    ids, offsets = tokenizer.encode_bulk(list(corpus.held_out()), add_special_tokens=False)
    text = np.insert(ids, offsets[1:], tokenizer.sep_token_id)
    assert rows[:, 1:-1].flatten().tolist() == text[: rows[:, 1:-1].numel()].tolist()
    assert len(text) - rows[:, 1:-1].numel() < LENGTH - 2


def test_held_out_text_must_be_there(tokenizer):
    training = next(text for text in documents(9) if not list(Corpus.from_texts([text]).held_out()))
    with pytest.raises(ValueError, match="about 5%, are held out; got none"):
        held_out_sequences(Corpus.from_texts([training]), tokenizer, LENGTH, 9)
    held_out = list(Corpus.from_texts(documents(300)).held_out())[:1]
    with pytest.raises(ValueError, match="held-out text must fill at least one sequence of 512 tokens"):
        held_out_sequences(Corpus.from_texts(held_out), tokenizer, 512, 9)
