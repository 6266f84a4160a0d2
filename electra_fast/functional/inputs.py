"""What the arguments of the Flax and the TensorFlow classes share."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_array(name: str, value: Any) -> np.ndarray:
    """An argument, such as rows in lists, as an array.

    Raises:
        ValueError: rows of several lengths.
    """
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must have rows of one length: pad them (tokenizer(..., padding=True))") from error
