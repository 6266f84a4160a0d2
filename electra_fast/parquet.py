"""Parquet files and columns of Arrow tables, by pyarrow (the extra `datasets`).

Rows of files are read a few thousand at a time, and written likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .disk import check_readable, written

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".parquet"
_ROWS = 4096


def read_rows(
    path: Path, columns: Collection[str], optional: Collection[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file by number from 1, with the fields of these columns: Python's values, None where one is null.

    Args:
        columns: columns that the file must have.
        optional: further columns, which are read where there are any.

    Raises:
        FileNotFoundError: no such file.
        ImportError: pyarrow is not installed.
        ValueError: a file that is damaged or no Parquet, one that lacks a column.
    """
    check_readable(path)
    arrow, parquet = _pyarrow()
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := [column for column in columns if names.count(column) != 1]:
                raise ValueError(f"{path} must have one column {missing[0]!r}, got {', '.join(names)}")
            wanted = [*columns, *(name for name in optional if names.count(name) == 1)]
            for batch in file.iter_batches(_ROWS, columns=list(dict.fromkeys(wanted))):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} must be a whole Parquet file, got after row {number}: {_first_line(error)}"
        ) from error


@contextmanager
def written_vectors(path: Path, size: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes the column `embedding`, lists of `size` fp32 numbers; yields a function that appends some, [n, size].

    The file gets its name when all of it is written.
    """
    arrow, parquet = _pyarrow()
    schema = arrow.schema([("embedding", arrow.list_(arrow.float32(), size))])
    with written(path, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        yield lambda rows: writer.write_batch(arrow.record_batch([vector_array(rows)], schema=schema))


@contextmanager
def written_rows(path: Path, fields: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Writes rows with these fields, of types as in `arrow_type`; yields a function that appends one, a dictionary.

    The file gets its name when all of it is written.
    """
    arrow, parquet = _pyarrow()
    schema = arrow.schema([(name, arrow_type(kind)) for name, kind in fields.items()])
    waiting: list[Mapping[str, Any]] = []

    def flush() -> None:
        writer.write_table(arrow.Table.from_pylist(waiting, schema=schema))
        waiting.clear()

    def write(row: Mapping[str, Any]) -> None:
        waiting.append(row)
        if len(waiting) == _ROWS:
            flush()

    with written(path, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        yield write
        flush()


def arrow_type(kind: Any) -> pyarrow.DataType:
    """The Arrow type of values: str, int, float or np.float32; [kind] is a list, {name: kind} an object."""
    arrow, _ = _pyarrow()
    if isinstance(kind, list):
        return arrow.list_(arrow_type(kind[0]))
    if isinstance(kind, dict):
        return arrow.struct([(name, arrow_type(inner)) for name, inner in kind.items()])
    return {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), np.float32: arrow.float32()}[kind]


def vector_array(vectors: np.ndarray) -> pyarrow.Array:
    """A column of vectors, lists of `size` fp32 numbers. vectors: [n, size]."""
    arrow, _ = _pyarrow()
    numbers = arrow.array(np.ascontiguousarray(vectors, np.float32).ravel())
    return arrow.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])


def text_list(column: pyarrow.ChunkedArray, name: str) -> list[str]:
    """The texts of a column, where null is the empty text; raises ValueError for a column of another type."""
    if not _is_text(column.type):
        raise ValueError(f"the column {name!r} must hold text, got {column.type}: cast it before")
    return [text or "" for text in column.to_pylist()]


def word_lists(column: pyarrow.ChunkedArray, name: str) -> list[list[str]]:
    """The lists of texts of a column, where null is empty; raises ValueError for a column of another type."""
    arrow, _ = _pyarrow()
    lists = arrow.ListType, arrow.LargeListType, arrow.FixedSizeListType
    if not (isinstance(column.type, lists) and _is_text(column.type.value_type)):
        raise ValueError(f"the column {name!r} must hold lists of text, got {column.type}: cast it before")
    return [[word or "" for word in words or ()] for words in column.to_pylist()]


def _is_text(kind: pyarrow.DataType) -> bool:
    arrow, _ = _pyarrow()
    kind = kind.value_type if arrow.types.is_dictionary(kind) else kind
    return kind in (arrow.string(), arrow.large_string(), arrow.string_view(), arrow.null())


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install 'electra_fast[datasets]'") from error
    return pyarrow, pyarrow.parquet


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
