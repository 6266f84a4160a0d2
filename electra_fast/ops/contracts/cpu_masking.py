"""The ops `mask_tokens` and `place_samples` in C++ (csrc/cpu); what C++ cannot serve goes to the reference.

They have no gradients, and their loops take less time than a few launches of torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import cpu, reference
from ..tracing import is_followed
from .cpu_library import PLAIN, addresses, hold, obstacle


def mask_tokens(
    input_ids: Tensor,
    cu_seqlens: Tensor,
    candidates: Tensor,
    uniform: Tensor,
    n_slots: int,
    mask_token_id: int,
    mask_prob: float = 0.15,
    mask_fraction: float = 0.85,
    replacement: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`reference.mask_tokens`.

    Raises:
        ValueError: a `cu_seqlens` that does not mark sequences.
    """
    numbers = n_slots, mask_token_id, mask_prob, mask_fraction, replacement
    given = input_ids, cu_seqlens, candidates, uniform
    held = hold([input_ids, cu_seqlens, candidates, uniform.contiguous()])
    n_tokens = len(input_ids)
    shapes = (n_tokens,), (len(cu_seqlens),), (n_tokens,), (2, n_tokens)
    dtypes = torch.int64, torch.int32, torch.bool, torch.float32
    if n_tokens == 0 or not _fit(given, held, dtypes, shapes):
        return reference.mask_tokens(*given, *numbers)
    ids, starts, *others = held
    masked, (positions, labels) = torch.empty_like(ids), ids.new_empty(2, n_slots).unbind()
    is_used = others[0].new_empty(n_slots)
    cpu.extension.mask_tokens(
        n_tokens,
        starts.tolist(),
        addresses((ids, *others)),
        *numbers,
        addresses((masked, positions, labels, is_used)),
    )
    return masked, positions, labels, is_used


def place_samples(input_ids: Tensor, positions: Tensor, samples: Tensor, is_used: Tensor) -> tuple[Tensor, Tensor]:
    """`reference.place_samples`.

    Raises:
        IndexError: a position that is none.
    """
    given = input_ids, positions, samples, is_used
    held, (n_tokens, n_slots) = hold(given), (len(input_ids), len(positions))
    dtypes = torch.int64, torch.int64, torch.int64, torch.bool
    if not _fit(given, held, dtypes, ((n_tokens,), (n_slots,), (n_slots,), (n_slots,))):
        return reference.place_samples(*given)
    corrupted, is_replaced = torch.empty_like(held[0]), held[3].new_empty(n_tokens)
    cpu.extension.place_samples((n_tokens, n_slots), addresses((*held, corrupted, is_replaced)))
    return corrupted, is_replaced


def _fit(given, held, dtypes, shapes) -> bool:
    """Tells whether C++ may read tensors by their addresses."""
    if is_followed() or obstacle() or not all(type(x) in PLAIN for x in given):
        return False
    return not any(cpu.unfit(x, *expected) for x, *expected in zip(held, dtypes, shapes, strict=True))
