"""Tables of sorted keys in one file, as LevelDB writes them; the index of a TensorFlow checkpoint is such a table.

A table is data blocks, an index block with their last keys and places, and a footer. A byte for the compression and a
checksum follow every block. Keys within a block are stored without what they share with the key before; at every
"restart" a key is whole. TensorFlow never compresses these tables, so no compression is known here.

Source of the format: https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_FOOTER_SIZE = 48  # two handles, zeros up to 40 bytes, the magic number
_TRAILER_SIZE = 5  # compression, checksum
_BLOCK_SIZE = 4096
_RESTART_INTERVAL = 16
_LONGEST_KEY = 1 << 12  # a key may repeat the one before at the price of a byte
_COMPRESSIONS = {1: "snappy", 2: "zstd"}


def masked_crc32c(data: bytes | np.ndarray) -> int:
    """CRC-32C of some bytes, rotated and shifted as LevelDB stores it, so that checksums of checksums differ.

    Raises:
        ImportError: google-crc32c is not installed.
    """
    try:
        import google_crc32c
    except ImportError as error:
        raise ImportError(
            "checkpoints of TensorFlow need google-crc32c: pip install 'electra_fast[convert]'"
        ) from error
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Reads (number, next position): 7 bits per byte, the lowest first.

    Raises:
        ValueError: the end of the data, or a number of more than 64 bits.
    """
    value = shift = 0
    while position < len(data):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if value >= 1 << 64 or shift > 70:
            raise ValueError("a number has more than 64 bits")
        if byte < 0x80:
            return value, position
    raise ValueError("a number goes beyond the end")


def varint(value: int) -> bytes:
    """Writes a number of at least 0 as the bytes that `read_varint` reads."""
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])


# Reading


def read_table(path: Path) -> dict[bytes, bytes]:
    """All keys of a table and their values, in the order of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a truncated or damaged file, or another kind of file.
    """
    content = path.read_bytes()
    if len(content) < _FOOTER_SIZE or content[-len(_MAGIC) :] != _MAGIC:
        raise ValueError(
            f"{path} must be the whole index of a TensorFlow checkpoint, got a file of {len(content)} bytes without "
            f"the mark at its end: truncated, or something else"
        )
    try:
        footer = content[-_FOOTER_SIZE:]
        _, position = _read_handle(footer, 0)  # the metaindex, which TensorFlow leaves empty
        index, _ = _read_handle(footer, position)
        table: dict[bytes, bytes] = {}
        last = None
        for _, handle in _entries(_read_block(content, *index)):
            for key, value in _entries(_read_block(content, *_read_handle(handle, 0)[0])):
                if last is not None and key <= last:
                    raise ValueError(f"keys must be in order, each once, got {key!r:.80} after {last!r:.80}")
                table[key], last = value, key
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return table


def _read_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Reads a block's (offset, size); returns them and the position after them."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _read_block(content: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _TRAILER_SIZE > len(content) - _FOOTER_SIZE:
        raise ValueError(f"a block of {size} bytes at {offset} goes beyond the end")
    compression, crc = struct.unpack_from("<BI", content, end)
    if masked_crc32c(content[offset : end + 1]) != crc:
        raise ValueError(f"wrong checksum of the block of {size} bytes at {offset}")
    if compression:
        name = _COMPRESSIONS.get(compression, f"method {compression}")
        raise ValueError(f"the block at {offset} must not be compressed, got {name}")
    return content[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise ValueError("a block without a list of restarts")
    (n_restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 - 4 * n_restarts
    if end < 0:
        raise ValueError(f"a block of {len(block)} bytes with {n_restarts} restarts")
    position, key = 0, b""
    while position < end:
        n_shared, position = read_varint(block, position)
        n_new, position = read_varint(block, position)
        n_value, position = read_varint(block, position)
        value_at = position + n_new
        if n_shared > len(key) or value_at + n_value > end or n_shared + n_new > _LONGEST_KEY:
            raise ValueError(
                f"an entry whose key of {n_shared} + {n_new} bytes or value of {n_value} bytes is too long"
            )
        key = key[:n_shared] + block[position:value_at]
        position = value_at + n_value
        yield key, block[value_at:position]


# Writing


def table_bytes(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The content of a table; the keys must be given in the order of their bytes."""
    result, places = bytearray(), []
    block: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in entries:
        block.append((key, value))
        size += len(key) + len(value)
        if size >= _BLOCK_SIZE:
            places.append((key, _append_block(result, _block_bytes(block, _RESTART_INTERVAL))))
            block, size = [], 0
    if block:
        places.append((block[-1][0], _append_block(result, _block_bytes(block, _RESTART_INTERVAL))))
    metaindex = _append_block(result, _block_bytes([], 1))
    index = _append_block(result, _block_bytes(places, 1))
    return bytes(result) + (metaindex + index).ljust(_FOOTER_SIZE - len(_MAGIC), b"\0") + _MAGIC


def _append_block(result: bytearray, block: bytes) -> bytes:
    """Adds a block without compression and its checksum; returns its handle."""
    handle = varint(len(result)) + varint(len(block))
    block += b"\0"
    result += block + struct.pack("<I", masked_crc32c(block))
    return handle


def _block_bytes(entries: list[tuple[bytes, bytes]], restart_interval: int) -> bytes:
    result, restarts, before = bytearray(), [0], b""
    for number, (key, value) in enumerate(entries):
        n_shared = 0
        if number % restart_interval:
            while n_shared < min(len(key), len(before)) and key[n_shared] == before[n_shared]:
                n_shared += 1
        elif number:
            restarts.append(len(result))
        result += varint(n_shared) + varint(len(key) - n_shared) + varint(len(value)) + key[n_shared:] + value
        before = key
    return bytes(result) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
