"""Weights files of transformers 4 for TensorFlow and Flax: `tf_model.h5` and `flax_model.msgpack`.

Both hold the tensors of the torch model under their own names; matrices of dense layers, `kernel`, are transposed.

    tf_model.h5           electra/tf_electra_model/electra/encoder/layer_._0/attention/self/query/kernel:0
    a shard of it         electra/encoder/layer_._0/attention/self/query/kernel:0
    flax_model.msgpack    {"electra": {"encoder": {"layer": {"0": {"attention": {"self": {"query": {"kernel": ...

Sources: convert_tf_weight_name_to_pt_weight_name in modeling_tf_pytorch_utils.py of transformers 4, and
https://github.com/google/flax/blob/main/flax/serialization.py
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .names import KERAS_END, TRANSPOSED, flax_parts, keras_name, keras_parts, origins, torch_name

TF_FILE, FLAX_FILE = "tf_model.h5", "flax_model.msgpack"
_FLAX_ARRAY = 1  # number of the msgpack extension that Flax writes arrays with
_DEEPEST = 32  # dictionaries within dictionaries
_DEFLATE = 1032  # the largest ratio at which the compression of HDF5 packs
_HDF5_DAMAGE = (OSError, RuntimeError, ValueError, TypeError)


def read_keras(path: Path) -> dict[str, Tensor]:
    """The tensors of a `tf_model.h5` by torch's names, with `electra.` or the like at their beginning.

    Raises:
        ImportError: h5py is not installed.
        ValueError: a damaged file, or another kind of file.
    """
    h5py = import_h5py(path.name)
    arrays: dict[str, tuple[str, list[str], Tensor]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            # The name has the layer's group, then the variable's own name; the latter begins with the model's.
            own = name if is_shard else "/".join(name.split("/")[2:])
            tensor = _dataset(name, item)
            # A head that is tied to the word table has the tables in its group, too.
            if own not in arrays or not torch.equal(tensor, arrays[own][2]):
                arrays[own if own not in arrays else name] = name, keras_parts(own) if own else [], tensor

    try:
        with h5py.File(path, "r") as file:
            is_shard = any("/" in str(name) for name in file.attrs.get("layer_names", ()))
            file.visititems(visit)
    except _HDF5_DAMAGE as error:
        raise ValueError(f"{path} must be a whole HDF5 file of transformers, got: {error}") from error
    return torch_tensors(path, arrays.values())


def hdf5_tensors(path: Path) -> dict[str, Tensor]:
    """The floating-point tensors of a weights file of Keras 3, by the names and in the layout that they have there.

    Raises:
        ImportError: h5py is not installed.
        ValueError: a damaged file, or values that are no floating-point numbers.
    """
    h5py = import_h5py(path.name)
    tensors: dict[str, Tensor] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            tensors[name] = tensor = _dataset(name, item)
            if not tensor.is_floating_point():
                raise ValueError(f"{name} of {str(tensor.dtype).removeprefix('torch.')}, no weights")

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except _HDF5_DAMAGE as error:
        raise ValueError(f"{path} must be a whole HDF5 file of Keras, got: {error}") from error
    return tensors


def _dataset(name: str, item: Any) -> Tensor:
    """The values of a dataset, which may have any shape, and values that are nowhere in the file or in other files."""
    if item.external:
        raise ValueError(f"{name} in other files, {item.external[0][0]!r:.80} first")
    if item.nbytes > _DEFLATE * max(item.id.get_storage_size(), 1):
        raise ValueError(f"{name} of shape {list(item.shape)} in {item.id.get_storage_size():,} bytes")
    array = np.asarray(item)
    if item.attrs.get("dtype") == "bfloat16":  # Keras 3 stores it as two bytes without a type
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def read_flax(path: Path) -> dict[str, Tensor]:
    """The tensors of a `flax_model.msgpack` by torch's names; those of a base model lack `electra.`, as in torch.

    Raises:
        ImportError: msgpack is not installed.
        ValueError: a damaged file, or another kind of file.
    """
    msgpack = _import("msgpack", path.name)

    def array(code: int, data: bytes) -> Tensor:
        if code != _FLAX_ARRAY:
            raise ValueError(f"an extension of type {code}, where only arrays are expected")
        shape, dtype_name, content = msgpack.unpackb(data, raw=True)
        # Without these checks, an integer is a number of zeros, and -1 is whatever fits.
        if not isinstance(content, bytes) or min(shape, default=0) < 0:
            raise ValueError(f"an array of shape {shape} with {type(content).__name__}")
        dtype = getattr(torch, dtype_name.decode(), None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"an array of {dtype_name.decode()}")
        return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)

    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=array, raw=False)
        if not isinstance(tree, Mapping):
            raise ValueError(f"a {type(tree).__name__}, where a dictionary is expected")
    except (ValueError, RuntimeError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise ValueError(f"{path} must be a whole file of Flax, got: {str(error) or type(error).__name__}") from error
    return torch_tensors(path, _leaves(path, tree.get("params", tree)))


def _leaves(path: Path, tree: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str], Tensor]]:
    """The tensors of dictionaries within dictionaries, each with its name and the parts of that."""
    name = "/".join(above)
    if isinstance(tree, Tensor):
        yield name, list(above), tree
        return
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path} must hold arrays, got {type(tree).__name__} at {name}")
    if len(above) > _DEEPEST:
        raise ValueError(f"{path} must hold dictionaries at most {_DEEPEST} deep, got more at {name}")
    for key, value in tree.items():
        if not isinstance(key, str):
            raise ValueError(f"{path} must hold arrays by their names, got {key!r:.80} at {name or 'the top'}")
        yield from _leaves(path, value, (*above, key))


def is_flax(names: Iterable[str]) -> bool:
    """Tells whether these are names of Flax with dots between their parts, as transformers 4 puts into safetensors."""
    return any(name.endswith(f".{TRANSPOSED}") for name in names)


def is_keras(names: Iterable[str]) -> bool:
    """Tells whether these are names of Keras, without the model's, as transformers 4 puts into safetensors."""
    return any(name.endswith(KERAS_END) for name in names)


def torch_tensors(path: Path, arrays: Iterable[tuple[str, list[str], Tensor]]) -> dict[str, Tensor]:
    """Tensors with torch's names and layout, from their names and the parts of these in Keras or Flax."""
    found = {}
    for name, parts, tensor in arrays:
        if not parts:
            raise ValueError(f"{path} must hold weights of transformers, got an array without a model's name")
        if parts[-1] == TRANSPOSED and tensor.ndim != 2:
            raise ValueError(f"{path} must hold {name} with 2 dimensions, got {list(tensor.shape)}")
        found[name] = torch_name(parts), (tensor.t() if parts[-1] == TRANSPOSED else tensor).contiguous()
    origin = origins((ours, name) for name, (ours, _) in found.items())
    return {ours: found[name][1] for ours, name in origin.items()}


def write_flax(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a `flax_model.msgpack` from tensors with torch's names and layout.

    Raises:
        ImportError: msgpack is not installed.
    """
    msgpack = _import("msgpack", path.name)

    def packed(leaf: str, tensor: Tensor) -> Any:
        tensor = (tensor.t() if leaf == TRANSPOSED else tensor).contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        content = tensor.view(-1).view(torch.uint8).numpy().tobytes()
        return msgpack.ExtType(_FLAX_ARRAY, msgpack.packb((tuple(tensor.shape), dtype, content)))

    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *above, leaf = flax_parts(name)
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[leaf] = packed(leaf, tensor)
    path.write_bytes(msgpack.packb(tree))


def write_keras(path: Path, tensors: Mapping[str, Tensor], model_name: str, is_shard: bool) -> None:
    """Writes a `tf_model.h5`, or a shard of one, from tensors with torch's names and layout.

    Args:
        model_name: the Keras model's, such as `tf_electra_model`: a part of the names in a file that is no shard.

    Raises:
        ImportError: h5py is not installed.
    """
    h5py = import_h5py(path.name)
    arrays = {}
    for name, tensor in tensors.items():
        name = keras_name(name)
        is_transposed = keras_parts(name)[-1] == TRANSPOSED
        arrays[name] = (tensor.t() if is_transposed else tensor).contiguous().numpy()
    with h5py.File(path, "w") as file:
        if is_shard:
            file.attrs["layer_names"] = sorted(arrays)
            for name, array in arrays.items():
                file[name] = array
            return
        layers = list(dict.fromkeys(name.partition("/")[0] for name in arrays))
        file.attrs["layer_names"] = layers
        for layer in layers:
            names = {f"{model_name}/{name}": array for name, array in arrays.items() if name.startswith(f"{layer}/")}
            group = file.create_group(layer)
            group.attrs["weight_names"] = list(names)
            for name, array in names.items():
                group[name] = array


def import_h5py(file: str) -> ModuleType:
    """The package h5py; raises ImportError, with the file's name, if it is not installed."""
    return _import("h5py", file)


def _import(name: str, file: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{file} needs {name}: pip install 'electra_fast[convert]'") from error
