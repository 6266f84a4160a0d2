"""Special and added tokens of every file and keyword, as transformers reads them."""

import json

import pytest
from tokenizers import AddedToken
from transformers import BertTokenizer
from vocabularies import small_vocab

from electra_fast.tokenizer import ElectraTokenizer

VOCAB = small_vocab()
N = len(VOCAB)
TEXT = "the <image> dog <x> <y>x [MASK] <BIG>"


def added(content, **flags):
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False, **flags}


def typed(content, **flags):
    return {"__type": "AddedToken", **added(content, special=True), **flags}


OWN = {str(VOCAB[token]): added(token, special=True) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
X, IMAGE = added("<x>", special=False), added("<image>", special=True)
# tokenizer_config.json, special_tokens_map.json, added_tokens.json
FILES = {
    "mapping": ({"extra_special_tokens": {"image_token": "<image>", "foo": "<x>"}}, {}, {}),
    "mapping with flags": ({"extra_special_tokens": {"image_token": typed("<image>", lstrip=True)}}, {}, {}),
    "mapping of known names": ({"extra_special_tokens": {"bos_token": "<x>", "pad_token": "<image>"}}, {}, {}),
    "empty mapping": ({"extra_special_tokens": {}, "additional_special_tokens": ["<x>"]}, {}, {}),
    "list": ({"extra_special_tokens": ["<image>", typed("<x>", rstrip=True)]}, {}, {}),
    "none": ({"extra_special_tokens": None}, {}, {}),
    "version 4's list": ({"additional_special_tokens": ["<image>", "<x>"]}, {}, {}),
    "version 4's name with a mapping": ({"additional_special_tokens": {"image_token": "<image>"}}, {}, {}),
    "both lists": ({"additional_special_tokens": ["<x>"], "extra_special_tokens": ["<image>"]}, {}, {}),
    "list and mapping": (
        {"additional_special_tokens": ["<x>"], "extra_special_tokens": {"image_token": "<image>"}}, {}, {},
    ),
    "a name of one's own": ({"image_token": "<image>", "x_token": typed("<x>")}, {}, {}),
    "model_specific": ({"model_specific_special_tokens": {"image_token": "<image>"}}, {}, {}),
    "decoder": ({"added_tokens_decoder": {**OWN, str(N): X, str(N + 1): IMAGE}}, {}, {}),
    "decoder with gaps, out of order": ({"added_tokens_decoder": {str(N + 9): X, str(N + 5): IMAGE, **OWN}}, {}, {}),
    "decoder over a word": ({"added_tokens_decoder": {**OWN, str(VOCAB["dog"]): added("dog", special=True)}}, {}, {}),
    "map": ({}, {"additional_special_tokens": ["<x>"], "bos_token": "<y>", "image_token": "<image>"}, {}),
    "map with flags": ({}, {"mask_token": added("[MASK]", lstrip=True)}, {}),
    "map over the config": ({"mask_token": "[MASK]"}, {"mask_token": "<x>"}, {}),
    "map beside a decoder": ({"added_tokens_decoder": OWN}, {"bos_token": "<y>", "mask_token": "<x>"}, {}),
    "map joins a list": ({"extra_special_tokens": ["<image>"]}, {"extra_special_tokens": [added("<x>")]}, {}),
    "map with a mapping": ({}, {"extra_special_tokens": {"image_token": "<image>"}}, {}),
    "added": ({}, {}, {"<x>": N + 1, "<image>": N}),
    "added and special": ({"additional_special_tokens": ["<x>"]}, {}, {"<x>": N}),
    "added and special by the map": ({}, {"additional_special_tokens": ["<x>"]}, {"<x>": N}),
    "added, normalized": ({}, {}, {"<BIG>": N}),
    "added beside a decoder": ({"added_tokens_decoder": OWN}, {}, {"<x>": N}),
    "split": ({"split_special_tokens": True}, {}, {}),
    "max_len": ({"max_len": 17}, {}, {}),
    "lengths as floats": ({"model_max_length": 17.0}, {}, {}),
}  # fmt: skip


def write(path, config, special_map, added_tokens):
    for name, content in (
        ("tokenizer_config", config), ("special_tokens_map", special_map), ("added_tokens", added_tokens)
    ):  # fmt: skip
        if content:
            (path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def assert_equal(ours, theirs):
    assert dict(ours(TEXT, verbose=False)) == dict(theirs(TEXT, verbose=False))
    assert ours(TEXT, split_special_tokens=True)["input_ids"] == theirs(TEXT, split_special_tokens=True)["input_ids"]
    for name in ("special_tokens_map", "extra_special_tokens", "extra_special_tokens_ids", "all_special_ids",
                 "model_max_length", "split_special_tokens", "bos_token", "pad_token_id"):  # fmt: skip
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("image_token", "image_token_id", "foo", "foo_id", "x_token_id"):
        assert getattr(ours, name, None) == getattr(theirs, name, None), name
    assert {i: repr(t) for i, t in ours.added_tokens_decoder.items()} == {
        i: repr(t) for i, t in theirs.added_tokens_decoder.items()
    }
    ids = list(range(N + 4))
    assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids) and len(ours) == len(theirs)
    row = theirs(TEXT, verbose=False)["input_ids"]
    assert ours.decode(row, skip_special_tokens=True) == theirs.decode(row, skip_special_tokens=True)


@pytest.mark.filterwarnings("ignore:.* tokens are more than the model takes")
@pytest.mark.parametrize("vocabulary", ["vocab.txt", "tokenizer.json", "tokenizer.json with <x>"])
@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path, name, vocabulary):
    plain = ElectraTokenizer(VOCAB)
    if name.startswith("added") and vocabulary.endswith("<x>"):
        pytest.skip("the two files give one id to two tokens")
    if vocabulary == "vocab.txt":
        plain.save_vocabulary(tmp_path)
    else:
        if vocabulary.endswith("<x>"):
            plain.add_tokens(["<x>"])
        plain.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, *FILES[name])
    ours, theirs = ElectraTokenizer.from_pretrained(tmp_path), BertTokenizer.from_pretrained(tmp_path)
    assert_equal(ours, theirs)
    ours.save_pretrained(tmp_path / "ours")
    for loaded in (ElectraTokenizer, BertTokenizer):
        again = loaded.from_pretrained(tmp_path / "ours")
        assert again(TEXT, verbose=False)["input_ids"] == ours(TEXT, verbose=False)["input_ids"]
        assert again.special_tokens_map == ours.special_tokens_map


def test_keywords():
    for keywords in (
        {"extra_special_tokens": {"image_token": "<image>"}},
        {"extra_special_tokens": {"image_token": AddedToken("<image>", lstrip=True)}, "bos_token": "<y>"},
        {"image_token": "<image>", "extra_special_tokens": ["<x>"]},
        {"model_specific_special_tokens": {"pad_token": "<x>"}},
        {"split_special_tokens": True},
    ):
        assert_equal(ElectraTokenizer(VOCAB, **keywords), BertTokenizer(VOCAB, **keywords))


def test_tokens_with_names_of_their_own_can_be_set():
    tokenizer = ElectraTokenizer(VOCAB, extra_special_tokens={"image_token": "<image>"})
    tokenizer.image_token = "dog"
    assert tokenizer.image_token_id == VOCAB["dog"] and tokenizer.special_tokens_map["image_token"] == "dog"
    tokenizer.image_token_id = VOCAB["the"]
    assert tokenizer.image_token == "the"
    assert tokenizer.add_special_tokens({"image_token": "<new>"}) == 1 and tokenizer.image_token == "<new>"
    with pytest.raises(AttributeError, match="has no attribute 'sound_token'"):
        _ = tokenizer.sound_token


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"extra_special_tokens": "<x>"}, TypeError, "extra_special_tokens must be a list of str or AddedToken"),
        ({"extra_special_tokens": [3]}, TypeError, "extra_special_tokens must be a list"),
        ({"extra_special_tokens": {"a": 3}}, TypeError, "a must be a str or an AddedToken, got int"),
        ({"model_specific_special_tokens": ["<x>"]}, TypeError, "model_specific_special_tokens must be a mapping"),
        ({"added_tokens_decoder": {"5": "the"}}, TypeError, "added_tokens_decoder must map ids to AddedToken"),
        ({"added_tokens_decoder": {"x": AddedToken("a")}}, ValueError, "added_tokens_decoder must have ids as keys"),
        ({"cls_token": None}, ValueError, "texts need a cls_token and a sep_token"),
        ({"do_lower_case": None}, TypeError, "do_lower_case must be True or False, got None"),
        ({"model_max_length": "512"}, ValueError, "model_max_length must be an integer of at least 0, got '512'"),
        ({"max_input_chars_per_word": -1}, ValueError, "max_input_chars_per_word must be an integer"),
        ({"tokenizer_object": {}}, TypeError, "tokenizer_object must be a tokenizers.Tokenizer"),
    ],
)
def test_mistakes(keywords, error, message):
    with pytest.raises(error, match=message):
        ElectraTokenizer(VOCAB, **keywords)
