"""Old entries stay what they are, new ones are found in text and start as the mean of their pieces."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from texts import documents
from tokenizers import AddedToken
from tokenizers.models import WordPiece

from electra_fast import ElectraTokenizer
from electra_fast.pretraining.extend_vocab import extended_rows, extended_tokenizer, pieces_of_new
from electra_fast.pretraining.text.vocab import train_vocab

DOMAIN = ["Immunoglobulin binds the Überträger and immunoglobulins bind überall.\n" * 4] * 3
N_NEW = 6


def numbered(vocab):
    return {token: index for index, token in enumerate(vocab)}


@pytest.fixture(scope="module")
def old():
    return ElectraTokenizer(vocab=numbered(train_vocab(documents(), 200)), model_max_length=32)


@pytest.fixture(scope="module")
def new(old):
    return extended_tokenizer(old, DOMAIN, N_NEW)


def test_old_entries_keep_their_ids_and_new_ones_follow(old, new):
    n_old, vocab = len(old), new.get_vocab()
    assert {token: index for token, index in vocab.items() if index < n_old} == old.get_vocab()
    assert sorted(vocab.values()) == list(range(n_old + N_NEW))
    assert new._settings() == old._settings()


def test_new_entries_are_found_in_text_and_old_text_is_split_as_before(old, new):
    text = "the Immunoglobulin"
    assert new.tokenize(text) == ["the", "immunoglobulin"]
    assert len(old.tokenize(text)) > 2
    assert "[UNK]" not in new.tokenize(DOMAIN[0])
    for document in documents(5):
        assert new(document)["input_ids"] == old(document)["input_ids"]


def test_the_entries_are_those_that_save_most(old, new):
    # Not the pieces that training merges on the way to the words, which come before them in a trained vocabulary.
    entries = {new.convert_ids_to_tokens(index) for index in range(len(old), len(new))}
    assert entries == {"immunoglobulin", "immunoglobulins", "binds", "bind", "uberall", "ubertrager"}
    assert len(new.tokenize(DOMAIN[0])) == len(DOMAIN[0].replace(".", " .").split())
    one = extended_tokenizer(old, DOMAIN, 1)
    assert one.convert_ids_to_tokens(len(old)) == "immunoglobulin"


def test_the_tokenizers_own_rules_normalise_the_text():
    vocab = numbered(train_vocab(["Über den Überträger"], 60, lowercase=False))
    cased = ElectraTokenizer(vocab=vocab, do_lower_case=False)
    assert "Immunoglobulin" in extended_tokenizer(cased, DOMAIN, 200).get_vocab()
    with_accents = ElectraTokenizer(vocab=vocab, strip_accents=False)
    assert "überträger" in extended_tokenizer(with_accents, DOMAIN, 200).get_vocab()


def test_special_tokens_of_another_name_get_no_twin():
    names = dict(unk_token="<unk>", sep_token="</s>", pad_token="<pad>", cls_token="<s>", mask_token="<mask>")
    vocab = numbered([*names.values(), "a", "##b"])
    new = extended_tokenizer(ElectraTokenizer(vocab=vocab, **names), DOMAIN, 300)
    assert not {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} & set(new.get_vocab())
    assert new.mask_token_id == vocab["<mask>"]


def test_added_tokens_keep_their_ids_and_files_hold_every_entry(old, tmp_path):
    transformers = pytest.importorskip("transformers")
    with_added = ElectraTokenizer(vocab=old.get_vocab())
    with_added.add_tokens([AddedToken("covid-19"), "immunoglobulin"])
    new = extended_tokenizer(with_added, DOMAIN, 4)
    assert new.convert_tokens_to_ids(["covid-19", "immunoglobulin"]) == [len(old), len(old) + 1]
    assert sorted(new.get_vocab().values()) == list(range(len(old) + 2 + 4))
    new.save_pretrained(tmp_path)
    assert len((tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines()) == len(new)
    text = "covid-19 and immunoglobulins bind the Überträger"
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == len(new)
    for tokenizer in (theirs, ElectraTokenizer.from_pretrained(tmp_path)):
        assert tokenizer(text)["input_ids"] == new(text)["input_ids"]
    assert new.tokenize("covid-19") == ["covid-19"]


def test_fewer_entries_than_asked_for_and_none(old):
    vocab = extended_tokenizer(old, ["zig zag " * 9] * 2, 10_000).get_vocab()
    assert set(vocab) - set(old.get_vocab()) == {"zig", "zag"}
    with pytest.raises(ValueError, match="n_new must be positive, got 0"):
        extended_tokenizer(old, DOMAIN, 0)


PIECES = st.text("abc", min_size=1, max_size=4).flatmap(lambda word: st.sampled_from([word, f"##{word}"]))


@given(st.lists(PIECES, unique=True, min_size=1, max_size=12), st.text("abc", min_size=1, max_size=9))
def test_a_word_is_split_as_wordpiece_splits_it(pieces, word):
    vocab = numbered(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(piece for piece in pieces if piece != word)])
    tokenizer = ElectraTokenizer(vocab={**vocab, word: len(vocab)})
    expected = [token.id for token in WordPiece(vocab, unk_token="[UNK]").tokenize(word)]
    assert pieces_of_new(tokenizer, len(vocab)) == [[] if expected == [vocab["[UNK]"]] else expected]


def test_a_piece_is_split_into_pieces_and_a_foreign_letter_has_none():
    vocab = numbered(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "##bc", "##", "##abca", "é", "##aé"])
    assert pieces_of_new(ElectraTokenizer(vocab=vocab), 9) == [[6, 7, 6], [], []]


def test_rows_are_means_and_old_rows_stay():
    table = torch.arange(12.0).view(4, 3)
    rows = extended_rows(table, [[0, 2], [3], []])
    expected = torch.stack([(table[0] + table[2]) / 2, table[3], table.mean(0)])
    assert torch.equal(rows[:4], table) and torch.equal(rows[4:], expected)
    assert torch.equal(extended_rows(table[:, 0], [[0, 2]]), torch.tensor([0.0, 3.0, 6.0, 9.0, 3.0]))
    assert torch.equal(extended_rows(table, []), table)
