"""Failures of pre-training runs: one line says what went wrong, and nothing that was saved is lost."""

import gzip
import json
import lzma
import os
import re
import resource
import socket
from dataclasses import asdict

import pytest
import zstandard
from runs import RECIPE, checkpoints, curve, launch, sigterm_in, start, steps_done, wait_for
from texts import text

from electra_fast.cli.main import main
from electra_fast.pretraining import Corpus
from electra_fast.pretraining.loop import TrainingLoop
from electra_fast.training.lock import NAME as LOCK
from electra_fast.training.manifest import NAME as MANIFEST
from electra_fast.training.progress import read_records

# A process hangs after step 5.
HANG = """
import time
from electra_fast.pretraining.loop import TrainingLoop
update = TrainingLoop._update
TrainingLoop._update = lambda loop: time.sleep(600) if loop.step == 5 else update(loop)
"""
# The recipe, on the command line.
CHANGES = [f"{name}={value!r}" for name, value in asdict(RECIPE).items() if name != "name"]
SETTINGS = ["--preset", "tiny", "--set", *CHANGES, "--steps", "12", "--log-every", "1", "--checkpoint-every", "4"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current directory, with text."""
    (tmp_path / "text.txt").write_text(text(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pretrain(*options):
    return main(["pretrain", "--device", "cpu", *SETTINGS, "--out", "out", *options])


def mistake(capsys, *options):
    """The one line that a command which cannot be done says."""
    capsys.readouterr()
    assert pretrain(*options) == 2
    error = capsys.readouterr().err
    assert error.endswith("\n") and error.count("\n") == 1, error
    return error


def files(directory):
    """What lies below a directory."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def stop_after(step, *options):
    """A run that was stopped after a step."""
    with sigterm_in(step), pytest.raises(SystemExit) as stop:
        pretrain("--data", "text.txt", *options)
    assert stop.value.code == 143


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "text.txt").write_text(text(), encoding="utf-8")
    assert pretrain("--data", str(folder / "text.txt"), "--out", str(folder / "out")) == 0
    return folder / "out"


# A corpus with a broken file in it

PLAIN = text(seed=1).encode()
LINES = [json.dumps({"text": document}) for document in text(seed=1).split("\n\n")]
BROKEN = {
    "cut.txt.gz": (gzip.compress(PLAIN)[:-900], "end-of-stream"),
    "cut.txt.xz": (lzma.compress(PLAIN)[:-900], "end-of-stream"),
    "cut.txt.zst": (zstandard.compress(PLAIN)[:-900], "the file ends before its last frame does"),
    "none.txt.gz": (PLAIN, "Not a gzipped file"),
    "latin.txt": (PLAIN + "Gödel".encode("latin-1"), "must be UTF-8, got byte 0xf6"),
    "no.jsonl": ("\n".join([*LINES[:7], LINES[7][:-9], *LINES[8:]]).encode(), "line 8 must be a JSON object"),
    "key.jsonl": ("\n".join([*LINES[:7], '{"body": "a"}']).encode(), "line 8 must be an object with text under 'text'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_and_nothing_is_written(folder, capsys, name):
    (folder / "data").mkdir()
    content, message = BROKEN[name]
    (folder / "data" / "a.txt").write_bytes(PLAIN)
    (folder / "data" / name).write_bytes(content)
    error = mistake(capsys, "--data", "data")
    assert os.path.join("data", name) in error and message in error
    assert not (folder / "out").exists()


def test_a_file_that_breaks_during_a_run_loses_nothing(folder, capsys, monkeypatch):
    """It is met in a later epoch; the run goes on when it is mended."""
    command = ["--data", "text.txt", "--set", *CHANGES, "batch_size=60", "--steps", "24"]
    content = (folder / "text.txt").read_bytes()
    update = TrainingLoop._update

    def breaking(loop):
        if loop.step == 1:
            (folder / "text.txt").write_bytes(content + b"\xff")
        return update(loop)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_update", breaking)
        error = mistake(capsys, *command)
    assert re.search(r"text\.txt, line \d+: must be UTF-8, got byte 0xff", error)
    (folder / "text.txt").write_bytes(content)
    step = steps_done(folder / "out")
    assert 4 <= step < 24 and checkpoints(folder / "out")[-1] == f"step-{step // 4 * 4}"
    assert pretrain(*command) == 0
    assert pretrain(*command, "--out", "whole") == 0
    assert curve(folder / "out") == curve(folder / "whole")


# A vocabulary that does not fit


def write_vocab(path, entries):
    path.write_text("\n".join(entries) + "\n", encoding="utf-8")


def test_another_vocabulary_than_the_runs_is_refused(folder, capsys):
    stop_after(5)
    write_vocab(folder / "vocab.txt", [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz"])
    before = files(folder / "out")
    error = mistake(capsys, "--data", "text.txt", "--vocab", "vocab.txt")
    assert "out holds a run with other settings (vocabulary: " in error
    assert files(folder / "out") == before


def test_another_vocabulary_than_the_shards_is_refused(folder, capsys):
    write_vocab(folder / "vocab.txt", [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz", *"0123456789."])
    assert main(["prepare", "--data", "text.txt", "--vocab", "vocab.txt", "--out", "shards"]) == 0
    write_vocab(folder / "other.txt", [*SPECIAL, *"zyxwvutsrqponmlkjihgfedcba"])
    error = mistake(capsys, "--data", "shards", "--vocab", "other.txt")
    assert "the shards in shards must be used with the vocabulary" in error
    assert not (folder / "out").exists()


def test_a_vocabulary_without_the_unknown_token_is_refused(folder, capsys):
    write_vocab(folder / "vocab.txt", [*"abcdefghijklmnopqrstuvwxyz"])
    assert "[UNK]" in mistake(capsys, "--data", "text.txt", "--vocab", "vocab.txt")
    assert not (folder / "out").exists()


# Settings and checkpoints that do not fit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--accumulate", "5"], "batch_size must be a multiple of processes x accumulation, 1 x 5, got 12"),
        (["--accumulate", "0"], "accumulate must be positive, got 0"),
        (["--checkpoint-every", "5", "--log-every", "2"], "checkpoint_every must be a multiple of log_every 2, got 5"),
        (["--keep-checkpoints", "0"], "keep_checkpoints must be positive, got 0"),
        (["--device", "cuda:99"], "cuda:99 must be a GPU of this machine"),
        (["--parallel", "fsdp", "--set", *CHANGES, "optimizer=lamb"], "LAMB takes the norm of whole tensors"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_setting_that_does_not_do_is_refused_before_anything_is_written(folder, capsys, options, message):
    assert message in mistake(capsys, "--data", "text.txt", *options)
    assert not (folder / "out").exists()


def test_another_recipe_than_the_runs_is_refused(folder, capsys):
    stop_after(5)
    before = files(folder / "out")
    error = mistake(capsys, "--data", "text.txt", "--set", *CHANGES, "hidden_size=64")
    assert "out holds a run with other settings (recipe.hidden_size: 32 then, 64 now): repeat" in error
    assert files(folder / "out") == before


def test_a_checkpoint_of_another_shape_is_refused(folder, capsys):
    for out, size in (("out", 64), ("other", 32)):
        stop_after(5, "--set", *CHANGES, f"hidden_size={size}", "--out", out)
    checkpoint = folder / "out" / "checkpoints"
    checkpoint.rename(folder / "other" / "checkpoints" / "moved")
    (folder / "other" / "checkpoints").rename(checkpoint)
    error = mistake(capsys, "--data", "text.txt", "--set", *CHANGES, "hidden_size=64")
    assert "no checkpoint fits this run: " in error
    assert "step-5 does not fit: it is that of a run with other settings (recipe.hidden_size: 32 then, 64 now)" in error
    for manifest in (folder / "out").rglob(MANIFEST):  # as if an earlier version had written them
        manifest.unlink()
    error = mistake(capsys, "--data", "text.txt", "--set", *CHANGES, "hidden_size=64")
    assert "step-5 must fit this model: expected exp_avg." in error and "64" in error and "32" in error


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("has_manifest", [True, False])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(folder, whole, capsys, name, has_manifest):
    stop_after(9)
    file = folder / "out" / "checkpoints" / "step-9" / name
    os.truncate(file, file.stat().st_size // 2)
    if not has_manifest:
        for manifest in (folder / "out").rglob(MANIFEST):
            manifest.unlink()
    capsys.readouterr()
    assert pretrain("--data", "text.txt") == 0
    log = folder / "out" / "log.jsonl"
    first, *others = [record["advice"] for record in read_records(log, "warning")]
    assert "step-9" in first and first.endswith("; the run goes on from step 8 instead")
    assert len(others) == (0 if has_manifest else 1) and all(f"step-8 has no {MANIFEST}" in line for line in others)
    assert f"warning: {first}\n" in capsys.readouterr().out
    assert read_records(log, "resume")[-1]["step"] == 8
    assert checkpoints(folder / "out") == ["step-8", "step-12"]
    assert curve(folder / "out") == curve(whole)


def test_where_no_checkpoint_fits_nothing_is_changed(folder, capsys):
    stop_after(5)
    for path in (folder / "out" / "checkpoints").rglob("*.distcp"):
        path.write_bytes(path.read_bytes()[::-1])
    before = files(folder / "out")
    error = mistake(capsys, "--data", "text.txt")
    assert "no checkpoint fits this run: " in error and "step-5 " in error and "step-4 " in error
    assert files(folder / "out") == before


@pytest.mark.parametrize("name", ["run.json", "log.jsonl"])
def test_a_damaged_file_of_the_run_is_named(folder, capsys, name):
    stop_after(5)
    path = folder / "out" / name
    path.write_bytes(path.read_bytes()[1:])
    before = files(folder / "out")
    assert os.path.join("out", name) in mistake(capsys, "--data", "text.txt")
    assert files(folder / "out") == before


# A corpus that is another one


def test_text_that_changed_in_its_middle_is_noticed(folder, capsys):
    """More than 64 KB from both ends, to another text of the same size."""
    path = folder / "text.txt"
    path.write_text("\n\n".join(text(seed=seed) for seed in range(60)), encoding="utf-8")
    content = path.read_bytes()
    place = content.index(b"a", len(content) // 2)
    assert 1 << 16 < place < len(content) - (1 << 16)
    stop_after(5)
    before = files(folder / "out")
    path.write_bytes(content[:place] + b"b" + content[place + 1 :])
    assert "out holds a run with other settings (text: " in mistake(capsys, "--data", "text.txt")
    assert files(folder / "out") == before
    path.write_bytes(content)
    assert pretrain("--data", "text.txt") == 0


def test_a_run_of_an_earlier_version_knows_its_text_by_its_edges(folder, whole, capsys):
    stop_after(5)
    edges = Corpus([folder / "text.txt"]).fingerprint_of_edges()
    for path in [folder / "out" / "run.json", *(folder / "out").rglob(MANIFEST)]:
        found = json.loads(path.read_text())
        (found if path.name == "run.json" else found["settings"])["text"] = edges
        path.write_text(json.dumps(found))
    assert pretrain("--data", "text.txt") == 0
    assert curve(folder / "out") == curve(whole)
    assert json.loads((folder / "out" / "run.json").read_text())["text"] == edges


def test_shards_that_changed_are_named(folder, capsys):
    assert main(["train-vocab", "--data", "text.txt", "--size", "300", "--out", "vocab.txt"]) == 0
    assert main(["prepare", "--data", "text.txt", "--vocab", "vocab.txt", "--out", "shards"]) == 0
    path = folder / "shards" / "shard-00000.ids.npy"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    error = mistake(capsys, "--data", "shards", "--vocab", "vocab.txt")
    assert "shards/shard-00000.ids.npy is damaged: its checksum is another" in error
    assert not (folder / "out").exists()


# Two runs in one directory


@pytest.fixture
def hanging(folder):
    """A run in the directory `run` that hangs after step 5; dead after the test."""
    process = start([("run", {})], before=HANG)
    try:
        wait_for(lambda: steps_done(folder / "run") == 5 and checkpoints(folder / "run") == ["step-4"], process)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("options", [{}, {"overwrite": True}])
def test_a_second_run_in_the_directory_is_refused(folder, hanging, options):
    before = files(folder / "run")
    code, printed = launch([("run", options)])
    assert code != 0
    message = rf"another run is at work in run \(host {socket.gethostname()}, process {hanging.pid}, since "
    assert re.search(message, printed), printed
    assert files(folder / "run") == before


def test_the_lock_of_a_killed_run_is_free(folder, hanging):
    hanging.kill()
    hanging.wait()
    assert (folder / "run" / LOCK).exists()
    code, printed = launch([("run", {})])
    assert code == 0, printed
    assert not (folder / "run" / LOCK).exists()


def test_two_processes_of_a_second_run_are_refused_together(folder, hanging):
    code, printed = launch([("run", {})], n_processes=2)
    assert code != 0 and printed.count("BlockingIOError: another run is at work in run") == 2, printed


# A disk that fills up


def test_a_full_disk_ends_a_run_that_goes_on_when_there_is_space(folder, whole, capsys):
    """No file may grow beyond a limit, from step 6 on."""
    stop_after(5)
    before = files(folder / "out" / "checkpoints" / "step-5")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        error = mistake(capsys, "--data", "text.txt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the checkpoint of step 8 could not be written to" in error
    assert "File too large; complete are those of steps: 4, 5" in error
    assert checkpoints(folder / "out") == ["step-4", "step-5"]
    assert files(folder / "out" / "checkpoints" / "step-5") == before
    assert pretrain("--data", "text.txt") == 0
    assert curve(folder / "out") == curve(whole)


# One of several processes fails: the others end too.

FULL_DISK_OF_ONE = """
import os, resource
if os.environ["RANK"] == "1":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
"""
DEATH_OF_ONE = """
import os, signal, time
from electra_fast.pretraining.loop import TrainingLoop
from electra_fast.training.progress import read_records
update = TrainingLoop._update
def dying(loop):
    if loop.step == 6 and os.environ["RANK"] == "1":
        while not os.path.isdir("run/checkpoints/step-4"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return update(loop)
TrainingLoop._update = dying
"""


@pytest.mark.parametrize(
    ("before", "message", "saved"),
    [
        pytest.param(FULL_DISK_OF_ONE, "File too large; complete are those of steps: none", [], marks=pytest.mark.slow),
        (DEATH_OF_ONE, "SIGKILL", ["step-4"]),
    ],
    ids=["full disk", "death"],
)
def test_where_one_process_fails_the_other_does_not_hang(folder, before, message, saved):
    code, printed = launch([(folder / "run", {})], n_processes=2, before=before)
    assert code != 0 and message in printed, printed
    assert [name for name in checkpoints(folder / "run") if not name.startswith(".")] == saved
