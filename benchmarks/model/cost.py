"""The cost of an encoder's forward pass, and the best rates of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from ...model.config import ElectraConfig
from ..gpu import Ceilings

_PRODUCTS = ((2048, 2048, 2048), (1024, 1024, 4096))
_COPIED_BYTES = 1 << 27
_REPEATS = 7


def forward_flops(config: ElectraConfig, lengths: np.ndarray) -> int:
    """Operations of the layers at real tokens: L (8 h^2 + 4 h ff + 4 s h) for each, where s is the length of its row.

    This is the usual count of model FLOPs: two for a multiply-add, products of matrices only, no embeddings.

    Args:
        lengths: the lengths of the rows.
    """
    h, ff, tokens = config.hidden_size, config.intermediate_size, int(lengths.sum())
    products = tokens * (8 * h * h + 4 * h * ff)
    return config.num_hidden_layers * (products + 4 * h * int(np.square(lengths.astype(np.int64)).sum()))


def ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """The best rates of the device: on a GPU as `Ceilings.measure` finds it; on a CPU the best of some runs in fp32."""
    if device.type == "cuda":
        return Ceilings.measure(device, dtype)
    flops = []
    for m, k, n in _PRODUCTS:
        a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        flops.append(2 * m * k * n / _best_seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out)))
    source, target = torch.ones(2, _COPIED_BYTES, dtype=torch.int8)
    return Ceilings(2 * _COPIED_BYTES / _best_seconds(lambda: target.copy_(source)), max(flops))


def _best_seconds(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
