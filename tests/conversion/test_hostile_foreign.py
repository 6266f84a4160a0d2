"""Weights of Keras and Flax that say more than they hold, or the same twice: refused in one line."""

from __future__ import annotations

from pathlib import Path

import h5py
import msgpack
import numpy as np
import pytest

from electra_fast.hub.foreign_weights import read_flax, read_keras


def array(shape, dtype, content, code=1):
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, content), use_bin_type=True))


def nested(depth):
    tree = {"a": array((1,), "float32", b"1234")}
    for _ in range(depth):
        tree = {"a": tree}
    return tree


FLAX = {
    "a number of bytes for bytes": ({"a": array((1,), "float32", 10**12)}, "an array of shape .* with int"),
    "text for bytes": ({"a": array((1,), "float32", [1, 2])}, "an array of shape .* with list"),
    "a size that is open": ({"a": array((-1,), "float32", b"1234")}, r"an array of shape \[-1\]"),
    "a number for a shape": ({"a": array(3, "float32", b"1234")}, "'int' object is not iterable"),
    "text in a shape": ({"a": array(("x",), "float32", b"1234")}, "must be a whole file of Flax, got"),
    "a vast shape": ({"a": array((2**62, 4), "float32", b"1234")}, "must be a whole file of Flax, got"),
    "a number for a dtype": ({"a": array((1,), 3, b"1234")}, "has no attribute 'decode'"),
    "what is no dtype": ({"a": array((1,), "nn", b"1234")}, "an array of nn"),
    "half a value": ({"a": array((1,), "float32", b"123")}, "must be a whole file of Flax, got"),
    "two of three": ({"a": msgpack.ExtType(1, msgpack.packb((1, 2)))}, "not enough values to unpack"),
    "a number for all": ({"a": msgpack.ExtType(1, msgpack.packb(3))}, "cannot unpack non-iterable int"),
    "a complex number": ({"a": array((1,), "x", b"", code=2)}, "an extension of type 2"),
    "deep": (nested(100), "must hold dictionaries at most 32 deep, got more at a/a/"),
    "very deep": (nested(400), "must hold dictionaries at most 32 deep|must be a whole file of Flax"),
    "bytes for a name": ({b"a": array((1,), "float32", b"1234")}, "must hold arrays by their names, got b'a'"),
    "a number for a tree": ({"params": 3}, "must hold arrays, got int at "),
    "a matrix of three sizes": ({"a": {"kernel": array((1, 1, 1), "float32", b"1234")}}, r"a/kernel with 2 dimensions"),
    "a weight twice": (
        {"a": {"scale": array((1,), "float32", b"1234"), "embedding": array((1,), "float32", b"1234")}},
        "holds a.weight twice: as a/scale and as a/embedding",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FLAX)
def test_flax(tmp_path, kind):
    tree, message = FLAX[kind]
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(msgpack.packb(tree))
    with pytest.raises(ValueError, match=message) as found:
        read_flax(path)
    assert "\n" not in str(found.value)


def test_flax_nested_deeper_than_msgpack_can_write(tmp_path):
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(b"\x81\xa1a" * 100_000 + b"\xc0")
    with pytest.raises(ValueError, match=r"flax_model\.msgpack must"):
        read_flax(path)


PLACE = "electra/tf_model/electra/dense"


def never_written(file):
    file.create_dataset(f"{PLACE}/kernel:0", (10**6, 10**6), "f4", chunks=(100, 100))


def one_chunk_of_many(file):
    file.create_dataset(f"{PLACE}/kernel:0", (10**6, 10**6), "f4", chunks=(100, 100))[:100, :100] = 1


def in_another_file(file):
    place = str(Path(file.filename).with_name("secret"))
    file.create_dataset(f"{PLACE}/bias:0", (1,), "f4", external=[(place, 0, 4)])[:] = 1


def text(file):
    file.create_dataset(f"{PLACE}/bias:0", data=["a"], dtype=h5py.string_dtype())


def a_record(file):
    file.create_dataset(f"{PLACE}/bias:0", data=np.zeros(2, [("a", "f4"), ("b", "i4")]))


def another_order_of_bytes(file):
    file.create_dataset(f"{PLACE}/bias:0", data=np.zeros(2, ">f4"))


def three_sizes(file):
    file.create_dataset(f"{PLACE}/kernel:0", data=np.zeros((2, 2, 2), "f4"))


def twice(file):
    for leaf in ("gamma", "kernel"):
        file.create_dataset(f"{PLACE}/{leaf}:0", data=np.zeros((2, 2), "f4"))


def twice_by_another_group(file):
    for i, place in enumerate((PLACE, PLACE.replace("electra/tf", "other/tf"))):  # equal ones are one: a tied head's
        file.create_dataset(f"{place}/bias:0", data=np.full(2, i, "f4"))


KERAS = {
    never_written: r"of shape \[1000000, 1000000\] in 0 bytes",
    one_chunk_of_many: r"of shape \[1000000, 1000000\] in 40,000 bytes",
    in_another_file: "bias:0 in other files, b?'.*secret",
    text: "must be a whole HDF5 file of transformers, got: ",
    a_record: "must be a whole HDF5 file of transformers, got: ",
    another_order_of_bytes: "must be a whole HDF5 file of transformers, got: .*byte order",
    three_sizes: r"dense/kernel:0 with 2 dimensions, got \[2, 2, 2\]",
    twice: "holds electra.dense.weight twice: as .*gamma:0 and as .*kernel:0",
    twice_by_another_group: "holds electra.dense.bias twice: as electra/.* and as other/",
}


@pytest.mark.parametrize("write", KERAS, ids=lambda write: write.__name__)
def test_keras(tmp_path, write):
    path = tmp_path / "tf_model.h5"
    with h5py.File(path, "w") as file:
        write(file)
    with pytest.raises(ValueError, match=KERAS[write]) as found:
        read_keras(path)
    assert "\n" not in str(found.value)


def test_keras_may_be_packed(tmp_path):
    path = tmp_path / "tf_model.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(f"{PLACE}/bias:0", data=np.zeros(10**6, "f4"), compression="gzip", chunks=(10**5,))
    assert read_keras(path)["electra.dense.bias"].shape == (10**6,)
