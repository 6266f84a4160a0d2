"""Three thousand calls drawn from the product of all options: the columns and rows that transformers gives, or an error
where it raises one.

If transformers returns something that nobody can have meant, ours raises an error on purpose; `refusal` has the three
cases.
"""

import random
import warnings

import numpy as np
import pytest
from transformers import BertTokenizer
from vocabularies import SENTENCES, small_vocab

from electra_fast.tokenizer import ElectraTokenizer

CHUNKS, CALLS_PER_CHUNK = 20, 150
TEXTS = [*SENTENCES, "", "[MASK] is\x00good\x0bbad\tend", "東京 naïve\xadly e\u0301te\u0301", "x" * 101, "the dog"]
WORDS = [text.split(" ") for text in TEXTS] + [["", "the", " ", "don't stop"], ["[SEP]"], ["fox"] * 30]


def few(items, chance):
    return chance.choices(items, k=chance.randint(1, 5))


def batch_of_pairs(items, chance):
    first = few(items, chance)
    return first, chance.choices(items, k=len(first))


# Kind of input -> what is passed as text and as text_pair, of texts or of lists of words.
INPUTS = {
    "single": lambda items, chance: (chance.choice(items), None),
    "pair": lambda items, chance: (chance.choice(items), chance.choice(items)),
    "batch": lambda items, chance: (few(items, chance), None),
    "batch of pairs": batch_of_pairs,
    "list of pairs": lambda items, chance: (list(zip(*batch_of_pairs(items, chance), strict=True)), None),
}
OPTIONS = {
    "padding": [False, True, "longest", "max_length", "do_not_pad"],
    "truncation": [None, False, True, "longest_first", "only_first", "only_second", "do_not_truncate"],
    "max_length": [None, None, 0, 2, 5, 16, 24, 40, 40, 200],
    "stride": [0, 0, 1, 3, 11],
    "return_overflowing_tokens": [False, True],
    "add_special_tokens": [True, True, False],
    "padding_side": [None, "left", "right"],
    "pad_to_multiple_of": [None, None, 8],
    "return_tensors": [None, None, "np", "pt"],
    "return_offsets_mapping": [False, True],
    "return_special_tokens_mask": [False, True],
    "return_token_type_ids": [None, True, False],
    "return_attention_mask": [None, True, False],
    "return_length": [False, True],
}
SIDES = ["right", "left"]
ATTRIBUTES = {"truncation_side": SIDES, "padding_side": SIDES, "model_max_length": [None, None, 16]}


def draw(seed):
    """A call: attributes of the tokenizer, (text, text_pair), options."""
    chance = random.Random(seed)
    attributes = {name: chance.choice(values) for name, values in ATTRIBUTES.items()}
    options = {name: chance.choice(values) for name, values in OPTIONS.items()}
    options["is_split_into_words"] = chance.random() < 0.4
    # Rows of unequal length make no tensors: most calls for tensors pad and cut.
    if options["return_tensors"] and chance.random() < 0.9:
        options |= {"padding": chance.choice([True, "max_length"]), "truncation": True}
        options["max_length"] = chance.choice([16, 24, 40])
        options["return_overflowing_tokens"] &= options["padding"] == "max_length"
    # What is left over of one text cannot be taken from the other: most calls that cut one leave room.
    if options["truncation"] in ("only_first", "only_second") and chance.random() < 0.7:
        options["max_length"] = 200
    if (options["max_length"] or 200) <= options["stride"] + 5:
        options["stride"] = 0
    # With no room at all the overflow is longer than the row, and transformers does not pad one to the other.
    if options["max_length"] in (0, 2) and options["return_overflowing_tokens"]:
        options["padding"] = False
    make_inputs = INPUTS[chance.choice(list(INPUTS))]
    return attributes, make_inputs(WORDS if options["is_split_into_words"] else TEXTS, chance), options


def calls_of(chunk):
    return [draw(seed) for seed in range(chunk * CALLS_PER_CHUNK, (chunk + 1) * CALLS_PER_CHUNK)]


def result_of(tokenizer, attributes, inputs, options):
    """The columns, or the exception. The library behind transformers panics at times, which is no Exception."""
    for name, value in attributes.items():
        setattr(tokenizer, name, int(1e30) if value is None else value)
    try:
        return tokenizer(*inputs, **options)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return error


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    path = tmp_path_factory.mktemp("grid") / "vocab.txt"
    vocab = small_vocab()
    path.write_text("".join(f"{token}\n" for token in sorted(vocab, key=vocab.get)), encoding="utf-8")
    return ElectraTokenizer(str(path)), BertTokenizer(str(path))


def is_cut_to(attributes, options):
    """The length that rows are cut to, or None."""
    truncation, length = options["truncation"], options["max_length"]
    if truncation is None and length is not None and options["padding"] is False:
        truncation = True
    if truncation in (None, False, "do_not_truncate"):
        return None
    return attributes["model_max_length"] if length is None else length


def refusal(attributes, inputs, options):
    """What our error says where transformers goes wrong without one; None for the others."""
    length = is_cut_to(attributes, options)
    if length is not None:
        text, pair = inputs
        in_pairs = bool(pair) or (isinstance(text, list) and isinstance(text[0], tuple))
        n_special = (3 if in_pairs else 2) if options["add_special_tokens"] else 0
        if length < n_special:
            return f"max_length must leave room for {n_special}"  # not cut at all: the room is taken as nearly 2^64
        if 0 < options["stride"] >= length - n_special:
            return "stride must be below"  # an error only if a row is too long, which batches should not depend on
    return None


def assert_same_columns(actual, expected, options):
    assert list(actual) == list(expected)
    for name, column in expected.items():
        if options["return_tensors"] is None:
            assert actual[name] == column, name
        else:
            assert type(actual[name]) is type(column) and actual[name].dtype == column.dtype, name
            if column.dtype == object:
                assert [row.tolist() for row in actual[name]] == [row.tolist() for row in column], name
                continue
            values = [np.asarray(values) for values in (actual[name], column)]
            # Of rows without tokens, transformers does not know that offsets are pairs.
            assert np.array_equal(*values) or values[0].size == values[1].size == 0, name
    for encoding, other in zip(actual.encodings, expected.encodings, strict=True):
        for field in ("ids", "tokens", "offsets", "word_ids", "sequence_ids", "attention_mask"):
            assert getattr(encoding, field) == getattr(other, field), field


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_grid(both, chunk):
    ours, theirs = both
    raised = 0
    for attributes, inputs, options in calls_of(chunk):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = result_of(theirs, attributes, inputs, options)
            actual = result_of(ours, attributes, inputs, options)
        call = f"{attributes} {inputs!a:.400} { {name: value for name, value in options.items() if value} }"
        if isinstance(expected, BaseException):
            raised += 1
            assert isinstance(actual, (ValueError, TypeError)), f"{call}\n{actual!r:.300}, expected {expected!r:.300}"
            continue
        if message := refusal(attributes, inputs, options):
            raised += 1
            assert isinstance(actual, ValueError) and message in str(actual), f"{call}\n{actual!r:.300}, not {message}"
            continue
        assert not isinstance(actual, BaseException), f"{call}\n{actual!r}"
        try:
            assert_same_columns(actual, expected, options)
        except AssertionError as error:
            raise AssertionError(f"{call}\n{error}") from None
    assert raised <= CALLS_PER_CHUNK // 3


def test_there_are_thousands_of_different_calls():
    calls = [call for chunk in range(CHUNKS) for call in calls_of(chunk)]
    assert len({repr(call) for call in calls}) >= 2500
    for name, values in OPTIONS.items():
        assert {call[2][name] for call in calls} == set(values)
