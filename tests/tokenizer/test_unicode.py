"""Every code point of Unicode, alone and among others, and marks in any order: what `tokenizers` gives."""

import random
import unicodedata
from itertools import pairwise

import pytest
from oracle import RULES, assert_same, build_both, cached_both
from vocabularies import SPACING_MARKS, SPECIAL, data_file, every_character_vocab, wide_vocab

CASES = {
    "alone": "{}",
    "between letters": "a{}b",
    "after an accent": "e\u0301{}",
    "twice": "{0}{0}",
}
PLANE = 0x10000
# What has names, and the borders of the planes above.
NAMED = [*range(2 * PLANE)]
for first in range(2 * PLANE, 17 * PLANE, PLANE):
    NAMED += [*range(first, first + 99), *range(first + PLANE - 99, first + PLANE)]
NAMED += range(0xE0000, 0xE0200)  # tags and variation selectors
NAMED += range(0x2F800, 0x2FA20)  # ideographs that decompose
LISTS = {"0 to 8000": NAMED[:0x8000], "8000 to 20000": NAMED[0x8000 : 2 * PLANE], "above": NAMED[2 * PLANE :]}


def texts_of(code_points, case, per_text=1, separator=" "):
    """Texts with so many characters each; the surrogate halves are none."""
    words = [CASES[case].format(chr(c)) for c in code_points if not 0xD800 <= c < 0xE000]
    return [separator.join(words[i : i + per_text]) for i in range(0, len(words), per_text)]


def assert_all_same(both, texts, **options):
    for first in range(0, len(texts), 50_000):
        assert_same(both, texts[first : first + 50_000], **options)


@pytest.mark.parametrize("code_points", LISTS)
@pytest.mark.parametrize("case", CASES)
def test_one_character_a_text(case, code_points):
    assert_all_same(cached_both(every_character_vocab, "uncased"), texts_of(LISTS[code_points], case))


@pytest.mark.parametrize("rules", [rules for rules in RULES if rules != "uncased"])
@pytest.mark.parametrize("case", CASES)
def test_other_rules(rules, case):
    assert_all_same(cached_both(every_character_vocab, rules), texts_of(NAMED, case, per_text=10))


@pytest.mark.parametrize("plane", range(2, 17))
def test_all_planes(plane):
    both = cached_both(every_character_vocab, "uncased")
    code_points = range(plane * PLANE, (plane + 1) * PLANE)
    for case, per_text in (("alone", 16), ("between letters", 50)):  # words of one character, and of three
        assert_all_same(both, texts_of(code_points, case, per_text))


def test_real_vocabulary():
    from electra_fast.tokenizer.files import read_vocab

    both = build_both(read_vocab(data_file("vocab.txt")))
    for case in ("alone", "between letters"):
        assert_all_same(both, texts_of(NAMED, case, per_text=25))


# Canonical ordering

MARKS = {}
for code_point in range(0x20000):
    MARKS.setdefault(unicodedata.combining(chr(code_point)), []).append(chr(code_point))
del MARKS[0]
BASES = [
    *("", "a", "Z", "e\u0301", "\u00e9", "\u1ea4", "\u01d5", "\u0130", "\u03a3", "\u00df", "\u212b", "\u3042"),
    *("\uac00", "\uac01", "\ud7a3", "\u1100\u1161", "\u1112\u1175\u11c2", "\u11a8", "\u1100", "\u4e2d", "\uf900"),
    *("\u09cb", "\u0bca", "\u0dde", "\u0ddd", "\u1025\u102e", "\u0d4a", "\u0cca\u0cd5", "\u0f73", "\u0f71\u0f72"),
    *("\u0344", "\u0374", "\u1fed", "\u2126", "\U0001d15e", "\U0001d1bb", "\U00011131\U00011127", "\U0001109a"),
    *(".", "#", "##", "-", "7", "\U0001f600", "\U0002f800"),
]
BETWEEN = ["\u00ad", "\u200d", "\u200c", "\ufffd", "\x00", "\x01", "\ufe0f", "\U000e0100", "\u034f", "\u2028", "\xa0"]
BETWEEN += [" ", "\t", "\u0b3e"]


def run_of_marks(chance):
    classes = chance.choices(list(MARKS), k=chance.choice((0, 1, 2, 3, 6)))
    marks = [chance.choice(MARKS[combining_class]) for combining_class in classes]
    marks += chance.choices(SPACING_MARKS, k=chance.choice((0, 0, 1, 2)))
    marks += chance.choices(BETWEEN, k=chance.choice((0, 0, 0, 1)))
    chance.shuffle(marks)
    return "".join(marks)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("make_vocab", [wide_vocab, every_character_vocab])
def test_marks_in_any_order(make_vocab, rules):
    chance = random.Random(f"{make_vocab.__name__} {rules}")
    parts = [chance.choice(BASES) + run_of_marks(chance) for _ in range(20_000)]
    texts = ["".join(parts[i : i + chance.randint(1, 4)]) for i in range(0, len(parts), 2)]
    texts += ["".join(run_of_marks(chance) for _ in range(40)) for _ in range(20)]
    assert_same(cached_both(make_vocab, rules), texts)


@pytest.mark.parametrize("rules", RULES)
def test_every_mark_beside_one_that_changes_places(rules):
    """Each mark before and behind marks of low and of high class, some of which stay when accents go."""
    both = cached_both(every_character_vocab, rules)
    marks = [mark for others in MARKS.values() for mark in others]
    for other in ("\u302e", "\u1b44", "\U0001d16d", "\u0345", "\u0334", "\u0f73"):
        for form in ("a{mark}{other}b", "{other}{mark}", "\u0bca{mark}{other}{mark}"):
            assert_same(both, [form.format(mark=mark, other=other) for mark in marks])


FINAL_SIGMAS = ["ΟΔΥΣΣΕΥΣ", "Σ", "ΑΣ Σ", "Σ.", "ΑΣ\u0301", "ΑΣ'Α", "Α\u00adΣ\u00ad", "σς", "\u0345Σ"]
CASE_CHANGES_LENGTH = ["\u0130STANBUL", "\u0130\u0307", "\u0130\u0130", "\u1e9e\u00df", "\u0149", "\u01f0", "\u023a"]
CASE_CHANGES_LENGTH += ["\ufb03", "\u0131", "\u212a", "\u212b", "\u01c5", "\u1f88"]
HANGUL = ["\ud55c\uad6d", "\u1112\u1161\u11ab\uad6d", "\uac01\u11a8", "\uac00\u302e\u11a8", "\u1100\uac00"]
HANGUL += ["\ud7b0\ud7cb", "\u3131\u314f", "\uffa1", "\ud55c\u0301\uad6d"]
INDIC = ["\u0995\u09cb", "\u0995\u09c7\u09be", "\u0b95\u0bca", "\u0d9a\u0dd9\u0dcf\u0dca", "\u0dc1\u0dca\u200d\u0dbb"]
INDIC += ["\u0915\u094d\u200c\u0937", "\u0958", "\u09dc", "\u0a33", "\u0b5d", "\u0ccb", "\u0d2c\u0d4b", "\u0f69"]
IGNORED = ["so\u00adft", "\u00ad", "a\u200db", "\u200d", "\ufeffword", "a\ufffdb", "\ufffd", "a\x00b", "\x00", "a\x7fb"]
IGNORED += ["\x9f", "1\ufe0f\u20e3", "\u2764\ufe0f", "\u845b\U000e0100", "a\u2060b", "a\u180eb", "\u061c", "\ue000"]
IGNORED += ["a\U000f0000b", "\ufdd0", "\U0010ffff"]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("make_vocab", [wide_vocab, every_character_vocab])
def test_known_traps(make_vocab, rules):
    texts = [*FINAL_SIGMAS, *CASE_CHANGES_LENGTH, *HANGUL, *INDIC, *IGNORED]
    texts += [f"{a} {b}" for a, b in pairwise(texts)] + [f"{a}{b}" for a in texts for b in texts]
    assert_same(cached_both(make_vocab, rules), texts)


def test_normalization_is_exercised():
    """The vocabularies make several tokens of one word and leave some unknown; else offsets would hardly be tested."""
    for make_vocab in (wide_vocab, every_character_vocab):
        ours, _ = cached_both(make_vocab, "uncased")
        texts = texts_of(range(0xA0, 0x3000), "between letters")
        rows = ours(texts, add_special_tokens=False)["input_ids"]
        unknown = sum(row == [SPECIAL.index("[UNK]")] for row in rows)
        assert 0.05 < unknown / len(rows) < 0.95
        assert sum(len(row) > 1 for row in rows) > 600
