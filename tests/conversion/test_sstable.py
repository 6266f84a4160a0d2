"""Tables of LevelDB: what is written is read, and damage is seen."""

import random
import struct

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.conversion.sstable import _block_bytes, masked_crc32c, read_table, read_varint, table_bytes, varint


def test_checksum_of_the_standard():
    assert google_crc32c.value(b"123456789") == 0xE3069283  # RFC 3720, B.4's polynomial
    # LevelDB's: rotate right by 15 bits, add a constant.
    rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
    assert masked_crc32c(b"123456789") == (rotated + 0xA282EAD8) % 2**32


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_varint(value, after):
    data = varint(value)
    assert read_varint(data + after, 0) == (value, len(data))
    with pytest.raises(ValueError, match="beyond the end"):
        read_varint(data[:-1], 0)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.binary(max_size=40), st.binary(max_size=400), max_size=120))
def test_round_trip(tmp_path_factory, table):
    path = tmp_path_factory.getbasetemp() / "round.index"
    path.write_bytes(table_bytes(sorted(table.items())))
    assert read_table(path) == table


def test_many_blocks(tmp_path):
    table = {f"electra/encoder/layer_{i}/kernel/adam_m".encode(): bytes([i % 256]) * (i % 97) for i in range(2000)}
    path = tmp_path / "many.index"
    path.write_bytes(table_bytes(sorted(table.items())))
    assert path.stat().st_size < sum(len(k) + len(v) for k, v in table.items())  # shared beginnings are left out
    assert read_table(path) == table


def test_keys_are_whole_at_restarts():
    """LevelDB's readers jump to them."""
    block = _block_bytes([(f"electra/{i:02}".encode(), b"v" * i) for i in range(40)], 16)
    *restarts, n_restarts = struct.unpack("<4I", block[-16:])
    assert n_restarts == 3
    for number, at in zip((0, 16, 32), restarts, strict=True):
        assert block[at : at + 13] == bytes([0, 10, number]) + f"electra/{number:02}".encode()
    assert block.count(b"electra/") == 3


def test_every_damage_is_seen(tmp_path):
    table = {f"key{i}".encode(): bytes([i]) * 30 for i in range(256)}
    content = table_bytes(sorted(table.items()))
    path = tmp_path / "damaged.index"
    rng = random.Random(0)
    seen = 0
    for position in [*rng.sample(range(len(content)), 300), *range(len(content) - 48, len(content))]:
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 1 << rng.randrange(8)]) + content[position + 1 :]
        )
        try:
            assert read_table(path) == table  # zeros that pad the footer, and the handle of the empty metaindex
            assert position >= len(content) - 48
        except ValueError as error:
            assert str(path) in str(error)
            seen += 1
    assert seen > 300
    for end in rng.sample(range(len(content)), 100):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="truncated"):
            read_table(path)


def test_compression_is_refused_by_name(tmp_path):
    content = bytearray(table_bytes([(b"a", b"b")]))
    size = 3 + 2 + 8  # one entry, one restart and their number
    content[size] = 1
    content[size + 1 : size + 5] = masked_crc32c(bytes(content[: size + 1])).to_bytes(4, "little")
    path = tmp_path / "snappy.index"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="must not be compressed, got snappy"):
        read_table(path)
