"""TensorFlow's checkpoints, read and written without TensorFlow.

A checkpoint `model.ckpt-1000` is a bundle: `model.ckpt-1000.index`, a table of tensor names and places, and one or more
files `model.ckpt-1000.data-00000-of-00001`, the tensors' bytes. The table's values are protocol buffers, small enough
to be read by hand.

Source of the format: tensorflow/core/protobuf/tensor_bundle.proto and tensorflow/core/util/tensor_bundle/ of
https://github.com/tensorflow/tensorflow
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..disk import written
from .sstable import masked_crc32c, read_table, read_varint, table_bytes, varint

_HEADER_KEY = b""
# TensorFlow's numbers of the dtypes, from tensorflow/core/framework/types.proto.
_DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    9: torch.int64,
    14: torch.bfloat16,
    19: torch.float16,
}
_DTYPE_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}
_KNOWN = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPE_NUMBERS)
_FILE = re.compile(r"(.+)\.(?:index|data-\d{5}-of-\d{5})")
_MOST_DIMENSIONS = 254  # TensorFlow's own limit
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # ways in which protocol buffers write a field


@dataclass(frozen=True)
class Entry:
    """A tensor's entry in the index."""

    dtype: int
    """TensorFlow's number of the dtype."""
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    """Size in bytes."""
    checksum: int
    is_sliced: bool
    """True if the tensor is stored in parts under other names, as a partitioned variable is."""


class Tf1Bundle:
    """A checkpoint whose tensors are read one by one, and checked.

    Args:
        source: the checkpoint's prefix (`model.ckpt-1000`), one of its files, or its directory; in a directory, the
            checkpoint is the one that the file `checkpoint` names, or the only one.

    Raises:
        FileNotFoundError: no checkpoint, or a part of it is missing.
        ValueError: a truncated or damaged file, or another kind of file.
        ImportError: google-crc32c is not installed.
    """

    def __init__(self, source: str | os.PathLike):
        self.prefix = find_prefix(source)
        index = _index_of(self.prefix)
        table = read_table(index)
        if _HEADER_KEY not in table:
            raise ValueError(f"{index} must be the index of a TensorFlow checkpoint, got another table")
        try:
            header = _Message(table.pop(_HEADER_KEY))
            n_shards, is_big_endian = header.integer(1), header.integer(2)
            self.entries = {key.decode(): _read_entry(value) for key, value in table.items()}
            """Entries of the index by the tensors' names."""
        except ValueError as error:
            raise ValueError(f"{index} must be the index of a TensorFlow checkpoint, got: {error}") from error
        if is_big_endian:
            raise ValueError(f"{index} must be little-endian, got big-endian")
        if n_shards < 1:
            raise ValueError(f"{index} must name at least one data file, got {n_shards}")
        self._shards = list(self._find_shards(n_shards))
        self._check_places()

    def read(self, name: str) -> Tensor:
        """A tensor, on the CPU, in the dtype of the file.

        Raises:
            KeyError: no tensor has this name.
            ValueError: a wrong checksum, a dtype that no network has, a tensor that is stored in parts.
        """
        entry = self.entries[name]
        if entry.is_sliced:
            raise ValueError(f"{self.prefix} must hold {name} in one piece, got a partitioned variable")
        if entry.dtype not in _DTYPES:
            raise ValueError(f"{name} of {self.prefix} must be of {_KNOWN}, got TensorFlow's type {entry.dtype}")
        dtype = _DTYPES[entry.dtype]
        # A tensor without values may have sizes whose product torch cannot count.
        at_least = prod(max(1, size) for size in entry.shape) * dtype.itemsize
        if entry.size != prod(entry.shape) * dtype.itemsize or at_least >= 1 << 63:
            raise ValueError(
                f"{_index_of(self.prefix)} contradicts itself: {name} is {dtype} of shape {list(entry.shape)}, and of "
                f"{entry.size} bytes"
            )
        if not entry.size:
            return torch.empty(entry.shape, dtype=dtype)
        path = self._shards[entry.shard]
        data = np.fromfile(path, np.uint8, entry.size, offset=entry.offset)
        if masked_crc32c(data) != entry.checksum:
            raise ValueError(f"{path} is damaged: wrong checksum of {name}")
        return torch.from_numpy(data).view(dtype).reshape(entry.shape)

    def _find_shards(self, n_shards: int) -> Iterator[Path]:
        for number in range(n_shards):
            path = _shard_of(self.prefix, number, n_shards)
            if not path.is_file():
                raise FileNotFoundError(f"{_index_of(self.prefix)} names the data file {path.name}, which is missing")
            yield path

    def _check_places(self) -> None:
        """Checks that each tensor has a place of its own in a shard, so that the files' sizes bound the tensors'."""
        index, sizes = _index_of(self.prefix), [path.stat().st_size for path in self._shards]
        whole = {name: entry for name, entry in self.entries.items() if not entry.is_sliced}
        for name, entry in whole.items():
            if not 0 <= entry.shard < len(sizes):
                raise ValueError(
                    f"{index} must place {name} in one of {len(sizes)} data files, got number {entry.shard}"
                )
            if min(entry.offset, entry.size, *entry.shape) < 0:
                raise ValueError(
                    f"{index} must give {name} a place, a size and a shape of at least 0, got {entry.offset}, "
                    f"{entry.size} and {list(entry.shape)}"
                )
            if entry.offset + entry.size > sizes[entry.shard]:
                raise ValueError(
                    f"{self._shards[entry.shard]} is truncated: {name} ends at byte {entry.offset + entry.size}, the "
                    f"file at {sizes[entry.shard]}"
                )
        ordered = sorted((name for name in whole if whole[name].size), key=lambda name: _place(whole[name]))
        for name, after in pairwise(ordered):
            end = whole[name].offset + whole[name].size
            if whole[name].shard == whole[after].shard and whole[after].offset < end:
                raise ValueError(
                    f"{index} must give each tensor bytes of its own, got {after} at byte {whole[after].offset} and "
                    f"{name} until {end}"
                )


def find_prefix(source: str | os.PathLike) -> Path:
    """The prefix of a checkpoint's files, from the prefix itself, one of the files, or their directory.

    Raises:
        FileNotFoundError: no index there.
        ValueError: a directory of several checkpoints whose file `checkpoint` does not name one.
    """
    path = Path(source)
    if path.is_dir():
        return _prefix_in(path)
    if match := _FILE.fullmatch(path.name):
        path = path.with_name(match[1])
    if not _index_of(path).is_file():
        raise FileNotFoundError(f"{path} must be a TensorFlow checkpoint, its {_index_of(path).name} is missing")
    return path


def _prefix_in(directory: Path) -> Path:
    listed = directory / "checkpoint"
    if listed.is_file():
        match = re.search(r'^model_checkpoint_path:\s*"(.+)"', listed.read_text(encoding="utf-8"), re.MULTILINE)
        if match is None:
            raise ValueError(f"{listed} must name a model_checkpoint_path, and does not")
        # The name may be an absolute path from the machine that wrote it; its files are expected beside the list.
        return find_prefix(directory / Path(match[1]).name)
    found = sorted(directory.glob("*.index"))
    if not found:
        raise FileNotFoundError(f"{directory} must hold a TensorFlow checkpoint, a file *.index is missing")
    if len(found) > 1:
        names = ", ".join(path.stem for path in found)
        raise ValueError(f"{directory} must hold one TensorFlow checkpoint, got {names}: give the path of one")
    return found[0].with_suffix("")


def write_bundle(prefix: str | os.PathLike, tensors: Mapping[str, Tensor], n_shards: int = 1) -> None:
    """Writes a checkpoint for TensorFlow's readers and `Tf1Bundle`; the index comes last, since it completes it.

    Args:
        prefix: the path without the endings; its directory must exist.
        tensors: floating or integer tensors by TensorFlow's names, on any device.
        n_shards: number of data files that the tensors are spread over.

    Raises:
        ValueError: a dtype that is not known here, or a number of shards below 1.
    """
    prefix = Path(prefix)
    if n_shards < 1:
        raise ValueError(f"n_shards must be at least 1, got {n_shards}")
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPE_NUMBERS:
            raise ValueError(f"{name} must be of {_KNOWN}, got {tensor.dtype}")
    names = sorted(tensors)
    table = {_HEADER_KEY: _field(1, n_shards) + _field(3, _field(1, 1))}  # version: producer 1
    for shard in range(n_shards):
        with written(_shard_of(prefix, shard, n_shards), "wb") as file:
            for name in names[shard::n_shards]:
                data = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
                table[name.encode()] = _entry_bytes(tensors[name], shard, file.tell(), data)
                file.write(data)
    with written(_index_of(prefix), "wb") as file:
        file.write(table_bytes(sorted(table.items())))


def _index_of(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")


def _shard_of(prefix: Path, shard: int, n_shards: int) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{n_shards:05}")


# Protocol buffers: https://protobuf.dev/programming-guides/encoding


def _read_entry(data: bytes) -> Entry:
    """Reads a BundleEntryProto."""
    entry = _Message(data)
    dimensions = [_Message(dimension) for shape in entry.messages(2)[-1:] for dimension in _Message(shape).messages(2)]
    if len(dimensions) > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor of {len(dimensions)} dimensions")
    return Entry(
        dtype=entry.integer(1),
        shape=tuple(dimension.integer(1) for dimension in dimensions),
        shard=entry.integer(3),
        offset=entry.integer(4),
        size=entry.integer(5),
        checksum=entry.integer(6),
        is_sliced=bool(entry.messages(7)),
    )


def _place(entry: Entry) -> tuple[int, int]:
    return entry.shard, entry.offset


class _Message:
    """The fields of a protocol buffer by number. Those that hold 0 are absent, and the last of equal ones counts.

    Raises:
        ValueError: a message that is cut off, a field of another kind than is asked for.
    """

    def __init__(self, data: bytes):
        self._values: dict[int, list[int | bytes]] = {}
        for number, value in _fields(data):
            self._values.setdefault(number, []).append(value)

    def integer(self, number: int) -> int:
        """A signed integer of 64 bits."""
        value = self._of_kind(number, int)[-1] if number in self._values else 0
        return value - (1 << 64) if value >= 1 << 63 else value

    def messages(self, number: int) -> list[bytes]:
        return self._of_kind(number, bytes)

    def _of_kind(self, number: int, kind: type) -> list[Any]:
        values = self._values.get(number, [])
        if not all(isinstance(value, kind) for value in values):
            raise ValueError(f"a protocol buffer whose field {number} is not of {kind.__name__}")
        return values


def _entry_bytes(tensor: Tensor, shard: int, offset: int, data: np.ndarray) -> bytes:
    shape = b"".join(_field(2, _field(1, size)) for size in tensor.shape)
    fields = {1: _DTYPE_NUMBERS[tensor.dtype], 2: shape, 3: shard, 4: offset, 5: len(data)}
    checksum = varint(6 << 3 | _FIXED32) + struct.pack("<I", masked_crc32c(data))
    return b"".join(_field(number, value) for number, value in fields.items() if value or number == 2) + checksum


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3 | _VARINT) + varint(value)
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields the numbers and values of a message's fields, in the order of the bytes."""
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = read_varint(data, position)
            yield number, value
        elif kind == _BYTES:
            size, position = read_varint(data, position)
            yield number, data[position : position + size]
            position += size
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
            yield number, int.from_bytes(data[position : position + size], "little")
            position += size
        else:
            raise ValueError(f"a protocol buffer must have fields of known kinds, got kind {kind}")
        if position > len(data):
            raise ValueError(f"a protocol buffer must hold all of its field {number}, got {len(data)} bytes")
