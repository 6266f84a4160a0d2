"""The subcommand `train-vocab`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..disk import check_apart, check_writable


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

        check_writable(self.out)
        check_apart(self.out, *self.data)
        vocab = train_vocab(vocabulary_texts(open_corpus(self.data)), self.size, lowercase=not self.cased)
        write_vocab(vocab, self.out)
        print(f"wrote {len(vocab)} entries to {self.out}")
