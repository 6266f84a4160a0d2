"""A BatchEncoding says the same about tokens, words and characters as transformers', at every index.

An index that does not exist gives the same value or the same class of exception.
"""

import copy
import pickle

import pytest
from oracle import build_both
from transformers import BertTokenizer
from vocabularies import SENTENCES, small_vocab, wide_vocab

from electra_fast.tokenizer import ElectraTokenizer
from electra_fast.tokenizer.batch_encoding import Late

TEXTS = [SENTENCES[2], "", "York[MASK] e\u0301te\u0301 İx 東京\u0301 \x00", "x" * 101 + " dog", "the\u3000dog, doesn't"]
WORDS = [["New York", "e\u0301te\u0301", "", "dog's"], ["東京", " "], [""], SENTENCES[0].split(), ["[SEP]", "x" * 101]]
OVERFLOW = {"truncation": True, "max_length": 9, "stride": 2, "return_overflowing_tokens": True}
OVERFLOW_OF_SECOND = OVERFLOW | {"truncation": "only_second", "max_length": 16}
# Name -> texts, pairs, options.
CALLS = {
    "single": (TEXTS[0], None, {}),
    "pair": (TEXTS[0], TEXTS[2], {}),
    "batch": (TEXTS, None, {}),
    "batch of pairs": (TEXTS, TEXTS[::-1], {}),
    "no special tokens": (TEXTS, TEXTS[::-1], {"add_special_tokens": False}),
    "padded right": (TEXTS, None, {"padding": True}),
    "padded left": (TEXTS, TEXTS[1:] + TEXTS[:1], {"padding": True, "padding_side": "left"}),
    "padded to a multiple": (TEXTS, None, {"padding": "max_length", "max_length": 61, "pad_to_multiple_of": 8}),
    "cut": (TEXTS, TEXTS, {"truncation": True, "max_length": 12}),
    "overflow": (TEXTS, None, OVERFLOW),
    "overflow of pairs": (TEXTS, TEXTS[::-1], OVERFLOW | {"max_length": 14}),
    "overflow of the second": ([text[:9] for text in TEXTS], TEXTS, OVERFLOW_OF_SECOND),
    "overflow, padded left": (TEXTS, None, OVERFLOW | {"padding": "max_length", "padding_side": "left"}),
    "overflow kept inside": (TEXTS, TEXTS, {"truncation": True, "max_length": 9, "stride": 1, "padding": True}),
    "words": (WORDS, None, {"is_split_into_words": True}),
    "one row of words": (WORDS[0], WORDS[3], {"is_split_into_words": True}),
    "pairs of words": (WORDS, WORDS[::-1], {"is_split_into_words": True, "padding": True}),
    "overflow of words": (WORDS, WORDS[::-1], OVERFLOW | {"is_split_into_words": True}),
    "tensors": (TEXTS, None, {"padding": True, "return_tensors": "np"}),
}
BY_TOKEN = ("token_to_sequence", "token_to_word", "token_to_chars")
BY_WORD = ("word_to_tokens", "word_to_chars")
BY_CHARACTER = ("char_to_token", "char_to_word")
FIELDS = ("ids", "type_ids", "tokens", "offsets", "attention_mask", "special_tokens_mask", "word_ids", "sequence_ids",
          "n_sequences")  # fmt: skip


@pytest.fixture(scope="module", params=[small_vocab, wide_vocab])
def both(request):
    return ElectraTokenizer(request.param()), BertTokenizer(request.param())


@pytest.fixture(params=[None, "left"], ids=["", "truncated left"])
def sided(request, both):
    for tokenizer in both:
        tokenizer.truncation_side = request.param or "right"
    yield both
    for tokenizer in both:
        tokenizer.truncation_side = "right"


def encode(both, name, **more):
    texts, pairs, options = CALLS[name]
    return [tokenizer(texts, pairs, **options, **more) for tokenizer in both]


def result_of(batch, method, arguments):
    """The value, or the class of the exception."""
    try:
        return getattr(batch, method)(*arguments)
    except Exception as error:
        return type(error)


def expected_of(theirs, method, row, index, *sequence):
    """transformers' result; None where its own code unpacks the None that it is given."""
    if method == "word_to_chars" and index >= 0 and theirs.encodings[row].word_to_chars(index, *sequence) is None:
        return None
    return result_of(theirs, method, (row, index, *sequence))


def fields_of(encodings):
    return [[getattr(encoding, field) for field in FIELDS] for encoding in encodings]


@pytest.mark.parametrize("name", CALLS)
def test_fields_of_rows(sided, name):
    actual, expected = encode(sided, name)
    assert len(actual.encodings) == len(expected.encodings) and actual.n_sequences == expected.n_sequences
    assert actual.is_fast
    samples = expected.get("overflow_to_sample_mapping", range(len(expected.encodings)))
    for row, other in enumerate(expected.encodings):
        for encoding in (actual[row], actual.encodings[row]):
            assert len(encoding) == len(other) and fields_of([encoding]) == fields_of([other]), row
            if samples[row] not in samples[:row]:  # what overflows of a part that overflowed itself means nothing
                assert fields_of(encoding.overflowing) == fields_of(other.overflowing), row
        assert actual.tokens(row) == other.tokens and actual.sequence_ids(row) == other.sequence_ids
        assert actual.word_ids(row) == actual.words(row) == other.word_ids
    assert [encoding.ids for encoding in actual[1:]] == [encoding.ids for encoding in expected[1:]]
    assert actual[-1].ids == expected[-1].ids
    for method in ("tokens", "word_ids", "sequence_ids"):
        assert getattr(actual, method)() == getattr(expected, method)()
        assert result_of(actual, method, (len(expected.encodings),)) is IndexError


@pytest.mark.parametrize("name", CALLS)
def test_maps_at_every_index(both, name):
    actual, expected = encode(both, name)
    for row, encoding in enumerate(expected.encodings):
        n_words = max((word for word in encoding.word_ids if word is not None), default=0) + 1
        n_characters = max((end for _, end in encoding.offsets), default=0)
        for methods, size, sequences in (
            (BY_TOKEN, len(encoding), [()]),
            (BY_WORD, n_words, [(), (0,), (1,)]),
            (BY_CHARACTER, n_characters, [(), (0,), (1,)]),
        ):
            for method in methods:
                for sequence in sequences:
                    for index in (*range(size + 3), 10**6):
                        place = (row, index, *sequence)
                        result = result_of(actual, method, place)
                        assert result == expected_of(expected, method, *place), (method, place)


@pytest.mark.parametrize("method", [*BY_TOKEN, *BY_WORD, *BY_CHARACTER])
def test_negative_indices(both, method):
    """Tokens are counted from the end, as transformers means to, which lacks the attribute for it; words and characters
    are not."""
    for name in CALLS:
        actual, expected = encode(both, name)
        for row, encoding in enumerate(expected.encodings):
            for index in range(-min(len(encoding), 9), 0):
                result = result_of(actual, method, (row, index))
                if method in BY_TOKEN:
                    allowed = [result_of(encoding, method, (index + len(encoding),))]
                    allowed += [OverflowError] if method == "token_to_chars" else []  # transformers has no rule for it
                elif method == "word_to_tokens":  # the attribute again, where counting from the end makes no sense
                    allowed = [None, OverflowError]
                else:
                    allowed = [result_of(expected, method, (row, index))]
                assert result in allowed, (name, row, index)


@pytest.mark.parametrize("method", [*BY_TOKEN, *BY_WORD, *BY_CHARACTER])
def test_row_zero_is_the_default(both, method):
    actual, expected = encode(both, "batch of pairs")
    for index in range(12):
        assert result_of(actual, method, (index,)) == expected_of(expected, method, 0, index)
    assert result_of(actual, method, (len(TEXTS), 0)) is IndexError is result_of(expected, method, (len(TEXTS), 0))


@pytest.mark.parametrize("method", [*BY_WORD, *BY_CHARACTER])
def test_a_sequence_that_does_not_exist(both, method):
    """transformers looks into the whole row; to have found nothing there is right as well."""
    for name in ("single", "pair", "batch of pairs", "padded left"):
        actual, expected = encode(both, name)
        for row in range(len(expected.encodings)):
            for index in range(12):
                allowed = (None, IndexError, expected_of(expected, method, row, index, 2))
                assert result_of(actual, method, (row, index, 2)) in allowed, (name, row, index)


@pytest.mark.parametrize("method", [*BY_TOKEN, *BY_WORD])
def test_kinds_of_spans(both, method):
    """The spans are named tuples of transformers' names, and equal to plain ones."""
    actual, expected = encode(both, "pair")
    span, other = getattr(actual, method)(0, 1), getattr(expected, method)(0, 1)
    assert type(span).__name__ == type(other).__name__
    if isinstance(other, tuple):
        assert span._fields == other._fields and (span.start, span.end) == other == tuple(span)


def test_maps_of_calls_for_ids_alone(both):
    """Nobody asked for offsets, and words and characters are known all the same; after tensors too."""
    for name in ("batch", "padded right", "padded left", "tensors", "overflow", "words"):
        actual, expected = encode(both, name)
        detailed, _ = encode(both, name, return_offsets_mapping=True)
        for row, encoding in enumerate(expected.encodings):
            assert actual[row].offsets == detailed[row].offsets == encoding.offsets
            assert actual.word_ids(row) == detailed.word_ids(row) == encoding.word_ids


def test_rows_keep_what_they_were_encoded_with():
    """Tokens that are added later, and texts that are encoded later, change no row that exists."""
    ours, oracle = build_both(wide_vocab())
    texts = ["New York dog", "the fox"]
    batch = ours(texts)
    ours.add_tokens(["New York", "fox"])
    ours(["something else"] * 3, return_offsets_mapping=True)
    for row, encoding in enumerate(oracle.encode_batch(texts)):
        assert batch["input_ids"][row] == batch[row].ids == encoding.ids
        assert batch.tokens(row) == encoding.tokens and batch[row].offsets == encoding.offsets
        assert batch.word_ids(row) == encoding.word_ids


def test_lists_are_made_when_they_are_read_and_stay():
    ours, _ = build_both(small_vocab())
    output = ours(TEXTS, return_offsets_mapping=True)
    assert list(output) == ["input_ids", "token_type_ids", "attention_mask", "offset_mapping"] and "input_ids" in output
    assert all(isinstance(value, Late) for value in vars(output)["_columns"].values())
    ids = output["input_ids"]
    assert ids is output.input_ids is output.data["input_ids"] and type(ids[0]) is list
    ids[0][0] = 7
    other = copy.copy(output)
    other["labels"] = [1]
    assert other["input_ids"][0][0] == 7 and "labels" not in output
    assert (
        pickle.loads(pickle.dumps(output)).data
        == dict(output)
        == output.data
        == ours(TEXTS, return_offsets_mapping=True).data | {"input_ids": ids}
    )
