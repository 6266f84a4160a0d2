"""Tools that all bulk inference shares: batches, ranges of tokens, chunks of the input, work that is done ahead."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_fast.inference import batching
from electra_fast.inference.batching import batches_by_length, chunks, one_ahead
from electra_fast.model.packing import ranges


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_batches_hold_every_item_once_and_are_as_full_as_they_may_be(lengths, batch_tokens):
    lengths = np.array(lengths, np.int64)
    batches = list(batches_by_length(lengths, batch_tokens))
    items = [int(item) for batch in batches for item in batch]
    assert sorted(items) == list(range(len(lengths)))
    assert (np.diff(lengths[items]) <= 0).all()
    for batch, following in itertools.pairwise([*batches, None]):
        n_tokens = lengths[batch].sum()
        assert n_tokens <= batch_tokens or len(batch) == 1
        assert following is None or n_tokens + lengths[following[0]] > batch_tokens


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9))))
def test_ranges(pairs):
    starts, lengths = (np.array([pair[i] for pair in pairs], np.int64) for i in range(2))
    assert ranges(starts, lengths).tolist() == [x for start, n in pairs for x in range(start, start + n)]


@given(st.lists(st.integers(0, 12), max_size=40))
def test_chunks_are_cut_at_a_number_of_items_or_of_characters(sizes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "CHUNK_ITEMS", 5)
        patch.setattr(batching, "CHUNK_CHARS", 20)
        found = list(chunks(sizes, int))
    assert [size for chunk in found for size in chunk] == sizes
    for chunk in found:
        assert len(chunk) <= 5 and sum(chunk[:-1]) < 20
    for chunk in found[:-1]:
        assert len(chunk) == 5 or sum(chunk) >= 20


def test_the_next_is_computed_while_one_is_used():
    begun = [threading.Event() for _ in range(4)]

    def work(i):
        begun[i].set()
        return threading.current_thread(), i

    for (thread, found), expected in zip(one_ahead(work, range(4)), itertools.count()):
        assert found == expected and thread is not threading.main_thread()
        assert expected == 3 or begun[expected + 1].wait(timeout=60)
        assert expected >= 2 or not begun[expected + 2].is_set()


def test_what_work_raises_is_raised_and_no_thread_remains():
    with pytest.raises(ZeroDivisionError):
        list(one_ahead(lambda x: 1 // x, [1, 0, 1]))
    one_ahead(str, iter(range(9))).close()
    assert not [thread.name for thread in threading.enumerate() if "ThreadPool" in thread.name]
