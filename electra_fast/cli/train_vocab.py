"""The subcommand `train-vocab`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..disk import check_apart, check_writable
from ..pretraining.text.documents import DocumentsBy


@dataclass(kw_only=True)
class TrainVocabCommand:
    """Make a WordPiece vocabulary from raw text.

    Writes one entry per line, the special tokens first, like vocab.txt on the Hub.
    """

    data: tuple[str, ...] = ()
    """Text and JSONL files or directories of them, as for `pretrain`; a large corpus is read up to 200 MB.
    Default: the documentation that comes with Python."""
    documents_by: DocumentsBy = "blank-line"
    """End of the documents in text files: a blank line, every line, or that of the file. About 1 in 20 is left out."""
    text_key: str = "text"
    """Key of the text in a line of JSONL and in a dataset."""
    size: int = 30522
    """Number of entries; a small corpus may give fewer."""
    words: int = 0
    """Number of the most frequent words to give entries of their own, before pieces get theirs."""
    cased: bool = False
    """Keep upper case and accents."""
    out: Path
    """The file to write, usually vocab.txt."""

    def run(self) -> None:
        from ..pretraining.text.shards import open_corpus
        from ..pretraining.text.vocab import train_vocab, vocabulary_texts, write_vocab

        check_writable(self.out)
        check_apart(self.out, *self.data)
        texts = vocabulary_texts(open_corpus(self.data, self.documents_by, self.text_key))
        vocab = train_vocab(texts, self.size, lowercase=not self.cased, n_words=self.words)
        write_vocab(vocab, self.out)
        print(f"wrote {len(vocab)} entries to {self.out}")
