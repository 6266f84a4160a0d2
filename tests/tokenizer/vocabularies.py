"""A small vocabulary that the tests train themselves, and the real one where this checkout has it beside it."""

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


def data_file(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path
