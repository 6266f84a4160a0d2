"""Directories that are damaged, incomplete or another model's: refused whole, with the file's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_models import TINY, edit, random_model

from electra_fast import ElectraConfig, ElectraForPreTraining, ElectraModel


@pytest.fixture
def discriminator() -> ElectraForPreTraining:
    return random_model(ElectraForPreTraining)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 5000, -1])
@pytest.mark.parametrize("options", [{}, {"safe_serialization": False}], ids=["safetensors", "bin"])
def test_truncated_files_are_refused(tmp_path, discriminator, options, keep):
    discriminator.save_pretrained(tmp_path, **options)
    (path,) = (path for path in tmp_path.iterdir() if path.name != "config.json")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=path.name):
        ElectraForPreTraining.from_pretrained(tmp_path)


@pytest.mark.parametrize("options", [{}, {"safe_serialization": False}], ids=["safetensors", "bin"])
def test_broken_shards_are_refused(tmp_path, discriminator, options):
    discriminator.save_pretrained(tmp_path, max_shard_size=8000, **options)
    (index,) = tmp_path.glob("*.index.json")
    shards = sorted(tmp_path.glob("*-of-*"))
    whole, content = index.read_text(), json.loads(index.read_text())
    key = next(key for key, shard in content["weight_map"].items() if shard == shards[0].name)
    for text in ("{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "\xff"):
        index.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match="weight_map"):
            ElectraForPreTraining.from_pretrained(tmp_path)
    for wrong, message in (("../" + shards[0].name, "own directory"), (shards[1].name, f"promises {key}")):
        content["weight_map"] = {
            k: s.replace(shards[0].name, wrong) for k, s in json.loads(whole)["weight_map"].items()
        }
        index.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            ElectraForPreTraining.from_pretrained(tmp_path)
    index.write_text(whole)
    shards[0].unlink()
    with pytest.raises(ValueError, match=f"{shards[0].name}, which is missing"):
        ElectraForPreTraining.from_pretrained(tmp_path)


def test_foreign_files_are_refused(tmp_path, discriminator):
    discriminator.save_pretrained(tmp_path)
    edit(tmp_path, lambda state: {"transformer.wte.weight": torch.zeros(2, 2)})
    with pytest.raises(
        ValueError, match=r"model\.safetensors must hold tensors of ElectraForPreTraining, got transformer"
    ):
        ElectraForPreTraining.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"model": discriminator.state_dict(), "step": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="must hold a dictionary of tensors"):
        ElectraForPreTraining.from_pretrained(tmp_path)
    torch.save(Path("code"), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin must be a whole file of torch\.save with tensors only"):
        ElectraForPreTraining.from_pretrained(tmp_path)


def test_missing_files_are_named(tmp_path, discriminator):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path} must hold config\.json"):
        ElectraForPreTraining.from_pretrained(tmp_path)
    discriminator.config.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path} must hold weights, one of model\.safetensors, "):
        ElectraForPreTraining.from_pretrained(tmp_path)
    for name in (tmp_path / "nowhere", "./nowhere", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="neither a directory nor a name of a model on the Hub"):
            ElectraForPreTraining.from_pretrained(name)


def test_config_keeps_unknown_keys_and_refuses_other_models(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**TINY, "model_type": "electra", "directionality": "bidi", "output_past": True}))
    config = ElectraConfig.from_pretrained(tmp_path)
    config.save_pretrained(tmp_path / "again")
    again = ElectraConfig.from_pretrained(tmp_path / "again" / "config.json")
    assert again == config and again.directionality == "bidi" and again.output_past is True
    path.write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="model_type 'electra', got 'bert'"):
        ElectraModel.from_pretrained(tmp_path)
    for text in ("{", "[1]", "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=r"config\.json must hold"):
            ElectraModel.from_pretrained(tmp_path)
