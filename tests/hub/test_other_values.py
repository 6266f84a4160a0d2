"""`.bin` checkpoints that hold other values beside the tensors of a model, read as transformers reads them."""

import json
from collections import Counter, OrderedDict

import pytest
import torch
import transformers
from tiny_models import random_model

from electra_fast import ElectraForPreTraining
from electra_fast.conversion.convert import convert_to_hub

WORDS = "electra.embeddings.word_embeddings.weight"
VALUES = {
    "an integer": 3,
    "a number": 0.5,
    "text": "electra",
    "bytes": b"electra",
    "nothing": None,
    "a truth": True,
    "a list": [torch.ones(2), 1],
    "a tuple": (1, 2),
    "a set": {1},
    "a dictionary": {"state": {0: {"exp_avg": torch.ones(2)}}, "lr": 1e-4},
    "an ordered dictionary": OrderedDict(a=1),
    "a counter": Counter(a=1),
    "a size": torch.Size([1, 2]),
    "a dtype": torch.float16,
    "a device": torch.device("cpu"),
    "integers": torch.arange(3),
    "no elements": torch.empty(0),
    "truths": torch.ones(2, dtype=torch.bool),
    "a sparse tensor": torch.eye(3).to_sparse(),
    "a parameter": torch.nn.Parameter(torch.ones(2)),
}


@pytest.fixture(scope="module")
def model():
    return random_model(ElectraForPreTraining)


def is_loaded(directory, model, unexpected):
    """Whether transformers and we read the model there, and find the same values beside it."""
    for model_class in (transformers.ElectraForPreTraining, ElectraForPreTraining):
        found, info = model_class.from_pretrained(directory, output_loading_info=True)
        same = all(torch.equal(value, found.state_dict()[name]) for name, value in model.state_dict().items())
        if not same or info["missing_keys"] or set(info["unexpected_keys"]) != unexpected:
            return False
    return True


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", VALUES)
def test_other_values_are_left_out_and_named(tmp_path, model, name, is_zip):
    model.config.save_pretrained(tmp_path)
    content = {**model.state_dict(), "extra": VALUES[name]}
    torch.save(content, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    assert is_loaded(tmp_path, model, {"extra"})
    with pytest.warns(UserWarning, match="no part of ElectraForPreTraining, left out: extra"):
        ElectraForPreTraining.from_pretrained(tmp_path)


def test_they_may_come_first_and_all_together(tmp_path, model):
    model.config.save_pretrained(tmp_path)
    torch.save({**VALUES, **model.state_dict()}, tmp_path / "pytorch_model.bin")
    found, info = ElectraForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["unexpected_keys"]) == set(VALUES) and not info["missing_keys"]
    assert torch.equal(found.state_dict()[WORDS], model.state_dict()[WORDS])


def test_they_may_be_in_a_shard(tmp_path, model):
    model.config.save_pretrained(tmp_path)
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    state = model.state_dict()
    torch.save({WORDS: state.pop(WORDS), "step": 3}, tmp_path / names[0])
    torch.save({**state, "args": {}}, tmp_path / names[1])
    index = {"metadata": {}, "weight_map": {WORDS: names[0], **dict.fromkeys(state, names[1])}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert is_loaded(tmp_path, model, {"step", "args"})


def test_they_are_no_part_of_what_is_converted(tmp_path, model):
    model.save_pretrained(tmp_path / "in", safe_serialization=False)
    path = tmp_path / "in" / "pytorch_model.bin"
    torch.save({**torch.load(path), "step": 3, "electra.step": 4}, path)
    convert_to_hub(tmp_path / "in", tmp_path / "out")
    converted = ElectraForPreTraining.from_pretrained(tmp_path / "out")
    assert torch.equal(converted.state_dict()[WORDS], model.state_dict()[WORDS])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({WORDS: "x"}, rf"must hold a tensor called {WORDS}, got str"),
        ({WORDS: None}, rf"must hold a tensor called {WORDS}, got NoneType"),
        ({3: torch.ones(2)}, r"pytorch_model\.bin must hold tensors by their names, got the key 3"),
    ],
)
def test_a_value_in_a_tensors_place_is_refused(tmp_path, model, change, message):
    model.config.save_pretrained(tmp_path)
    torch.save({**model.state_dict(), **change}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=message):
        ElectraForPreTraining.from_pretrained(tmp_path)
