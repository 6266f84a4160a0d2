"""The ops `mask_tokens` and `place_samples` on the kernels of `electra_fast.kernels.masking`; integers, no backward."""

from __future__ import annotations

import torch
from torch import Tensor

from .library import define, on_device


@define(
    "mask_tokens(Tensor input_ids, Tensor cu_seqlens, Tensor candidates, Tensor uniform, SymInt n_slots, "
    "int mask_token_id, float mask_prob, float mask_fraction, bool replacement) -> (Tensor, Tensor, Tensor, Tensor)",
    module="masking",
)
def _mask_tokens(input_ids, cu_seqlens, candidates, uniform, n_slots, *options):
    slots = input_ids.new_empty(n_slots)
    return torch.empty_like(input_ids), slots, torch.empty_like(slots), torch.empty_like(slots, dtype=torch.bool)


@define(
    "place_samples(Tensor input_ids, Tensor positions, Tensor samples, Tensor is_used) -> (Tensor, Tensor)",
    module="masking",
)
def _place_samples(input_ids, positions, samples, is_used):
    return torch.empty_like(input_ids), torch.empty_like(input_ids, dtype=torch.bool)


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
    """Chooses positions, writes [MASK] and records the targets, with shapes that do not depend on the draw.

    input_ids: [T] int64, every token in a sequence; candidates: [T] bool; uniform: [2, T] fp32 in [0, 1). Returns
    (masked_ids [T], positions [n_slots] int64, labels [n_slots] int64, is_used [n_slots] bool).
    """
    tensors = _inputs(
        "mask_tokens",
        input_ids=(input_ids, torch.int64),
        cu_seqlens=(cu_seqlens, torch.int32),
        candidates=(candidates, torch.bool),
        uniform=(uniform, torch.float32),
    )
    return _mask_tokens(*tensors, n_slots, mask_token_id, mask_prob, mask_fraction, replacement)


def place_samples(input_ids: Tensor, positions: Tensor, samples: Tensor, is_used: Tensor) -> tuple[Tensor, Tensor]:
    """Writes the generator's samples over the original ids.

    input_ids: [T] int64; positions, samples: [N] int64; is_used: [N] bool. The last of several samples for one position
    is taken. Returns (corrupted_ids [T], is_replaced [T] bool).
    """
    tensors = _inputs(
        "place_samples",
        input_ids=(input_ids, torch.int64),
        positions=(positions, torch.int64),
        samples=(samples, torch.int64),
        is_used=(is_used, torch.bool),
    )
    return _place_samples(*tensors)


def _inputs(op: str, **tensors: tuple[Tensor, torch.dtype]) -> list[Tensor]:
    """The tensors, made contiguous; raises ValueError for one of another dtype or device than the kernels read."""
    device = next(iter(tensors.values()))[0].device
    for name, (tensor, dtype) in tensors.items():
        on_device(op, name, tensor, device)
        if tensor.dtype != dtype:
            raise ValueError(f"{op}: expected {name} of {dtype}, got {tensor.dtype}")
    return [tensor.contiguous() for tensor, _ in tensors.values()]
