"""The subcommand `embed`, and the .npy file that it writes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Literal

import numpy as np

from .. import parquet
from ..disk import check_apart, check_readable, check_writable, is_stream, written
from ..inference.batching import BATCH_TOKENS
from ..inference.pooling import Pooling
from .bulk import text_columns, timed
from .options import Device, ImplOption


@dataclass(kw_only=True)
class EmbedCommand:
    """Turn texts into vectors: a NumPy or Parquet file with a row for each line or row of a table, in order.

    A few thousand texts at a time are sorted by length and computed without padding, in constant memory. At the end the
    command prints its speed on stderr.
    """

    model: str | None = None
    """A directory, of sentence-transformers too, or a model on the Hub. Default: the small English one that comes with
    the package."""
    input: Path
    """A file of UTF-8 lines, or of columns: .tsv, .csv, .jsonl or .parquet. It may be compressed: .gz, .xz, .zst. A
    blank line counts as an empty text."""
    output: Path
    """The file to write, whole or not at all: .npy, fp32 [texts, size], or .parquet, with a column `embedding`; or a
    pipe or a device, for .npy."""
    text: str | None = None
    """The column of the text, as for `predict`: a name, or a number from 0 with --no-header."""
    no_header: bool = False
    """Read the first line of a table as a text; the column is then a number."""
    pooling: Pooling | None = None
    """Vector of a text: the mean of its tokens' last hidden states, the first token's, or another mode of
    sentence-transformers. Default: the model's own, or mean."""
    normalize: bool = False
    """Divide each vector by its Euclidean length, if the model does not do so itself."""
    prompt: str | None = None
    """A text to put before every text."""
    prompt_name: str | None = None
    """The name of a prompt that a model of sentence-transformers has. Default: the one that it names itself."""
    max_length: int | None = None
    """Number of tokens at which texts are cut. Default: the model's own, or the limit of tokenizer and model."""
    batch_tokens: int = BATCH_TOKENS
    """Number of tokens to compute together."""
    device: Device = "auto"
    impl: ImplOption = "auto"
    dtype: Literal["fp32", "bf16", "fp16", "int8"] | None = None
    """Type of weights and activations; int8 is for CPUs. Default: bf16 on a GPU, fp32 on a CPU."""

    def run(self) -> None:
        from ..bundled import bundled
        from ..finetuning.data.predict_inputs import read_texts
        from ..inference.embed import load_embedder

        is_parquet = self.output.suffix == parquet.SUFFIX
        if self.output.suffix != ".npy" and not is_parquet and not is_stream(self.output):
            raise ValueError(f"the output must be a .npy or .parquet file, got {self.output}")
        check_writable(self.output)
        check_readable(self.input)
        check_apart(self.output, self.input, self.model)
        texts = read_texts(self.input, text_columns(self.text, self.no_header))
        embedder = load_embedder(
            self.model or bundled("discriminator"),
            pooling=self.pooling,
            normalize=self.normalize,
            prompt=self.prompt,
            prompt_name=self.prompt_name,
            max_length=self.max_length,
            batch_tokens=self.batch_tokens,
            device=self.device,
            dtype=self.dtype,
            impl=self.impl,
        )
        written_to = parquet.written_vectors if is_parquet else written_rows
        with timed("texts") as counts, written_to(self.output, embedder.size) as write:
            for vectors in embedder.stream(texts, progress=sys.stderr.isatty(), counts=counts):
                write(vectors)


@contextmanager
def written_rows(path: Path, size: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes an fp32 array [n, size] with n unknown until the end; yields a function that appends rows.

    The file gets its name when all of it is written.
    """
    n_rows = 0

    def write(rows: np.ndarray) -> None:
        nonlocal n_rows
        file.write(np.ascontiguousarray(rows, np.float32).data)
        n_rows += len(rows)

    with written(path, "wb") as target, TemporaryFile() if is_stream(path) else nullcontext(target) as file:
        _write_header(file, (0, size))
        begin = file.tell()
        yield write
        # NumPy leaves room in a header for its first axis to grow.
        file.seek(0)
        _write_header(file, (n_rows, size))
        assert file.tell() == begin
        if file is not target:  # a stream cannot go back to the header
            file.seek(0)
            shutil.copyfileobj(file, target)


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
