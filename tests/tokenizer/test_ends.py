"""Calls that end before their work is done: Ctrl-C, no memory, a file that is truncated. Each raises; none kills."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from vocabularies import SENTENCES, small_vocab

from electra_fast.tokenizer import ElectraTokenizer, native

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and RLIMIT_AS")

BEGIN = f"""
import os, resource, signal, sys, threading, time
sys.path.insert(0, {os.path.dirname(__file__)!r})
from vocabularies import SENTENCES, small_vocab
from electra_fast.tokenizer import ElectraTokenizer
tokenizer = ElectraTokenizer(small_vocab())
tokenizer.encode_bulk(["a"])
text = " ".join(SENTENCES) + " "
"""


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", BEGIN + code, *arguments], capture_output=True, text=True, timeout=300)


# What is encoded, made before the signal is set off, and the call.
CALLS = {
    "texts": ("[text * 10] * 500_000", "tokenizer.encode_bulk(made, num_threads={threads})"),
    "short texts": ("[text[:9]] * 30_000_000", "tokenizer.encode_bulk(made, num_threads={threads})"),
    "one text": ("[text * 2_000_000]", "tokenizer.encode_bulk(made, num_threads={threads})"),
    "one text that is not cut": (
        "[text * 2_000_000]",
        "tokenizer.encode_bulk(made, num_threads={threads}, spans=True)",
    ),
    "one word": ("['acgt' * 25_000_000]", "tokenizer.encode_bulk(made, num_threads={threads})"),
    "rows": ("[text * 10] * 500_000", "tokenizer(made)"),
    "file": ("[path] * 100", "tokenizer.encode_files(made, num_threads={threads})"),
}
INTERRUPTED = """
path, begun = sys.argv[1], None
made = MADE

def interrupt():
    global begun
    time.sleep(0.6)
    begun = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
try:
    CALL
except KeyboardInterrupt:
    print(time.monotonic() - begun)
# What was interrupted leaves nothing behind that another call would trip over.
one, two = (tokenizer.encode_bulk([text] * 1000, num_threads=threads)[0].tolist() for threads in (1, 2))
assert one == two
"""


@pytest.fixture(scope="module")
def large_file(tmp_path_factory):
    """A file of 33 MB."""
    path = tmp_path_factory.mktemp("large") / "a.txt"
    path.write_text("\n".join(SENTENCES) * 100_000, encoding="utf-8")
    return path


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_is_noticed_within_the_call(large_file, name, threads):
    made, call = CALLS[name]
    done = run(INTERRUPTED.replace("MADE", made).replace("CALL", call.format(threads=threads)), str(large_file))
    assert done.returncode == 0, done.stderr
    assert done.stdout, "the call had ended before, or did not notice"
    assert float(done.stdout) < 5  # 0.2 on a machine that is not busy


WITHOUT_MEMORY = """
texts = [text * 100] * 1000
whole = text * 100_000
path, spare, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + spare, resource.RLIM_INFINITY))
failed = 0
for call in (
    lambda: tokenizer.encode_bulk(texts, num_threads=threads),
    lambda: tokenizer.encode_bulk(texts, num_threads=threads, spans=True, word_starts=True),
    lambda: tokenizer.encode_bulk([whole], num_threads=threads),
    lambda: tokenizer.encode_files(path, num_threads=threads),
    lambda: tokenizer(texts),
):
    try:
        call()
    except MemoryError:
        failed += 1
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert len(tokenizer.encode_bulk(texts[:100], num_threads=threads)[0]) > 0
print(failed)
"""


@linux
@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("spare", [0, 1, 5, 10, 20, 40, 60])
def test_exhausted_memory_is_an_error_in_any_thread(large_file, spare, threads):
    """Whatever is left, in MB: results, threads' caches, threads' stacks, a text's own buffers run out by turns."""
    done = run(WITHOUT_MEMORY, str(large_file), str(spare << 20), str(threads))
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert int(done.stdout) > 0


def test_a_file_that_is_truncated_meanwhile_is_named(tmp_path, monkeypatch):
    tokenizer = ElectraTokenizer(small_vocab())
    path = tmp_path / "a.txt"
    path.write_bytes(b"the dog\n" * 1000)
    empty = np.empty

    def truncated(*arguments):
        os.truncate(path, 5000)
        return empty(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(native.np, "empty", truncated)
        with pytest.raises(ValueError, match=r"a\.txt must not change .*: it had 8,000 bytes, and ended after 5,000"):
            tokenizer.encode_files(path)
    assert len(tokenizer.encode_files(path)[1]) == 626


def test_a_file_is_truncated_while_it_is_encoded(tmp_path):
    """Mapped memory beyond a file's end kills the process that touches it."""
    path = tmp_path / "a.txt"
    path.write_text("\n".join(SENTENCES) * 200_000, encoding="utf-8")
    code = """
threading.Timer(0.3, os.truncate, (sys.argv[1], 1000)).start()
try:
    print(len(tokenizer.encode_files(sys.argv[1], num_threads=2)[0]))
except ValueError as error:
    print(error)
"""
    done = run(code, str(path))
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout


def test_pipes_are_read_to_their_end(tmp_path):
    tokenizer = ElectraTokenizer(small_vocab())
    os.mkfifo(tmp_path / "pipe")
    content = "\n".join(SENTENCES * 5000).encode()
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,), daemon=True)
    writer.start()
    ids, _ = tokenizer.encode_files(tmp_path / "pipe")
    writer.join()
    assert np.array_equal(ids, tokenizer.encode_bulk(SENTENCES * 5000)[0])
