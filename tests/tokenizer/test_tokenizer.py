"""Files, special tokens, results, errors and pickling."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from transformers import AutoTokenizer, BertTokenizer, DataCollatorForLanguageModeling, DataCollatorWithPadding
from vocabularies import SENTENCES, small_vocab

from electra_fast.tokenizer import ElectraTokenizer, ElectraTokenizerFast
from electra_fast.tokenizer.batch_encoding import BatchEncoding

TEXTS = [*SENTENCES, "The [MASK] <ent> dog", "ÀÉ"]


@pytest.fixture(scope="module")
def tokenizer():
    return ElectraTokenizer(small_vocab(), model_max_length=64)


@pytest.fixture(scope="module")
def theirs():
    return BertTokenizer(small_vocab(), model_max_length=64)


def assert_equal_tokenizers(actual, expected):
    assert dict(actual(TEXTS, TEXTS[::-1])) == dict(expected(TEXTS, TEXTS[::-1]))
    assert dict(actual(TEXTS)) == dict(expected(TEXTS))
    for name in ("model_max_length", "padding_side", "truncation_side", "all_special_tokens", "all_special_ids",
                 "special_tokens_map", "vocab_size", "extra_special_tokens", "model_input_names"):  # fmt: skip
        assert getattr(actual, name) == getattr(expected, name), name
    assert len(actual) == len(expected) and actual.get_vocab() == expected.get_vocab()
    assert actual.get_added_vocab() == expected.get_added_vocab()


# Files


@pytest.mark.parametrize("cls", [ElectraTokenizer, ElectraTokenizerFast])
@pytest.mark.parametrize("cased", [False, True])
def test_save_and_load_here_and_there(tmp_path, cls, cased):
    saved = cls(small_vocab(not cased), do_lower_case=not cased, model_max_length=64, padding_side="left",
                truncation_side="left", extra_special_tokens=["<ent>"])  # fmt: skip
    saved.add_tokens(["plain"])
    paths = saved.save_pretrained(tmp_path / "ours")
    assert sorted(Path(p).name for p in paths) == ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert_equal_tokenizers(cls.from_pretrained(tmp_path / "ours"), saved)
    other = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert_equal_tokenizers(other, saved)
    other.save_pretrained(tmp_path / "theirs")
    assert_equal_tokenizers(cls.from_pretrained(tmp_path / "theirs"), saved)


def test_vocab_txt_alone_and_with_a_config(tmp_path):
    vocab = small_vocab(False)
    ElectraTokenizer(vocab).save_vocabulary(tmp_path)
    assert ElectraTokenizer.from_pretrained(tmp_path).do_lower_case
    assert ElectraTokenizer(vocab_file=tmp_path / "vocab.txt").get_vocab() == vocab
    config = {"do_lower_case": False, "model_max_length": 9, "cls_token": {"content": "[CLS]", "__type": "AddedToken"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "vocab_file": "/nowhere"}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<new>": len(vocab)}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<ent>"]}))
    loaded = ElectraTokenizer.from_pretrained(tmp_path)
    assert not loaded.do_lower_case and loaded.model_max_length == 9
    assert loaded.tokenize("The <new> <ent> dog") == ["The", "<new>", "<ent>", "dog"]
    assert loaded.extra_special_tokens == ["<ent>"] and loaded.convert_tokens_to_ids("<new>") == len(vocab)
    assert ElectraTokenizer.from_pretrained(tmp_path, do_lower_case=True, model_max_length=7).tokenize("THE") == (
        ElectraTokenizer(vocab).tokenize("THE")
    )


def test_a_vocabulary_with_crlf_and_gaps(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("[UNK]\r\n[CLS]\r\n[SEP]\r\n\u2028\r\nok\r\n".encode())
    assert ElectraTokenizer(tmp_path / "vocab.txt").get_vocab()["ok"] == 4
    gaps = ElectraTokenizer({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 7})
    with pytest.raises(ValueError, match=r"ids must be 0 to 3 .* a vocab\.txt, got 7 for 'a' and none that is 3"):
        gaps.save_vocabulary(tmp_path)
    paths = gaps.save_pretrained(tmp_path / "gaps")
    assert not any(path.endswith("vocab.txt") for path in paths)
    assert ElectraTokenizer.from_pretrained(tmp_path / "gaps")("a")["input_ids"] == [1, 7, 2]


def test_push_to_hub(tmp_path, tokenizer, monkeypatch):
    pushed = []
    monkeypatch.setattr(
        "electra_fast.hub.files.push_directory",
        lambda directory, repo_id, files: pushed.append((sorted(files), repo_id)),
    )
    tokenizer.push_to_hub("me/electra")
    tokenizer.save_pretrained(tmp_path / "mine", push_to_hub=True)
    files = ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert pushed == [(files, "me/electra"), (files, "mine")]


def test_training_keeps_settings():
    old = ElectraTokenizer(small_vocab(), model_max_length=33, extra_special_tokens=["<ent>"])
    new = old.train_new_from_iterator([SENTENCES] * 2, 120, new_special_tokens=["<x>"], show_progress=False)
    assert new.model_max_length == 33 and new.extra_special_tokens == ["<ent>", "<x>"] and len(new) == 120
    ids = new("the <ent> dog <x>")["input_ids"]
    assert ids[0] == new.cls_token_id and ids[-1] == new.sep_token_id
    assert new.decode(ids, skip_special_tokens=True) == "the dog"


# Tokens


def test_tokens_and_ids(tokenizer, theirs):
    ids = tokenizer(TEXTS[4])["input_ids"]
    for method, arguments in {
        "convert_ids_to_tokens": [(ids,), (ids, True), (3,), (np.array(ids),)],
        "convert_tokens_to_ids": [("dog",), (["dog", "nonsense", "[SEP]"],)],
        "tokenize": [(TEXTS[0],), (TEXTS[0], TEXTS[1]), (TEXTS[0], None, True)],
        "encode": [(TEXTS[0],), (TEXTS[0], TEXTS[1])],
        "decode": [(ids,), (ids, True), (3,), (torch.tensor(ids),), ([ids, ids],), (np.array([ids]),)],
        "num_special_tokens_to_add": [(), (True,)],
        "convert_tokens_to_string": [(["the", "##m", "dog"],)],
    }.items():
        for args in arguments:
            assert getattr(tokenizer, method)(*args) == getattr(theirs, method)(*args), (method, args)
    assert tokenizer.max_len_single_sentence == 62 and tokenizer.max_len_sentences_pair == 61
    assert tokenizer.is_fast and bool(tokenizer) and tokenizer.backend_tokenizer.get_vocab_size() == len(tokenizer)


def test_adding_tokens():
    ours, theirs = ElectraTokenizer(small_vocab()), BertTokenizer(small_vocab())
    for tokenizer in (ours, theirs):
        assert tokenizer.add_tokens(["a", "<a>", AddedToken("<b>", lstrip=True)]) == 3  # "a" was a piece before
        assert tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": ["<e>", "<f>"]}) == 3
        assert tokenizer.add_special_tokens({"extra_special_tokens": ["<g>"]}, replace_extra_special_tokens=False) == 1
        tokenizer.pad_token = "<a>"
        tokenizer.mask_token_id = 7
    assert_equal_tokenizers(ours, theirs)
    assert ours.pad_token_id == theirs.pad_token_id and ours.mask_token == theirs.mask_token


def test_ids_come_from_the_vocabulary():
    tokenizer = ElectraTokenizer({"a": 0, "[SEP]": 1, "[UNK]": 2, "[CLS]": 3})
    assert tokenizer("a b")["input_ids"] == [3, 0, 2, 1]
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id) == (4, 5)  # added
    names = {f"{name}_token": f"<{name}>" for name in ("unk", "cls", "sep", "pad", "mask")}
    renamed = ElectraTokenizer({token: index for index, token in enumerate([*names.values(), "a"])}, **names)
    assert renamed(["a ?", "a"], padding=True)["input_ids"] == [[1, 5, 0, 2], [1, 5, 2, 3]] and len(renamed) == 6


def test_framing(tokenizer):
    pair = tokenizer("the dog", "fox")
    first, second = (tokenizer.encode(text, add_special_tokens=False) for text in ("the dog", "fox"))
    assert tokenizer.build_inputs_with_special_tokens(first, second) == pair["input_ids"]
    assert tokenizer.create_token_type_ids_from_sequences(first, second) == pair["token_type_ids"]
    mask = tokenizer("the dog", "fox", return_special_tokens_mask=True)["special_tokens_mask"]
    assert tokenizer.get_special_tokens_mask(first, second) == mask
    assert tokenizer.get_special_tokens_mask(pair["input_ids"], already_has_special_tokens=True) == mask


# Padding what was encoded before


def test_pad(tokenizer, theirs):
    rows = [tokenizer(text, return_special_tokens_mask=True) for text in TEXTS]
    for options in ({}, {"padding_side": "left", "pad_to_multiple_of": 8}, {"padding": "max_length", "max_length": 64},
                    {"return_tensors": "np"}, {"padding": False}):  # fmt: skip
        actual, expected = (t.pad([dict(row) for row in rows], **options) for t in (tokenizer, theirs))
        assert actual.keys() == expected.keys()
        for name in expected:
            assert type(actual[name]) is type(expected[name])
            assert np.all(actual[name] == expected[name]), (name, options)
    assert tokenizer.pad({"input_ids": [5, 6]}, padding="max_length", max_length=3)["attention_mask"] == [1, 1, 0]
    tensors = tokenizer.pad([{"input_ids": torch.tensor([5])}, {"input_ids": torch.tensor([5, 6])}])
    assert torch.equal(tensors["input_ids"], torch.tensor([[5, tokenizer.pad_token_id], [5, 6]]))


def test_collators(tokenizer):
    rows = [dict(tokenizer(text), label=1) for text in TEXTS]
    batch = DataCollatorWithPadding(tokenizer)(rows)
    assert batch["input_ids"].shape == batch["attention_mask"].shape and batch["labels"].tolist() == [1] * len(TEXTS)
    for row in rows:
        del row["label"]
    masked = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5)(rows)
    assert (masked["input_ids"] == tokenizer.mask_token_id).any() and masked["labels"].shape == masked[
        "input_ids"
    ].shape


# Results


def test_batch_encoding(tokenizer):
    batch = tokenizer(TEXTS, padding=True)
    assert batch.input_ids is batch["input_ids"] and "input_ids" in batch and set(batch) == set(batch.keys())
    assert {**batch}.keys() == batch.keys()
    copied = pickle.loads(pickle.dumps(batch))
    assert copied == batch and copied.word_ids(1) == batch.word_ids(1)
    moved = batch.convert_to_tensors("pt").to("cpu", non_blocking=True)
    assert moved is batch and batch.input_ids.dtype == torch.int64
    assert BatchEncoding({"a": [1]}, tensor_type="np", prepend_batch_axis=True).a.shape == (1, 1)
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = batch.nothing
    ids_only = BatchEncoding({"input_ids": [1, 2]})
    assert not ids_only.is_fast and ids_only[:1] == {"input_ids": [1]}
    with pytest.raises(ValueError, match=r"tokens\(\) needs rows that came from texts"):
        ids_only.tokens()
    with pytest.raises(KeyError, match="only where the rows came from texts"):
        ids_only[0]


# Errors


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((), {}, ValueError, "text must be given, or text_target"),
        ((["a", None],), {}, TypeError, r"text\[1\] must be a str, got None"),
        ((["a", float("nan")],), {}, TypeError, r"text\[1\] must be a str, got nan of type float"),
        ((5,), {}, TypeError, "text must be a str or a list of them, got int"),
        ((["a"], [None]), {}, TypeError, r"text_pair\[0\] must be a str"),
        ((["a"], "b"), {}, TypeError, "text_pair must be a list"),
        ((["a"], ["b", "c"]), {}, ValueError, "of one length, got 1 and 2"),
        ((["a"],), {"is_split_into_words": True, "text_pair": 3}, TypeError, "text_pair must be a list of words"),
        (([["a", 1]],), {"is_split_into_words": True}, TypeError, r"text\[0\]\[1\] must be a str, got 1"),
        (("a",), {"padding": "shortest"}, ValueError, "padding must be True, False or one of .*'shortest'"),
        (("a",), {"truncation": "all"}, ValueError, "truncation must be"),
        (("a",), {"padding_side": "top"}, ValueError, "padding_side must be 'right' or 'left', got 'top'"),
        (("a",), {"max_length": -1}, ValueError, "max_length must be an integer of at least 0"),
        (("a",), {"max_length": 1}, ValueError, "max_length must leave room for 2 special tokens, got 1"),
        (("a",), {"max_length": 8, "stride": 6}, ValueError, "stride must be below .* 6, got 6"),
        (("a",), {"return_tensors": "tf"}, ValueError, "return_tensors must be 'pt', 'np' or None, got 'tf'"),
        ((["a", "the dog"],), {"return_tensors": "pt"}, ValueError, "input_ids must have rows of one length"),
        (
            ("a",),
            {"max_length": 7, "truncation": True, "padding": True, "pad_to_multiple_of": 8},
            ValueError,
            "7 and 8",
        ),
        (("a",), {"max_lenght": 7}, TypeError, "max_lenght"),
        (("a", SENTENCES[0]), {"max_length": 9, "truncation": "only_first"}, ValueError, "truncation='only_first'"),
    ],
)
def test_mistakes_in_a_call(tokenizer, arguments, options, error, message):
    with pytest.raises(error, match=message):
        tokenizer(*arguments, **options)


def test_mistakes_in_files(tmp_path):
    with pytest.raises(ValueError, match=r"must hold unk_token '\[UNK\]'"):
        ElectraTokenizer({"a": 0})
    with pytest.raises(ValueError, match="padding_side must be"):
        ElectraTokenizer(small_vocab(), padding_side="up")
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        ElectraTokenizer(tmp_path / "nothing.txt")
    with pytest.raises(FileNotFoundError, match=r"vocab\.txt"):
        ElectraTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        ElectraTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8"):
        ElectraTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json must be"):
        ElectraTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object, got list"):
        ElectraTokenizer.from_pretrained(tmp_path)


def test_mistakes_with_tokens(tokenizer):
    with pytest.raises(ValueError, match="must be one of bos_token"):
        tokenizer.add_special_tokens({"colour_token": "<c>"})
    with pytest.raises(ValueError, match="extra_special_tokens must be a list"):
        tokenizer.add_special_tokens({"extra_special_tokens": "<c>"})
    with pytest.raises(TypeError, match="cls_token must be a str or an AddedToken, got int"):
        tokenizer.cls_token = 3
    with pytest.raises(ValueError, match="pad needs input_ids, got labels"):
        tokenizer.pad({"labels": [1]})
    with pytest.raises(ValueError, match="list of mappings"):
        tokenizer.pad([[1, 2]])


# Processes


def test_pickle_and_copy(tokenizer):
    tokenizer(TEXTS)  # so that there is a bulk encoder to leave behind
    assert_equal_tokenizers(pickle.loads(pickle.dumps(tokenizer)), tokenizer)
    assert_equal_tokenizers(copy.deepcopy(tokenizer), tokenizer)


def test_empty_batch(tokenizer):
    assert tokenizer([])["input_ids"] == []
    assert tokenizer([], padding=True, return_tensors="pt")["input_ids"].dtype == torch.int64


def test_importing_needs_neither_torch_nor_transformers():
    code = "import sys, electra_fast.tokenizer; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
