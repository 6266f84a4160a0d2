"""What the commands on any number of texts share: their input's column, their output, and their speed on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .. import parquet
from ..disk import written
from ..inference.batching import Counts

if TYPE_CHECKING:
    from ..finetuning.data.tasks import Columns


def text_columns(text: str | None, no_header: bool) -> Columns:
    """The columns of a file whose text has this name, or this number if it has no header."""
    from ..finetuning.data.tasks import Columns, number_or_name

    return Columns(text=number_or_name(text) if no_header and text is not None else text, has_header=not no_header)


@contextmanager
def written_objects(path: Path | None, fields: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Writes one JSON object a line, or one row to a file that ends with .parquet; yields a function that appends one.

    The path None is the standard output. A file gets its name when all of it is written.

    Args:
        fields: the types of an object's fields, as `parquet.arrow_type` takes them.
    """
    if path is not None and path.suffix == parquet.SUFFIX:
        with parquet.written_rows(path, fields) as write:
            yield write
        return
    with nullcontext(sys.stdout) if path is None else written(path) as out:
        yield lambda value: print(json.dumps(value, ensure_ascii=False, allow_nan=False), file=out)


@contextmanager
def timed(noun: str) -> Iterator[Counts]:
    """Yields counts to keep up to date, and prints at the end how many texts and tokens a second that is."""
    counts, begun = Counts(), perf_counter()
    yield counts
    seconds = perf_counter() - begun
    print(
        f"{counts.examples:,} {noun}, {counts.tokens:,} tokens in {seconds:.1f} s: "
        f"{counts.examples / seconds:,.0f} {noun}/s, {counts.tokens / seconds:,.0f} tokens/s",
        file=sys.stderr,
    )
