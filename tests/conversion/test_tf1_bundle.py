"""TensorFlow's checkpoints: one that TensorFlow wrote, round trips, and damage."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.conversion import tf1_bundle
from electra_fast.conversion.tf1_bundle import Tf1Bundle, find_prefix, write_bundle

REAL = Path(__file__).parents[3] / "shared/data/tf1_checkpoint"
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int64)
TENSORS = {
    "b/kernel": torch.arange(12.0).reshape(3, 4),
    "a/bias": torch.arange(5.0),
    "global_step": torch.tensor(1000),
}
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is absent")


@pytest.fixture
def prefix(tmp_path):
    write_bundle(tmp_path / "model.ckpt-7", TENSORS, n_shards=2)
    return tmp_path / "model.ckpt-7"


@needs_real
def test_what_tensorflow_wrote():
    """Its own checksums hold for all tensors, which fill its data file without a gap."""
    bundle = Tf1Bundle(REAL)
    assert len(bundle.entries) == 343
    assert bundle.read("global_step") == 1000
    places = sorted((entry.offset, entry.offset + entry.size) for entry in bundle.entries.values())
    assert [end for _, end in places[:-1]] == [start for start, _ in places[1:]]
    assert (places[0][0], places[-1][1]) == (0, (REAL / "model.ckpt-1000.data-00000-of-00001").stat().st_size)
    for name in bundle.entries:
        values = bundle.read(name)
        if name.endswith("adam_v"):
            assert (values >= 0).all(), name
        elif name.endswith("gamma"):
            assert abs(values.mean() - 1) < 0.05, name
        elif name != "global_step":
            assert abs(values.mean()) < 0.05, name


@needs_real
def test_bytes_of_the_real_file_are_the_tensors():
    data = (REAL / "model.ckpt-1000.data-00000-of-00001").read_bytes()
    bundle = Tf1Bundle(REAL / "model.ckpt-1000")
    for name, entry in bundle.entries.items():
        dtype = np.int64 if name == "global_step" else np.float32
        expected = np.frombuffer(data, dtype, np.prod(entry.shape, dtype=int), entry.offset).reshape(entry.shape)
        np.testing.assert_array_equal(bundle.read(name).numpy(), expected)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text("abz_/é0", min_size=1, max_size=20),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3), st.integers(0, 2**31)),
        max_size=12,
    ),
    st.integers(1, 5),
)
def test_round_trip(tmp_path_factory, specs, n_shards):
    tensors = {
        name: (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 100).to(dtype)
        for name, (dtype, shape, seed) in specs.items()
    }
    directory = tmp_path_factory.mktemp("bundle")
    write_bundle(directory / "model.ckpt", tensors, n_shards)
    assert len(list(directory.iterdir())) == n_shards + 1
    bundle = Tf1Bundle(directory)
    assert bundle.entries.keys() == tensors.keys()
    for name, tensor in tensors.items():
        found = bundle.read(name)
        assert found.dtype == tensor.dtype and found.shape == tensor.shape
        assert torch.equal(found, tensor)


def test_ways_to_name_it(prefix):
    (prefix.parent / "other.index").write_bytes(b"")
    for source in (prefix, f"{prefix}.index", f"{prefix}.data-00001-of-00002"):
        assert find_prefix(source) == prefix
    with pytest.raises(ValueError, match=r"must hold one TensorFlow checkpoint, got model.ckpt-7, other"):
        find_prefix(prefix.parent)
    (prefix.parent / "checkpoint").write_text('model_checkpoint_path: "/gone/model.ckpt-7"\n')
    assert find_prefix(prefix.parent) == prefix
    (prefix.parent / "checkpoint").write_text("all_model_checkpoint_paths: 1\n")
    with pytest.raises(ValueError, match="must name a model_checkpoint_path"):
        find_prefix(prefix.parent)


def test_missing_files(prefix, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match=r"other must be a TensorFlow checkpoint, its other.index is missing"):
        Tf1Bundle(prefix.with_name("other"))
    with pytest.raises(FileNotFoundError, match=r"a file \*.index is missing"):
        Tf1Bundle(tmp_path_factory.mktemp("empty"))
    Path(f"{prefix}.data-00001-of-00002").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"ckpt-7.index names the data file .*data-00001-of-00002, which is mis"
    ):
        Tf1Bundle(prefix)


def test_truncated_data(prefix):
    path = Path(f"{prefix}.data-00000-of-00002")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=rf"{re.escape(str(path))} is truncated: global_step ends at byte 28, the .* 27"
    ):
        Tf1Bundle(prefix)


def test_data_that_is_truncated_meanwhile(prefix, monkeypatch):
    """Mapped memory beyond a file's end kills the process that touches it."""
    bundle, path = Tf1Bundle(prefix), prefix.with_name("model.ckpt-7.data-00001-of-00002")
    (name,) = (name for name, entry in bundle.entries.items() if entry.shard == 1)
    checksum = tf1_bundle.masked_crc32c

    def truncated(data):
        os.truncate(path, 0)
        return checksum(data)

    with monkeypatch.context() as patch:
        patch.setattr(tf1_bundle, "masked_crc32c", truncated)
        assert torch.equal(bundle.read(name), TENSORS[name])
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is damaged: wrong checksum of {name}"):
        bundle.read(name)


@pytest.mark.parametrize("byte", [0, 20, 47])
def test_flipped_byte_in_the_data(prefix, byte):
    path = Path(f"{prefix}.data-00001-of-00002")
    data = bytearray(path.read_bytes())
    data[byte] ^= 4
    path.write_bytes(data)
    bundle = Tf1Bundle(prefix)
    assert torch.equal(bundle.read("a/bias"), TENSORS["a/bias"])
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is damaged: wrong checksum of b/kernel"):
        bundle.read("b/kernel")


def test_damaged_index(prefix):
    path = Path(f"{prefix}.index")
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is damaged: wrong checksum"):
        Tf1Bundle(prefix)
    shutil.copy(__file__, path)
    with pytest.raises(ValueError, match="must be the whole index of a TensorFlow checkpoint"):
        Tf1Bundle(prefix)


def rewritten(prefix, name, **fields):
    """The bundle with other fields in the index's entry of one tensor."""
    table = tf1_bundle.read_table(Path(f"{prefix}.index"))
    old = dict(tf1_bundle._fields(table[name]))
    checksum = old.pop(6)
    new = {**old, **{int(key[1:]): value for key, value in fields.items()}}
    table[name] = b"".join(tf1_bundle._field(number, value) for number, value in sorted(new.items()))
    table[name] += tf1_bundle.varint(6 << 3 | 5) + checksum.to_bytes(4, "little")
    Path(f"{prefix}.index").write_bytes(tf1_bundle.table_bytes(sorted(table.items())))
    return Tf1Bundle(prefix)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"f7": b""}, "must hold a/bias in one piece, got a partitioned variable"),
        ({"f1": 7}, r"a/bias of .* must be of float32, .*int64.*, got TensorFlow's type 7"),
        ({"f5": 19}, r"contradicts itself: a/bias is torch.float32 of shape \[5\], and of 19 bytes"),
    ],
)
def test_entries_that_are_refused(prefix, fields, message):
    assert torch.equal(rewritten(prefix, b"a/bias").read("a/bias"), TENSORS["a/bias"])
    with pytest.raises(ValueError, match=message):
        rewritten(prefix, b"a/bias", **fields).read("a/bias")


def test_big_endian_is_refused(prefix):
    table = tf1_bundle.read_table(Path(f"{prefix}.index"))
    table[b""] += tf1_bundle._field(2, 1)
    Path(f"{prefix}.index").write_bytes(tf1_bundle.table_bytes(sorted(table.items())))
    with pytest.raises(ValueError, match="must be little-endian"):
        Tf1Bundle(prefix)


def test_writing_is_refused_whole(tmp_path):
    with pytest.raises(ValueError, match=r"mask must be of float32.*, got torch.bool"):
        write_bundle(tmp_path / "a", {"x": torch.ones(1), "mask": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ValueError, match="n_shards must be at least 1, got 0"):
        write_bundle(tmp_path / "a", TENSORS, 0)
    assert not list(tmp_path.iterdir())
