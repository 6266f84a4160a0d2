"""Weights that are no plain floating tensors, once each: named and refused, where they were loaded in silence."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import edit, random_model

from electra_fast import ElectraForMaskedLM, ElectraForPreTraining, ElectraModel
from electra_fast.conversion import convert_to_hub, write_bundle
from electra_fast.conversion.convert import tf1_variables
from electra_fast.conversion.sources import read_checkpoint

NAME = "electra.encoder.layer.1.intermediate.dense.weight"
TYPES = ("float8_e4m3fn", "float8_e5m2", "int8", "uint8", "int32", "int64", "bool", "complex64")
FORMATS = {"safetensors": True, "bin": False}


@pytest.fixture
def model():
    return random_model(ElectraForPreTraining)


def save(model, directory, dtype, names, safe):
    state = {k: v.to(dtype) if names is None or k in names else v for k, v in model.state_dict().items()}
    model.save_pretrained(directory, state_dict=state, safe_serialization=safe)


def refused(directory, match, model_class=ElectraForPreTraining):
    for read in (model_class.from_pretrained, lambda path: convert_to_hub(path, path / "out")):
        with pytest.raises(ValueError, match=match) as found:
            read(directory)
        assert "\n" not in str(found.value)
        assert not (directory / "out").exists()


@pytest.mark.parametrize("safe", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", TYPES)
def test_one_weight_of_another_type_is_named(tmp_path, model, dtype, safe):
    save(model, tmp_path, getattr(torch, dtype), (NAME,), safe)
    refused(tmp_path, rf"must hold a tensor called {NAME}, one of float32, .*, got {dtype}: weights that are quantized")


@pytest.mark.parametrize("dtype", TYPES)
def test_all_weights_of_another_type_are_refused(tmp_path, model, dtype):
    save(model, tmp_path, getattr(torch, dtype), None, True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": None}))
    refused(tmp_path, f"must hold a tensor called .*, got {dtype}: weights that are quantized")


def test_types_that_torch_may_read_only_from_other_programs(tmp_path, model):
    header = {"electra.embeddings.LayerNorm.weight": {"dtype": "F8_E8M0", "shape": [16], "data_offsets": [0, 16]}}
    model.config.save_pretrained(tmp_path)
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 16)
    with pytest.raises(ValueError, match="got float8_e8m0fnu: weights that are quantized"):
        ElectraForPreTraining.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", torch.float8_e5m2, torch.complex64])
def test_a_model_cannot_be_asked_for_in_such_a_type(tmp_path, model, dtype):
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="dtype must be 'auto', 'int8' or a floating type of at least 16 bits"):
        ElectraForPreTraining.from_pretrained(tmp_path, dtype=dtype)


@pytest.mark.parametrize("tied", ["int8", "float8_e4m3fn", "complex64"])
def test_the_tied_table_is_looked_at_too(tmp_path, tied):
    random_model(ElectraForMaskedLM).save_pretrained(tmp_path)
    for name in ("generator_lm_head.weight", "electra.embeddings.word_embeddings.weight"):
        edit(tmp_path, lambda s, name=name: {**s, name: s["electra.embeddings.word_embeddings.weight"].to(
            getattr(torch, tied))})  # fmt: skip
        if name in load_file(tmp_path / "model.safetensors") and name.startswith("electra"):
            refused(tmp_path, f"got {tied}", ElectraForMaskedLM)


@pytest.mark.parametrize("tied", [3, "x", torch.zeros(3)], ids=str)
def test_what_is_tied_may_be_anything_and_is_still_no_traceback(tmp_path, tied):
    model = random_model(ElectraForMaskedLM)
    model.config.save_pretrained(tmp_path)
    torch.save({**model.state_dict(), "generator_lm_head.weight": tied}, tmp_path / "pytorch_model.bin")
    if isinstance(tied, torch.Tensor):
        with pytest.raises(ValueError, match=r"generator_lm_head\.weight must be|word_embeddings\.weight must be"):
            ElectraForMaskedLM.from_pretrained(tmp_path)
    else:
        ElectraForMaskedLM.from_pretrained(tmp_path)  # the table that it would share is there


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(1).expand(37, 32), "one with all its values, got 4 bytes for 4,736"),
        (torch.zeros(37, 32).to_sparse(), "one with all its values, got torch.sparse_coo on cpu"),
        (torch.zeros(37, 32, device="meta"), "one with all its values, got torch.strided on meta"),
        ("text", "got str"),
    ],
    ids=["repeated", "sparse", "meta", "text"],
)
def test_a_tensor_without_its_values_is_refused(tmp_path, model, tensor, message):
    model.config.save_pretrained(tmp_path)
    torch.save({**model.state_dict(), NAME: tensor}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=f"must hold a tensor called {NAME}, {message}"):
        ElectraForPreTraining.from_pretrained(tmp_path)


def test_quantization_config(tmp_path, model):
    """transformers would read the weights by its rules."""
    model.save_pretrained(tmp_path)
    plain = json.loads((tmp_path / "config.json").read_text())
    for value, got in (({"quant_method": "bitsandbytes"}, "'bitsandbytes'"), ({}, "None"), ("int8", "'int8'")):
        (tmp_path / "config.json").write_text(json.dumps({**plain, "quantization_config": value}))
        refused(tmp_path, f"must have no quantization_config, got {got}")
    found = ElectraForPreTraining.from_pretrained(tmp_path, quantization_config=None)
    assert found.config.quantization_config is None
    (tmp_path / "config.json").write_text(json.dumps({**plain, "quantization_config": None}))
    ElectraForPreTraining.from_pretrained(tmp_path)


# Tensors that are there twice


def test_two_names_of_one_weight_are_refused(tmp_path):
    random_model(ElectraModel).save_pretrained(tmp_path)
    name = "embeddings.word_embeddings.weight"
    edit(tmp_path, lambda state: {**state, f"electra.{name}": state[name] + 1})
    with pytest.raises(ValueError, match=f"holds {name} twice: as"):
        ElectraModel.from_pretrained(tmp_path)


def test_two_names_of_a_weight_of_bert_are_refused(tmp_path):
    model = random_model(ElectraModel, embedding_size=32)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    name = "embeddings.word_embeddings.weight"
    edit(tmp_path, lambda state: {**state, f"bert.{name}": state[name] + 1})
    with pytest.raises(ValueError, match=f"holds electra.{name} twice: as"):
        convert_to_hub(tmp_path, tmp_path / "out")


def test_a_tensor_in_two_shards_is_refused(tmp_path, model):
    model.save_pretrained(tmp_path, max_shard_size=8000)
    first, second, *_ = sorted(tmp_path.glob("model-*"))
    name, tensor = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: tensor + 1}, second, metadata={"format": "pt"})
    refused(tmp_path, rf"index\.json must name files with tensors of their own, got {name} in two of them")


@pytest.mark.parametrize("index", ["999999999", "9" * 5000, "7"])
def test_the_number_of_a_layer_makes_no_layers(tmp_path, model, index):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["num_hidden_layers"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    edit(tmp_path, lambda state: {**state, f"electra.encoder.layer.{index}.output.dense.bias": torch.zeros(32)})
    with pytest.raises(ValueError, match=r"must hold layers from 0 on without gaps, got 3, and lacks .*layer\.2\."):
        convert_to_hub(tmp_path, tmp_path / "out")


def test_a_tensorflow_checkpoint_of_integers_is_refused(tmp_path, model):
    (tmp_path / "hub").mkdir()
    model.save_pretrained(tmp_path / "hub")
    variables = tf1_variables(read_checkpoint(tmp_path / "hub").networks)
    name = "electra/encoder/layer_1/intermediate/dense/kernel"
    write_bundle(tmp_path / "model.ckpt", {**variables, name: variables[name].to(torch.int32)})
    with pytest.raises(ValueError, match=f"must hold a tensor called {NAME}, one of float32, .*, got int32"):
        convert_to_hub(tmp_path / "model.ckpt", tmp_path / "out")
    write_bundle(tmp_path / "model.ckpt", {**variables, name: variables[name].reshape(2, 16, 37)})
    with pytest.raises(ValueError, match=f"{name} must have 2 dimensions, got"):
        convert_to_hub(tmp_path / "model.ckpt", tmp_path / "out")
    twice = "electra/encoder/layer.1/intermediate/dense/kernel"
    write_bundle(tmp_path / "model.ckpt", {**variables, twice: variables[name]})
    with pytest.raises(ValueError, match=f"holds {NAME} twice: as"):
        convert_to_hub(tmp_path / "model.ckpt", tmp_path / "out")
    for step in (torch.zeros(3), torch.zeros(2, dtype=torch.int64)):
        write_bundle(tmp_path / "model.ckpt", {**variables, "global_step": step})
        with pytest.raises(ValueError, match="must hold a whole number as global_step, got"):
            convert_to_hub(tmp_path / "model.ckpt", tmp_path / "out")
