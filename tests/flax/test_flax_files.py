"""Checkpoints of the PyTorch and the Flax classes, each read by the other, in every format."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import TINY, assert_same_weights, random_model

import electra_fast
from electra_fast import ElectraConfig, ElectraForMaskedLM, ElectraModel, FlaxElectraForMaskedLM, FlaxElectraModel
from electra_fast.flax import pretrained
from electra_fast.functional import files
from electra_fast.functional.parameters import flatten
from electra_fast.functional.twin import to_torch
from electra_fast.model.pretrained import CheckpointWarning

KINDS = ("ForMaskedLM", "ForSequenceClassification", "ForMultipleChoice")


def classes(kind):
    return getattr(electra_fast, f"Electra{kind}"), getattr(electra_fast, f"FlaxElectra{kind}")


def assert_equal(params, model):
    """Parameters of Flax and a PyTorch model hold the same values."""
    state = model.state_dict()
    found = dict(to_torch(path, np.asarray(value)) for path, value in flatten(params))
    assert found.keys() == state.keys() - ({"generator_lm_head.weight"} if model.config.tie_word_embeddings else set())
    for name, value in found.items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "20KB"}, {"safe_serialization": False}],
                         ids=["safetensors", "shards", "bin"])  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_from_pytorch_to_flax(kind, options, tmp_path, recwarn):
    torch_class, flax_class = classes(kind)
    model = random_model(torch_class)
    model.save_pretrained(tmp_path, **options)
    loaded = flax_class.from_pretrained(tmp_path, from_pt=kind != "ForMaskedLM")
    assert_equal(loaded.params, model)
    assert not [w for w in recwarn if issubclass(w.category, CheckpointWarning)]


@pytest.mark.parametrize("options, files", [
    ({}, {"flax_model.msgpack"}),
    ({"max_shard_size": "40KB"}, None),
    ({"safe_serialization": True}, {"model.safetensors"}),
], ids=["msgpack", "shards", "safetensors"])  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_from_flax_to_both(kind, options, files, tmp_path):
    torch_class, flax_class = classes(kind)
    model = random_model(torch_class)
    model.save_pretrained(tmp_path / "torch")
    flax = flax_class.from_pretrained(tmp_path / "torch")
    flax.save_pretrained(tmp_path / "flax", **options)
    written = {path.name for path in (tmp_path / "flax").iterdir()} - {"config.json"}
    if files is None:
        index = json.loads((tmp_path / "flax" / "flax_model.msgpack.index.json").read_text())
        assert written == {*index["weight_map"].values(), "flax_model.msgpack.index.json"} and len(written) > 2
        assert index["weight_map"].keys() == {"/".join(path) for path in flax.required_params}
    else:
        assert written == files
    assert_same_weights(torch_class.from_pretrained(tmp_path / "flax"), model.state_dict())
    assert_equal(flax_class.from_pretrained(tmp_path / "flax").params, model)
    config = json.loads((tmp_path / "flax" / "config.json").read_text())
    assert config["architectures"] == [torch_class.__name__] and config["dtype"] == "float32"


def test_the_layout_of_transformers_4_in_safetensors(tmp_path):
    model = random_model(ElectraModel)
    model.save_pretrained(tmp_path)
    params = FlaxElectraModel.from_pretrained(tmp_path).params
    tensors = {".".join(path): torch.from_numpy(np.array(value)) for path, value in flatten(params)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "flax"})
    assert_equal(FlaxElectraModel.from_pretrained(tmp_path).params, model)


def test_safetensors_are_those_of_the_pytorch_class(tmp_path):
    random_model(ElectraForMaskedLM).save_pretrained(tmp_path)
    FlaxElectraForMaskedLM.from_pretrained(tmp_path).save_pretrained(tmp_path / "out", safe_serialization=True)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_bfloat16(tmp_path):
    model = random_model(ElectraModel).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "torch")
    flax = FlaxElectraModel.from_pretrained(tmp_path / "torch")
    assert {str(x.dtype) for x in jax.tree.leaves(flax.params)} == {"bfloat16"}
    for safe in (False, True):
        flax.save_pretrained(tmp_path / "flax", safe_serialization=safe)
        assert_same_weights(ElectraModel.from_pretrained(tmp_path / "flax"), model.state_dict())


def test_a_head_that_is_not_tied(tmp_path):
    model = random_model(ElectraForMaskedLM, tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    flax = FlaxElectraForMaskedLM.from_pretrained(tmp_path)
    assert_equal(flax.params, model)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.warns(CheckpointWarning, match="not tied to the word table, since it differs"):
        flax = FlaxElectraForMaskedLM.from_pretrained(tmp_path)
    assert_equal(flax.params, model)


def test_a_base_model_for_a_head_and_back(tmp_path):
    random_model(ElectraModel).save_pretrained(tmp_path)
    with pytest.warns(CheckpointWarning, match=r"newly initialised, train before use: .*generator_lm_head\.bias"):
        flax = FlaxElectraForMaskedLM.from_pretrained(tmp_path)
    with pytest.warns(CheckpointWarning, match="newly initialised"):
        model, params = FlaxElectraForMaskedLM.from_pretrained(tmp_path, _do_init=False)
    assert "generator_lm_head" not in params
    filled = model.init_weights(jax.random.PRNGKey(0), (1, 1), params)
    assert {path for path, _ in flatten(filled)} == model.required_params
    jax.tree.map(np.testing.assert_array_equal, filled["electra"], flax.params["electra"])
    flax.save_pretrained(tmp_path / "whole")
    with pytest.warns(CheckpointWarning, match=r"no part of FlaxElectraModel, left out: .*generator_lm_head\.bias"):
        assert FlaxElectraModel.from_pretrained(tmp_path / "whole").params.keys() == flax.params["electra"].keys()


def test_what_is_beside_stays_and_what_is_replaced_goes(tmp_path):
    model = random_model(ElectraModel)
    model.save_pretrained(tmp_path)
    flax = FlaxElectraModel.from_pretrained(tmp_path)
    flax.save_pretrained(tmp_path, max_shard_size="20KB")
    flax.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "flax_model.msgpack"}
    flax.save_pretrained(tmp_path, params=jax.tree.map(jnp.zeros_like, flax.params), safe_serialization=True)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    assert not any(x.any() for x in jax.tree.leaves(FlaxElectraModel.from_pretrained(tmp_path).params))


def test_damage_and_other_models(tmp_path):
    flax = FlaxElectraModel(ElectraConfig(**TINY))
    flax.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"does not have the shapes .*word_embeddings.weight must be \[77, 16\], got"):
        FlaxElectraModel.from_pretrained(tmp_path, vocab_size=77)
    with pytest.warns(CheckpointWarning, match="newly initialised since the shapes differ"):
        loaded = FlaxElectraModel.from_pretrained(tmp_path, vocab_size=77, ignore_mismatched_sizes=True)
    assert loaded.params["embeddings"]["word_embeddings"]["embedding"].shape == (77, 16)
    with pytest.raises(TypeError, match="no fields of the config: hiden_size"):
        FlaxElectraModel.from_pretrained(tmp_path, hiden_size=3)
    content = (tmp_path / "flax_model.msgpack").read_bytes()
    (tmp_path / "flax_model.msgpack").write_bytes(content[:1000])
    with pytest.raises(ValueError, match=r"flax_model\.msgpack must be a whole file of Flax"):
        FlaxElectraModel.from_pretrained(tmp_path)
    (tmp_path / "flax_model.msgpack").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold weights, one of flax_model\.msgpack, .*model\.safetensors"):
        FlaxElectraModel.from_pretrained(tmp_path)


def test_push_to_hub(tmp_path, monkeypatch):
    pushed = []
    for module in (files, pretrained):
        monkeypatch.setattr(module, "push_directory", lambda _, *args, **options: pushed.append((args, options)))
    flax = FlaxElectraModel(ElectraConfig(**TINY))
    flax.push_to_hub("me/pushed", token="secret", private=True)
    flax.save_pretrained(tmp_path / "here", push_to_hub=True, commit_message="First")
    assert [args for args, _ in pushed] == [("me/pushed",), ("here",)]
    assert pushed[0][1]["private"] and pushed[1][1]["commit_message"] == "First"
    assert all(set(options["files"]) == {"config.json", "flax_model.msgpack"} for _, options in pushed)
    with pytest.raises(TypeError, match="unexpected keyword arguments: safe_serialisation"):
        flax.save_pretrained(tmp_path, safe_serialisation=True)
