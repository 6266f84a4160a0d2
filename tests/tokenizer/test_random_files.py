"""Whole directories of a tokenizer, broken at random for RANDOM_SECONDS: they work, or are refused in one line."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("RANDOM_SECONDS", "60"))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 600)
def test_broken_files_are_refused_or_work():
    script = Path(__file__).with_name("broken_files.py")
    seed = random.randrange(10**9)
    command = [sys.executable, str(script), str(seed), str(SECONDS)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 300)
    print(found.stdout[-200:])
    assert found.returncode == 0, (found.returncode, found.stdout.split("\n")[-3:], found.stderr[-3000:])
