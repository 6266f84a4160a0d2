"""The dropout masks of the kernels, drawn with torch: the same bits from the same seed.

`electra_fast.kernels.philox` explains the numbers; this is the slow and plain version for the reference with a seed.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 7
_MULTIPLIER_A, _MULTIPLIER_B = 0xD2511F53, 0xCD9E8D57
_KEY_A, _KEY_B = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF


def philox(seed: Tensor, c0: Tensor, c1: Tensor, c2: Tensor) -> Tensor:
    """Philox 4x32-7 of the counters (c0, c1, c2, 0), broadcast; counters and result [..., 4] are int64 below 2^32."""
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    c0, c1, c2 = torch.broadcast_tensors(c0, c1, c2)
    c3 = torch.zeros_like(c0)
    for _ in range(_ROUNDS):
        # int64 products wrap around, and their upper halves are still right as bits.
        a, b = c0 * _MULTIPLIER_A, c2 * _MULTIPLIER_B
        c0, c1, c2, c3 = (b >> 32 & _MASK) ^ c1 ^ k0, b & _MASK, (a >> 32 & _MASK) ^ c3 ^ k1, a & _MASK
        k0, k1 = (k0 + _KEY_A) & _MASK, (k1 + _KEY_B) & _MASK
    return torch.stack([c0, c1, c2, c3], dim=-1)


def keep_mask(seed: Tensor, rows: Tensor, n_columns: int, p: float, heads: Tensor | None = None) -> Tensor:
    """Mask of the elements that dropout at rate p keeps: [R, C] bool, or [A, R, C] with `heads` [A].

    seed: [1] int64; rows: [R] int64, row numbers.
    """
    groups = torch.arange((n_columns + 7) // 8, device=rows.device)
    head = torch.zeros(1, dtype=torch.long, device=rows.device) if heads is None else heads[:, None, None]
    words = philox(seed, groups, rows[:, None], head)
    lanes = torch.stack([words & 0xFFFF, words >> 16], dim=-1).flatten(-3)
    return lanes[..., :n_columns] >= round(p * 65536)


def keep_scale(p: float) -> float:
    """Factor of the elements that are kept: the inverse of their share, with p as the 16 bits have it."""
    threshold = round(p * 65536)
    return 65536 / (65536 - threshold) if threshold < 65536 else 0.0
