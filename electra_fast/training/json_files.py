"""What a run left in files of JSON: lines of its log, and settings beside those of today."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..disk import parse_json


def parsed_object(text: bytes | str, place: str) -> dict[str, Any]:
    """The JSON object of a text; `place` names the text in the ValueError for anything else."""
    try:
        found = parse_json(text.decode() if isinstance(text, bytes) else text)
    except ValueError as error:
        raise ValueError(f"{place} must be a JSON object, got: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{place} must be a JSON object, got: {type(found).__name__}")
    return found


# How long a run is: its rate falls by the share that is done, so the same run may be given more or less of it.
_LIMITS = ("n_steps", "minutes")


def differences(found: Mapping[str, Any], expected: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Names and values of the settings in which a run on disk is another than this one; empty if they are the same.

    The run's own limits, steps and minutes, may differ.

    Args:
        defaults: values of settings that `found` does not have, because they could not be set then.
    """
    then, now = _flat(defaults) | _flat(found), _flat(expected)
    names = [name for name in sorted((then.keys() | now.keys()) - set(_LIMITS)) if then.get(name) != now.get(name)]
    return "; ".join(f"{name}: {then.get(name)} then, {now.get(name)} now" for name in names)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings as a flat dict with names such as recipe.seq_length, and values as JSON has them."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = {f"{name}.{key}": x for key, x in value.items()} if isinstance(value, Mapping) else {name: value}
        flat |= inner
    return json.loads(json.dumps(flat))
