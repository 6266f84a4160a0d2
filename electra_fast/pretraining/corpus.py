"""Text for pre-training: files to documents, documents to sequences, sequences to batches.

A document is what stands between blank lines. Documents are split once into training and held-out text; the training
documents are shuffled anew every epoch, laid end to end with [SEP] after each, and cut into full sequences, so that no
token is padding. The batch of a step is a pure function of (seed, step): nothing else needs to be remembered to go on
where a run stopped.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import lzma
import re
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..tokenizer import ElectraTokenizer

_OPENERS: dict[str, Callable] = {".txt": open, ".gz": gzip.open, ".xz": lzma.open}

# Longer documents are cut at line ends: a book without blank lines still gives text to train on and text to hold out.
MAX_DOCUMENT_CHARS = 16_384

_HELD_OUT_SHARE = 0.05


def read_documents(paths: Sequence[str | Path], max_chars: int | None = None) -> list[str]:
    """The documents of text files, and of all text files below directories, in the order of their names.

    Args:
        paths: files of UTF-8 text, plain or compressed (.gz, .xz), or directories in which .txt, .gz and .xz are read.
        max_chars: stop reading once that many characters are there.

    Raises:
        FileNotFoundError: a path that does not exist.
        ValueError: a file that is not UTF-8 text or is damaged, or a path without any text in it.
    """
    documents: list[str] = []
    n_chars = 0
    for path in map(Path, paths):
        n_before = len(documents)
        for file in _text_files(path):
            for document in _documents_of(file):
                documents.append(document)
                n_chars += len(document)
                if max_chars is not None and n_chars >= max_chars:
                    return documents
        if len(documents) == n_before:
            raise ValueError(f"{path} must hold text, got nothing but white space")
    return documents


def _text_files(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"no such data file or directory: {path}")
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix in _OPENERS and file.is_file())
    if not files:
        raise ValueError(f"{path} must hold files named {', '.join('*' + end for end in _OPENERS)}, got none")
    return files


def _documents_of(file: Path) -> Iterator[str]:
    try:
        with _OPENERS.get(file.suffix, open)(file, "rt", encoding="utf-8") as lines:
            yield from _documents(lines)
    except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{file} must be UTF-8 text, plain, .gz or .xz, got: {error}") from error


def _documents(lines: Iterable[str]) -> Iterator[str]:
    document: list[str] = []
    n_chars = 0
    for line in lines:
        is_blank = not line.strip()
        if document and (is_blank or n_chars + len(line) > MAX_DOCUMENT_CHARS):
            yield "".join(document)
            document, n_chars = [], 0
        if not is_blank:
            document.append(line)
            n_chars += len(line)
    if document:
        yield "".join(document)


def builtin_documents() -> list[str]:
    """The text that every Python installation carries: the language reference, and the standard library's docstrings.

    One document a topic and one a module, about 2 MB. Sources are parsed, not imported. Examples (>>>) and rules of
    punctuation are left out, and so is a docstring that occurred before.
    """
    from pydoc_data.topics import topics

    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
    seen: set[str] = set()
    documents = [_prose(topics[name]) for name in sorted(topics)]
    for file in sorted(root.rglob("*.py")):
        if skipped.isdisjoint(file.relative_to(root).parts):
            docstrings = [_prose(text) for text in _docstrings(file)]
            documents.append("\n".join(text for text in docstrings if not (text in seen or seen.add(text))))
    return [part for document in documents for part in _documents(document.splitlines(keepends=True))]


def _docstrings(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # templates of sources
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def _prose(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if re.search(r"\w", line) and not line.startswith((">>>", "...")))


def split_documents(documents: Iterable[str]) -> tuple[list[str], list[str]]:
    """(training, held-out) documents, about 1 in 20 of them held out.

    A document's side depends on its text alone: it stays where it is when others are added, and copies of it never
    stand on both sides. Where chance holds none out, the document with the lowest hash is.

    Raises:
        ValueError: fewer than two different documents.
    """
    hashes = {document: _fraction(document) for document in documents}
    if len(hashes) < 2:
        raise ValueError(
            f"the corpus must hold at least two documents (separated by blank lines, or longer than "
            f"{MAX_DOCUMENT_CHARS} characters), so that one can be held out; got {len(hashes)}"
        )
    limit = max(_HELD_OUT_SHARE, min(hashes.values()))
    held_out = [document for document, value in hashes.items() if value <= limit]
    return [document for document, value in hashes.items() if value > limit], held_out


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64


class TokenSequences:
    """Documents as token ids, cut into sequences `[CLS] ... [SEP]` of exactly `seq_length` tokens.

    Args:
        documents: the texts.
        tokenizer: gives the ids; its special tokens frame the sequences.
        seq_length: tokens a sequence, [CLS] and [SEP] among them.
        seed: of the order of documents and sequences; None keeps both as they are, in every epoch.

    Raises:
        ValueError: less text than a single sequence needs.
    """

    def __init__(self, documents: Sequence[str], tokenizer: ElectraTokenizer, seq_length: int, seed: int | None):
        self.seq_length, self.seed = seq_length, seed
        self._cls, self._sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        ids, offsets = tokenizer.encode_bulk(list(documents), add_special_tokens=False)
        # [SEP] ends every document: what follows in the same sequence is another text.
        self._ids = np.insert(ids, offsets[1:], self._sep).astype(np.int32)
        self._offsets = offsets + np.arange(len(offsets))
        self.n_sequences = len(self._ids) // (seq_length - 2)
        if self.n_sequences == 0:
            raise ValueError(
                f"the text must fill at least one sequence of {seq_length} tokens, got {len(self._ids)} tokens"
            )
        self._epoch: tuple[int, np.ndarray] | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens of the text, without the [CLS] and [SEP] of the sequences."""
        return len(self._ids)

    def batch(self, step: int, batch_size: int) -> Tensor:
        """The sequences of one step (from 0): [batch_size, seq_length] int64; epochs follow one another without end."""
        first = step * batch_size
        rows = [self._sequences(i // self.n_sequences)[i % self.n_sequences] for i in range(first, first + batch_size)]
        return torch.from_numpy(np.stack(rows).astype(np.int64))

    def batches(self, batch_size: int, max_sequences: int | None = None) -> Iterator[Tensor]:
        """An epoch in batches [batch_size or fewer, seq_length]; at most `max_sequences`, spread evenly over it."""
        n_sequences = min(self.n_sequences, max_sequences or self.n_sequences)
        rows = self._sequences(0)[np.arange(n_sequences) * self.n_sequences // n_sequences]
        for start in range(0, n_sequences, batch_size):
            yield torch.from_numpy(rows[start : start + batch_size].astype(np.int64))

    def _sequences(self, epoch: int) -> np.ndarray:
        """[n_sequences, seq_length] int32, in the order of this epoch."""
        if self._epoch is None or self._epoch[0] != epoch:
            stream, order = self._ids, np.arange(self.n_sequences)
            if self.seed is not None:
                random = np.random.default_rng((self.seed, epoch))
                documents = np.split(stream, self._offsets[1:-1])
                stream = np.concatenate([documents[i] for i in random.permutation(len(documents))])
                order = random.permutation(self.n_sequences)
            body = stream[: self.n_sequences * (self.seq_length - 2)].reshape(self.n_sequences, -1)
            framed = np.pad(body[order], ((0, 0), (1, 1)), constant_values=((0, 0), (self._cls, self._sep)))
            self._epoch = epoch, framed
        return self._epoch[1]
