"""Vocabularies: one that the tests train, two of many scripts, the real one where this checkout has it beside it."""

import unicodedata
from functools import cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't care.",
    "Unbelievable! Tokenizers tokenize untokenizable tokens (mostly) at 1234 tokens a second.",
    "A naïve café owner in Zürich wrote 東京 on the menu; nobody asked why?",
    "well-conceived e-mails: a@b.org, #hashtags & $5.00 prices + [brackets] {braces} ~tilde~",
]


@cache
def small_vocab(lower_case: bool = True) -> dict[str, int]:
    backend = Tokenizer(WordPiece(unk_token="[UNK]"))
    backend.normalizer = BertNormalizer(lowercase=lower_case)
    backend.pre_tokenizer = BertPreTokenizer()
    trainer = WordPieceTrainer(vocab_size=220, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(SENTENCES * 3, trainer=trainer)
    return backend.get_vocab()


# Letters, digits, marks, kana, ideographs and pictures; of each range the tests' vocabulary knows nearly all.
RANGES = {
    "basic latin": (0x21, 0x7F),
    "latin": (0xA1, 0x180),
    "combining marks": (0x300, 0x370),
    "greek": (0x370, 0x400),
    "cyrillic": (0x400, 0x460),
    "hebrew": (0x591, 0x5F0),
    "arabic": (0x610, 0x660),
    "devanagari": (0x900, 0x980),
    "bengali": (0x980, 0xA00),
    "tamil": (0xB80, 0xC00),
    "sinhala": (0xD80, 0xE00),
    "thai": (0xE00, 0xE60),
    "jamo": (0x1100, 0x1200),
    "latin extended": (0x1E00, 0x1F00),
    "punctuation": (0x2010, 0x2030),
    "kana": (0x3040, 0x3100),
    "ideographs": (0x4E00, 0x4E40),
    "syllables": (0xAC00, 0xAC40),
    "deseret": (0x10400, 0x10450),
    "adlam": (0x1E900, 0x1E94B),
    "pictures": (0x1F600, 0x1F650),
}
# Marks that canonical ordering moves although stripping accents leaves them: their combining class is not 0.
SPACING_MARKS = "\u302e\u302f\u1b44\ua953\ua9c0\U0001d165\U0001d16d\U00016ff0\U00016ff1"


@cache
def wide_vocab() -> dict[str, int]:
    """Single characters and pairs of neighbours out of RANGES, so that words have several pieces; a few are missing."""
    pieces = list(SPACING_MARKS)
    for first, last in RANGES.values():
        letters = [chr(c) for c in range(first, last) if unicodedata.category(chr(c)) != "Cn" and c % 29]
        pieces += letters + [a + b for a, b in zip(letters[::2], letters[1::2], strict=False)]
    pieces += ["dog", "fox", "##ing", "the", "東京", "##é", "ﬁn", "##\u0301", "e\u0301", "##x" * 3]
    return _numbered(pieces + ["##" + piece for piece in pieces])


@cache
def every_character_vocab() -> dict[str, int]:
    """Most assigned characters as pieces, most as continuations, and some together with an ASCII letter."""
    known = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cc", "Cn", "Co", "Cs")]
    starts = [c for c in known if ord(c) % 7 or ord(c) < 128]
    ends = [c for c in known if ord(c) % 5 or ord(c) < 128]
    joined = [f"a{c}" for c in known if ord(c) % 11 == 0] + [f"##{c}b" for c in known if ord(c) % 13 == 0]
    return _numbered([*starts, *(f"##{c}" for c in ends), *joined, *SPACING_MARKS, *(f"##{c}" for c in SPACING_MARKS)])


def _numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: index for index, piece in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}


def data_file(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path
