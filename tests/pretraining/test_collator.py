"""Padded batches for Trainer and accelerate, from texts and from tokenised examples."""

import doctest
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from texts import WORDS, documents

from electra_fast import ElectraTokenizer
from electra_fast.pretraining import collator
from electra_fast.pretraining.collator import PretrainingCollator

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    ".",
    *sorted({w[:2] for w in WORDS}),
    *"abcdefghijklmnopqrstuvwxyz",
]
VOCAB = {piece: i for i, piece in enumerate(dict.fromkeys([*PIECES, *(f"##{letter}" for letter in PIECES[-26:])]))}
TOKENIZER = ElectraTokenizer(VOCAB, model_max_length=48)
ROWS = st.lists(st.lists(st.integers(5, len(VOCAB) - 1), min_size=1, max_size=20), min_size=1, max_size=5)


@given(ROWS, st.sampled_from([None, 1, 8, 32]))
def test_rows_are_padded_and_their_tokens_kept(rows, multiple):
    batch = PretrainingCollator(TOKENIZER, pad_to_multiple_of=multiple)([{"input_ids": row} for row in rows])
    longest = max(map(len, rows))
    width = longest if multiple is None else -(-longest // multiple) * multiple
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == dict.fromkeys(
        ("input_ids", "token_type_ids", "attention_mask"), ((len(rows), width), torch.int64)
    )
    for row, ids, mask in zip(rows, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
        assert ids == row + [TOKENIZER.pad_token_id] * (width - len(row))
        assert mask == [1] * len(row) + [0] * (width - len(row))


def test_texts_are_as_the_tokenizer_makes_them():
    texts = documents(3)
    expected = TOKENIZER(texts, truncation=True, max_length=20, padding=True, return_tensors="pt")
    for examples in (texts, [{"text": text} for text in texts]):
        batch = PretrainingCollator(TOKENIZER, max_length=20)(examples)
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in batch)
    assert PretrainingCollator(TOKENIZER)(texts)["input_ids"].shape == (3, 48)


def test_columns_are_kept_and_mixed():
    pair = TOKENIZER("the file", "a list")
    tensors = {name: torch.tensor(row) for name, row in pair.items()}
    extra = {"length": 3, "special_tokens_mask": [1, 1]}
    batch = PretrainingCollator(TOKENIZER)([{**pair, **extra}, tensors, {"input_ids": [2, 3]}, "the file"])
    assert batch.keys() == {"input_ids", "token_type_ids", "attention_mask"}
    assert batch["token_type_ids"][0].tolist() == batch["token_type_ids"][1].tolist() == pair["token_type_ids"]
    assert batch["token_type_ids"][2].sum() == 0 and batch["attention_mask"][2].sum() == 2
    masked = {"input_ids": [2, 9, 9, 3], "attention_mask": [1, 0, 1, 1]}
    assert PretrainingCollator(TOKENIZER)([masked])["attention_mask"].tolist() == [masked["attention_mask"]]


def test_word_starts_are_those_of_the_bulk_path():
    texts = documents(4)
    batch = PretrainingCollator(TOKENIZER, whole_word=True)(texts)
    starts = batch["word_starts"]
    assert starts.shape == batch["input_ids"].shape and starts.dtype == torch.bool
    for row, ids in zip(starts.tolist(), batch["input_ids"].tolist(), strict=True):
        assert row == [not token.startswith("##") for token in TOKENIZER.convert_ids_to_tokens(ids)]
    assert not starts.all()


def test_transformers_tokenizer_serves_too(tmp_path):
    transformers = pytest.importorskip("transformers")
    TOKENIZER.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours, other = (
        PretrainingCollator(tokenizer, 24, 8, whole_word=True)(documents(3)) for tokenizer in (TOKENIZER, theirs)
    )
    assert ours.keys() == other.keys() and all(torch.equal(ours[name], other[name]) for name in ours)


@pytest.mark.parametrize(
    "example, error, message",
    [
        (7, TypeError, "a text or a mapping, got int"),
        ({}, ValueError, "remove_unused_columns"),
        ({"label": 1}, ValueError, r"got \['label'\]"),
    ],
)
def test_other_examples_are_refused(example, error, message):
    with pytest.raises(error, match=message):
        PretrainingCollator(TOKENIZER)(["the file", example])


def test_workers_get_a_copy():
    collate = PretrainingCollator(TOKENIZER, whole_word=True)
    copy = pickle.loads(pickle.dumps(collate))
    assert all(torch.equal(x, copy(documents(2))[name]) for name, x in collate(documents(2)).items())


def test_examples_of_the_documentation_run():
    result = doctest.testmod(collator)
    assert result.attempted > 3 and result.failed == 0
