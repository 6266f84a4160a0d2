"""Every value of every keyword: served as transformers serves it, or refused in words that name the mistake."""

import warnings

import numpy as np
import pytest
import torch
from transformers import BertTokenizer
from transformers.utils import PaddingStrategy, TensorType
from vocabularies import small_vocab

from electra_fast.tokenizer import ElectraTokenizer

OURS, THEIRS = (cls(small_vocab(), model_max_length=16) for cls in (ElectraTokenizer, BertTokenizer))
HUGE = (1 << 40, 1 << 61, 1 << 63, 1 << 80)
VALUES = [
    None, True, False, 0, 1, -1, 8, *HUGE, -(1 << 61), 1.0, 8.5, float("nan"), float("inf"), "", "8", "right", "left",
    "longest", "max_length", "only_first", "pt", "np", "tf", b"a", [], (), [8], [[8]], {}, {"a": 1}, set(), np.int64(8),
    np.int32(-1), np.float32(8), np.bool_(True), np.array([8]), torch.tensor(8), torch.tensor([8]), object(), int,
    PaddingStrategy.LONGEST, TensorType.NUMPY,
]  # fmt: skip
TEXTS = [
    "the dog", "", None, 5, b"a", [], ["the dog", "fox"], ("a", ""), [("a", "b")], [["a", "b"]], [("a", "b"), "c"],
    ["a", None], [None], [b"a"], [("a", None)], [("a",)], [["a", "b", "c"]], [[]], [[["a"], ["b"]]], [1, 2], {"a": 1},
    np.array(["a"]), [np.str_("a")], {"a"}, object(),
]  # fmt: skip
KEYWORDS = [
    "add_special_tokens", "padding", "truncation", "max_length", "stride", "is_split_into_words", "pad_to_multiple_of",
    "padding_side", "return_tensors", "return_token_type_ids", "return_attention_mask", "return_overflowing_tokens",
    "return_special_tokens_mask", "return_offsets_mapping", "return_length", "verbose", "split_special_tokens",
    "max_target_length", "tokenizer_kwargs",
]  # fmt: skip
BASES = [{}, {"truncation": True, "max_length": 5}, {"padding": "max_length"}, {"padding": True, "truncation": True}]


def plain(value):
    if hasattr(value, "items"):
        return {name: plain(column) for name, column in value.items()}
    if isinstance(value, np.ndarray) and value.dtype == object:  # rows of unequal length
        return [plain(row) for row in value]
    return value.tolist() if hasattr(value, "tolist") else value


def is_huge(value):
    return isinstance(value, (int, float)) and value > 1 << 20


def check(call, compare=True):
    """Our result is transformers' where both have one; our error is one for users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ours = plain(call(OURS))
        except (ValueError, TypeError) as error:
            for words in ("incompatible function arguments", "argument '", "object cannot be"):
                assert words not in str(error), error
            assert len(str(error)) < 500
            return
        if not compare:  # transformers would ask for all the memory
            return
        try:
            theirs = plain(call(THEIRS))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # the library behind it panics at times
            return
        assert ours == theirs


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_keywords_of_a_call(keyword):
    for value in VALUES:
        for base in BASES:
            for text in ("the dog", ["the dog", "the fox jumps over"]):
                options = {**base, keyword: value}
                check(lambda tokenizer, text=text, options=options: tokenizer(text, **options), not is_huge(value))
                if keyword not in ("verbose", "tokenizer_kwargs", "max_target_length"):
                    check(lambda t, options=options: {"ids": t.encode("the dog", **options)}, not is_huge(value))


def test_texts_and_pairs():
    for text in TEXTS:
        for pair in TEXTS:
            for options in ({}, {"padding": True, "return_tensors": "np"}, {"is_split_into_words": True}):
                check(lambda t, text=text, pair=pair, options=options: t(text, pair, **options))


def test_keywords_of_pad():
    rows = [{"input_ids": [2, 5, 6, 3]}, {"input_ids": [2, 3]}]
    for keyword in ("padding", "max_length", "pad_to_multiple_of", "padding_side", "return_attention_mask", "verbose"):
        for value in VALUES:
            for base in ({}, {"padding": "max_length"}):
                options = {**base, keyword: value}
                check(lambda t, options=options: t.pad([dict(row) for row in rows], **options), not is_huge(value))


@pytest.mark.parametrize(
    "columns",
    [
        None, 5, "a", [], {}, [[1]], [None], {"labels": [1]}, {"input_ids": None}, {"input_ids": []},
        {"input_ids": [[]]},
        {"input_ids": ["a"]}, {"input_ids": [1.5]}, {"input_ids": [[None]]}, {"input_ids": 5},
        {"input_ids": [[1], 2]}, {"input_ids": [[1], [2]], "token_type_ids": [[0]]}, {"input_ids": [[1]], "labels": 3},
        [{"input_ids": [1]}, {"labels": [1]}], {"input_ids": [[1], [2, 3]], "attention_mask": [1, [1]]},
    ],
)  # fmt: skip
def test_columns_of_pad(columns):
    check(lambda t: t.pad(dict(columns) if isinstance(columns, dict) else columns))
    check(lambda t: t.pad(dict(columns) if isinstance(columns, dict) else columns, padding="max_length"))


@pytest.mark.parametrize(
    "method", ["decode", "batch_decode", "convert_ids_to_tokens", "convert_tokens_to_ids", "convert_tokens_to_string"]
)
def test_ids_and_tokens(method):
    ids = [2, 92, 113, 3]
    for value in [
        *VALUES, ids, tuple(ids), np.array(ids), torch.tensor([ids]), [torch.tensor(i) for i in ids], [np.int64(5)],
        [ids],
        [ids, []], [[]], {"input_ids": ids}, OURS("the dog"), range(5), [1.5], [None], [-100], [1 << 32], [1 << 61],
        99999, -100, [ids, None], [5, ids], "the", ["the", "zzz"], ["the", None], [3], ["5"],
    ]:  # fmt: skip
        if not isinstance(value, bytes):  # numbers to transformers
            check(lambda t, value=value: {"result": getattr(t, method)(value)})


def test_lengths_of_the_tokenizer():
    for value in VALUES:
        for options in ({}, {"truncation": True}, {"padding": "max_length"}):
            for make in (ElectraTokenizer, BertTokenizer)[: 1 if is_huge(value) else 2]:
                try:
                    make(small_vocab(), model_max_length=value)("the dog", verbose=False, **options)
                except (ValueError, TypeError) as error:
                    assert make is BertTokenizer or "model_max_length" in str(error) or "max_length must" in str(error)
                except (OverflowError, RuntimeError):
                    assert make is BertTokenizer


@pytest.mark.parametrize("length", HUGE)
def test_huge_lengths(length):
    for options in ({"padding": "max_length", "max_length": length}, {"padding": True, "pad_to_multiple_of": length}):
        with pytest.raises(ValueError, match="rows must not be padded to more than 1,048,576 tokens"):
            OURS("the dog", **options)
        with pytest.raises(ValueError, match="rows must not be padded"):
            OURS.pad({"input_ids": [[1]]}, **options)
    assert OURS("the dog", truncation=True, max_length=length, stride=3) == OURS("the dog")
    tokenizer = ElectraTokenizer(small_vocab(), model_max_length=min(length, 10**20))
    assert tokenizer("the dog", truncation=True)["input_ids"] == OURS("the dog")["input_ids"]
    with pytest.raises(ValueError, match="rows must not be padded"):
        tokenizer("the dog", padding="max_length")
    assert OURS.encode_bulk(["the dog"], num_threads=length)[0].tolist() == OURS("the dog")["input_ids"]


def test_values_of_bulk_encoding(tmp_path):
    (tmp_path / "a.txt").write_text("the dog\n")
    for value in VALUES:
        for keyword in ("add_special_tokens", "num_threads", "word_starts", "spans"):
            check(lambda t, k=keyword, v=value: {"ids": t.encode_bulk(["a"], **{k: v})[0]}, False)
            check(lambda t, k=keyword, v=value: {"ids": t.encode_files(tmp_path / "a.txt", **{k: v})[0]}, False)
        check(lambda t, v=value: {"ids": t.encode_files(tmp_path / "a.txt", separator=v)[0]}, False)
        if not isinstance(value, str):
            check(lambda t, v=value: {"ids": t.encode_files(v)[0]}, False)
            check(lambda t, v=value: {"ids": t.encode_bulk(v)[0]}, False)


def test_what_is_refused_on_purpose():
    for call, error, message in (
        (lambda: OURS.apply_chat_template([{"role": "user", "content": "a"}]), ValueError, "apply_chat_template needs"),
        (lambda: OURS("a", tokenizer_kwargs={"colour": 1}), TypeError, "tokenizer_kwargs must hold .*'colour'"),
        (lambda: OURS.decode([1, -100]), ValueError, r"an id must be from 0 to 4294967295, got \[1, -100\]"),
        (lambda: OURS([("a", None)]), TypeError, r"text\[0\] must be a text or a pair of texts"),
        (lambda: OURS("a", np.array(["b"])), TypeError, "text_pair must be a str as text is, got ndarray"),
        (lambda: OURS("a", add_special_tokens=None), TypeError, "add_special_tokens must be True or False, got None"),
    ):
        with pytest.raises(error, match=message):
            call()
