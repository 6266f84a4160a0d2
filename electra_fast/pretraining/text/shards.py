"""Token shards: a corpus that has been tokenised once. A shard is read when its tokens are used, not to count them.

A directory of shards has three arrays (`TokenWindow`) as .npy files for each window and for the held-out documents. Its
meta.json says what they were made from, and has their checksums.
"""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm import tqdm

from ...disk import read_json_object, replaced
from ...tokenizer.unknown import UnknownTokens
from .builtin import builtin_documents
from .corpus import Corpus
from .documents import DocumentsBy
from .mixing import mixed
from .windows import WINDOW_CHARS, TokenWindow, vocabulary_fingerprint

if TYPE_CHECKING:
    from ...tokenizer import ElectraTokenizer

META_NAME = "meta.json"
FORMAT_VERSION = 1
_ARRAYS = ("ids", "line_offsets", "document_offsets")
_HELD_OUT = "held-out"
# Fields of meta.json, and of each shard in it, that are read here.
_META = {"vocabulary": str, "vocabulary_size": int, "data": str, "tokens": int, "documents": int}
_META |= {"held_out": dict, "shards": list}
_SHARD = {"name": str, "tokens": int, "documents": int}


def write_shards(
    corpus: Corpus,
    tokenizer: ElectraTokenizer,
    out: str | os.PathLike,
    window_chars: int = WINDOW_CHARS,
    threads: int | None = None,
    mix_seed: int | None = None,
) -> dict[str, Any]:
    """Tokenises a corpus into a directory for `ShardedCorpus`, whole or not at all; shows its progress.

    Args:
        out: a directory that is empty, or does not exist yet.
        window_chars: characters of text per shard.
        threads: threads that tokenise; None: as many as the process has cores.
        mix_seed: seed to draw a shard for each document with, so that training sees the documents in an order that is
            random over the whole text; None: each shard is a stretch of the text, and only shards are shuffled as such.

    Returns:
        The contents of meta.json.

    Raises:
        FileExistsError: an output that is not empty.
        ValueError: a damaged file, or no text to train on or to hold out.
        OSError: a file that cannot be written.
    """
    out = Path(out)
    check_empty(out)
    dtype = np.uint16 if tokenizer.n_ids <= 1 << 16 else np.uint32
    with replaced(out) as temporary:
        held_out = _save(temporary, _HELD_OUT, corpus.held_out_window(tokenizer, threads), dtype)
        shards, unknown = [], UnknownTokens(tokenizer, "the corpus")
        with tqdm(desc="tokens", unit="", unit_scale=True, disable=sys.stderr is None) as bar:
            for window in corpus.training_windows(tokenizer, None, window_chars, threads):
                unknown.count(window.ids)
                shards.append(_save(temporary, f"shard-{len(shards):05}", window, dtype))
                bar.update(window.n_tokens)
                bar.set_postfix(shards=len(shards))
        if not shards:
            raise ValueError(
                f"the corpus must hold documents to train on, got none besides those held out. {corpus.separator}"
            )
        if mix_seed is not None:
            shards = _mix(temporary, shards, mix_seed)
        meta = {
            "version": FORMAT_VERSION,
            "vocabulary": vocabulary_fingerprint(tokenizer),
            "vocabulary_size": len(tokenizer),
            "data": corpus.fingerprint(),
            "tokens": sum(shard["tokens"] for shard in shards),
            "documents": sum(shard["documents"] for shard in shards),
            "held_out": held_out,
            "shards": shards,
        }
        (temporary / META_NAME).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
        check_empty(out)  # others may have written there meanwhile
    return meta


def check_empty(out: Path) -> None:
    """Raises FileExistsError if `out` is a file or a directory that is not empty."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"the output must be a directory, but {out} is a file")
    if out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty: shards need a directory of their own")


def _save(directory: Path, name: str, window: TokenWindow, dtype: type) -> dict[str, Any]:
    arrays = {field: getattr(window, field) for field in _ARRAYS}
    arrays["ids"] = arrays["ids"].astype(dtype)
    checksums = {}
    for field, array in arrays.items():
        path = directory / f"{name}.{field}.npy"
        checksums[field] = _checksum(array)
        try:
            np.save(path, array)
        except OSError as error:  # numpy's message does not name the file
            raise OSError(f"{path} cannot be written: {error}") from error
    return {"name": name, "tokens": window.n_tokens, "documents": window.n_documents, "sha256": checksums}


def _mix(directory: Path, shards: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Replaces shards by as many whose documents are mixed."""

    def moved() -> Iterator[TokenWindow]:
        for shard in shards:
            paths = {field: directory / f"{shard['name']}.{field}.npy" for field in _ARRAYS}
            yield TokenWindow(**{field: np.load(path) for field, path in paths.items()})
            for path in paths.values():
                path.unlink()

    waiting = directory / "mixing"
    windows = mixed(moved(), len(shards), seed, waiting)
    new = [
        _save(directory, shard["name"], window, window.ids.dtype) for shard, window in zip(shards, windows, strict=True)
    ]
    waiting.rmdir()
    return new


def _checksum(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def open_corpus(
    paths: Sequence[str | Path], documents_by: DocumentsBy = "blank-line", text_key: str = "text"
) -> Corpus | ShardedCorpus:
    """The corpus of paths: a directory of shards, or the paths of a `Corpus`; without paths the built-in text.

    Raises:
        ValueError: a directory of shards together with other data.
    """
    sharded = [path for path in paths if (Path(path) / META_NAME).is_file()]
    if sharded and len(paths) > 1:
        raise ValueError(f"a directory of shards must be the only data, got {sharded[0]} and {len(paths) - 1} more")
    if sharded:
        return ShardedCorpus(sharded[0])
    return Corpus(paths, documents_by, text_key) if paths else Corpus.from_texts(builtin_documents())


def _check_fields(path: Path, found: Any, kinds: Mapping[str, type]) -> None:
    for name, kind in kinds.items():
        value = found.get(name) if isinstance(found, dict) else found
        if not isinstance(value, kind):
            raise ValueError(f"{path} must have {name} as {kind.__name__}, got {reprlib.repr(value)}")


class ShardedCorpus:
    """A directory written by `write_shards`, for `SequenceStream` and `held_out_sequences`.

    The windows of an epoch are the shards, in a new random order. With dense packing their number of sequences is known
    without reading them.

    Raises:
        FileNotFoundError: a directory without meta.json.
        ValueError: an unknown format version.
    """

    windows_are_fixed = True
    separator = "What a document is, `electra-fast prepare --documents-by` (documents_by=) decides"

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory)
        path = self.directory / META_NAME
        if not path.is_file():
            raise FileNotFoundError(f"{self.directory} must be a directory of token shards, but has no {META_NAME}")
        self.meta = read_json_object(path)
        if (version := self.meta.get("version")) != FORMAT_VERSION:
            raise ValueError(f"{path} must have format version {FORMAT_VERSION}, got {version!r}")
        _check_fields(path, self.meta, _META)
        for shard in (self.meta["held_out"], *self.meta["shards"]):
            _check_fields(path, shard, _SHARD)
            if Path(shard["name"]).name != shard["name"]:
                raise ValueError(f"{path} must name files of its own directory, got {shard['name']!r}")

    def training_windows(
        self,
        tokenizer: ElectraTokenizer,
        random: np.random.Generator | None,
        window_chars: int = WINDOW_CHARS,
        threads: int | None = None,
    ) -> Iterator[TokenWindow]:
        """The shards in an order drawn from `random`, or in their own; `window_chars` and `threads` change nothing.

        Raises:
            ValueError: another vocabulary than the shards were made with, a damaged shard.
        """
        self._check_vocabulary(tokenizer)
        shards = self.meta["shards"]
        for i in range(len(shards)) if random is None else random.permutation(len(shards)):
            yield self._load(shards[i])

    def held_out_window(self, tokenizer: ElectraTokenizer, threads: int | None = None) -> TokenWindow:
        """The held-out documents."""
        self._check_vocabulary(tokenizer)
        return self._load(self.meta["held_out"])

    def fingerprint(self) -> str:
        """The fingerprint of the data that the shards were made from."""
        return self.meta["data"]

    def fingerprint_of_edges(self) -> str:
        """The same: shards keep the fingerprint of the version that made them."""
        return self.fingerprint()

    def description(self) -> dict[str, Any]:
        """Facts about the text for the model card."""
        return {name: self.meta[name] for name in ("documents", "tokens")} | {"fingerprint": self.fingerprint()}

    def _check_vocabulary(self, tokenizer: ElectraTokenizer) -> None:
        if vocabulary_fingerprint(tokenizer) != self.meta["vocabulary"]:
            raise ValueError(
                f"the shards in {self.directory} must be used with the vocabulary and the normalization they were made "
                f"with, {self.meta['vocabulary_size']} tokens; got another tokenizer, of {len(tokenizer)} tokens"
            )

    def _load(self, shard: dict[str, Any]) -> TokenWindow:
        # Touching mapped memory beyond the end of a file that somebody truncates kills the process: it serves to count.
        return self._window(shard, "r", read=lambda: self._read(shard))

    def _read(self, shard: dict[str, Any]) -> TokenWindow:
        window = self._window(shard, None)
        # Shards of earlier versions have no checksums.
        for field, checksum in shard.get("sha256", {}).items():
            if _checksum(getattr(window, field)) != checksum:
                raise ValueError(f"{self.directory / shard['name']}.{field}.npy is damaged: its checksum is another")
        return window

    def _window(
        self, shard: dict[str, Any], mmap_mode: Literal["r"] | None, read: Callable[[], TokenWindow] | None = None
    ) -> TokenWindow:
        arrays = {}
        for field in _ARRAYS:
            path = self.directory / f"{shard['name']}.{field}.npy"
            try:
                arrays[field] = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
            except (ValueError, EOFError, FileNotFoundError) as error:
                raise ValueError(f"{path} must be an array of a token shard, got: {error}") from error
            array, dtypes = arrays[field], ("uint16", "uint32") if field == "ids" else ("int64",)
            if array.ndim != 1 or array.dtype not in dtypes:
                got = f"{array.dtype} of shape {list(array.shape)}"
                raise ValueError(f"{path} must be a row of {' or '.join(dtypes)}, got {got}")
        window = TokenWindow(**arrays, read=read)
        if (window.n_tokens, window.n_documents) != (shard["tokens"], shard["documents"]):
            raise ValueError(
                f"{shard['name']} in {self.directory} must have {shard['tokens']} tokens and {shard['documents']} "
                f"documents, got {window.n_tokens} and {window.n_documents}"
            )
        return window
