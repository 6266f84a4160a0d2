"""What GPUs can compute at most: the denominator of model FLOPs utilisation (MFU)."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU's dense peak.

    Attributes:
        pattern: matches what `torch.cuda.get_device_name` says of it.
        peak_flops: a second, bf16 with fp32 sums on tensor cores, without sparsity (V100: fp16).
    """

    pattern: str
    peak_flops: float


# From NVIDIA's datasheets of the products and, for the RTX 4090, the appendix of the Ada architecture whitepaper. Where
# a datasheet gives the figure with sparsity alone, half of it.
GPUS: dict[str, Gpu] = {
    "v100": Gpu(r"V100-SXM", 125e12),
    "a100": Gpu(r"A100", 312e12),
    "h100": Gpu(r"\bH100(?! PCIe| NVL)", 989e12),
    "h100-pcie": Gpu(r"\bH100 PCIe", 756e12),
    "h200": Gpu(r"\bH200(?! NVL)", 989e12),
    "b200": Gpu(r"\bB200", 2250e12),
    "l4": Gpu(r"\bL4$", 121e12),
    "rtx-4090": Gpu(r"RTX 4090$", 165e12),
}


def peak_flops(device_name: str) -> float | None:
    """The dense peak of a GPU by the name that `torch.cuda.get_device_name` gives it; None for one that is not listed.

    A V100's is in fp16, which it has instead of bf16; a run in fp32 is measured against this number too.
    """
    return next((gpu.peak_flops for gpu in GPUS.values() if re.search(gpu.pattern, device_name)), None)
