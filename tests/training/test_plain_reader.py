"""Checkpoints of others run no code of theirs."""

import builtins
import json
import os
import pickle
from contextlib import suppress

import pytest
import torch
from checkpoint_states import SETTINGS, assert_equal, trained, write
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from electra_fast.training.checkpoint import Checkpoints
from electra_fast.training.distributed import join
from electra_fast.training.manifest import NAME, write_manifest
from electra_fast.training.plain_reader import PlainReader


@pytest.fixture(autouse=True)
def world():
    with join("cpu") as world:
        yield world


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def named(module, name, *arguments):
    """A pickle that calls what a name within a module leads to, as protocol 4 allows."""
    parts = b"".join(b"\x8c" + bytes([len(x)]) + x.encode() for x in (module, name))
    return b"\x80\x04" + parts + b"\x93" + pickle.dumps(arguments, 2)[2:-1] + b"R."


def hostile(mark):
    write_mark = f"open({str(mark)!r}, 'w').close()"
    return {
        "system": pickle.dumps(Calls(os.system, f"touch {mark}")),
        "exec": pickle.dumps(Calls(builtins.exec, write_mark)),
        "open": pickle.dumps(Calls(builtins.open, str(mark), "w")),
        "within": pickle.dumps(Metadata({}, {"x": Calls(os.system, f"touch {mark}")}, {})),
        "through torch": named("torch", "serialization.os.system", f"touch {mark}"),
        "through a class": named("torch.distributed.checkpoint.metadata", "os.system", f"touch {mark}"),
        "of torch": pickle.dumps(Calls(torch.load, str(mark))),
        "a class method": named("pathlib", "PosixPath.touch", mark),
    }


@pytest.mark.parametrize("is_checked", [False, True])
@pytest.mark.parametrize("name", hostile("mark"))
def test_code_in_the_metadata_is_not_run(tmp_path, name, is_checked):
    """Whoever writes a checkpoint can write its manifest, too."""
    mark = tmp_path / "mark"
    _, states = write(tmp_path / "run", 1, 2)
    two = tmp_path / "run" / "step-2"
    (two / ".metadata").write_bytes(hostile(mark)[name])
    if is_checked:
        os.remove(two / NAME)
        write_manifest(two, 2, SETTINGS)
    else:
        for step in states:
            os.remove(two.parent / f"step-{step}" / NAME)
    state = trained()
    step, lines = Checkpoints(tmp_path / "run", SETTINGS).resume(state)
    assert step == 1 and "step-2" in lines[0] and "must be the plain metadata of a checkpoint" in lines[0]
    assert not mark.exists()
    assert_equal(state, states[1])


@pytest.mark.parametrize("name", ["system", "exec", "within", "through torch", "a class method"])
def test_the_same_is_run_by_torch(tmp_path, name):
    """Otherwise the test above would say nothing."""
    (tmp_path / ".metadata").write_bytes(hostile(tmp_path / "mark")[name])
    with suppress(AttributeError):
        FileSystemReader(tmp_path).read_metadata()
    assert (tmp_path / "mark").exists()


class _Bytes(BytesStorageMetadata):
    """A value that torch would unpickle without limits, in the guise of a tensor."""

    def __reduce__(self):
        return BytesStorageMetadata, (), self.__dict__


@pytest.mark.parametrize("is_tensor", [True, False])
def test_code_among_the_tensors_is_not_run(tmp_path, is_tensor):
    _, states = write(tmp_path / "run", 1, 2)
    two, mark = tmp_path / "run" / "step-2", tmp_path / "mark"
    torch.save(Calls(os.system, f"touch {mark}"), two / "__0_0.distcp")
    metadata = PlainReader(two).read_metadata()
    if not is_tensor:
        for name, entry in metadata.state_dict_metadata.items():
            metadata.state_dict_metadata[name] = _Bytes()
            metadata.state_dict_metadata[name].size = entry.size
    for info in metadata.storage_data.values():
        info.offset, info.length = 0, (two / "__0_0.distcp").stat().st_size
    (two / ".metadata").write_bytes(pickle.dumps(metadata))
    os.remove(two / NAME)
    write_manifest(two, 2, SETTINGS)
    state = trained()
    step, (line,) = Checkpoints(tmp_path / "run", SETTINGS).resume(state)
    reason = "must be a complete checkpoint" if is_tensor else "must be the plain metadata of a checkpoint"
    assert step == 1 and "step-2" in line and reason in line and "\n" not in line
    assert not mark.exists()
    assert_equal(state, states[1])


@pytest.mark.parametrize("place", ["../step-1/__0_0.distcp", "/dev/zero", 5])
def test_files_elsewhere_are_not_read(tmp_path, place):
    write(tmp_path, 1)
    metadata = PlainReader(tmp_path / "step-1").read_metadata()
    next(iter(metadata.storage_data.values())).relative_path = place
    (tmp_path / "step-1" / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(ValueError, match="must name files beside it, got: "):
        PlainReader(tmp_path / "step-1").read_metadata()


@pytest.mark.parametrize("content", [b"", b"\x80", pickle.dumps(5), pickle.dumps(torch.Size([1])), b"(" * 100_000])
def test_what_is_no_metadata_is_one_line(tmp_path, content):
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(ValueError, match="must be the plain metadata of a checkpoint, got: ") as error:
        PlainReader(tmp_path).read_metadata()
    assert "\n" not in str(error.value)


def test_the_metadata_is_that_which_torch_reads(tmp_path):
    write(tmp_path, 1)
    ours, theirs = (reader(tmp_path / "step-1").read_metadata() for reader in (PlainReader, FileSystemReader))
    ours.storage_meta.load_id = theirs.storage_meta.load_id
    assert ours == theirs
    assert json.loads((tmp_path / "step-1" / NAME).read_text())["step"] == 1
