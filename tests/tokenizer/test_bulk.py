"""encode_bulk and encode_files give the ids of `tokenizers`, however texts arrive and however many threads work."""

from itertools import pairwise

import numpy as np
import pytest
from electra_fast._tokenizer import INSTRUCTION_SETS, Encoder, Rules
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers
from vocabularies import SENTENCES, small_vocab

from electra_fast.tokenizer import ElectraTokenizer

ASCII = st.text(st.characters(max_codepoint=127), max_size=80)
# Pieces of the vocabulary side by side, with what is special to the rules in between.
MIXED = st.lists(
    st.sampled_from([*small_vocab(), "[MASK]", "[mask]", "\x00", "\x0b", "\x7f", " ", "\n", "#", "##", "é", "x" * 99]),
    max_size=30,
).map("".join)


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def tokenizer(request):
    return ElectraTokenizer(small_vocab(request.param), do_lower_case=request.param)


def rows_of(bulk):
    ids, offsets = bulk
    assert ids.dtype == np.int32 and offsets.dtype == np.int64 and offsets[0] == 0 and offsets[-1] == len(ids)
    return [ids[start:end].tolist() for start, end in pairwise(offsets)]


def expected_rows(tokenizer, texts, add_special_tokens=True):
    encodings = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)
    return [encoding.ids for encoding in encodings]


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(ASCII | MIXED, max_size=6), add_special_tokens=st.booleans())
@example(texts=["x" * 100, "x" * 101, "[MASK]", "a[SEP]b", "ab\x00cd", "a\x1fb\x0cc\rd", ""], add_special_tokens=True)
def test_same_as_backend(tokenizer, texts, add_special_tokens):
    rows = rows_of(tokenizer.encode_bulk(texts, add_special_tokens))
    assert rows == expected_rows(tokenizer, texts, add_special_tokens)


def test_long_words_are_the_same_when_they_come_again(tokenizer):
    """Lengths in bytes around those of the caches, with words that differ in their middle and last bytes only."""
    words = [
        c * n + tail
        for c in ("x", "é", "б", "韓", "한")
        for n in (1, 4, 5, 7, 8, 14, 15, 16, 21, 31, 32, 63, 64, 65)
        for tail in ("a", "b", "", ",")
    ]
    texts = [" ".join(words), " ".join(reversed(words))]
    expected = tokenizer.backend_tokenizer.encode_batch(texts)
    for _ in range(3):
        ids, offsets, spans = tokenizer.encode_bulk(texts, num_threads=1, spans=True)
        assert rows_of((ids, offsets)) == rows_of(tokenizer.encode_bulk(texts, num_threads=1))
        for row, (start, end) in zip(expected, pairwise(offsets), strict=True):
            assert ids[start:end].tolist() == row.ids and list(map(tuple, spans[start:end].tolist())) == row.offsets
        for row, got in zip(expected, tokenizer(texts, return_offsets_mapping=True).encodings, strict=True):
            assert got.word_ids == row.word_ids


def test_every_pair_of_ascii_characters(tokenizer):
    texts = [f"the{chr(a)}dog{chr(b)}Fox" for a in range(128) for b in range(128)]
    assert rows_of(tokenizer.encode_bulk(texts)) == expected_rows(tokenizer, texts)


def test_changes_take_effect():
    tokenizer = ElectraTokenizer(small_vocab())
    texts = ["<new> the <NEW> dog", "The DOG", "quick<ent>fox <ent> "]
    backend = tokenizer.backend_tokenizer
    for change in (
        lambda: tokenizer.add_special_tokens({"extra_special_tokens": [AddedToken("<ent>", lstrip=True)]}),
        lambda: tokenizer.add_tokens(["<new>"]),
        lambda: setattr(backend, "normalizer", normalizers.BertNormalizer(lowercase=False)),
        lambda: backend.add_tokens(["DOG"]),
    ):
        before = rows_of(tokenizer.encode_bulk(texts))
        change()
        assert rows_of(tokenizer.encode_bulk(texts)) == expected_rows(tokenizer, texts) != before
        assert tokenizer(texts)["input_ids"] == expected_rows(tokenizer, texts)


def test_random_vocabularies():
    generator = np.random.default_rng(0)
    letters = np.array(list("abAB1.#"))
    for _ in range(20):
        pieces = {"".join(generator.choice(letters, generator.integers(1, 5))) for _ in range(60)}
        vocab = {t: i for i, t in enumerate(["[UNK]", "[CLS]", "[SEP]", *pieces, *(f"##{p}" for p in pieces)])}
        tokenizer = ElectraTokenizer(vocab, do_lower_case=bool(generator.integers(2)))
        texts = ["".join(generator.choice(letters, 40)) for _ in range(50)]
        assert rows_of(tokenizer.encode_bulk(texts)) == expected_rows(tokenizer, texts)


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_instruction_sets_agree(name):
    vocab = small_vocab()
    rules = Rules(clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True, final_sigma=False)
    encoder = Encoder(
        vocabulary=list(vocab.items()),
        continuing_prefix="##",
        unknown_id=vocab["[UNK]"],
        longest_word=100,
        rules=rules,
        raw_tokens=[],
        normalized_tokens=[],
        split_special=False,
        instruction_set=name,
    )
    generator = np.random.default_rng(0)
    # White space, and bytes that differ from it in one half, at every place of a block.
    letters = np.array(list("ab \t\n\r\x0b\x00\x01\x10\x19-)*=éĀ　\u0120\u2009東"))
    texts = ["".join(generator.choice(letters, length)) for length in range(200) for _ in range(5)]
    ids, offsets, *_ = encoder.encode_texts(texts, [], [], n_threads=1, word_starts=False, spans=False, first_index=0)
    assert rows_of((ids, offsets)) == expected_rows(ElectraTokenizer(vocab), texts, add_special_tokens=False)
    with pytest.raises(ValueError, match="no instruction set named 'mmx'"):
        Encoder(
            vocabulary=[("a", 0)],
            continuing_prefix="##",
            unknown_id=0,
            longest_word=9,
            rules=rules,
            raw_tokens=[],
            normalized_tokens=[],
            split_special=False,
            instruction_set="mmx",
        )


# Texts that are cut for the threads: ASCII, and in all widths that Python's strings have.
HUGE = [" ".join(SENTENCES) * 6000, "the dog " * 90000 + "é", "the dog\n" * 60000 + "東", "dog\t" * 90000 + "🐶"]


@pytest.mark.parametrize("text", HUGE, ids=["mixed", "latin-1", "ucs-2", "ucs-4"])
def test_huge_texts_are_cut_where_nothing_changes(tokenizer, text):
    expected = expected_rows(tokenizer, ["fox", text, "dog"])
    for num_threads in (1, 2, 5):
        assert rows_of(tokenizer.encode_bulk(["fox", text, "dog"], num_threads=num_threads)) == expected


def test_added_tokens_that_reach_across_space_keep_texts_whole():
    tokenizer = ElectraTokenizer(small_vocab())
    tokenizer.add_tokens([AddedToken("lazy dog", normalized=False), AddedToken("[X]", lstrip=True, normalized=False)])
    text = "a lazy dog, \n [X] lazy\ndog " * 30000
    assert rows_of(tokenizer.encode_bulk([text], num_threads=4)) == expected_rows(tokenizer, [text])


def test_iterators_and_threads_give_the_same(tokenizer, monkeypatch):
    monkeypatch.setattr("electra_fast.tokenizer.native._SLAB", 5000)
    texts = SENTENCES * 2000
    expected = expected_rows(tokenizer, texts)
    for num_threads in (1, 2, None):
        assert rows_of(tokenizer.encode_bulk(texts, num_threads=num_threads)) == expected
        assert rows_of(tokenizer.encode_bulk((text for text in texts), num_threads=num_threads)) == expected
    assert rows_of(tokenizer.encode_bulk(iter([]))) == rows_of(tokenizer.encode_bulk([])) == []


def test_spans(tokenizer):
    texts = SENTENCES * 3 + ["", "東京 naïve\u0301 🐶dog"]
    ids, offsets, spans = tokenizer.encode_bulk(texts, spans=True)
    assert np.array_equal(ids, tokenizer.encode_bulk(texts)[0]) and spans.dtype == np.int32
    encodings = tokenizer.backend_tokenizer.encode_batch(texts)
    assert spans.tolist() == [list(span) for encoding in encodings for span in encoding.offsets]
    *_, starts, again = tokenizer.encode_bulk(iter(texts), spans=True, word_starts=True, num_threads=2)
    assert starts.shape == ids.shape and np.array_equal(again, spans) and len(offsets) == len(texts) + 1


def test_word_starts_and_small_ids(tokenizer):
    texts = SENTENCES * 3 + ["", " "]
    ids, offsets, starts = tokenizer.encode_bulk(texts, word_starts=True)
    plain = tokenizer.encode_bulk(texts)
    assert np.array_equal(ids, plain[0]) and np.array_equal(offsets, plain[1]) and starts.dtype == bool
    encodings = tokenizer.backend_tokenizer.encode_batch(texts)
    words = [word for encoding in encodings for word in encoding.word_ids]
    assert starts.tolist() == [word is None or word != before for before, word in pairwise([None, *words])]
    small, _ = tokenizer.encode_bulk(texts, dtype=np.uint16)
    assert small.dtype == np.uint16 and np.array_equal(small, ids)


def test_files(tokenizer, tmp_path):
    paths = [tmp_path / "a.txt", tmp_path / "empty.txt", tmp_path / "b.txt"]
    contents = ["\n".join(SENTENCES) + "\n", "", "no new line at the end\n\n東京"]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content.encode("utf-8"))
    texts = [*SENTENCES, "no new line at the end", "", "東京"]
    assert rows_of(tokenizer.encode_files(paths)) == expected_rows(tokenizer, texts)
    assert rows_of(tokenizer.encode_files(paths[0], separator="dog", add_special_tokens=False)) == expected_rows(
        tokenizer, contents[0].split("dog"), add_special_tokens=False
    )
    ids, _, starts = tokenizer.encode_files(paths, word_starts=True, dtype=np.uint16, num_threads=2)
    assert ids.dtype == np.uint16 and len(starts) == len(ids)


ILL_FORMED = [
    b"\x80",
    b"\xc3",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
    b"\xf5abc",
    b"\xe0\x80\x80",
]


@pytest.mark.parametrize("content", ILL_FORMED, ids=lambda content: content.hex())
def test_files_that_are_not_utf8(tokenizer, tmp_path, content):
    path = tmp_path / "bad.txt"
    for before in ("", "dog ", "dog and fox é 東 🐶 "):
        path.write_bytes(before.encode() + content)
        with pytest.raises(ValueError, match=rf"bad\.txt must be UTF-8, but byte {len(before.encode())} "):
            tokenizer.encode_files(path)


def test_errors(tokenizer, tmp_path):
    for texts in (["a", None], (text for text in ["a", None])):
        with pytest.raises(TypeError, match=r"texts\[1\] must be a str, got None of type NoneType"):
            tokenizer.encode_bulk(texts)
    with pytest.raises(ValueError, match=r"texts\[1\] must be well-formed Unicode, .* U\+D83D, at character 3"):
        tokenizer.encode_bulk(["a", "dog\ud83d"])
    for texts in ("a text", b"bytes", 5):
        with pytest.raises(TypeError, match="texts must be a list of str or an iterable of them, got"):
            tokenizer.encode_bulk(texts)
    for options, message in (
        ({"num_threads": 0}, "num_threads must be an integer of at least 1 or None, got 0"),
        ({"dtype": np.int8}, "dtype must be int32, or uint16 for up to 65,536 tokens, got int8"),
    ):
        with pytest.raises(ValueError, match=message):
            tokenizer.encode_bulk(["a"], **options)
    many = ElectraTokenizer({token: index for index, token in enumerate(["[UNK]", *map(str, range(1 << 16))])})
    with pytest.raises(ValueError, match=r"got uint16 for 65,54\d"):
        many.encode_bulk(["a"], dtype=np.uint16)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        tokenizer.encode_files(tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match="paths and separator must not be empty"):
        tokenizer.encode_files([])
