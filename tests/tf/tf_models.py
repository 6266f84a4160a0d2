"""Models of the golden cases, for the tests of several files."""

from __future__ import annotations

from typing import Any

import numpy as np
from golden.cases import CASES, FOLDER, TF, inputs_of, real_positions, weight

from electra_fast import ElectraConfig
from electra_fast.functional.parameters import flatten, shapes, unflatten

GOLDEN = np.load(FOLDER / f"{TF}.npz")


def make(name: str, **fields: Any):
    """The model of a case, with its weights."""
    from electra_fast.tf.modeling import CLASSES

    case = CASES[name]
    config = ElectraConfig(**{**case.config, **fields})
    leaves = {path: weight("/".join(path), shape) for path, shape in flatten(shapes(config, case.head))}
    return CLASSES[case.head](config, values=unflatten(leaves))


def tokens_of(name: str) -> dict[str, np.ndarray]:
    """A case's inputs without its labels."""
    return {key: x for key, x in inputs_of(name).items() if key not in ("labels", "start_positions", "end_positions")}


def error(name: str, key: str, found: Any, expected: np.ndarray | None = None) -> float:
    """The largest difference of a result from the golden one, at real positions."""
    found = np.asarray(found)
    expected = GOLDEN[f"{name}/{key}"] if expected is None else np.asarray(expected)
    assert found.shape == expected.shape, key
    real = real_positions(name, found.shape)
    difference = abs(found - expected)
    return float((difference if real is None else np.where(real, difference, 0)).max())
