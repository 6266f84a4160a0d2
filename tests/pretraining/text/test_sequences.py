"""Windows of documents to sequences: dense, and as the original builds its examples."""

import random
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import documents

from electra_fast.pretraining.text.sequences import DensePacking, GooglePacking, LinesPacking, make_packing
from electra_fast.pretraining.text.vocab import train_vocab
from electra_fast.pretraining.text.windows import TokenWindow, token_windows, vocabulary_fingerprint, word_start_table
from electra_fast.tokenizer import ElectraTokenizer

CLS, SEP, PAD = 1, 2, 0
LENGTHS = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=8), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def tokenizer():
    return ElectraTokenizer(vocab={token: i for i, token in enumerate(train_vocab(documents(), 200))})


def window_of(lengths, dtype=np.int32):
    """Documents of lines of so many tokens, all tokens different."""
    lines = np.cumsum([0, *(n for document in lengths for n in document)])
    ids = np.arange(10, 10 + lines[-1], dtype=dtype)
    return TokenWindow(ids, lines.astype(np.int64), np.cumsum([0, *map(len, lengths)]).astype(np.int64))


def lines_of(window):
    """[[[ids of a line] of a document]]."""
    lines = [window.ids[a:b].tolist() for a, b in pairwise(window.line_offsets)]
    return [lines[a:b] for a, b in pairwise(window.document_offsets)]


# Dense


@given(LENGTHS, st.integers(5, 20), st.sampled_from([np.int32, np.uint16, np.uint32]))
def test_dense_sequences_are_the_text_in_order_without_a_generator(lengths, size, dtype):
    window = window_of(lengths, dtype)
    plan = DensePacking(size, CLS, SEP).plan(window, None)
    rows = plan.build().input_ids
    assert rows.shape == (plan.n_sequences, size) and rows.dtype == np.int32
    assert (rows[:, 0] == CLS).all() and (rows[:, -1] == SEP).all()
    text = [token for document in lines_of(window) for token in [*chain(*document), SEP]]
    assert len(text) - (size - 2) < rows[:, 1:-1].size <= len(text)
    assert rows[:, 1:-1].flatten().tolist() == text[: plan.n_sequences * (size - 2)]


@given(LENGTHS, st.integers(5, 20), st.integers(0, 9))
def test_dense_sequences_hold_whole_documents_in_another_order(lengths, size, seed):
    window = window_of(lengths)
    plan = DensePacking(size, CLS, SEP).plan(window, np.random.default_rng(seed))
    rows = plan.build().input_ids
    assert len(rows) == plan.n_sequences
    again = DensePacking(size, CLS, SEP).plan(window, np.random.default_rng(seed)).build().input_ids
    assert np.array_equal(rows, again)
    # No token twice, and each one's neighbour is what follows it in its document, or [SEP] after its last one.
    tokens = rows[rows >= 10]
    assert len(set(tokens.tolist())) == len(tokens)
    after = {}
    for document in lines_of(window):
        after.update(pairwise([*chain(*document), SEP]))
    for row in rows[:, 1:-1].tolist():
        assert all(after[a] == b for a, b in pairwise(row) if a != SEP)


def test_another_generator_gives_another_order():
    window = window_of([[5, 5]] * 50)
    one, two = (
        DensePacking(12, CLS, SEP).plan(window, np.random.default_rng(seed)).build().input_ids for seed in (0, 1)
    )
    assert one.shape == two.shape and not np.array_equal(one, two)


# Lines


@given(LENGTHS, st.integers(5, 20), st.integers(0, 9), st.sampled_from([np.int32, np.uint16, np.uint32]))
def test_each_line_is_one_sequence_or_several_of_about_one_length(lengths, size, seed, dtype):
    window = window_of(lengths, dtype)
    plan = LinesPacking(size, CLS, SEP, PAD).plan(window, np.random.default_rng(seed))
    examples = plan.build()
    assert examples.input_ids.shape == (plan.n_sequences, size) and examples.input_ids.dtype == np.int32
    texts = []
    for row, length in zip(examples.input_ids.tolist(), examples.lengths.tolist(), strict=True):
        assert row[0] == CLS and row[length - 1] == SEP and row[length:] == [PAD] * (size - length)
        texts.append(row[1 : length - 1])
    assert np.array_equal(examples.first_lengths, examples.lengths)
    # All tokens differ, so the parts of a line are found by their order.
    texts.sort()
    for line in chain(*lines_of(window)):
        n_parts = -(-len(line) // (size - 2))
        parts, texts = texts[:n_parts], texts[n_parts:]
        assert [*chain(*parts)] == line
        assert not parts or max(map(len, parts)) - min(map(len, parts)) <= 1
    assert not texts


def test_lines_come_in_another_order_with_another_generator():
    window, packing = window_of([[5, 5]] * 50), LinesPacking(12, CLS, SEP, PAD)
    one, same, two = (packing.plan(window, np.random.default_rng(seed)).build().input_ids for seed in (0, 0, 1))
    assert np.array_equal(one, same) and one.shape == two.shape and not np.array_equal(one, two)


# Google's


def google_examples(documents, size, chance):
    """What build_pretraining_dataset.py does, a line at a time, for documents in this order."""
    examples, pending, target = [], [], size
    for document in documents:
        for i, line in enumerate(document):
            pending.append(line)
            total = sum(map(len, pending))
            if total < target and not (i == len(document) - 1 and total):
                continue
            half = 100_000 if chance.random() < 0.1 else (target - 3) // 2
            a, b = [], []
            for sentence in pending:
                if not a or len(a) + len(sentence) < half or (not b and len(a) < half and chance.random() < 0.5):
                    a = a + sentence
                else:
                    b = b + sentence
            a = a[: size - 2]
            b = b[: max(0, size - len(a) - 3)]
            ids, types = [CLS, *a, SEP], [0] * (len(a) + 2)
            if b:
                ids, types = [*ids, *b, SEP], types + [1] * (len(b) + 1)
            examples.append((ids, types))
            pending, target = [], chance.randint(5, size) if chance.random() < 0.05 else size
    return examples


@settings(deadline=None)
@given(LENGTHS, st.integers(5, 40), st.integers(0, 1000))
def test_examples_are_the_originals(lengths, size, seed):
    window = window_of(lengths)
    plan = GooglePacking(size, CLS, SEP, PAD).plan(window, np.random.default_rng(seed))
    examples = plan.build()
    draws = np.random.default_rng(seed)
    texts = lines_of(window)
    texts = [texts[i] for i in draws.permutation(len(texts))]
    expected = google_examples(texts, size, random.Random(int(draws.integers(2**62))))
    assert plan.n_sequences == len(expected) == len(examples.input_ids)
    for row, i in enumerate(draws.permutation(len(expected))):
        ids, types = expected[i]
        assert examples.input_ids[row].tolist() == ids + [PAD] * (size - len(ids))
        assert (examples.lengths[row], examples.first_lengths[row]) == (len(ids), types.count(0))


def test_shares_of_single_segments_and_short_examples():
    packing = GooglePacking(128, CLS, SEP, PAD)
    examples = packing.plan(window_of([[4] * 40] * 3000), np.random.default_rng(0)).build()
    # Documents of 160 tokens: an example of 128, and one of the 32 tokens that are left, or shorter ones.
    is_full = examples.lengths == 128
    assert 0.08 < (examples.lengths == examples.first_lengths)[is_full].mean() < 0.12
    assert 0.02 < (~np.isin(examples.lengths, (128, 34, 35))).mean() < 0.1


# Windows


def test_the_tokens_of_a_document_are_those_of_its_lines(tokenizer):
    texts = [document.replace(". ", ".\n") for document in documents()]
    (window,) = token_windows(texts, tokenizer, 10**9, 1)
    ids, offsets = tokenizer.encode_bulk(texts, add_special_tokens=False)
    assert np.array_equal(window.ids, ids)
    assert np.array_equal(window.line_offsets[window.document_offsets], offsets)
    assert (window.n_tokens, window.n_documents) == (len(ids), len(texts))


@settings(deadline=None)
@given(st.integers(1, 5000))
def test_windows_are_as_large_as_asked(tokenizer, chars):
    texts = documents(20)
    windows = list(token_windows(texts, tokenizer, chars, 1))
    assert sum(window.n_documents for window in windows) == 20
    first = 0
    for window in windows:
        sizes = [len(text) for text in texts[first : first + window.n_documents]]
        assert sum(sizes[:-1]) < chars and (sum(sizes) >= chars or window is windows[-1])
        first += window.n_documents


@settings(deadline=None)
@given(st.text(max_size=60))
def test_word_starts_follow_from_ids(tokenizer, text):
    text = "".join(char for char in text if not "\ud800" <= char <= "\udfff") + " returning, modules #functions [MASK]a"
    ids, _, starts = tokenizer.encode_bulk([text], word_starts=True)
    assert np.array_equal(word_start_table(tokenizer)[ids], starts)
    assert not starts.all()


def test_the_vocabulary_fingerprint_tells_tokenizers_apart(tokenizer):
    vocab = tokenizer.get_vocab()
    other = {**vocab, "zzz": len(vocab)}
    tokenizers = [
        tokenizer,
        ElectraTokenizer(vocab=other),
        ElectraTokenizer(vocab=vocab, do_lower_case=False),
        ElectraTokenizer(vocab=vocab, max_input_chars_per_word=200),
    ]
    assert len({vocabulary_fingerprint(one) for one in tokenizers}) == 4
    assert vocabulary_fingerprint(ElectraTokenizer(vocab=vocab)) == vocabulary_fingerprint(tokenizer)


def test_wrong_packings_are_named(tokenizer):
    with pytest.raises(ValueError, match="packing must be 'dense', 'lines' or 'google', got 'loose'"):
        make_packing("loose", tokenizer, 64)
    with pytest.raises(ValueError, match="seq_length must be at least 5, got 4"):
        make_packing("dense", tokenizer, 4)
