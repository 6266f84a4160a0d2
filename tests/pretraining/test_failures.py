"""Failures of pre-training runs: one line says what went wrong, and nothing that was saved is lost."""

import gzip
import json
import lzma
import os
import re
import resource
import shutil
from dataclasses import asdict

import pytest
import zstandard
from runs import RECIPE, checkpoints, curve, launch, sigterm_in, steps_done
from texts import text

from electra_fast.cli.main import main
from electra_fast.pretraining.loop import TrainingLoop
from electra_fast.training.progress import read_records

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
    with sigterm_in(step):
        assert pretrain("--data", "text.txt", *options) == 0


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
    assert "step-5 must fit this model: expected exp_avg." in error and "64" in error and "32" in error


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_damaged_checkpoint_is_named_and_without_it_the_one_before_is_used(folder, whole, capsys, name):
    stop_after(9)
    file = folder / "out" / "checkpoints" / "step-9" / name
    os.truncate(file, file.stat().st_size // 2)
    error = mistake(capsys, "--data", "text.txt")
    assert "step-9 must be a complete checkpoint" in error and "from the one before" in error
    shutil.rmtree(file.parent)
    assert pretrain("--data", "text.txt") == 0
    assert read_records(folder / "out" / "log.jsonl", "resume")[-1]["step"] == 8
    assert curve(folder / "out") == curve(whole)


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
