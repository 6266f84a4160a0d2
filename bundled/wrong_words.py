"""Sentences with a wrong word, made by a rule from held-out text: `python -m bundled.wrong_words TEXT OUT.tsv`.

The rule: a word of at least three small letters gives way to another such word, drawn from those that are about as
frequent in the whole text, fifty on either side in the order of frequency. So no word is odd by being rare.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from electra_fast.pretraining.text.corpus import Corpus

from .corpus import Source, sources

N_SENTENCES = 200
_NEAR = 50
_LEAST_COUNT = 20
_WORD = re.compile(r"(?<![\w'-])[a-z]{3,}(?![\w'-])")
_SENTENCE = re.compile(r"(?<=[.!?] )[A-Z][a-z]*(?: [A-Za-z]+,?){7,19}[.!?](?= |$)")


class WrongWords:
    """The words of a text that the rule replaces, by their frequency.

    Args:
        texts: the text whose frequencies count.
    """

    def __init__(self, texts: Iterable[str]):
        counts = Counter[str]()
        for text in texts:
            counts.update(_WORD.findall(text))
        words = [word for word, count in counts.items() if count >= _LEAST_COUNT]
        self._ranking = sorted(words, key=lambda word: (-counts[word], word))
        self._ranks = {word: rank for rank, word in enumerate(self._ranking)}

    def places(self, text: str) -> list[tuple[int, int]]:
        """Spans (start, end) of the words that may be replaced."""
        return [found.span() for found in _WORD.finditer(text) if found[0] in self._ranks]

    def instead_of(self, word: str, chance: random.Random) -> str:
        """Another word, about as frequent."""
        rank = self._ranks[word]
        near = self._ranking[max(0, rank - _NEAR) : rank + _NEAR + 1]
        return chance.choice([other for other in near if other != word])


def sentences(documents: Sequence[str], words: WrongWords, seed: int) -> Iterator[tuple[str, str, str]]:
    """Sentences of 8 to 20 words with one wrong word: (sentence, wrong word, right word), one a document at most."""
    chance = random.Random(seed)
    for document in chance.sample(documents, len(documents)):
        found = [sentence for sentence in _SENTENCE.findall(document.replace("\n", " ")) if words.places(sentence)]
        if not found:
            continue
        sentence = chance.choice(found)
        start, end = chance.choice(words.places(sentence))
        right = sentence[start:end]
        wrong = words.instead_of(right, chance)
        # Other words of the sentence may be the same one.
        if len(re.findall(rf"\b{wrong}\b", sentence, flags=re.IGNORECASE)) == 0:
            yield sentence[:start] + wrong + sentence[end:], wrong, right


def held_out(directory: Path, chosen: Iterable[Source]) -> list[str]:
    """The held-out documents of some sources, of the text that `corpus` made in a directory."""
    own = {line for source in chosen for document in source.documents(directory / "packages") for line in document}
    corpus = Corpus([directory / "prose.txt.xz"])
    return [document for document in corpus.held_out() if own.issuperset(document.splitlines())]


def main(directory: Path, out: Path) -> None:
    """Writes a table of sentences from texts in the public domain."""
    words = WrongWords(Corpus([directory / "prose.txt.xz"]).training())
    documents = held_out(directory, [source for source in sources() if source.licence == "public domain"])
    rows = [row for row, _ in zip(sentences(documents, words, seed=0), range(N_SENTENCES), strict=False)]
    out.write_text("".join("\t".join(row) + "\n" for row in [("sentence", "wrong", "right"), *rows]), encoding="utf-8")
    print(f"wrote {len(rows)} sentences to {out}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
