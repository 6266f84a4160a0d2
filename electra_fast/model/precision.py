"""The dtypes of weights and activations, by name."""

from __future__ import annotations

import platform
import warnings
from functools import cache

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def default_precision(device: torch.device) -> str:
    """The default dtype by name: bf16 where the kernels run, fp32 on a CPU, since most are slower in bf16."""
    return "bf16" if device.type == "cuda" else "fp32"


@cache
def warn_if_slow(dtype: torch.dtype) -> None:
    """Warns once if this processor has no instructions for a 16-bit dtype."""
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    is_fast = {torch.bfloat16: has_bf16, torch.float16: torch.cpu._is_amx_fp16_supported()}
    if not is_fast.get(dtype, True) and platform.machine() == "x86_64":
        warnings.warn(
            f"this processor does not multiply {dtype}: a model in float32 is several times as fast", stacklevel=2
        )
