"""Memory does not grow with the text: a process that has encoded ten times as much is as large as it was."""

import json
import subprocess
import sys

import pytest
from vocabularies import small_vocab

AMOUNT = 1_000_000_000  # bytes, in slabs of 10 MB; the first measurement comes after a tenth
MOST_GROWTH = 20_000_000

CODE = """
import gc, json, os, sys
import numpy as np
from electra_fast.tokenizer import ElectraTokenizer

SLAB, TEXT = 10_000_000, 1_000
amount, vocab = json.load(sys.stdin)
tokenizer = ElectraTokenizer(vocab)
generator = np.random.default_rng(0)


def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def slab():
    # Words of 3 to 14 letters with a space after each.
    letters = generator.integers(ord("a"), ord("z") + 1, SLAB, dtype=np.uint8)
    spaces = np.cumsum(generator.integers(3, 15, SLAB // 4) + 1) - 1
    letters[spaces[spaces < SLAB]] = ord(" ")
    text = letters.tobytes().decode("ascii")
    return [text[i : i + TEXT] for i in range(0, SLAB, TEXT)]


sizes, n_tokens = [], 0
for number in range(1, amount // SLAB + 1):
    ids, row_offsets = tokenizer.encode_bulk(slab(), num_threads=2)
    n_tokens += len(ids)
    del ids, row_offsets
    if number in (amount // SLAB // 10, amount // SLAB):
        sizes.append(resident())
print(json.dumps([*sizes, n_tokens]))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_memory_does_not_grow_with_the_text():
    given = json.dumps([AMOUNT, small_vocab()])
    process = subprocess.run([sys.executable, "-c", CODE], input=given, capture_output=True, text=True, timeout=1700)
    assert process.returncode == 0, process.stderr
    early, late, n_tokens = json.loads(process.stdout)
    assert n_tokens > AMOUNT / 10  # it did encode them
    assert abs(late - early) < MOST_GROWTH, f"{early:,} bytes after a tenth of the text, {late:,} after all"
