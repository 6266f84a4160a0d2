"""electra-fast train-vocab."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(kw_only=True)
class TrainVocabCommand:
    """Make a WordPiece vocabulary from raw text.

    Writes one entry a line, as in vocab.txt on the Hub, the special tokens first.
    """

    data: tuple[str, ...] = ()
    """Text and JSONL files or directories of them, as for `pretrain`; of a large corpus the first 200 MB. Default: the
    documentation that comes with Python."""
    size: int = 30522
    """Entries; a small corpus may give fewer."""
    cased: bool = False
    """Keep upper case and accents."""
    out: Path
    """The file to write, vocab.txt by custom."""

    def run(self) -> None:
        from ..pretraining.text.shards import open_corpus
        from ..pretraining.text.vocab import train_vocab, vocabulary_texts, write_vocab

        if not self.out.parent.is_dir():
            raise FileNotFoundError(f"the directory of the output does not exist: {self.out.parent}")
        vocab = train_vocab(vocabulary_texts(open_corpus(self.data)), self.size, lowercase=not self.cased)
        write_vocab(vocab, self.out)
        print(f"wrote {len(vocab)} entries to {self.out}")
