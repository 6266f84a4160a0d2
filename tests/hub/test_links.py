"""Links, pipes and devices where a save writes: links are followed, and nothing but files is replaced."""

from __future__ import annotations

import os

import torch
from tiny_models import assert_same_weights, random_model

from electra_fast import ElectraConfig, ElectraForPreTraining
from electra_fast.tokenizer import ElectraTokenizer

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]


def test_a_checkpoint_goes_where_links_lead(tmp_path):
    """The directory, and each file, may lie on another disk; what is no file is none of a checkpoint's."""
    discriminator = random_model(ElectraForPreTraining)
    disk, directory = tmp_path / "disk", tmp_path / "directory"
    disk.mkdir()
    directory.symlink_to("disk/made")
    discriminator.save_pretrained(directory, max_shard_size=8000)
    os.mkfifo(directory / "pytorch_model.bin")
    shard = min(directory.glob("model-*.safetensors")).name
    linked = ("config.json", "model.safetensors.index.json", shard)
    for name in linked:
        os.replace(directory / name, disk / name)
        (directory / name).symlink_to(disk / name)
    with torch.no_grad():
        discriminator.get_input_embeddings().weight.zero_()
    discriminator.save_pretrained(directory, max_shard_size=8000)
    assert directory.is_symlink() and all((directory / name).is_symlink() for name in linked)
    assert (directory / "pytorch_model.bin").is_fifo()
    assert_same_weights(ElectraForPreTraining.from_pretrained(directory), discriminator.state_dict())
    discriminator.save_pretrained(directory)
    assert (disk / "config.json").is_file() and {path.name for path in directory.iterdir()} - {"pytorch_model.bin"} == {
        "config.json",
        "model.safetensors",
    }


def test_configs_and_tokenizers_go_where_links_lead(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "saved").symlink_to("disk/made")
    tokenizer = ElectraTokenizer({token: index for index, token in enumerate(VOCAB)})
    for _ in range(2):
        paths = tokenizer.save_pretrained(tmp_path / "saved")
        ElectraConfig().save_pretrained(tmp_path / "saved")
        for name in ("config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json"):
            path, target = tmp_path / "saved" / name, tmp_path / "disk" / name
            if not path.is_symlink():
                os.replace(path, target)
                path.symlink_to(target)
                target.unlink()
            assert (name == "config.json" or str(path) in paths) and path.is_symlink()
    assert (tmp_path / "saved").is_symlink()
    assert (tmp_path / "disk" / "vocab.txt").read_text() == "\n".join(VOCAB) + "\n"
    assert ElectraTokenizer.from_pretrained(tmp_path / "saved").get_vocab() == tokenizer.get_vocab()
    assert (tmp_path / "disk" / "tokenizer.json").read_text() == tokenizer.backend_tokenizer.to_str(pretty=True)
