"""Standard streams that are closed, full, or without a reader: one line or silence, and an exit code that tells."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tiny_models import random_model

from electra_fast import ElectraForPreTraining
from electra_fast.cli.main import BENCHMARKS, COMMANDS

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
PIPE = 128 + 13


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A directory with a model and texts."""
    root = tmp_path_factory.mktemp("here")
    random_model(ElectraForPreTraining, vocab_size=len(VOCAB)).save_pretrained(root / "model")
    (root / "model" / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    (root / "text.txt").write_text("".join(f"a {'b ' * i}\n\n" for i in range(500)))
    return root


def run(directory, command, redirected):
    """Runs a command of a shell; returns its exit code and what it wrote to the streams that are left open."""
    line = f"{sys.executable} -m electra_fast {command} {redirected}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], cwd=directory, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


DETECT = "detect --model model --device cpu 'a b'"
EMBED = "embed --model model --device cpu --input text.txt --output new.npy"
SHARDS = "prepare --data text.txt --vocab model/vocab.txt --out shards"


@pytest.mark.parametrize("redirected", [">&-", "2>&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("command", ["--version", "bench --help", DETECT, EMBED])
def test_closed_streams_count_as_dev_null(here, command, redirected):
    code, out, err = run(here, command, redirected)
    assert code == 0 and "Traceback" not in err and err.count("\n") <= 1
    assert (out == "") == (">&-" in redirected.split() or command == EMBED)
    assert "Traceback" not in out and "texts/s" not in out


@pytest.mark.parametrize("redirected", [">&-", "2>&-", "2>/dev/full"])
def test_an_error_has_its_code_where_nobody_reads_it(here, redirected):
    for command in (
        "detct",
        "detect --top 5",
        "embed --model model --input missing --output a.npy",
        "detect --model model",
    ):
        code, out, err = run(here, command, f"{redirected} </dev/null")
        assert (code, out) == (2, "") and err.count("\n") == (redirected == ">&-")


def test_a_closed_standard_input_is_named(here):
    code, out, err = run(here, "detect --model model", "<&-")
    assert (code, out) == (2, "")
    assert err == "electra-fast detect: error: the standard input must be open, got a closed one\n"


@pytest.mark.parametrize("command", ["--version", "--help", "info --help", "bench --help", DETECT])
def test_a_full_device_is_an_error_in_one_line(here, command):
    code, out, err = run(here, command, ">/dev/full")
    assert (code, out) == (2, "")
    assert err.endswith("error: [Errno 28] No space left on device\n") and err.count("\n") == 1


@pytest.mark.parametrize("command", ["--help", "info --help", "bench --help", DETECT])
def test_a_reader_that_stops_ends_a_command_in_silence(here, command):
    assert run(here, command, "| true") in ((PIPE, "", ""), (0, "", ""))  # the pipe may take all before it is closed
    code, out, err = run(here, command, "2>&1 >&- | true")
    assert (code, out, err) == (0, "", "")


def test_progress_bars_need_no_stream(here):
    assert run(here, SHARDS, ">&- 2>&-") == (0, "", "")


def test_libraries_do_not_write_into_files_that_took_a_stream_s_place(here):
    code, _, err = run(here, "embed --model model --device cpu --input text.txt --output other.npy", ">&- 2>&-")
    assert (code, err) == (0, "")
    assert os.path.getsize(here / "other.npy") == 128 + 1000 * 4 * 32


@pytest.mark.slow
def test_all_commands_stand_it(here):
    for name in [*COMMANDS, *(f"bench {name}" for name in BENCHMARKS)]:
        code, out, err = run(here, f"{name} --no-such-option", ">&-")
        assert (code, out, err.count("\n")) == (2, "", 1), name
