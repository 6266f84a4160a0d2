"""One tokenizer in many threads at once, and in processes of every origin: the ids it gives alone, and nobody hangs."""

import copy
import multiprocessing
import os
import pickle
import random
import signal
import threading
import time
from itertools import chain, pairwise

import pytest
import torch
from oracle import build_oracle
from vocabularies import SENTENCES, wide_vocab

from electra_fast.tokenizer import ElectraTokenizer

TIMEOUT = 60  # seconds for work that takes less than one
N_THREADS = 8
# Python 3.12 and `tokenizers` warn of what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def texts_of(seed, count=60):
    """Texts of one seed's own: words in another order, and words that are in no other texts."""
    chance = random.Random(seed)
    words = " ".join(SENTENCES).split() + ["東京都", "e\u0301\u0316te", "हिन्दी", "[MASK]", "\u3000"]
    words += [f"word{seed}x", f"é{seed}"]
    return [" ".join(chance.choices(words, k=chance.randint(0, 60))) for _ in range(count)]


def results_of(tokenizer, texts):
    """By every way to encode: rows of ids, and where offsets are asked for, (ids, offsets, words)."""
    results = []
    for num_threads in (1, 2, None):
        ids, row_offsets = tokenizer.encode_bulk(texts, num_threads=num_threads)
        results.append([ids[start:end].tolist() for start, end in pairwise(row_offsets)])
    results.append(tokenizer(texts)["input_ids"])
    batch = tokenizer(texts, return_offsets_mapping=True)
    results.append([batch["input_ids"], batch["offset_mapping"], [batch.word_ids(row) for row in range(len(texts))]])
    padded = tokenizer(texts, padding=True, truncation=True, max_length=12, return_tensors="np")
    results.append(padded["input_ids"].tolist())
    return results


def expected_of(oracle, texts):
    encodings = oracle.encode_batch(texts)
    rows = [encoding.ids for encoding in encodings]
    oracle.enable_truncation(12)
    cut = [encoding.ids for encoding in oracle.encode_batch(texts)]
    oracle.no_truncation()
    width = max(map(len, cut))
    fields = [rows, [encoding.offsets for encoding in encodings], [encoding.word_ids for encoding in encodings]]
    return [*[rows] * 4, fields, [row + [0] * (width - len(row)) for row in cut]]


@pytest.fixture(scope="module")
def expected():
    oracle = build_oracle(wide_vocab())
    return [expected_of(oracle, texts_of(seed)) for seed in range(N_THREADS)]


@pytest.fixture
def tokenizer():
    """A new one: that its first use is in a test is part of the test."""
    return ElectraTokenizer(wide_vocab())


def join_all(threads):
    deadline = time.monotonic() + TIMEOUT
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "threads hang"


def use_in_threads(tokenizer, expected, rounds):
    """All threads begin at once, so that what is made on first use is asked for by all of them."""
    begin, failures = threading.Barrier(N_THREADS), []

    def work(seed):
        try:
            begin.wait(TIMEOUT)
            for _ in range(rounds):
                if results_of(tokenizer, texts_of(seed)) != expected[seed]:
                    raise AssertionError(f"thread {seed} got other ids")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(N_THREADS)]
    for thread in threads:
        thread.start()
    join_all(threads)
    assert not failures, failures


def test_threads(tokenizer, expected):
    use_in_threads(tokenizer, expected, rounds=12)


def test_threads_while_tokens_are_added(tokenizer):
    """Every call sees the tokenizer before or after an addition, never between."""
    begin, wrong, done = threading.Barrier(4), [], threading.Event()
    text = "fox New York fox"
    before = tokenizer(text)["input_ids"]

    def work():
        begin.wait(TIMEOUT)
        while not done.is_set():
            results = [tokenizer.encode_bulk([text], num_threads=2)[0].tolist(), tokenizer(text)["input_ids"]]
            wrong.extend(ids for ids in results if ids not in (before, after))

    # The id that the token will have is known before it has it.
    other = copy.deepcopy(tokenizer)
    other.add_tokens([*(f"<{n}>" for n in range(50)), "New York"])
    after = other(text)["input_ids"]
    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    begin.wait(TIMEOUT)
    for n in range(50):
        tokenizer.add_tokens([f"<{n}>"])
    tokenizer.add_tokens(["New York"])
    assert tokenizer(text)["input_ids"] == after != before
    done.set()
    join_all(threads)
    assert not wrong, wrong[:3]


# Processes


def exit_code_of(child):
    """Waits for a forked child."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def test_fork_after_threads(tokenizer, expected):
    use_in_threads(tokenizer, expected, rounds=1)
    for seed in range(4):
        child = os.fork()
        if child == 0:  # which must not run pytest's code, whatever happens
            code = 1
            try:
                code = 0 if results_of(tokenizer, texts_of(seed)) == expected[seed] else 2
            finally:
                os._exit(code)
        assert exit_code_of(child) == 0
    assert results_of(tokenizer, texts_of(0)) == expected[0]


def send_results(connection, tokenizer, seed):
    connection.send(results_of(tokenizer, texts_of(seed)))
    connection.close()


def results_in_process(method, tokenizer, seed):
    context = multiprocessing.get_context(method)
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=send_results, args=(sending, tokenizer, seed), daemon=True)
    process.start()
    sending.close()  # so that a child that dies is an end of file, and not a silence
    try:
        assert receiving.poll(TIMEOUT), "the child hangs"
        return receiving.recv()
    finally:
        process.kill()
        process.join(TIMEOUT)


def test_fork_in_the_middle_of_work(tokenizer, expected):
    """A child begins while threads of its parent encode: locks that they hold nobody will ever release in it."""
    done, failures = threading.Event(), []

    def work(seed):
        texts, row_ids = texts_of(seed) * 20, [*chain.from_iterable(expected[seed][0])] * 20
        while not done.is_set():
            ids, _ = tokenizer.encode_bulk(texts, num_threads=2)
            if ids.tolist() != row_ids:
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(2)]
    for thread in threads:
        thread.start()
    try:
        for fork in range(12):
            assert results_in_process("fork", tokenizer, fork % N_THREADS) == expected[fork % N_THREADS]
    finally:
        done.set()
        join_all(threads)
    assert not failures


def test_a_process_of_its_own(tokenizer, expected):
    assert results_of(tokenizer, texts_of(0)) == expected[0]
    assert results_in_process("spawn", tokenizer, 1) == expected[1]


class Rows(torch.utils.data.Dataset):
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __len__(self):
        return N_THREADS

    def __getitem__(self, seed):
        return results_of(self.tokenizer, texts_of(seed))


def only(rows):
    return rows[0]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader(tokenizer, expected, method):
    use_in_threads(tokenizer, expected, rounds=1)
    loader = torch.utils.data.DataLoader(
        Rows(tokenizer), collate_fn=only, num_workers=2, timeout=TIMEOUT, multiprocessing_context=method
    )
    assert list(loader) == expected


def pickled(tokenizer):
    return pickle.loads(pickle.dumps(tokenizer))


@pytest.mark.parametrize("duplicate", [pickled, copy.deepcopy, copy.copy])
def test_copies(tokenizer, expected, duplicate):
    for used in (False, True):
        if used:
            results_of(tokenizer, texts_of(0))
        other = duplicate(tokenizer)
        use_in_threads(other, expected, rounds=1)
        assert results_of(tokenizer, texts_of(0)) == expected[0]
    if duplicate is not copy.copy:  # whose backend is the same
        other.add_tokens(["quick"])
        assert results_of(tokenizer, texts_of(0)) == expected[0] != results_of(other, texts_of(0))


def test_spans_that_several_threads_ask_for_first():
    tokenizer, texts = ElectraTokenizer(wide_vocab()), texts_of(3)
    expected = tokenizer(texts, return_offsets_mapping=True)["offset_mapping"]
    batch, start, results = tokenizer(texts), threading.Barrier(N_THREADS), []
    texts.clear()  # the batch keeps what it needs

    def ask():
        start.wait()
        results.append([encoding.offsets for encoding in batch.encodings])

    threads = [threading.Thread(target=ask) for _ in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert results == [expected] * N_THREADS
