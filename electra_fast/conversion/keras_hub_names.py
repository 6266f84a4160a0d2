"""Names and shapes of the variables of KerasHub's ElectraBackbone, from torch's and back.

    encoder.layer.1.attention.self.query.weight
    layers/transformer_encoder_1/_self_attention_layer/query_dense/vars/0

Keras numbers the layers of a class from its second on, and the variables of a layer: 0 is the weight, 1 the bias. Its
dense layers have the transpose of torch's weight, and those of attention an axis for heads. Names of torch are those of
an ElectraModel, and `pooled_dense`, which an ELECTRA lacks.

Sources: ElectraBackbone of keras-hub 0.32, saving_lib.py of Keras 3.15.
"""

from __future__ import annotations

import re

from torch import Tensor

POOLER = "pooled_dense"
_LAYERS = {
    "embeddings.word_embeddings": "reversible_embedding",
    "embeddings.position_embeddings": "position_embedding",
    "embeddings.token_type_embeddings": "embedding",
    "embeddings.LayerNorm": "layer_normalization",
}
_PARTS = {
    "attention.self.query": "_self_attention_layer/query_dense",
    "attention.self.key": "_self_attention_layer/key_dense",
    "attention.self.value": "_self_attention_layer/value_dense",
    "attention.output.dense": "_self_attention_layer/output_dense",
    "attention.output.LayerNorm": "_self_attention_layer_norm",
    "intermediate.dense": "_feedforward_intermediate_dense",
    "output.dense": "_feedforward_output_dense",
    "output.LayerNorm": "_feedforward_layer_norm",
}
_INTO_HEADS = ("attention.self.query", "attention.self.key", "attention.self.value")
_OUT_OF_HEADS = "attention.output.dense"
_LEAVES = {"weight": "0", "bias": "1"}

_OURS = re.compile(r"(?:encoder\.layer\.(\d+)\.)?(.+)\.(weight|bias)")
_THEIRS = re.compile(r"layers/(?:transformer_encoder(?:_(\d+))?/)?(.+)/vars/([01])")


def to_keras_hub(name: str, has_projection: bool) -> str:
    """The variable's name in a weights file, by that of torch; a name that is none of an ElectraModel stays.

    Args:
        has_projection: whether there is an `embeddings_project`, the first dense layer; the pooler is the last.
    """
    match = _OURS.fullmatch(name)
    number, layer, leaf = match.groups() if match else (None, name, "")
    parts = _layers(has_projection) if number is None else _PARTS
    if layer not in parts:
        return name
    encoder = "" if number is None else f"transformer_encoder{_suffix(int(number))}/"
    return f"layers/{encoder}{parts[layer]}/vars/{_LEAVES[leaf]}"


def to_torch(name: str, has_projection: bool) -> str:
    """The reverse of `to_keras_hub`."""
    match = _THEIRS.fullmatch(name)
    number, layer, leaf = match.groups() if match else (None, name, "")
    is_part = name.startswith("layers/transformer_encoder")
    parts = {theirs: ours for ours, theirs in (_PARTS if is_part else _layers(has_projection)).items()}
    if layer not in parts:
        return name
    encoder = f"encoder.layer.{number or 0}." if is_part else ""
    return f"{encoder}{parts[layer]}.{'weight' if leaf == '0' else 'bias'}"


def as_keras_hub(name: str, tensor: Tensor, n_heads: int) -> Tensor:
    """A tensor with torch's name in KerasHub's layout: [in, out], [in, A, D] and [A, D] for heads, or [A, D, out]."""
    layer = name.rpartition(".")[0]
    if tensor.ndim == 2 and not layer.endswith("_embeddings"):
        tensor = tensor.t()
    if layer.endswith(_INTO_HEADS):
        return tensor.unflatten(-1, (n_heads, -1))
    return tensor.unflatten(0, (n_heads, -1)) if layer.endswith(_OUT_OF_HEADS) and tensor.ndim == 2 else tensor


def as_torch(name: str, tensor: Tensor, n_heads: int) -> Tensor:
    """The reverse of `as_keras_hub`; raises ValueError for a tensor without the axis of heads."""
    layer, _, leaf = name.rpartition(".")
    axis = -2 if layer.endswith(_INTO_HEADS) else 0 if layer.endswith(_OUT_OF_HEADS) and leaf == "weight" else None
    if axis is not None:
        if tensor.ndim != (3 if leaf == "weight" else 2) or tensor.shape[axis] != n_heads:
            raise ValueError(f"{n_heads} heads must be one axis, got shape {list(tensor.shape)}")
        tensor = tensor.flatten(axis, axis + 1)
    is_transposed = tensor.ndim == 2 and not layer.endswith("_embeddings")
    return (tensor.t() if is_transposed else tensor).contiguous()


def _layers(has_projection: bool) -> dict[str, str]:
    dense = ("embeddings_project", POOLER) if has_projection else (POOLER,)
    return _LAYERS | {name: f"dense{_suffix(i)}" for i, name in enumerate(dense)}


def _suffix(number: int) -> str:
    return f"_{number}" if number else ""
