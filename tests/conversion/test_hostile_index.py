"""Indexes of TensorFlow's checkpoints with right checksums and wrong content: refused in one line, at once."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.conversion.sstable import (
    _MAGIC,
    _append_block,
    masked_crc32c,
    read_table,
    table_bytes,
    varint,
)
from electra_fast.conversion.tf1_bundle import Tf1Bundle, _field

VALUES = np.arange(12, dtype=np.float32)
HEADER = _field(1, 1)
NEGATIVE = 2**64 - 1


def entry(dtype=1, shape=(3, 4), shard=0, offset=0, size=48, data=VALUES, **more):
    dimensions = b"".join(_field(2, _field(1, n) if isinstance(n, int) else n) for n in shape)
    numbers = b"".join(_field(k, v) for k, v in {1: dtype, 3: shard, 4: offset, 5: size}.items())
    return numbers + _field(2, dimensions) + varint(6 << 3 | 5) + struct.pack("<I", masked_crc32c(data.view(np.uint8)))


def write(directory, entries, header=HEADER):
    path = directory / "m.index"
    path.write_bytes(table_bytes(sorted({b"": header, **entries}.items())))
    (directory / "m.data-00000-of-00001").write_bytes(VALUES.tobytes())
    return directory / "m"


def read(prefix):
    bundle = Tf1Bundle(prefix)
    return {name: bundle.read(name) for name in bundle.entries}


def test_what_is_right_is_read(tmp_path):
    entries = {
        b"a": entry(shape=(1,), size=4, data=VALUES[:1]),
        b"b": entry(shape=(11,), offset=4, size=44, data=VALUES[1:]),
        b"none": entry(shape=(0, 3), offset=10, size=0),
    }
    found = read(write(tmp_path, entries))
    assert found["b"].tolist() == VALUES[1:].tolist() and found["none"].shape == (0, 3)


HEADERS = {
    "no number of shards": (b"", "must name at least one data file, got 0"),
    "no shards": (_field(1, 0), "must name at least one data file, got 0"),
    "fewer than none": (_field(1, NEGATIVE), "must name at least one data file, got -1"),
    "2^31 shards": (_field(1, 2**31), "names the data file m.data-00000-of-2147483648, which is missing"),
    "2^62 shards": (_field(1, 2**62), "which is missing"),
    "text for a number": (_field(1, b"one"), "a protocol buffer whose field 1 is not of int"),
    "text for an order": (HEADER + _field(2, b"big"), "a protocol buffer whose field 2 is not of int"),
    "big-endian": (HEADER + _field(2, 1), "must be little-endian, got big-endian"),
    "more than 64 bits": (varint(8) + b"\xff" * 30 + b"\1", "a number has more than 64 bits"),
    "cut off": (HEADER + varint(3 << 3 | 2) + varint(99), "must hold all of its field 3, got"),
    "a group": (HEADER + varint(3 << 3 | 3), "fields of known kinds, got kind 3"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers(tmp_path, kind):
    header, message = HEADERS[kind]
    refused(write(tmp_path, {b"a": entry()}, header), message)


ENTRIES = {
    "a shard out of range": (entry(shard=1), "must place a in one of 1 data files, got number 1"),
    "shard 2^31": (entry(shard=2**31), "must place a in one of 1 data files, got number 2147483648"),
    "a shard below 0": (entry(shard=NEGATIVE), "must place a in one of 1 data files, got number -1"),
    "beyond the end": (entry(offset=4), "is truncated: a ends at byte 52, the file at 48"),
    "far beyond the end": (entry(offset=2**62), "is truncated: a ends at byte"),
    "before the start": (entry(offset=NEGATIVE), "a place, a size and a shape of at least 0, got -1, 48"),
    "a size below 0": (entry(size=NEGATIVE), "a place, a size and a shape of at least 0, got 0, -1"),
    "a size of 2^62": (entry(size=2**62), "is truncated: a ends at byte"),
    "a shape below 0": (entry(shape=(2**64 - 3, 2**64 - 4)), r"of at least 0, got 0, 48 and \[-3, -4\]"),
    "another shape": (entry(shape=(4, 4)), r"contradicts itself: a is torch.float32 of shape \[4, 4\], and of 48"),
    "a vast shape": (entry(shape=(2**62, 4)), "contradicts itself: a is"),
    "a vast shape of nothing": (entry(shape=(0, 2**62, 2**62), size=0), "contradicts itself: a is"),
    "many dimensions": (entry(shape=(1,) * 255 + (12,)), "a tensor of 256 dimensions"),
    "another dtype": (entry(dtype=3, size=44), "contradicts itself: a is torch.int32"),
    "text": (entry(dtype=7), "a of .* must be of float32, .*, got TensorFlow's type 7"),
    "complex": (entry(dtype=8), "got TensorFlow's type 8"),
    "no dtype": (entry(dtype=0), "got TensorFlow's type 0"),
    "dtype 2^40": (entry(dtype=2**40), "got TensorFlow's type 1099511627776"),
    "text for a dtype": (entry(dtype=b"float"), "a protocol buffer whose field 1 is not of int"),
    "text for an offset": (entry(offset=b"x"), "a protocol buffer whose field 4 is not of int"),
    "a number for a dimension": (_field(2, _field(2, 3)) + entry(), None),
    "a number for a shape": (entry() + _field(2, 3), "a protocol buffer whose field 2 is not of bytes"),
    "text for a size": (entry(shape=(_field(1, b"x"),)), "a protocol buffer whose field 1 is not of int"),
    "parts": (entry() + _field(7, b""), "must hold a in one piece, got a partitioned variable"),
    "bytes": (b"\xff" * 8, "must be the index of a TensorFlow checkpoint, got: a number goes beyond the end"),
    "another checksum": (entry(data=VALUES + 1), "is damaged: wrong checksum of a"),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_entries(tmp_path, kind):
    value, message = ENTRIES[kind]
    if message is None:  # the last of two shapes counts, as in protobuf
        assert read(write(tmp_path, {b"a": value}))["a"].shape == (3, 4)
    else:
        refused(write(tmp_path, {b"a": value}), message)


@pytest.mark.parametrize(
    ("first", "second"), [((0, 48), (0, 48)), ((0, 48), (4, 8)), ((0, 8), (4, 8)), ((8, 40), (0, 12))], ids=str
)
def test_two_tensors_have_no_bytes_in_common(tmp_path, first, second):
    """So the files' sizes bound what is read."""
    entries = {
        name: entry(shape=(size // 4,), offset=at, size=size, data=VALUES[at // 4 :][: size // 4])
        for name, (at, size) in {b"a": first, b"b": second}.items()
    }
    refused(write(tmp_path, entries), "must give each tensor bytes of its own, got . at byte . and . until")


def test_a_name_that_is_no_text(tmp_path):
    refused(write(tmp_path, {b"\xff\xfe": entry()}), "must be the index of a TensorFlow checkpoint, got: 'utf-8' codec")


# Tables


def table_of(*pairs, restarts=b"\0\0\0\0\1\0\0\0", repeats=1):
    """A table whose data block has these (shared, key, value), in any order, named several times in the index."""
    block = b"".join(varint(shared) + varint(len(k)) + varint(len(v)) + k + v for shared, k, v in pairs) + restarts
    return table_of_block(block, repeats)


def table_of_block(block, repeats=1):
    result = bytearray()
    handle = _append_block(result, block)
    index = b"".join(varint(0) + varint(1) + varint(len(handle)) + bytes([n]) + handle for n in range(repeats))
    metaindex = _append_block(result, struct.pack("<2I", 0, 1))
    places = _append_block(result, index + struct.pack("<2I", 0, 1))
    return bytes(result) + (metaindex + places).ljust(40, b"\0") + _MAGIC


KEY = b"k" * 3000
TABLES = {
    "a name twice": (table_of((0, b"a", b"1"), (0, b"a", b"2")), "keys must be in order, each once, got b'a'"),
    "another order": (table_of((0, b"b", b"1"), (0, b"a", b"2")), "got b'a' after b'b'"),
    "a block twice": (table_of((0, b"a", b"1"), repeats=2), "got b'a' after b'a'"),
    "the header twice": (table_of((0, b"", b"1"), (0, b"", b"2")), "got b'' after b''"),
    "more shared than there is": (table_of((0, b"a", b"1"), (2, b"b", b"2")), r"whose key of 2 \+ 1 bytes"),
    "shared from nothing": (table_of((1, b"a", b"1")), r"whose key of 1 \+ 1 bytes"),
    "long keys": (table_of((0, KEY, b"1"), (3000, KEY, b"2")), r"whose key of 3000 \+ 3000 bytes"),
    "a value beyond the end": (table_of_block(b"\0\1\x7fa" + struct.pack("<2I", 0, 1)), "value of 127 bytes is too"),
    "a key beyond the end": (table_of_block(b"\0\x7f\1a" + struct.pack("<2I", 0, 1)), r"key of 0 \+ 127 bytes"),
    "many restarts": (table_of((0, b"a", b"1"), restarts=b"\xff\xff\xff\xff"), "with 4294967295 restarts"),
    "no restarts": (table_of_block(b"ab"), "a block without a list of restarts"),
    "a long number": (table_of_block(b"\xff" * 5000 + struct.pack("<2I", 0, 1)), "a number has more than 64 bits"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_tables(tmp_path, kind):
    content, message = TABLES[kind]
    path = tmp_path / "m.index"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is damaged: .*{message}") as found:
        read_table(path)
    assert "\n" not in str(found.value)


def refused(prefix, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as found:
        read(prefix)
    assert str(prefix.parent) in str(found.value) and "\n" not in str(found.value)


NUMBERS = st.one_of(st.integers(0, 60), st.integers(0, 2**64 - 1), st.binary(max_size=5))


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.binary(max_size=3),
        st.lists(st.tuples(st.integers(1, 8), NUMBERS | st.just(_field(2, _field(1, 4)))), max_size=8),
        max_size=4,
    ),
    st.lists(st.tuples(st.integers(1, 3), NUMBERS), max_size=3),
)
def test_any_index_is_read_or_refused(tmp_path_factory, entries, header):
    content = {key: b"".join(_field(*pair) for pair in fields) for key, fields in entries.items()}
    prefix = write(tmp_path_factory.getbasetemp(), content, b"".join(_field(*pair) for pair in header))
    try:
        assert all(isinstance(tensor, torch.Tensor) for tensor in read(Path(prefix)).values())
    except (ValueError, FileNotFoundError) as error:
        assert "\n" not in str(error)
