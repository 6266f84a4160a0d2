"""The subcommand `train-vocab`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(kw_only=True)
class TrainVocabCommand:
    """Make a WordPiece vocabulary from raw text.

    Writes one entry per line, the special tokens first, like vocab.txt on the Hub.
    """

    data: tuple[str, ...] = ()
    """Text and JSONL files or directories of them, as for `pretrain`; a large corpus is read up to 200 MB.
    Default: the documentation that comes with Python."""
    size: int = 30522
    """Number of entries; a small corpus may give fewer."""
    cased: bool = False
    """Keep upper case and accents."""
    out: Path
    """The file to write, usually vocab.txt."""

    def run(self) -> None:
        from ..pretraining.text.shards import open_corpus
        from ..pretraining.text.vocab import train_vocab, vocabulary_texts, write_vocab

        if not self.out.parent.is_dir():
            raise FileNotFoundError(f"the directory of the output does not exist: {self.out.parent}")
        vocab = train_vocab(vocabulary_texts(open_corpus(self.data)), self.size, lowercase=not self.cased)
        write_vocab(vocab, self.out)
        print(f"wrote {len(vocab)} entries to {self.out}")
