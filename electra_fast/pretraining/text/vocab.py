"""WordPiece vocabularies from raw text."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...disk import written
from .corpus import Corpus
from .documents import take

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

    from ...tokenizer import ElectraTokenizer
    from .shards import ShardedCorpus

# More text would not change which words are common.
_MAX_CHARS = 200_000_000
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_vocab(
    texts: Sequence[str], size: int, lowercase: bool = True, max_word_chars: int = 100, n_words: int = 0
) -> list[str]:
    """Trains a WordPiece vocabulary of at most `size` entries; the special tokens come first, [PAD] being 0.

    Text is normalised and split as ElectraTokenizer does it. A small corpus may give fewer entries than asked for. The
    same texts give the same vocabulary.

    Args:
        max_word_chars: length of the longest known words. The tokenizer makes [UNK] of longer ones, so they are left
            out, with a warning that counts them.
        n_words: number of the most frequent words that get entries of their own, whatever training joins: pieces that
            only lead to longer ones leave less of a small vocabulary to whole words.

    Raises:
        ValueError: a size too small for the special tokens and letters, or texts without a word that is not too long.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    splitter = pre_tokenizers.BertPreTokenizer()

    def can_continue(letter: str) -> bool:
        return len(splitter.pre_tokenize_str(normalizer.normalize_str(f"a{letter}a"))) == 1

    # The trainer numbers letters in the order of a hash table and breaks ties by number, so we give the letters to get
    # the same vocabulary in every run. Rare letters would fill a small vocabulary, so letters get a tenth of it.
    counts, kept, n_long = Counter[str](), [], 0
    for text in texts:
        normalized = normalizer.normalize_str(text)
        shorter, n = _without_long_words(normalized, max_word_chars, splitter)
        counts.update(shorter)
        # Normalising is most of the work, and the trainer does it by threads; a second time it changes nothing.
        kept.append(shorter if n else text)
        n_long += n
    letters = [letter for letter in counts if splitter.pre_tokenize_str(letter)]
    left_out = f"{n_long:,} longer than {max_word_chars} characters, which the tokenizer takes for [UNK]"
    if not letters:
        found = f"only {left_out}" if n_long else "none"
        raise ValueError(f"the texts must hold at least one word to train a vocabulary on, got {found}")
    if n_long:
        warnings.warn(f"the vocabulary is made without some words of the text: {left_out}", stacklevel=2)
    letters = sorted(letters, key=lambda letter: (-counts[letter], letter))[: min(1000, max(64, size // 10))]
    first = [*SPECIAL_TOKENS, *sorted(letters), *(f"##{letter}" for letter in sorted(letters) if can_continue(letter))]
    if size < len(first):
        raise ValueError(f"the vocabulary must have at least {len(first)} entries for this text, got size {size}")

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=first,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(kept, trainer)
    trained = _entries(tokenizer)
    if not n_words:
        return trained
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizer, splitter
    words.train_from_iterator(kept, trainers.WordLevelTrainer(vocab_size=n_words, show_progress=False))
    known = set(letters)
    whole = [word for word in _entries(words) if known.issuperset(word)]
    # Training adds the most useful entries first.
    return list(dict.fromkeys([*first, *whole, *trained]))[:size]


def _entries(tokenizer: Tokenizer) -> list[str]:
    """The vocabulary of a trained tokenizer, in the order of ids."""
    vocab = tokenizer.get_vocab()
    return sorted(vocab, key=vocab.__getitem__)


def _without_long_words(text: str, limit: int, splitter: PreTokenizer) -> tuple[str, int]:
    """Normalised text without the words of more than `limit` characters, and how many these were."""
    n_long = 0

    def shortened(run: re.Match) -> str:
        nonlocal n_long
        words = [word for word, _ in splitter.pre_tokenize_str(run[0])]
        short = [word for word in words if len(word) <= limit]
        n_long += len(words) - len(short)
        return " ".join(short)

    # Most runs without white space are one word; a long one may also be many, with punctuation between them.
    return re.sub(rf"[^ ]{{{limit + 1},}}", shortened, text), n_long


def vocabulary_texts(corpus: Corpus | ShardedCorpus) -> list[str]:
    """Training documents to make a vocabulary from: all, or the first 200 million characters.

    Raises:
        ValueError: shards, because they hold no text, or a corpus without text.
    """
    if not isinstance(corpus, Corpus):
        raise ValueError("shards hold no text to make a vocabulary of: the one they were made with must be given")
    texts = take(corpus.training(), _MAX_CHARS)
    if not texts:
        raise ValueError(f"the data must hold text to train on besides what is held out, got none. {corpus.separator}")
    return texts


def write_vocab(vocab: Iterable[str], path: str | Path) -> None:
    """Writes vocab.txt, one entry per line, whole or not at all."""
    with written(path) as file:
        file.writelines(f"{token}\n" for token in vocab)


def load_tokenizer(path: Path, model_max_length: int) -> ElectraTokenizer:
    """A tokenizer from a vocab.txt or from a directory."""
    from ...tokenizer import ElectraTokenizer

    if path.is_dir():
        return ElectraTokenizer.from_pretrained(path)
    return ElectraTokenizer(vocab=path, model_max_length=model_max_length)
