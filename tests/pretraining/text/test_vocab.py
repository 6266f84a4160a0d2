"""Vocabularies from long runs without spaces: words that the tokenizer cannot know are left out, in no time."""

import base64
import random
import time
import warnings

import pytest
from texts import documents

from electra_fast.pretraining.extend_vocab import extended_tokenizer
from electra_fast.pretraining.text.vocab import train_vocab
from electra_fast.tokenizer import ElectraTokenizer

SIZE = 300
PLAIN = train_vocab(documents(), SIZE)
GENOME = "".join(random.Random(0).choices("ACGT", k=200_000))


def quiet(texts, **options):
    """The vocabulary of texts that give no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return train_vocab(texts, SIZE, **options)


@pytest.mark.parametrize(
    ("run", "n_long"),
    [
        (GENOME, 1),
        (GENOME + " " + GENOME, 2),
        ("\n".join(GENOME[i : i + 101] for i in range(0, 1010, 101)), 10),
        ("가" * 51, 1),  # two letters each when it is normalized
        ("é" * 101, 1),
        ("x\u200b" * 101, 1),  # without its invisible characters
    ],
)
def test_words_that_are_too_long_are_left_out_and_counted(run, n_long):
    began = time.monotonic()
    with pytest.warns(UserWarning, match=rf"without some words of the text: {n_long} longer than 100 characters"):
        assert train_vocab([*documents(), run], SIZE) == PLAIN
    assert time.monotonic() - began < 5  # it took minutes


def test_a_word_of_the_longest_length_counts():
    for run in ("q" * 100, "가" * 50, "é" * 100, "e\u0301" * 100, "q\u200b" * 100):
        assert quiet([*documents(), run]) != PLAIN
    assert max(map(len, quiet(["q" * 100] * 9))) == 100
    # Accents are letters of cased text, so a word of 60 accented ones has 60 or 120, as it is written.
    assert quiet([*documents(), "é" * 60], lowercase=False) != train_vocab(documents(), SIZE, lowercase=False)
    with pytest.warns(UserWarning, match="1 longer than 100"):
        train_vocab([*documents(), "e\u0301" * 60], SIZE, lowercase=False)


@pytest.mark.parametrize(
    ("run", "spaced"),
    [
        ("=" * 500, "= " * 500),
        ("字" * 500, "字 " * 500),
        ("https://example.com/" + "a-b/" * 50, "https : / / example . com / " + "a - b / " * 50),
        ("a\u0301" * 40 + "." * 300, "a" * 40 + " ." * 300),
    ],
)
def test_long_runs_of_short_words_count_as_they_would_with_spaces(run, spaced):
    assert quiet([*documents(), run]) == quiet([*documents(), spaced]) != PLAIN


def test_base64_keeps_the_words_between_its_signs():
    text = base64.b64encode(random.Random(0).randbytes(30_000)).decode()
    with pytest.warns(UserWarning, match=r"\d longer than 100"):
        vocab = train_vocab([*documents(), text], SIZE)
    assert "+" in vocab and "/" in vocab and max(map(len, vocab)) <= 102


def test_text_of_long_words_alone_is_refused():
    with pytest.raises(ValueError, match=r"at least one word .*, got only 1 longer than 100 characters, which the"):
        train_vocab([GENOME], SIZE)


def test_a_vocabulary_is_extended_by_words_that_its_tokenizer_knows():
    texts = [*documents(), "q" * 150 + " ", GENOME, "q" * 150]
    for limit in (100, 200):
        tokenizer = ElectraTokenizer(
            vocab={token: i for i, token in enumerate([*PLAIN, "q", "##q"])}, max_input_chars_per_word=limit
        )
        with pytest.warns(UserWarning, match=rf"{1 if limit == 200 else 3} longer than {limit} characters"):
            larger = extended_tokenizer(tokenizer, texts, 500)
        added = larger.get_vocab().keys() - tokenizer.get_vocab().keys()
        assert ("q" * 150 in added) == (limit == 200)


def test_frequent_words_get_entries_of_their_own():
    size, n_words = 42, 8
    counts = {
        word: 100 - i for i, word in enumerate("walking talking rowing sleeping walker talker rower sleeper".split())
    }
    texts = [" ".join([word] * count) for word, count in counts.items()]
    plain, whole = train_vocab(texts, size), train_vocab(texts, size, n_words=n_words)
    assert not set(counts) <= set(plain)
    long = [token for token in whole if len(token) > 1 and token[0] not in "[#"]
    assert long[:n_words] == list(counts)
    assert len(whole) == len(set(whole)) == len(plain) == size
    assert whole[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert train_vocab(texts, size, n_words=n_words) == whole
