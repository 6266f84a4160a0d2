"""The reader of a checkpoint's files, which runs no code that they bring.

torch.distributed.checkpoint pickles its metadata, and a pickle may name any function to call. Torch loads tensors with
`weights_only`, but values of other types without, so the metadata may describe tensors only.
"""

from __future__ import annotations

import pickle
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

_PLAIN = {
    "pathlib": {"PosixPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},  # as Python 3.13 calls them
    "torch": {"Size"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.serialization": {"_get_layout"},
}


class PlainReader(FileSystemReader):
    """Reads a checkpoint whose metadata describes tensors in its own files, and is nothing else."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The metadata.

        Raises:
            ValueError: a pickle that names anything else, or is damaged.
        """
        path = self._get_metadata_path()
        with open(path, "rb") as file:
            try:
                metadata = _Unpickler(file).load()
                places = [info.relative_path for info in metadata.storage_data.values()]
                others = [x for x in metadata.state_dict_metadata.values() if not isinstance(x, TensorStorageMetadata)]
            except Exception as error:  # a damaged pickle fails in any way
                raise ValueError(f"{path} must be the plain metadata of a checkpoint, got: {error!r}") from error
        if others:
            raise ValueError(f"{path} must describe tensors, got: {others[0]!r}")
        for place in places:
            if not isinstance(place, str) or "/" in place or "\\" in place:
                raise ValueError(f"{path} must name files beside it, got: {place!r}")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _PLAIN.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        raise pickle.UnpicklingError(f"{module}.{name}, which is not plain data")
