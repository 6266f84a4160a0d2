"""From files to batches."""

import gzip
import lzma

import numpy as np
import pytest
from texts import documents, text

from electra_fast.pretraining.text.builtin import builtin_documents
from electra_fast.pretraining.text.corpus import Corpus
from electra_fast.pretraining.text.documents import MAX_DOCUMENT_CHARS, take
from electra_fast.pretraining.text.shards import write_shards
from electra_fast.pretraining.text.sources import find_sources
from electra_fast.pretraining.text.stream import SequenceStream, held_out_sequences
from electra_fast.pretraining.text.vocab import SPECIAL_TOKENS, train_vocab, vocabulary_texts, write_vocab
from electra_fast.tokenizer import ElectraTokenizer


def split(texts):
    corpus = Corpus.from_texts(texts)
    return list(corpus.training()), list(corpus.held_out())


def read(path):
    return [document for source in find_sources(path) for document in source.documents()]


# Reading


def test_blank_lines_separate_documents(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\n \n\nthree\n", encoding="utf-8")
    assert read(tmp_path / "a.txt") == ["one\ntwo\n", "three\n"]


def test_directories_are_read_in_order_and_compressed_files_too(tmp_path):
    (tmp_path / "b").mkdir()
    with gzip.open(tmp_path / "b" / "2.gz", "wt", encoding="utf-8") as file:
        file.write("zwei\n")
    with lzma.open(tmp_path / "a.xz", "wt", encoding="utf-8") as file:
        file.write("one\n")
    (tmp_path / "c.txt").write_text("trois\n", encoding="utf-8")
    (tmp_path / "notes.pdf").write_bytes(b"\xff\xfe")
    assert read(tmp_path) == ["one\n", "zwei\n", "trois\n"]
    assert take(read(tmp_path), 5) == ["one\n", "zwei\n"]


def test_a_long_document_is_cut_at_a_line_end(tmp_path):
    line = "x" * 999 + "\n"
    (tmp_path / "book.txt").write_text(line * 40, encoding="utf-8")
    parts = read(tmp_path / "book.txt")
    assert "".join(parts) == line * 40
    assert len(parts) == 3
    assert all(len(part) <= MAX_DOCUMENT_CHARS and part.endswith("\n") for part in parts)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("binary.txt", b"\xff\xfe\x00\x80", "binary.txt, line 1: must be UTF-8, got byte 0xff"),
        ("damaged.gz", b"no gzip at all", "damaged.gz, line 1: the compressed file is damaged"),
        (
            "short.gz",
            gzip.compress(b"hello " * 1000, mtime=0)[:-20],
            "short.gz, line 1: the compressed file is damaged",
        ),
        ("damaged.xz", b"no xz at all", "damaged.xz, line 1: the compressed file is damaged"),
    ],
)
def test_files_that_hold_no_text_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name)


def test_paths_that_lead_nowhere_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such data file or directory: .*missing"):
        read(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"must hold files named \*.txt"):
        read(tmp_path)


def test_the_builtin_corpus_is_prose():
    corpus = builtin_documents()
    assert sum(map(len, corpus)) > 1_000_000
    assert not any(">>>" in line[:3] for document in corpus for line in document.splitlines())
    _, held_out = split(corpus)
    assert 0.01 < len(held_out) / len(corpus) < 0.12


# Splitting


def test_a_document_keeps_its_side_when_others_are_added():
    training, held_out = split(documents(200))
    more_training, more_held_out = split(documents(200) + documents(200, seed=1))
    assert set(training) <= set(more_training)
    assert set(held_out) <= set(more_held_out)
    assert 2 <= len(held_out) <= 25
    assert set(training).isdisjoint(held_out)


def test_a_corpus_is_split_by_the_text_of_its_documents(tmp_path):
    (tmp_path / "a.txt").write_text(text(300), encoding="utf-8")
    (tmp_path / "b.txt").write_text(text(300, seed=1), encoding="utf-8")
    (tmp_path / "copy.txt").write_text(text(300), encoding="utf-8")
    corpus = Corpus([tmp_path])
    training, held_out = list(corpus.training()), list(corpus.held_out())
    assert len(training) + len(held_out) == 900
    assert set(training).isdisjoint(held_out)
    assert 20 <= len(held_out) <= 80
    # Read again it is the same; a generator orders its files.
    assert list(corpus.training()) == training
    shuffled = [list(corpus.training(np.random.default_rng(seed))) for seed in range(4)]
    assert all(sorted(one) == sorted(training) for one in shuffled)
    assert any(one != training for one in shuffled)


def test_a_corpus_knows_whether_its_order_can_change(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"body": "three"}\n', encoding="utf-8")
    one, two = Corpus([tmp_path / "a.txt"]), Corpus([tmp_path], documents_by="file", text_key="body")
    assert one.windows_are_fixed and not two.windows_are_fixed
    assert [*two.training(), *two.held_out()] == ["one\ntwo\n", "three"]
    assert one.fingerprint() == Corpus([tmp_path / "a.txt"]).fingerprint() != two.fingerprint()


# One document a line


def test_a_corpus_of_a_document_a_line_is_held_out_by_lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"{number} {line.strip()}" for number, line in enumerate(documents(400))) + "\n \n")
    corpus = Corpus([path], documents_by="line")
    training, held_out = list(corpus.training()), list(corpus.held_out())
    assert len(training) + len(held_out) == 400 and 5 <= len(held_out) <= 40
    assert all(document.count("\n") == 1 and document.endswith("\n") for document in training)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({}, "Blank lines end documents; with --documents-by line .* every line is one"),
        ({"documents_by": "file"}, "Every file is a document; --documents-by line"),
        ({"documents_by": "line"}, "Every line is a document"),
    ],
)
def test_a_corpus_that_is_too_small_tells_what_a_document_is(tmp_path, arguments, hint):
    tokenizer = ElectraTokenizer(vocab={token: i for i, token in enumerate(train_vocab(documents(), 200))})
    sides = split(documents(200))
    for content, read, message in (
        (sides[0][0], lambda corpus: corpus.held_out_window(tokenizer), "are held out; got none"),
        (sides[0][0], lambda corpus: write_shards(corpus, tokenizer, tmp_path / "out"), "are held out; got none"),
        (sides[1][0], lambda corpus: write_shards(corpus, tokenizer, tmp_path / "out"), "none besides those held out"),
        (sides[1][0], vocabulary_texts, "text to train on besides what is held out, got none"),
        (sides[1][0], lambda corpus: SequenceStream(corpus, tokenizer, 16, 0).rows(0, 1), "must fill at least one"),
        (sides[1][0], lambda corpus: held_out_sequences(corpus, tokenizer, 512, 1), "must fill at least one"),
    ):
        (tmp_path / "a.txt").write_text(content)
        with pytest.raises(ValueError, match=rf"{message}.*\. {hint}"):
            read(Corpus([tmp_path / "a.txt"], **arguments))


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
