"""A call gives what transformers' BertTokenizer gives; test_call_grid.py has the combinations of its options."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer
from vocabularies import SENTENCES, data_file, small_vocab

from electra_fast.tokenizer import ElectraTokenizer, ElectraTokenizerFast


@pytest.fixture(scope="module")
def both():
    return ElectraTokenizer(small_vocab()), BertTokenizer(small_vocab())


def assert_same(ours, theirs, inputs, **options):
    actual, expected = ours(*inputs, **options), theirs(*inputs, **options)
    assert list(actual) == list(expected)
    for name, column in expected.items():
        if options.get("return_tensors"):
            assert type(actual[name]) is type(column) and actual[name].dtype == column.dtype, name
            assert np.array_equal(np.asarray(actual[name]), np.asarray(column)), (name, options)
        else:
            assert actual[name] == column, (name, options)
    for encoding, other in zip(actual.encodings, expected.encodings, strict=True):
        for field in ("ids", "tokens", "word_ids", "sequence_ids", "offsets", "special_tokens_mask"):
            assert getattr(encoding, field) == getattr(other, field), (field, options)


def test_a_length_without_effect_is_told(both):
    with pytest.warns(UserWarning, match="max_length has no effect"):
        both[0]("a", padding=True, max_length=5)


def test_stride_words_targets_and_columns(both):
    contexts, questions = SENTENCES, [s.split(",")[0] for s in SENTENCES]
    question_answering = {
        "truncation": "only_second",
        "max_length": 40,
        "stride": 3,
        "padding": "max_length",
        "return_overflowing_tokens": True,
        "return_offsets_mapping": True,
    }
    assert_same(*both, ([q[:12] for q in questions], contexts), **question_answering)
    words = [sentence.split() for sentence in SENTENCES]
    assert_same(*both, (words, None), is_split_into_words=True)
    assert_same(*both, (words[0], None), is_split_into_words=True, truncation=True, max_length=9)
    assert_same(*both, (words, None), is_split_into_words=True, max_length=2)
    assert_same(*both, (words, words[::-1]), is_split_into_words=True, padding=True, return_tensors="np")
    assert_same(*both, (SENTENCES,), return_token_type_ids=False, return_attention_mask=False)
    assert_same(*both, (SENTENCES,), text_target=SENTENCES[::-1], max_length=20, max_target_length=7)
    assert_same(*both, (SENTENCES,), truncation="only_second", max_length=200)
    assert_same(*both, (SENTENCES,), tokenizer_kwargs={"max_length": 9, "truncation": True})


@pytest.mark.parametrize("name", ["pad_to_max_length", "is_pretokenized", "add_prefix_space"])
def test_keywords_that_a_call_does_not_have_are_named(both, name):
    """docs/drop-in.md lists it: transformers ignores them."""
    ours, theirs = both
    assert theirs("a b", **{name: True}) == theirs("a b")
    for call in (ours, ours.encode, ours.tokenize, ours.encode_plus, ours.batch_encode_plus):
        with pytest.raises(TypeError, match=f"^{name} must be left out: no keyword of a call of ElectraTokenizer"):
            call("a b", **{name: True})


@pytest.mark.parametrize("options", [{}, {"return_offsets_mapping": True, "return_length": True}])
def test_arrays_of_rows_of_unequal_length(both, options):
    for texts in (["a b c", "a"], ["a b", "a c"]):
        actual, expected = (tokenizer(texts, return_tensors="np", **options) for tokenizer in both)
        assert list(actual) == list(expected)
        for name, column in expected.items():
            assert actual[name].dtype == column.dtype and actual[name].shape == column.shape
            for row, other in zip(actual[name], column, strict=True):
                assert np.array_equal(row, other) and np.asarray(row).dtype == np.asarray(other).dtype
    rows = {"input_ids": [[1, 2], [3]]}
    actual, expected = (t.pad(rows, padding=False, return_tensors="np")["input_ids"] for t in both)
    assert actual.dtype == expected.dtype == object and [row.tolist() for row in actual] == rows["input_ids"]
    with pytest.raises(ValueError, match="must have rows of one length"):
        both[0](["a b c", "a"], return_tensors="pt")


def test_model_max_length(both):
    vocab = small_vocab()
    ours, theirs = ElectraTokenizer(vocab, model_max_length=16), BertTokenizer(vocab, model_max_length=16)
    for options in ({"truncation": True}, {"padding": "max_length", "truncation": True}):
        assert_same(ours, theirs, (SENTENCES,), **options)
    for options in ({"padding": "max_length", "verbose": False}, {"padding": True, "verbose": False}):
        assert_same(ours, theirs, (SENTENCES,), **options)
    with pytest.warns(UserWarning, match="tokens are more than the model takes"):
        ElectraTokenizer(vocab, model_max_length=16)(SENTENCES)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([None, True, False]),
    st.booleans(),
)
def test_decoding_any_text(texts, do_lower_case, strip_accents, tokenize_chinese_chars):
    key = (do_lower_case, strip_accents, tokenize_chinese_chars)
    if key not in _TOKENIZERS:
        arguments = {
            "do_lower_case": do_lower_case,
            "strip_accents": strip_accents,
            "tokenize_chinese_chars": tokenize_chinese_chars,
        }
        _TOKENIZERS[key] = [c(small_vocab(do_lower_case), **arguments) for c in (ElectraTokenizerFast, BertTokenizer)]
    ours, theirs = _TOKENIZERS[key]
    ids = ours(texts)["input_ids"]
    for options in ({}, {"skip_special_tokens": True}, {"clean_up_tokenization_spaces": True}):
        assert ours.batch_decode(ids, **options) == theirs.batch_decode(ids, **options)


_TOKENIZERS: dict = {}


def test_published_vectors():
    tokenizer = ElectraTokenizer(str(data_file("vocab.txt")))
    texts = data_file("bert_vectors", "texts.txt").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    rows = data_file("bert_vectors", "ids.txt").read_text().split("\n")
    expected = [[int(index) for index in row.split()] for row in rows[: len(texts)]]
    assert len(texts) == 47
    assert tokenizer(texts, add_special_tokens=False)["input_ids"] == expected


def test_real_vocabulary_on_real_text():
    import lzma

    vocab = data_file("vocab.txt")
    with lzma.open(data_file("prose.txt.xz"), "rt", encoding="utf-8") as file:
        texts = [line for line in file.read(1_500_000).split("\n") if line]
    ours, theirs = ElectraTokenizer(str(vocab)), BertTokenizer(str(vocab))
    assert ours(texts)["input_ids"] == theirs(texts)["input_ids"]


def test_a_call_follows_what_has_changed_since_the_last():
    """What the keywords come to is remembered: by value and type, never for an attribute as it was before."""
    ours, theirs = ElectraTokenizer(small_vocab()), BertTokenizer(small_vocab())
    options = {"padding": True, "truncation": True, "return_tensors": "np", "verbose": False}
    changes = [
        ("model_max_length", 9),
        ("padding_side", "left"),
        ("truncation_side", "left"),
        ("model_input_names", ["input_ids"]),
        ("model_max_length", 7),
        ("pad_token", "[MASK]"),
    ]
    for name, value in changes:
        for tokenizer in (ours, theirs):
            setattr(tokenizer, name, value)
        assert_same(ours, theirs, (SENTENCES,), **options, return_token_type_ids=True)
        assert_same(ours, theirs, (SENTENCES,), **options)
    ours.model_input_names.append("attention_mask")
    assert list(ours("a", **options)) == ["input_ids", "attention_mask"]
    assert ours("a b", max_length=1, truncation=True, add_special_tokens=False)["input_ids"]
    for wrong in (True, 1.0, [1]):  # equal to 1, or without a hash
        with pytest.raises(ValueError, match="max_length must be an integer of at least 0 or None"):
            ours("a b", max_length=wrong, truncation=True, add_special_tokens=False)
    with pytest.raises(TypeError, match="add_special_tokens must be True or False, got 1"):
        ours("a b", add_special_tokens=1)
    for _ in range(2):
        with pytest.warns(UserWarning, match="max_length has no effect"):
            ours("a", padding=True, max_length=5)
