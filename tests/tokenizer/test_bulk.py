"""encode_bulk gives the ids of the backend, whichever of the two encoders a text goes through."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from electra_fast._tokenizer import LONGEST_WORD, WordPiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers
from vocabularies import SENTENCES, small_vocab

from electra_fast.tokenizer import ElectraTokenizer

ASCII = st.text(st.characters(max_codepoint=127), max_size=80)
# Pieces of the vocabulary side by side, with what is special to the rules in between.
MIXED = st.lists(
    st.sampled_from([*small_vocab(), "[MASK]", "[mask]", "\x00", "\x0b", "\x7f", " ", "\n", "#", "##", "é", "x" * 99]),
    max_size=30,
).map("".join)


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def tokenizer(request):
    return ElectraTokenizer(small_vocab(request.param), do_lower_case=request.param)


def assert_same(tokenizer, texts, add_special_tokens=True):
    ids, offsets = tokenizer.encode_bulk(texts, add_special_tokens)
    assert ids.dtype == np.int32 and offsets.dtype == np.int64 and offsets.shape == (len(texts) + 1,)
    encodings = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)
    rows = [ids[start:end].tolist() for start, end in pairwise(offsets)]
    assert rows == [encoding.ids for encoding in encodings]


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(ASCII | MIXED, max_size=6), add_special_tokens=st.booleans())
@example(texts=["x" * 100, "x" * 101, "[MASK]", "a[SEP]b", "ab\x00cd", "a\x1fb\x0cc\rd", ""], add_special_tokens=True)
def test_same_as_backend(tokenizer, texts, add_special_tokens):
    assert_same(tokenizer, texts, add_special_tokens)


def test_every_ascii_character(tokenizer):
    assert_same(tokenizer, [f"the{chr(a)}dog{chr(b)}Fox" for a in range(128) for b in range(128)])


def test_added_tokens():
    tokenizer = ElectraTokenizer(small_vocab())
    texts = ["<new> the <NEW> dog", "the dog", "quick<ent>fox <ent> "]
    assert_same(tokenizer, texts)
    tokenizer.add_special_tokens({"extra_special_tokens": [AddedToken("<ent>", lstrip=True)]})
    assert_same(tokenizer, texts)
    tokenizer.add_tokens(["<new>"])
    assert_same(tokenizer, texts)


def test_a_backend_changed_by_hand_is_noticed():
    tokenizer = ElectraTokenizer(small_vocab())
    texts = ["The DOG", "fox"]
    assert_same(tokenizer, texts)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Replace("o", "a")])
    assert_same(tokenizer, texts)
    assert tokenizer(texts)["input_ids"] == [e.ids for e in tokenizer.backend_tokenizer.encode_batch(texts)]


def test_random_vocabularies():
    generator = np.random.default_rng(0)
    letters = np.array(list("abAB1.#"))
    for _ in range(20):
        pieces = {"".join(generator.choice(letters, generator.integers(1, 5))) for _ in range(60)}
        vocab = {t: i for i, t in enumerate(["[UNK]", "[CLS]", "[SEP]", *pieces, *(f"##{p}" for p in pieces)])}
        tokenizer = ElectraTokenizer(vocab, do_lower_case=bool(generator.integers(2)))
        assert_same(tokenizer, ["".join(generator.choice(letters, 40)) for _ in range(50)])


def test_threads_share_one_encoder():
    tokenizer = ElectraTokenizer(small_vocab())
    expected = tokenizer.encode_bulk(SENTENCES * 50)
    with ThreadPoolExecutor(4) as pool:
        for ids, offsets in pool.map(tokenizer.encode_bulk, [SENTENCES * 50] * 20):
            assert np.array_equal(ids, expected[0]) and np.array_equal(offsets, expected[1])


def test_errors():
    tokenizer = ElectraTokenizer(small_vocab())
    with pytest.raises(TypeError, match=r"text\[1\] must be a str, got None"):
        tokenizer.encode_bulk(["a", None])
    with pytest.raises(TypeError, match="a text must be a str, got int"):
        WordPiece([("a", 0)], 0, 100, True, []).encode([1], [], [])
    with pytest.raises(ValueError, match=f"at most {LONGEST_WORD}, got 1000"):
        WordPiece([("a", 0)], 0, 1000, True, [])
