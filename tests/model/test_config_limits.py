"""Keys that a config cannot have, and sizes out of all reason: refused before anything is allocated."""

from __future__ import annotations

import json

import pytest
from tiny_models import TINY, random_model

from electra_fast import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForSequenceClassification,
    ElectraModel,
)
from electra_fast.conversion import convert_to_hub

METHODS = ("to_dict", "from_dict", "validate", "update", "save_pretrained", "check_memory", "__class__", "__init__",
           "__dict__", "__eq__")  # fmt: skip


def write(directory, **fields):
    (directory / "config.json").write_text(json.dumps({"model_type": "electra", **TINY, **fields}))
    return directory


@pytest.mark.parametrize("name", METHODS)
def test_a_key_with_the_name_of_a_method_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} must be no field of a config, .* got 3"):
        ElectraConfig.from_pretrained(write(tmp_path, **{name: 3}))
    with pytest.raises(ValueError, match=f"{name} must be no field of a config"):
        ElectraConfig(**TINY).update({name: 3})


def test_the_first_parameter_of_the_constructor_is_a_key_as_others_are(tmp_path):
    assert ElectraConfig.from_pretrained(write(tmp_path, self=3)).to_dict()["self"] == 3


@pytest.mark.parametrize(("name", "right", "wrong"), [("head_size", 8, 16), ("use_return_dict", True, False)])
def test_what_follows_from_other_fields_must_be_that(tmp_path, name, right, wrong):
    config = ElectraConfig.from_pretrained(write(tmp_path, **{name: right}))
    assert getattr(config, name) == right and name not in config.to_dict()
    for value in (wrong, str(right), None):
        with pytest.raises(ValueError, match=f"{name} must be {right}, which follows from the other fields, got"):
            ElectraConfig.from_pretrained(write(tmp_path, **{name: value}))


@pytest.mark.parametrize(
    "fields",
    [
        dict(num_labels=10**12),
        dict(num_labels=2**31 - 1),
        dict(num_labels=2**22 + 1),
        dict(num_hidden_layers=10**9),
        dict(num_hidden_layers=1001),
        dict(vocab_size=10**12),
        dict(vocab_size=10**400),
        dict(max_position_embeddings=10**12),
        dict(type_vocab_size=2**31),
        dict(layer_norm_eps=10**400),
        dict(id2label=["A", "B"]),
        dict(id2label={"0": ["A"]}),
        dict(id2label={"9" * 5000: "A"}),
        dict(num_labels="2"),
        dict(layer_norm_eps=float("nan")),
        dict(initializer_range=float("inf")),
    ],
    ids=lambda fields: f"{next(iter(fields))}-{next(iter(fields.values()))!r:.12}",
)
def test_a_value_out_of_all_reason_is_refused_when_it_is_read_and_set(tmp_path, fields):
    ((name, value),) = fields.items()
    with pytest.raises(ValueError, match=f"^{name} must be ") as found:
        ElectraConfig.from_pretrained(write(tmp_path, **fields))
    assert len(str(found.value)) < 400 and "\n" not in str(found.value)
    with pytest.raises(ValueError, match=f"^{name} must be "):
        setattr(ElectraConfig(**TINY), name, value)


def test_what_is_still_taken():
    assert ElectraConfig(num_labels=10**5).num_labels == 10**5
    assert ElectraConfig(num_hidden_layers=1000).num_hidden_layers == 1000


LARGE = [
    dict(vocab_size=2**31 - 1),
    dict(max_position_embeddings=2**31 - 1, embedding_size=2**20),
    dict(type_vocab_size=2**31 - 1, embedding_size=2**20),
    dict(vocab_size=2**31 - 1, embedding_size=2**31 - 1),
    dict(hidden_size=2**30, num_attention_heads=2**20),
    dict(hidden_size=2**31 - 1, num_attention_heads=1),
    dict(intermediate_size=2**31 - 1, hidden_size=2**20),
]


@pytest.mark.parametrize("fields", LARGE, ids=str)
@pytest.mark.parametrize("model_class", [ElectraModel, ElectraForMaskedLM])
def test_a_model_larger_than_the_memory_is_refused_before_it_is_made(monkeypatch, model_class, fields):
    monkeypatch.setattr("electra_fast.model.config.memory", lambda: 64 << 30)
    config = ElectraConfig(**{**TINY, **fields})
    with pytest.raises(
        ValueError, match=r"a model must fit into the memory that this process may use, 64\.0 GiB, one of this .* needs"
    ):
        model_class(config)


@pytest.mark.parametrize("fields", LARGE, ids=str)
def test_weights_bound_the_config(tmp_path, monkeypatch, fields):
    monkeypatch.setattr("electra_fast.model.config.memory", lambda: 64 << 30)
    random_model(ElectraModel).save_pretrained(tmp_path)
    write(tmp_path, **fields)
    for options in ({}, {"ignore_mismatched_sizes": True}):
        with pytest.raises(ValueError, match=r"memory that|does not have the shapes"):
            ElectraModel.from_pretrained(tmp_path, **options)
    with pytest.raises(ValueError, match=r"config\.json contradicts .*model\.safetensors: "):
        convert_to_hub(tmp_path, tmp_path / "out")


def test_many_labels_are_made_once_for_a_head():
    model = ElectraForSequenceClassification(ElectraConfig(**TINY, num_labels=5000))
    assert model.classifier.out_proj.out_features == 5000
