"""Models small enough for every test, and what several test files do with their directories."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from electra_fast import ElectraConfig

TINY = {
    "vocab_size": 99,
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
}


def random_model(model_class, **fields):
    """Every parameter random, biases and LayerNorms too, so that one that is not loaded shows."""
    torch.manual_seed(0)
    model = model_class(ElectraConfig(**{**TINY, **fields})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def assert_same_weights(model, expected: dict[str, torch.Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(state[key], value), key


def edit(directory: Path, change) -> None:
    """Rewrites model.safetensors with what `change` makes of its tensors."""
    path = directory / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
