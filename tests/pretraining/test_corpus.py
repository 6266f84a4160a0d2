"""From files to batches."""

import gzip
import lzma
from itertools import pairwise

import numpy as np
import pytest
import torch
from texts import documents, text

from electra_fast.pretraining.corpus import (
    MAX_DOCUMENT_CHARS,
    TokenSequences,
    builtin_documents,
    read_documents,
    split_documents,
)
from electra_fast.pretraining.vocab import SPECIAL_TOKENS, train_vocab, write_vocab
from electra_fast.tokenizer import ElectraTokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return ElectraTokenizer(vocab={token: i for i, token in enumerate(train_vocab(documents(), 200))})


# Reading


def test_blank_lines_separate_documents(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\n \n\nthree\n", encoding="utf-8")
    assert read_documents([tmp_path / "a.txt"]) == ["one\ntwo\n", "three\n"]


def test_directories_are_read_in_order_and_compressed_files_too(tmp_path):
    (tmp_path / "b").mkdir()
    with gzip.open(tmp_path / "b" / "2.gz", "wt", encoding="utf-8") as file:
        file.write("zwei\n")
    with lzma.open(tmp_path / "a.xz", "wt", encoding="utf-8") as file:
        file.write("one\n")
    (tmp_path / "c.txt").write_text("trois\n", encoding="utf-8")
    (tmp_path / "notes.pdf").write_bytes(b"\xff\xfe")
    assert read_documents([tmp_path]) == ["one\n", "zwei\n", "trois\n"]
    assert read_documents([tmp_path], max_chars=5) == ["one\n", "zwei\n"]


def test_a_long_document_is_cut_at_a_line_end(tmp_path):
    line = "x" * 999 + "\n"
    (tmp_path / "book.txt").write_text(line * 40, encoding="utf-8")
    parts = read_documents([tmp_path / "book.txt"])
    assert "".join(parts) == line * 40
    assert len(parts) == 3
    assert all(len(part) <= MAX_DOCUMENT_CHARS and part.endswith("\n") for part in parts)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "empty.txt must hold text"),
        ("blank.txt", b" \n\n\t\n", "blank.txt must hold text"),
        ("binary.txt", b"\xff\xfe\x00\x80", "binary.txt must be UTF-8 text"),
        ("damaged.gz", b"no gzip at all", "damaged.gz must be UTF-8 text, plain, .gz or .xz"),
        ("short.gz", gzip.compress(b"hello " * 1000, mtime=0)[:-20], "short.gz must be UTF-8 text, plain, .gz or .xz"),
        ("damaged.xz", b"no xz at all", "damaged.xz must be UTF-8 text, plain, .gz or .xz"),
    ],
)
def test_files_that_hold_no_text_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_documents([tmp_path / name])


def test_paths_that_lead_nowhere_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such data file or directory: .*missing"):
        read_documents([tmp_path / "missing"])
    with pytest.raises(ValueError, match=r"must hold files named \*.txt"):
        read_documents([tmp_path])


def test_the_builtin_corpus_is_prose():
    corpus = builtin_documents()
    assert sum(map(len, corpus)) > 1_000_000
    assert not any(">>>" in line[:3] for document in corpus for line in document.splitlines())
    _, held_out = split_documents(corpus)
    assert 0.01 < len(held_out) / len(corpus) < 0.12


# Splitting


def test_a_document_keeps_its_side_when_others_are_added():
    training, held_out = split_documents(documents(200))
    more_training, more_held_out = split_documents(documents(200) + documents(200, seed=1))
    assert set(training) <= set(more_training)
    assert set(held_out) <= set(more_held_out)
    assert 2 <= len(held_out) <= 25
    assert set(training).isdisjoint(held_out)


def test_copies_stand_on_one_side():
    training, held_out = split_documents(documents(5) * 3)
    assert len(training) + len(held_out) == 5
    assert held_out


def test_a_single_document_cannot_be_split():
    with pytest.raises(ValueError, match=r"at least two documents .* got 1"):
        split_documents(["the same", "the same"])


# Sequences


def test_sequences_are_framed_full_and_cover_the_text_once(tokenizer):
    texts = documents()
    sequences = TokenSequences(texts, tokenizer, 16, seed=3)
    rows = torch.cat(list(sequences.batches(7)))
    assert rows.shape == (sequences.n_sequences, 16)
    assert (rows[:, 0] == tokenizer.cls_token_id).all() and (rows[:, -1] == tokenizer.sep_token_id).all()
    assert not (rows == tokenizer.pad_token_id).any()
    # Documents are whole, in some order, each ended by [SEP]; the tail that fills no sequence is left out.
    ids, offsets = tokenizer.encode_bulk(texts, add_special_tokens=False)
    assert sequences.n_tokens == len(ids) + len(texts)
    assert 0 <= sequences.n_tokens - sequences.n_sequences * 14 < 14
    unshuffled = TokenSequences(texts, tokenizer, 16, seed=None)
    stream = torch.cat(list(unshuffled.batches(5)))[:, 1:-1].flatten().numpy()
    expected = np.concatenate([[*ids[a:b], tokenizer.sep_token_id] for a, b in pairwise(offsets)])
    np.testing.assert_array_equal(stream, expected[: len(stream)])


def test_the_batch_is_a_function_of_seed_and_step(tokenizer):
    one, two = (TokenSequences(documents(), tokenizer, 16, seed=3) for _ in range(2))
    per_epoch = one.n_sequences // 4
    steps = [0, 1, per_epoch - 1, per_epoch, per_epoch + 5]
    forward = [one.batch(step, 4) for step in steps]
    backward = [two.batch(step, 4) for step in reversed(steps)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    other = TokenSequences(documents(), tokenizer, 16, seed=4)
    assert not torch.equal(other.batch(0, 4), forward[0])
    # A new epoch cuts and orders the text anew.
    assert not torch.equal(one.batch(0, one.n_sequences), one.batch(1, one.n_sequences))


def test_a_batch_may_be_larger_than_the_corpus(tokenizer):
    sequences = TokenSequences(documents(2), tokenizer, 64, seed=0)
    assert sequences.batch(3, 50).shape == (50, 64)


def test_some_sequences_are_spread_over_all(tokenizer):
    sequences = TokenSequences(documents(), tokenizer, 16, seed=None)
    rows, some = torch.cat(list(sequences.batches(8))), torch.cat(list(sequences.batches(8, max_sequences=10)))
    assert len(some) == 10
    assert torch.equal(some[5], rows[5 * len(rows) // 10])


def test_text_shorter_than_a_sequence_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"at least one sequence of 64 tokens, got [0-9]+ tokens"):
        TokenSequences(["a file\n"], tokenizer, 64, seed=0)


# Vocabulary


def test_the_vocabulary_is_the_same_every_time_and_covers_its_text(tmp_path):
    vocab = train_vocab(documents(), 200)
    assert vocab == train_vocab(documents(), 200)
    assert tuple(vocab[:5]) == SPECIAL_TOKENS
    assert len(vocab) == len(set(vocab)) <= 200
    assert "function" in vocab
    write_vocab(vocab, tmp_path / "vocab.txt")
    tokenizer = ElectraTokenizer(vocab=tmp_path / "vocab.txt")
    assert tokenizer.unk_token_id not in tokenizer(text())["input_ids"]
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.txt"]


def test_case_is_kept_on_request():
    assert "The" in train_vocab(["The " * 50 + "the dog"], 100, lowercase=False)


def test_a_vocabulary_without_room_or_words_is_refused():
    with pytest.raises(ValueError, match=r"must have at least [0-9]+ entries for this text, got size 10"):
        train_vocab(documents(), 10)
    with pytest.raises(ValueError, match="at least one word"):
        train_vocab([" \n"], 100)
