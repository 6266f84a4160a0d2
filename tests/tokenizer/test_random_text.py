"""Random text of all kinds, cut where blocks, caches and WordPiece have their limits: the same results as from
`tokenizers`, however the texts are passed."""

import random
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from oracle import RULES, assert_same, assert_same_in_bulk, build_both, cached_both
from vocabularies import RANGES, small_vocab, wide_vocab

SPACES = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2028\u2029\u202f\u205f\u3000\u180e\u200b\ufeff"
CONTROLS = "\x00\x01\x08\x1b\x7f\x80\x9f\xad\u200c\u200d\u2060\ufffd\ufff9\ue000\U000e0001\U0010ffff"
EMOJI = ["👩\u200d👩\u200d👧\u200d👦", "🏳\ufe0f\u200d🌈", "👍🏽", "🇩🇪", "1\ufe0f\u20e3", "😀", "❤\ufe0f"]
WORDS = ["the", "dog", "Fox", "FOX", "fox", "fOX", "unbelievable", "İstanbul", "ÉTÉ", "été", "e\u0301te\u0301", "ΟΔΟΣ"]

letters = st.sampled_from(sorted({chr(c) for first, last in RANGES.values() for c in range(first, last)}))
marks = st.text(st.characters(categories=["Mn", "Mc", "Me"]), min_size=1, max_size=4)
# Of one letter, so that 15 and 16 bytes are met with letters of 1, 2, 3 and 4 bytes, and 100 and 101 characters.
lengths = st.sampled_from([3, 4, 5, 7, 8, 14, 15, 16, 17, 50, 51, 99, 100, 101])
repeated = st.builds(str.__mul__, st.sampled_from("aéЖकあ中한𐐀😀\u0301İ"), lengths)
fragments = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(WORDS).map(str.upper),
    st.text(letters, min_size=1, max_size=20),
    st.text(st.sampled_from("abcdefxXYZ"), min_size=12, max_size=18),
    st.tuples(letters, marks).map("".join),
    repeated,
    st.text(st.sampled_from(SPACES), min_size=1, max_size=5),
    st.just(" "),
    st.sampled_from(CONTROLS),
    st.sampled_from(EMOJI),
    st.sampled_from(["[MASK]", "[SEP]", "[mask]", "[UNK]", "[PAD]x", "##", "##ing", "don't", "$5.00", "a@b.org", "-"]),
    st.characters(exclude_categories=["Cs"]),
)
texts = st.lists(fragments, max_size=25).map("".join)
RELAXED = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("rules", RULES)
@settings(max_examples=250, **RELAXED)
@given(batch=st.lists(texts, min_size=1, max_size=6), add_special_tokens=st.booleans())
@example(batch=["", " ", "\x00", "\u0301", "\u0301a", " \u0301", "\u302e\u0301 \u0334\u302e"], add_special_tokens=True)
def test_any_text(rules, batch, add_special_tokens):
    assert_same(cached_both(wide_vocab, rules), batch, add_special_tokens=add_special_tokens)


@pytest.mark.parametrize("rules", ["uncased", "cased"])
@settings(max_examples=100, **RELAXED)
@given(first=st.lists(texts, min_size=1, max_size=4), second=st.lists(texts, min_size=4, max_size=4))
def test_any_pair(rules, first, second):
    assert_same(cached_both(wide_vocab, rules), first, second[: len(first)])


@pytest.mark.parametrize("rules", ["uncased", "keep accents"])
@settings(max_examples=100, **RELAXED)
@given(batch=st.lists(st.lists(texts, min_size=1, max_size=5), min_size=1, max_size=4))
@example(batch=[["", "a", " ", "b c", "\u0301", "[MASK]"], ["\x00"], [""]])
def test_any_words(rules, batch):
    assert_same(cached_both(wide_vocab, rules), batch, is_split_into_words=True)


@settings(max_examples=100, **RELAXED)
@given(st.lists(texts, min_size=1, max_size=8))
def test_alone_in_a_batch_and_in_bulk(batch):
    ours, oracle = cached_both(wide_vocab, "uncased")
    expected = [encoding.ids for encoding in oracle.encode_batch(batch)]
    assert [ours(text)["input_ids"] for text in batch] == expected
    assert [ours(text, return_offsets_mapping=True)["input_ids"] for text in batch] == expected
    assert ours(batch)["input_ids"] == expected
    assert ours(batch * 3, return_special_tokens_mask=True)["input_ids"] == expected * 3
    assert_same_in_bulk(ours, batch * 3, expected * 3)


FILLERS = {
    "one word": "x",
    "words": "the dog ",
    "two bytes": "éЖ",
    "three bytes": "हिन्दी あい ",
    "ideographs": "中文",
    "four bytes": "𐐀😀",
    "spaces": " ",
    "wide spaces": "\u3000\u2003",
    "marks": "e\u0301\u0316",
    "dropped": "\x00\ufffd",
    "mixed": "a é 中 𐐀 \u0301",
}


@pytest.mark.parametrize("filler", FILLERS)
def test_sizes_around_blocks(filler):
    """Texts of 0 to 140 bytes, and around larger powers of two, which begin at each character of the filler."""
    batch = [FILLERS[filler] * 20_000]
    for size in (*range(140), *(2**n + more for n in range(8, 12) for more in range(-2, 3))):
        for shift in range(len(FILLERS[filler])):
            text = FILLERS[filler] * (size // len(FILLERS[filler]) + 2)
            text = text[shift:].encode()[:size].decode(errors="ignore")
            batch += [text, text[: len(text) // 2] + "[MASK]" + text[len(text) // 2 :] + "!"]
    assert_same(cached_both(wide_vocab, "uncased"), batch)


@pytest.mark.parametrize("rules", RULES)
def test_longest_words(rules):
    """100 characters, counted after normalization, are a word; 101 are unknown."""
    both = cached_both(wide_vocab, rules)
    sizes = (49, 50, 51, 99, 100, 101, 102, 200, 201, 1000)
    parts = ("x", "é", "e\u0301", "İ", "ß", "ж", "𐐀", "한", "中", "क", "x\u302e", "a\u00ad", "#")
    batch = [part * size for part in parts for size in sizes]
    batch += ["x" * size + end for size in sizes for end in ("é", "中", ".", "\u0301", "\x00", "\u3000y", "\ue000")]
    assert_same(both, batch + [" ".join(batch), " a ".join(batch)])


def test_repeated_text_and_capitalisations():
    """What a cache holds from one text, or from one call, gives the same in the next."""
    both = build_both(wide_vocab())
    chance = random.Random(0)
    words = ["fox", "été", "東京都", "हिन्दी", "e\u0301\u0316te", "fifteen15letter", "sixteen16letters", "İz"]
    variants = [change(word) for word in words for change in (str, str.upper, str.title, str.swapcase)]
    variants += [f"{word}{end}" for word in variants for end in ("", ",", "\u0301", "\x00", "s")]
    for _ in range(3):
        assert_same(both, [" ".join(chance.choices(variants, k=40)) for _ in range(200)])
    cased = build_both(wide_vocab(), do_lower_case=False)
    assert_same(cased, [" ".join(chance.choices(variants, k=40)) for _ in range(200)])


def test_more_words_than_a_cache_holds():
    """Several tokens a word and more words than a few MB hold; then the same in another order."""
    both = build_both(small_vocab())
    generator = np.random.default_rng(0)
    letters = generator.integers(ord("a"), ord("z") + 1, (400_000, 9), dtype=np.uint8)
    words = letters.view("S9")[:, 0].astype("U9")
    words = [word[:size] for word, size in zip(words, generator.integers(2, 10, len(words)), strict=True)]
    batch = [" ".join(words[i : i + 200]) for i in range(0, len(words), 200)]
    assert_same(both, batch + batch[::-7])
    assert_same_in_bulk(both[0], batch[:100], [encoding.ids for encoding in both[1].encode_batch(batch[:100])])


# Halves of surrogate pairs are no characters: `tokenizers` refuses them, and so must every way in.

HALVES = ["\ud800", "a\udbffb", "\udc00", "é\udfff", "\udc00\ud800", "x" * 100 + "\ud812", "中\U00010000\udd00"]
WAYS = {
    "text": lambda ours, text: ours(text),
    "text[1]": lambda ours, text: ours(["fine", text]),
    "text_pair": lambda ours, text: ours("fine", text),
    "text_pair[1]": lambda ours, text: ours(["fine", "fine"], ["fine", text]),
    "text[0][1]": lambda ours, text: ours([["fine", text]], is_split_into_words=True),
}


@pytest.mark.parametrize("options", [{}, {"return_offsets_mapping": True}, {"truncation": True, "max_length": 8}])
@pytest.mark.parametrize("way", WAYS)
def test_surrogates_are_refused_by_name(way, options):
    ours, oracle = cached_both(wide_vocab, "uncased")
    for half in HALVES:
        with pytest.raises((ValueError, TypeError)):
            oracle.encode_batch(["fine", half])
        with pytest.raises((ValueError, TypeError)) as error:
            WAYS[way](partial(ours, **options), half)
        message = str(error.value)
        assert way in message and any(f"{ord(c):x}" in message.lower() for c in half if 0xD800 <= ord(c) < 0xE000)
    assert ours("the dog")["input_ids"] == oracle.encode("the dog").ids


def test_surrogates_are_refused_in_bulk():
    ours, oracle = cached_both(wide_vocab, "uncased")
    for half in HALVES:
        for batch in ([half], ["fine"] * 500 + [half] + ["fine"] * 500):
            message = rf"texts?\[{batch.index(half)}\].*(?i:d[89a-f][0-9a-f]{{2}})"
            with pytest.raises((ValueError, TypeError), match=message):
                ours.encode_bulk(batch)
    assert ours.encode_bulk(["the dog"])[0].tolist() == oracle.encode("the dog").ids
