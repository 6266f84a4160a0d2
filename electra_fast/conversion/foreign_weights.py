"""Weights files of transformers 4 for TensorFlow and Flax: `tf_model.h5` and `flax_model.msgpack`.

Both hold the tensors of the torch model under their own names; matrices of dense layers, `kernel`, are transposed.

    tf_model.h5           electra/tf_electra_model/electra/encoder/layer_._0/attention/self/query/kernel:0
    flax_model.msgpack    {"electra": {"encoder": {"layer": {"0": {"attention": {"self": {"query": {"kernel": ...

Sources: convert_tf_weight_name_to_pt_weight_name in modeling_tf_pytorch_utils.py of transformers 4, and
https://github.com/google/flax/blob/main/flax/serialization.py
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

TF_FILE, FLAX_FILE = "tf_model.h5", "flax_model.msgpack"
_LEAVES = {
    # Keras
    "embeddings": "weight",
    "gamma": "weight",
    "beta": "bias",
    # Flax
    "embedding": "weight",
    "scale": "weight",
    # both
    "kernel": "weight",
}
_FLAX_ARRAY = 1  # number of the msgpack extension that Flax writes arrays with


def read_keras(path: Path) -> dict[str, Tensor]:
    """The tensors of a `tf_model.h5` by torch's names, with `electra.` or the like at their beginning.

    Raises:
        ImportError: h5py is not installed.
        ValueError: a damaged file, or another kind of file.
    """
    h5py = _import("h5py", path)
    tensors: dict[str, Tensor] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            # The name has the layer's group, then the variable's own name; the latter begins with the model's.
            parts = name.removesuffix(":0").replace("_._", "/").split("/")[2:]
            tensors.update([_torch_tensor(path, parts, torch.from_numpy(np.asarray(item)))])

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} must be a whole HDF5 file of transformers, got: {error}") from error
    return tensors


def read_flax(path: Path) -> dict[str, Tensor]:
    """The tensors of a `flax_model.msgpack` by torch's names; those of a base model lack `electra.`, as in torch.

    Raises:
        ImportError: msgpack is not installed.
        ValueError: a damaged file, or another kind of file.
    """
    msgpack = _import("msgpack", path)

    def array(code: int, data: bytes) -> Tensor:
        if code != _FLAX_ARRAY:
            raise ValueError(f"an extension of type {code}, where only arrays are expected")
        shape, dtype_name, content = msgpack.unpackb(data, raw=True)
        dtype = getattr(torch, dtype_name.decode(), None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"an array of {dtype_name.decode()}")
        return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)

    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=array, raw=False)
        if not isinstance(tree, Mapping):
            raise ValueError(f"a {type(tree).__name__}, where a dictionary is expected")
    except (ValueError, RuntimeError, msgpack.UnpackException) as error:
        raise ValueError(f"{path} must be a whole file of Flax, got: {str(error) or type(error).__name__}") from error
    return dict(_torch_tensor(path, parts, tensor) for parts, tensor in _leaves(path, tree.get("params", tree)))


def _leaves(path: Path, tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[list[str], Tensor]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(path, value, (*above, name))
        elif isinstance(value, Tensor):
            yield [*above, name], value
        else:
            raise ValueError(f"{path} must hold arrays, got {type(value).__name__} at {'/'.join((*above, name))}")


def _torch_tensor(path: Path, parts: list[str], tensor: Tensor) -> tuple[str, Tensor]:
    """torch's name and layout of a tensor, from the parts of its name in Keras or Flax."""
    if not parts:
        raise ValueError(f"{path} must hold weights of transformers, got an array without a model's name")
    *above, leaf = parts
    if leaf == "kernel":
        tensor = tensor.t()
    return ".".join([*above, _LEAVES.get(leaf, leaf)]), tensor.contiguous()


def _import(name: str, path: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{path.name} needs {name}: pip install 'electra_fast[convert]'") from error
