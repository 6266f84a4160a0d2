"""The subcommand `prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(kw_only=True)
class PrepareCommand:
    """Tokenise a corpus once, into shards that are mapped into memory.

    Training from shards reads no text, and resumes at once at any step. About 1 in 20 documents is held out, in a shard
    of its own.
    """

    data: tuple[str, ...]
    """Text and JSONL files, plain, .gz, .xz or .zst, or directories of them; a dataset written by save_to_disk; or
    hf:NAME[:CONFIG[:SPLIT]], a dataset on the Hub."""
    vocab: Path
    """A vocab.txt, or a directory with a tokenizer."""
    out: Path
    """Directory to write to; it must be empty, or not there yet."""
    documents_by: Literal["blank-line", "file"] = "blank-line"
    """What separates the documents of text files."""
    text_key: str = "text"
    """Where the text is in JSONL and in datasets."""
    threads: int | None = None
    """Threads that tokenise. Default: as many as there are cores."""

    def run(self) -> None:
        from ..pretraining.text.corpus import Corpus
        from ..pretraining.text.shards import check_empty, write_shards
        from ..pretraining.text.vocab import load_tokenizer

        check_empty(self.out)
        corpus = Corpus(self.data, self.documents_by, self.text_key)
        meta = write_shards(corpus, load_tokenizer(self.vocab, 512), self.out, threads=self.threads)
        print(
            f"wrote {meta['tokens']:,} tokens of {meta['documents']:,} documents in {len(meta['shards'])} shards to "
            f"{self.out}, and {meta['held_out']['tokens']:,} held-out tokens"
        )
