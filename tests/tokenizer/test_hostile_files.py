"""Files of a tokenizer with values that no tokenizer has: refused in one line, or read as what they mean."""

from __future__ import annotations

import json

import pytest

from electra_fast import ElectraTokenizer

VOCAB = {token: index for index, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"))}
CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"


@pytest.fixture
def directory(tmp_path):
    ElectraTokenizer(VOCAB).save_pretrained(tmp_path)
    content = json.loads((tmp_path / CONFIG).read_text())
    content.pop("added_tokens_decoder", None)
    (tmp_path / CONFIG).write_text(json.dumps(content))
    return tmp_path


def change(directory, name, **values):
    path = directory / name
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


def refused(directory, message):
    with pytest.raises((ValueError, TypeError), match=message) as found:
        ElectraTokenizer.from_pretrained(directory)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("content", [3, {"content": "q"}, ["q"]], ids=str)
@pytest.mark.parametrize("name", ["cls_token", "image_token", "chat_template"])
def test_an_added_token_of_another_kind_is_refused(directory, name, content):
    change(directory, CONFIG, **{name: {"content": content}})
    refused(directory, "an added token must have text as content, True or False as the rest, got")


@pytest.mark.parametrize("flag", ["no", 1.5, None], ids=str)
def test_an_added_token_with_a_flag_of_another_kind_is_refused(directory, flag):
    change(directory, CONFIG, mask_token={"content": "[MASK]", "lstrip": flag})
    refused(directory, "an added token must have text as content, True or False as the rest, got")


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "input_ids", {"content": "z"}], ids=str)
def test_names_of_inputs_are_a_list(directory, value):
    change(directory, CONFIG, model_input_names=value)
    refused(directory, "model_input_names must be a list of names, got")


@pytest.mark.parametrize("value", [True, -1, 1.5], ids=str)
@pytest.mark.parametrize("name", ["extra_special_tokens", "additional_special_tokens"])
def test_special_tokens_without_names_are_a_list(directory, name, value):
    (directory / "tokenizer.json").rename(directory / "away")
    change(directory, CONFIG, **{name: value})
    refused(directory, "extra_special_tokens must be a list of str or AddedToken, got")


@pytest.mark.parametrize("index", ["x", 1.5, None, [1], {"0": 1}, float("inf")], ids=str)
def test_added_tokens_have_ids(directory, index):
    (directory / ADDED).write_text(json.dumps({"zz": index}))
    refused(directory, r"added_tokens\.json must map tokens to ids, got .* for 'zz'")


@pytest.mark.parametrize("name", [CONFIG, MAP, ADDED])
def test_half_a_character_is_refused(directory, name):
    change(directory, name, **{"zz": "\ud800"})
    refused(directory, rf"{name} must hold JSON, got: .*surrogates not allowed")


def test_zero_and_one_are_flags_of_the_normalizer(directory):
    for value in (0, 1):
        change(directory, CONFIG, strip_accents=value)
        assert ElectraTokenizer.from_pretrained(directory).backend_tokenizer.normalizer.strip_accents is bool(value)


def test_a_key_called_self(directory):
    change(directory, CONFIG, self=3)
    assert ElectraTokenizer.from_pretrained(directory).init_kwargs["self"] == 3


@pytest.mark.parametrize("name", [CONFIG, MAP])
def test_a_file_is_no_added_token_whatever_it_holds(directory, name):
    change(directory, name, content="a", __type="AddedToken")
    assert ElectraTokenizer.from_pretrained(directory)("a b").input_ids == [2, 5, 6, 3]


def test_the_unknown_token_of_tokenizer_json_must_be_there(directory):
    content = json.loads((directory / "tokenizer.json").read_text())
    content["model"]["unk_token"] = "[WHAT]"
    (directory / "tokenizer.json").write_text(json.dumps(content))
    refused(directory, r"the vocabulary must hold unk_token '\[WHAT\]'; none of its 7 tokens is that")


def test_a_template_holds_its_tokens(directory):
    content = json.loads((directory / "tokenizer.json").read_text())
    del content["post_processor"]["special_tokens"]["[CLS]"]
    (directory / "tokenizer.json").write_text(json.dumps(content))
    refused(directory, r"the post_processor must hold its tokens among special_tokens, got no '\[CLS\]'")


@pytest.mark.parametrize("index", [1 << 24, 2**31 - 1, 2**31, 2**32 - 1])
def test_an_id_is_bounded_since_tables_have_a_row_for_each(directory, index):
    message = rf"ids must be below 16777216, got {index} for 'b'"
    with pytest.raises(ValueError, match=message):
        ElectraTokenizer({**VOCAB, "b": index})
    content = json.loads((directory / "tokenizer.json").read_text())
    content["model"]["vocab"]["b"] = index
    (directory / "tokenizer.json").write_text(json.dumps(content))
    refused(directory, message)


def test_gaps_below_the_bound_are_served():
    tokenizer = ElectraTokenizer({**VOCAB, "b": (1 << 24) - 1})
    assert tokenizer.n_ids == 1 << 24 and tokenizer("b").input_ids == [2, (1 << 24) - 1, 3]


@pytest.mark.parametrize("index", [0, 99, 2**31 - 1, 2**32 - 1])
def test_the_id_of_an_added_token_follows_the_vocabulary(directory, index):
    content = json.loads((directory / "tokenizer.json").read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"].append({"id": index, "content": "zz", "special": True, **flags})
    (directory / "tokenizer.json").write_text(json.dumps(content))
    assert ElectraTokenizer.from_pretrained(directory).n_ids == 8


@pytest.mark.parametrize("kind", ["normalizer", "pre_tokenizer", "post_processor", "added_tokens", "model"])
def test_a_tokenizer_json_that_is_nested_is_refused(directory, kind):
    text = (directory / "tokenizer.json").read_text()
    content = json.loads(text)
    content[kind] = "HERE"
    nested = '{"type":"Sequence","normalizers":[' * 5000 + "]}" * 5000
    (directory / "tokenizer.json").write_text(json.dumps(content).replace('"HERE"', nested))
    refused(directory, r"tokenizer\.json must be a tokenizer\.json of the tokenizers library, got")
