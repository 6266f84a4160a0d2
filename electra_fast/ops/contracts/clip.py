"""The op `clip` on the kernel of `electra_fast.kernels.clip`, a plain function as the other ops in `optim` are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .library import on_device


def clip(
    norm: Tensor, counts: Sequence[Tensor], max_norm: float | None = None, loss_scale: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(norm, factor, is_finite), scalars in fp32, fp32 and bool; counts in place: see `reference_optim.clip`.

    Raises:
        ValueError: no counts, tensors that are no scalars, norm or loss_scale not in float32, a count not in int64,
            tensors on different devices.
    """
    from ...kernels import clip as kernels

    _check("norm", norm, torch.float32, norm.device)
    if loss_scale is not None:
        _check("loss_scale", loss_scale, torch.float32, norm.device)
    if not counts:
        raise ValueError("clip: expected counts, got none")
    for i, count in enumerate(counts):
        _check(f"counts[{i}]", count, torch.int64, norm.device)
    return kernels.clip(norm, counts, max_norm, loss_scale)


def _check(name: str, x: Tensor, dtype: torch.dtype, device: torch.device) -> None:
    on_device("clip", name, x, device)
    if x.dtype != dtype or x.dim() > 0:
        raise ValueError(f"clip: expected {name} to be a scalar of {dtype}, got {x.dtype}, {tuple(x.shape)}")
