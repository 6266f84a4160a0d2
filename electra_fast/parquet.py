"""Parquet files, by pyarrow (the extra `datasets`): rows are read a few thousand at a time, and written likewise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .disk import check_readable, written

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

        def write(rows: np.ndarray) -> None:
            numbers = arrow.array(np.ascontiguousarray(rows, np.float32).ravel())
            writer.write_batch(arrow.record_batch([arrow.FixedSizeListArray.from_arrays(numbers, size)], schema=schema))

        yield write


@contextmanager
def written_rows(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Writes rows with the same fields; yields a function that appends one, a dictionary.

    The first few thousand rows decide the types of the columns; one that is null in all of these is text. The file gets
    its name when all of it is written.
    """
    arrow, parquet = _pyarrow()
    waiting: list[dict[str, Any]] = []
    writer = None

    def flush() -> None:
        nonlocal writer
        if writer is None:
            found = arrow.Table.from_pylist(waiting).schema
            writer = parquet.ParquetWriter(file, arrow.schema([(x.name, _typed(arrow, x.type)) for x in found]))
        writer.write_table(arrow.Table.from_pylist(waiting, schema=writer.schema))
        waiting.clear()

    def write(row: Mapping[str, Any]) -> None:
        waiting.append(dict(row))
        if len(waiting) == _ROWS:
            flush()

    with written(path, "wb") as file:
        yield write
        if waiting or writer is None:
            flush()
        writer.close()


def _typed(arrow: ModuleType, kind: Any) -> Any:
    """The type, with text for what is null alone."""
    if arrow.types.is_null(kind):
        return arrow.string()
    if arrow.types.is_list(kind):
        return arrow.list_(_typed(arrow, kind.value_type))
    if arrow.types.is_struct(kind):
        return arrow.struct([(kind.field(i).name, _typed(arrow, kind.field(i).type)) for i in range(kind.num_fields)])
    return kind


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install 'electra_fast[datasets]'") from error
    return pyarrow, pyarrow.parquet


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
