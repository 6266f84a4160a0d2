"""Text in more than thirty scripts: CLDR's names of languages, countries, currencies and days in every locale."""

import random
import unicodedata
from collections import Counter, defaultdict
from functools import cache

import pytest
from oracle import RULES, assert_same, build_both, build_oracle
from tokenizers.trainers import WordPieceTrainer
from vocabularies import SPECIAL, data_file

babel = pytest.importorskip("babel", reason="babel, of the extra `dev`, has the texts")

# As the names of their letters begin, which is one word for "OL CHIKI LETTER LA" too.
SCRIPTS = (
    *("ADLAM", "ARABIC", "ARMENIAN", "BENGALI", "CANADIAN", "CHAKMA", "CHEROKEE", "CJK", "CYRILLIC", "DESERET"),
    *("DEVANAGARI", "ETHIOPIC", "GEORGIAN", "GREEK", "GUJARATI", "GURMUKHI", "HANGUL", "HEBREW", "KANNADA", "KATAKANA"),
    *("KHMER", "LAO", "LATIN", "MALAYALAM", "MYANMAR", "NKO", "OL", "ORIYA", "OSAGE", "SHAVIAN", "SINHALA", "SYRIAC"),
    *("TAMIL", "TELUGU", "THAI", "TIBETAN", "TIFINAGH", "VAI", "YI"),
)
LISTS = ("languages", "territories", "scripts", "variants", "currencies", "days", "months", "quarters", "eras",
         "day_periods", "date_formats")  # fmt: skip
MOST = 20_000  # characters of a script


def strings_in(value):
    if isinstance(value, str):
        yield value
    elif hasattr(value, "values"):
        for part in value.values():
            yield from strings_in(part)


def letters_by_script(text):
    return Counter(unicodedata.name(c, "?").split()[0] for c in text if unicodedata.category(c)[0] == "L")


@cache
def sentences() -> dict[str, list[str]]:
    """Script -> names in it joined into sentences of a dozen, at most MOST characters of them."""
    names = defaultdict(list)
    for identifier in sorted(babel.localedata.locale_identifiers()):
        # Locales of a country repeat most of what their language has.
        if not any(len(part) == 2 or part.isdigit() for part in identifier.split("_")[1:]):
            locale = babel.Locale.parse(identifier)
            for name in {name: None for attribute in LISTS for name in strings_in(getattr(locale, attribute))}:
                for script in letters_by_script(name):
                    names[script].append(name)
    chance = random.Random(0)
    joined = {}
    for script in SCRIPTS:
        chosen = list(dict.fromkeys(names[script]))
        chance.shuffle(chosen)
        lines = [chance.choice((" ", ", ", "/", "; ")).join(chosen[i : i + 12]) for i in range(0, len(chosen), 12)]
        joined[script], length = [], 0
        for line in lines:
            if length < MOST:
                joined[script].append(line)
                length += len(line)
    return joined


@cache
def trained_both(rules):
    oracle = build_oracle({token: index for index, token in enumerate(SPECIAL)}, **RULES[rules])
    trainer = WordPieceTrainer(vocab_size=9000, special_tokens=SPECIAL, show_progress=False)
    # A third of the text, so that some characters of the rest are unknown.
    oracle.train_from_iterator([lines[: len(lines) // 3 + 1] for lines in sentences().values()], trainer)
    return build_both(oracle.get_vocab(), **RULES[rules])


def test_coverage():
    assert len(set(SCRIPTS)) >= 30
    for script, lines in sentences().items():
        assert letters_by_script("".join(lines))[script] >= 200, script


@pytest.mark.parametrize("rules", RULES)
def test_every_script(rules):
    both = trained_both(rules)
    for script, texts in sentences().items():
        assert_same(both, texts)
        words = [encoding.word_ids for encoding in both[1].encode_batch(texts, add_special_tokens=False)]
        assert sum(map(len, words)) > 1.05 * sum(len(set(row)) for row in words), f"{script}: hardly a word is split"


@pytest.mark.parametrize("rules", ["uncased", "cased"])
def test_real_vocabulary(rules):
    from electra_fast.tokenizer.files import read_vocab

    both = build_both(read_vocab(data_file("vocab.txt")), **RULES[rules])
    for texts in sentences().values():
        assert_same(both, texts)
        assert_same(both, texts[:50], texts[::-1][:50])
