"""The subcommand `prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..disk import check_apart
from ..pretraining.text.documents import DocumentsBy


@dataclass(kw_only=True)
class PrepareCommand:
    """Tokenise a corpus once, into shards that training maps into memory.

    Training from shards reads no text and resumes at any step without delay. About 1 in 20 documents is held out, in a
    separate shard.
    """

    data: tuple[str, ...]
    """Text and JSONL files, plain, .gz, .xz or .zst, or directories of them; a dataset written by save_to_disk; or
    a dataset on the Hub, hf:NAME[:CONFIG[:SPLIT]]."""
    vocab: Path
    """A vocab.txt, or a directory with a tokenizer."""
    out: Path
    """Directory to write to; it must be empty or new."""
    documents_by: DocumentsBy = "blank-line"
    """End of the documents in text files: a blank line, every line, or that of the file."""
    text_key: str = "text"
    """Key of the text in JSONL and in datasets."""
    threads: int | None = None
    """Threads that tokenise. Default: as many as there are cores."""
    mix_seed: int | None = None
    """Seed to mix the documents with, over the whole text: each goes to a shard drawn at random. Default: shards are
    stretches of the text, for text that is mixed already."""

    def run(self) -> None:
        from ..pretraining.text.corpus import Corpus
        from ..pretraining.text.shards import check_empty, write_shards
        from ..pretraining.text.vocab import load_tokenizer

        check_empty(self.out)
        check_apart(self.out, *self.data, self.vocab)
        corpus = Corpus(self.data, self.documents_by, self.text_key)
        meta = write_shards(
            corpus, load_tokenizer(self.vocab, 512), self.out, threads=self.threads, mix_seed=self.mix_seed
        )
        print(
            f"wrote {meta['tokens']:,} tokens of {meta['documents']:,} documents in {len(meta['shards'])} shards to "
            f"{self.out}, and {meta['held_out']['tokens']:,} held-out tokens"
        )
