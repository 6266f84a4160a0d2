"""The dtypes of weights and activations, by name."""

from __future__ import annotations

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def default_precision(device: torch.device) -> str:
    """The default dtype by name: bf16 where the kernels run, fp32 on a CPU, which is slower in bf16."""
    return "bf16" if device.type == "cuda" else "fp32"
