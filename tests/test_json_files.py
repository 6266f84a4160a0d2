"""JSON that is nested too deep or is none: refused in one line by every reader, with the file's name."""

from __future__ import annotations

import json

import pytest
from tiny_models import TINY, random_model

from electra_fast import ElectraConfig, ElectraForPreTraining, ElectraModel, ElectraTokenizer
from electra_fast.conversion import convert_to_hub
from electra_fast.disk import parse_json, read_json, read_json_object
from electra_fast.finetuning.data.class_lists import class_list
from electra_fast.finetuning.data.lines import json_object
from electra_fast.finetuning.data.squad_files import read_questions
from electra_fast.finetuning.saved import load_finetuned
from electra_fast.finetuning.seed_run import SeedDirectory
from electra_fast.pretraining.text.shards import ShardedCorpus
from electra_fast.pretraining.text.sources import JsonLinesFile
from electra_fast.training.progress import read_records
from electra_fast.training.run_directory import RunDirectory

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a")
DEEP = '{"a":' * 3000 + "1" + "}" * 3000
# Python reads it, and cannot copy it.
RATHER_DEEP = '{"a":' * 400 + "1" + "}" * 400
NO_JSON = {
    "deep": (DEEP, "nested at most 100 deep"),
    "rather deep": (RATHER_DEEP, "nested at most 100 deep"),
    "a long number": ('{"a": ' + "9" * 5000 + "}", "4300 digits"),
    "half a character": ('{"a": "\\ud800"}', "surrogates not allowed"),
    "cut off": ('{"a": ', "line 1 column"),
    "another encoding": ('{"a": "ä"}'.encode("latin-1"), "can't decode byte 0xe4"),
}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def model_directory(tmp_path, name):
    random_model(ElectraModel).save_pretrained(tmp_path)
    ElectraTokenizer({token: i for i, token in enumerate(TOKENS)}).save_pretrained(tmp_path)
    if name == "special_tokens_map.json":
        content = json.loads((tmp_path / "tokenizer_config.json").read_text())
        content.pop("added_tokens_decoder", None)
        write(tmp_path / "tokenizer_config.json", json.dumps(content))
    if name == "model.safetensors.index.json":
        (tmp_path / "model.safetensors").unlink()
    if name == "finetuning.json":
        config = json.loads((tmp_path / "config.json").read_text())
        config["architectures"] = ["ElectraForQuestionAnswering"]
        write(tmp_path / "config.json", json.dumps(config))


READERS = {
    "config.json": ElectraModel.from_pretrained,
    "config.json of a conversion": lambda path: convert_to_hub(path, path / "out"),
    "model.safetensors.index.json": ElectraModel.from_pretrained,
    "tokenizer_config.json": ElectraTokenizer.from_pretrained,
    "special_tokens_map.json": ElectraTokenizer.from_pretrained,
    "added_tokens.json": ElectraTokenizer.from_pretrained,
    "finetuning.json": load_finetuned,
    "run.json": lambda path: RunDirectory(path, ()).check_settings({}),
    "result.json": lambda path: SeedDirectory(path).result(),
    "meta.json": ShardedCorpus,
}


@pytest.mark.parametrize("damage", NO_JSON)
@pytest.mark.parametrize("name", READERS)
def test_every_file_is_named_in_one_line(tmp_path, name, damage):
    file = name.split()[0]
    model_directory(tmp_path, file)
    content, message = NO_JSON[damage]
    write(tmp_path / file, content)
    with pytest.raises(ValueError, match=message) as found:
        READERS[name](tmp_path)
    assert file in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize("text", [DEEP, RATHER_DEEP, "[" * 3000, "[" * 400 + "]" * 400], ids=str)
def test_rows_and_values_are_refused(tmp_path, text):
    squad, rows = write(tmp_path / "squad.json", text), JsonLinesFile(tmp_path / "a.jsonl", "a", "text")
    write(rows.path, text + "\n")
    for read in (
        lambda: parse_json(text),
        lambda: json_object(text),
        lambda: list(read_questions(squad)),
        lambda: list(rows.documents()),
        lambda: read_records(write(tmp_path / "log.jsonl", text + "\n")),
    ):
        with pytest.raises(ValueError):
            read()
    if text[0] == "[":
        with pytest.raises(ValueError, match="must be a whole list"):
            class_list("[" * 400 + "]" * 400, "the labels")


def test_a_class_with_an_escape_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"must have the escapes of Python or JSON, got"):
        class_list(r"['\x1', 'b']", "the labels")


def test_what_is_read():
    value = json.loads("[" * 100 + "]" * 100)
    assert parse_json("[" * 100 + "]" * 100) == value
    assert parse_json('{"a": 1, "a": [NaN, Infinity]}')["a"][1] == float("inf")
    assert parse_json(r'"😀"') == "\U0001f600"
    with pytest.raises(ValueError, match="at most 100 deep"):
        parse_json("[" * 101 + "]" * 101)


def test_whole_characters_may_be_escaped(tmp_path):
    path = write(tmp_path / "a.json", r'{"a": "😀"}')
    assert read_json(path) == {"a": "\U0001f600"}
    with pytest.raises(ValueError, match=r"a\.json must hold a JSON object, got list"):
        read_json_object(write(path, "[]"))


def test_an_index_of_another_model_is_still_read(tmp_path):
    """The bound on depth is far from what models have."""
    random_model(ElectraForPreTraining).save_pretrained(tmp_path, max_shard_size=8000)
    ElectraConfig(**TINY, nested=json.loads('{"a":' * 90 + "1" + "}" * 90)).save_pretrained(tmp_path)
    config = ElectraForPreTraining.from_pretrained(tmp_path).config
    assert ElectraConfig.from_dict(config.to_dict()) == config
