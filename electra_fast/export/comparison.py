"""Comparison of a file with the network that it was made of, over batches of several shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from torch import Tensor

from .network import LOWEST, Exportable

TOLERANCE = 1e-4
Runner = Callable[[tuple[Tensor, ...]], dict[str, Tensor]]
"""A file's outputs by name, from the three inputs."""


def largest_difference(exportable: Exportable, run: Runner) -> float:
    """The largest difference between file and network over batches of several shapes; raises ValueError if too large.

    The limit is `TOLERANCE`, times the largest value where that is over 1.
    """
    largest = 0.0
    for name, inputs, value, found in _compared(exportable, run):
        difference = (found - value).abs().max().item()
        scale = max(1.0, value[value > LOWEST].abs().max().item())
        if not difference <= TOLERANCE * scale:  # NaN too
            raise ValueError(
                f"the exported {type(exportable.network).__name__} does not compute what it should: for inputs of "
                f"shape {tuple(inputs[0].shape)} {name} must be within {TOLERANCE * scale:.1e} of torch's, and "
                f"differs by {difference:.1e}"
            )
        largest = max(largest, difference)
    return largest


def relative_error(exportable: Exportable, run: Runner) -> float:
    """The root mean square of the file's error, divided by that of the network's outputs; raises ValueError from 1 on.

    Zeros have an error of 1.
    """
    errors, values = 0.0, 0.0
    for _, _, value, found in _compared(exportable, run):
        is_real = value > LOWEST
        errors += (found - value)[is_real].double().square().sum().item()
        values += value[is_real].double().square().sum().item()
    error = math.sqrt(errors / values)
    if not error < 1:  # NaN too
        raise ValueError(
            f"the {type(exportable.network).__name__} must compute in int8 nearly what it does in fp32, and errs by "
            f"{error:.0%}: this network cannot be quantized"
        )
    return error


def _compared(exportable: Exportable, run: Runner) -> Iterator[tuple[str, tuple[Tensor, ...], Tensor, Tensor]]:
    """Name, inputs, the network's values and the file's of each output that means something, over several batches."""
    limit = exportable.network.config.max_position_embeddings
    for batch, length in ((1, 1), (1, 2), (3, min(17, limit)), (4, min(64, limit)), (3, limit)):
        inputs = exportable.inputs(batch, length)
        expected, got = exportable(*inputs), run(inputs)
        for name, value in expected.items():
            found = got[name]
            if math.isnan(exportable.outputs[name] or 0.0):
                is_real = inputs[1] != 0
                value, found = value[is_real], found[is_real]
            yield name, inputs, value, found
