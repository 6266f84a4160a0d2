"""Assignments NAME=VALUE on the command line, as fields of a dataclass."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from types import UnionType
from typing import Literal, get_args, get_origin, get_type_hints


def assigned_fields(dataclass: type, assignments: Sequence[str]) -> dict[str, object]:
    """The values by name; raises ValueError for a name that is not a field, or a value of the wrong type."""
    types = get_type_hints(dataclass)
    values: dict[str, object] = {}
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        if name not in types:
            raise ValueError(f"--set must name a field of the recipe ({', '.join(types)}), got {assignment!r}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        expected = types[name]
        if get_origin(expected) is Literal:
            is_right = value in get_args(expected)
        else:
            kinds = get_args(expected) if isinstance(expected, UnionType) else (get_origin(expected) or expected,)
            is_right = isinstance(value, kinds) or (float in kinds and type(value) is int)
        if not is_right:
            raise ValueError(f"--set {name} must be {_shown(expected)}, got {text!r}")
        values[name] = value
    return values


def _shown(expected: object) -> str:
    if get_origin(expected) is Literal:
        return " or ".join(map(repr, get_args(expected)))
    return expected.__name__ if isinstance(expected, type) else str(expected)
