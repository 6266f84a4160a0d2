"""The directory of an exported network, whose files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..disk import made, moved, removed
from ..tokenizer import ElectraTokenizer
from .network import Exportable


@contextmanager
def written_beside(directory: str | os.PathLike, networks: tuple[str, ...], overwrite: bool) -> Iterator[Path]:
    """A temporary directory whose files move to `directory` if no error occurs, the last one of `networks` at the end.

    One of `networks` that is there and was not written again is removed: it would be another model's.
    """
    directory = Path(os.path.realpath(directory))
    if not directory.parent.is_dir():
        raise FileNotFoundError(f"the parent of the output directory does not exist: {directory.parent}")
    if directory.exists() and not (overwrite and directory.is_dir()):
        hint = "; --overwrite (overwrite=True) replaces its files" if directory.is_dir() else " and is no directory"
        raise FileExistsError(f"the output directory exists: {directory}{hint}")
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as temporary:
        yield Path(temporary)
        names = [file.relative_to(temporary).as_posix() for file in Path(temporary).rglob("*") if file.is_file()]
        for name in networks:
            if name not in names:
                removed(directory / name)
        for name in sorted(names, key=lambda name: name == networks[-1]):
            made((directory / name).parent)
            moved(Path(temporary, name), directory / name)


def write_companions(exportable: Exportable, tokenizer: ElectraTokenizer | None, directory: Path) -> None:
    """Writes the config and the tokenizer, which stand beside the network's file."""
    config = exportable.network.config
    config.architectures, config.dtype = [type(exportable.network).__name__], "float32"
    config.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
