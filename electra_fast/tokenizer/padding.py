"""Padding of rows that were encoded before: columns by name, or a list of rows, as collators have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .plan import Lengths


def as_lists(columns: Any) -> tuple[dict[str, Any], str | None]:
    """Columns for `pad` as lists, from a mapping of columns or a list of rows, and the kind of tensors they were.

    Raises:
        ValueError: neither of the two, rows with unlike columns, columns of unequal length, or ids that are none.
    """
    if isinstance(columns, (list, tuple)):
        if not columns or not all(isinstance(row, Mapping) for row in columns):
            raise ValueError("pad needs a mapping of columns or a list of mappings, one for each row")
        for number, row in enumerate(columns):
            if missing := [name for name in columns[0] if name not in row]:
                raise ValueError(f"all rows must have the columns of the first, but row {number} lacks {missing[0]}")
        columns = {name: [row[name] for row in columns] for name in columns[0]}
    if not isinstance(columns, Mapping):
        raise ValueError(f"pad needs a mapping of columns or a list of mappings, got {type(columns).__name__}")
    if columns.get("input_ids") is None:
        raise ValueError(f"pad needs input_ids, got {', '.join(map(str, columns)) or 'nothing'}")
    kinds = {_kind(value) for value in columns.values()} - {None}
    lists = {name: to_lists(value) for name, value in columns.items()}
    _check(lists)
    return lists, next(iter(kinds), None)


def _check(columns: dict[str, Any]) -> None:
    ids = columns["input_ids"]
    if not isinstance(ids, (list, tuple)):
        raise ValueError(f"input_ids must be a list of ids or of rows of ids, got {ids!r:.80}")
    rows = ids if is_of_rows(ids) else [ids]
    for number, row in enumerate(rows):
        if not isinstance(row, (list, tuple)) or not all(isinstance(index, int) for index in row):
            raise ValueError(f"row {number} of input_ids must be a list of ids, got {row!r:.80}")
    if rows is ids:
        for name, column in columns.items():
            if not isinstance(column, (list, tuple)) or len(column) != len(ids):
                size = len(column) if isinstance(column, (list, tuple)) else repr(column)[:80]
                raise ValueError(f"{name} must have as many rows as input_ids, {len(ids)}, got {size}")


def is_of_rows(ids: list) -> bool:
    """Tells whether input_ids are rows rather than one row; an empty list is no row at all."""
    return not ids or isinstance(ids[0], (list, tuple))


def pad_rows(rows: dict[str, list], lengths: Lengths, fills: dict[str, int | None]) -> dict[str, list]:
    """Fills the rows of the columns that `fills` names; others stay as they are."""
    width = lengths.width(max(map(len, rows["input_ids"]), default=0))
    return {
        name: [_pad_row(name, row, width, fills[name], lengths.padding_side) for row in column]
        if name in fills
        else column
        for name, column in rows.items()
    }


def _pad_row(name: str, row: Any, width: int, fill: Any, side: str) -> list:
    if not isinstance(row, (list, tuple)):
        raise ValueError(f"{name} must have a list in each row, got {row!r:.80}")
    filling = [fill] * (width - len(row))
    return [*row, *filling] if side == "right" else [*filling, *row]


def _kind(value: Any) -> str | None:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    module = type(value).__module__.partition(".")[0]
    return {"torch": "pt", "numpy": "np"}.get(module)


def to_lists(value: Any) -> Any:
    """Arrays and tensors, also inside of lists, as lists of Python numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if not isinstance(value, (list, tuple)) or set(map(type, value)) == {int}:  # the common case, found quickly
        return value
    return [to_lists(item) for item in value]
