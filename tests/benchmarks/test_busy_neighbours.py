"""Busy neighbours compute, and end with who started them."""

import json
import os
import subprocess
import sys
import time

import pytest
from electra_fast.benchmarks import neighbours as module
from electra_fast.benchmarks.neighbours import neighbours

from electra_fast.cli.main import main


def test_they_compute_until_the_block_ends():
    before = os.times().children_user
    with pytest.raises(KeyError), neighbours(2) as processes:
        time.sleep(0.3)
        assert [process.poll() for process in processes] == [None, None]
        raise KeyError
    assert all(process.poll() is not None for process in processes)
    assert os.times().children_user > before + 0.1


def test_one_ends_with_a_process_that_is_killed():
    """For its pipe ends then, without anybody's doing."""
    with subprocess.Popen([sys.executable, module.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.stdin.close()
        assert process.wait(timeout=20) == 0


def test_rows_beside_them_say_so(capsys, tmp_path):
    rows_file = tmp_path / "rows.jsonl"
    argv = "--sizes tiny --threads 1 --repeats 2 --no-cold-start --against --workloads latency-16 --busy 1 --json"
    assert main(["bench", "model", *argv.split(), str(rows_file)]) == 0
    assert [json.loads(line)["busy"] for line in rows_file.read_text(encoding="utf-8").splitlines()] == [1]
    assert capsys.readouterr().out.startswith("tiny, fp32, beside 1 busy process\n")
