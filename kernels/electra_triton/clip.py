"""What all gradients are multiplied by before an update, from their norm; and the counts of steps.

    norm = scaled / loss_scale;  factor = max_norm / max(norm, max_norm) / loss_scale;  count += 1 if factor is finite

Shapes: scaled, loss_scale, norm, factor [] fp32; is_finite [] bool; counts, K scalars [] int64 anywhere in memory.

Fused: all of it is one launch, where eager torch takes six, for a few hundred bytes. A program does one count, and the
first one leaves the scalars. `table` [K] int64 has the addresses of the counts, which the kernel casts to pointers; it
is built on the host and kept on the device by a `Cache`.

Numerics: fp32, quotients rounded as torch rounds them. factor is NaN where the norm is not finite.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_cache import Cache

_CACHE = Cache(16)


@triton.jit(do_not_specialize=["max_norm"])
def clip_kernel(
    scaled_ptr,  # [] fp32
    loss_scale_ptr,  # [] fp32, read where IS_SCALED
    table_ptr,  # [K] int64: addresses of the counts
    norm_ptr,  # [] fp32
    factor_ptr,  # [] fp32
    is_finite_ptr,  # [] int8
    max_norm,
    CLIPS: tl.constexpr,
    IS_SCALED: tl.constexpr,
):
    norm = tl.load(scaled_ptr)
    if IS_SCALED:
        norm = tl.div_rn(norm, tl.load(loss_scale_ptr))
    factor = tl.where(norm < float("inf"), 1.0, float("nan"))
    if CLIPS:
        factor *= tl.div_rn(max_norm, tl.maximum(norm, max_norm))
    if IS_SCALED:
        factor = tl.div_rn(factor, tl.load(loss_scale_ptr))
    is_finite = factor < float("inf")  # it is positive or NaN
    count_ptr = tl.load(table_ptr + tl.program_id(0)).to(tl.pointer_type(tl.int64))
    tl.store(count_ptr, tl.load(count_ptr) + is_finite.to(tl.int64))
    if tl.program_id(0) == 0:
        tl.store(norm_ptr, norm)
        tl.store(factor_ptr, factor)
        tl.store(is_finite_ptr, is_finite.to(tl.int8))


def _table(*addresses: int) -> Tensor:
    return torch.tensor(addresses, dtype=torch.int64)


def clip(
    scaled: Tensor, counts: Sequence[Tensor], max_norm: float | None, loss_scale: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes scaled [] -> (norm [], factor [], is_finite []), and counts in place."""
    norm, factor = (torch.empty_like(scaled) for _ in range(2))
    is_finite = torch.empty_like(scaled, dtype=torch.bool)
    table = _CACHE.get(scaled.device, _table, *(x.data_ptr() for x in counts))
    # Triton's booleans have a sign.
    clip_kernel[len(counts),](
        scaled, loss_scale, table, norm, factor, is_finite.view(torch.int8), max_norm or 0.0,
        CLIPS=max_norm is not None, IS_SCALED=loss_scale is not None, num_warps=1,
    )  # fmt: skip
    return norm, factor, is_finite
