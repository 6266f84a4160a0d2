"""Peak FLOP/s of GPUs: the denominator of model FLOPs utilisation (MFU)."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU's dense peak.

    Attributes:
        pattern: regular expression found in what `torch.cuda.get_device_name` returns.
        peak_flops: FLOP/s in bf16 with fp32 sums on tensor cores, without sparsity (V100: fp16).
    """

    pattern: str
    peak_flops: float


# Numbers from NVIDIA's datasheets and, for the RTX 4090, the appendix of the Ada architecture whitepaper. If a
# datasheet gives only the figure with sparsity, the table has half of it.
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
    """The dense peak of a GPU by its name in `torch.cuda.get_device_name`; None for a GPU that is not listed.

    A V100's peak is in fp16, because it has no bf16. Runs in fp32 are measured against this number too.
    """
    return next((gpu.peak_flops for gpu in GPUS.values() if re.search(gpu.pattern, device_name)), None)
