"""The rule that puts wrong words into sentences, and the sentences that it made."""

import csv
import random
from pathlib import Path

from bundled.wrong_words import WrongWords, sentences

MADE = Path(__file__).parents[1] / "inference" / "wrong_words.tsv"
# Sixty words, each a little more frequent than the one before.
WORDS = [f"{first}{second}rd" for first in "bcdfghklmn" for second in "aeiouy"]
TEXT = " ".join(word for i, word in enumerate(WORDS) for _ in range(20 + 2 * i))


def test_a_word_gives_way_to_one_about_as_frequent():
    words, chance = WrongWords([TEXT]), random.Random(0)
    assert words.places("Bard, bard's card xyzzy") == [(13, 17)]
    others = {words.instead_of("bard", chance) for _ in range(2000)}
    assert others == set(WORDS[1:51])
    assert WORDS[0] not in {words.instead_of(WORDS[-1], chance) for _ in range(2000)}


def test_a_sentence_has_one_wrong_word():
    documents = [f"No. The one saw {a} and {b} at its end. Yes" for a in WORDS[:6] for b in WORDS[6:12]]
    made = list(sentences(documents, WrongWords([TEXT]), seed=0))
    assert len(made) > 30
    for sentence, wrong, right in made:
        assert sentence.startswith("The one saw") and sentence.count(wrong) == 1 and right in WORDS[:12]
    assert made == list(sentences(documents, WrongWords([TEXT]), seed=0))


def test_the_sentences_are_what_the_rule_gives():
    with open(MADE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == 200
    for row in rows:
        words = row["sentence"].rstrip(".!?").replace(",", "").split()
        assert 8 <= len(words) <= 20 and words.count(row["wrong"]) == 1 and row["wrong"] != row["right"]
        assert all(word.islower() and len(word) >= 3 for word in (row["wrong"], row["right"]))
