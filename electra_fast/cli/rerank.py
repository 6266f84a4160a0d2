"""The subcommand `rerank`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..disk import check_apart, check_readable, check_writable
from ..inference.batching import BATCH_TOKENS
from .bulk import text_columns, timed, written_objects
from .options import Device, ImplOption


@dataclass(kw_only=True)
class RerankCommand:
    """Order passages by their relevance to a query, by a network that reads both together.

    Prints a JSON object for each passage, the best first: its number in the input from 0, its score, and its text.
    """

    model: str
    """A directory or a model on the Hub: a CrossEncoder of sentence-transformers, or a network that was fine-tuned for
    one number."""
    query: str
    """The query."""
    input: Path
    """The passages: a file of UTF-8 lines, or of columns: .tsv, .csv, .jsonl or .parquet, which may be compressed: .gz,
    .xz, .zst."""
    text: str | None = None
    """The column of the passage, as for `predict`: a name, or a number from 0 with --no-header."""
    no_header: bool = False
    """Read the first line of a table as a passage; the column is then a number."""
    top_k: int | None = None
    """Number of passages to print. Default: all."""
    output: Path | None = None
    """The file to write, whole or not at all: lines of JSON, or .parquet; or a pipe or a device. Default: the standard
    output."""
    max_length: int | None = None
    """Number of tokens at which a pair is cut, the longer text first. Default: the limit of tokenizer and model."""
    batch_tokens: int = BATCH_TOKENS
    """Number of tokens to compute together."""
    device: Device = "auto"
    impl: ImplOption = "auto"
    dtype: Literal["fp32", "bf16", "fp16", "int8"] | None = None
    """Type of weights and activations; int8 is for CPUs. Default: bf16 on a GPU, fp32 on a CPU."""

    def run(self) -> None:
        from ..finetuning.data.predict_inputs import read_texts
        from ..inference.rerank import load_reranker

        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be positive, got {self.top_k}")
        if self.output is not None:
            check_writable(self.output)
        check_readable(self.input)
        check_apart(self.output or 1, self.input, self.model)
        read = read_texts(self.input, text_columns(self.text, self.no_header))
        passages = [text.rstrip("\r\n") for text in read]
        reranker = load_reranker(
            self.model,
            max_length=self.max_length,
            batch_tokens=self.batch_tokens,
            device=self.device,
            dtype=self.dtype,
            impl=self.impl,
        )
        with timed("passages") as counts:
            ranked = reranker(self.query, passages, progress=sys.stderr.isatty(), counts=counts)
        with written_objects(self.output, {"index": int, "score": float, "text": str}) as write:
            for index, score in ranked[: self.top_k]:
                write({"index": index, "score": score, "text": passages[index]})
