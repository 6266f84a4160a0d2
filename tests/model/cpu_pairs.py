"""A model that the encoder in C++ serves beside the same one in torch."""

from __future__ import annotations

import pytest
import torch

from electra_fast import ElectraConfig, ElectraModel
from electra_fast.model.packing import PackedBatch, cu_seqlens_of
from electra_fast.ops import cpu

SMALL = dict(
    vocab_size=50, embedding_size=24, hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=72
)


# What C++ calls the instruction sets of ELECTRA_FAST_ISA.
NAMES = {"avx512": "AVX-512", "avx2": "AVX2", "neon": "NEON"}


def limit_to(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits C++ to one of `NAMES`; skips the test where the processor has it not."""
    monkeypatch.setenv("ELECTRA_FAST_ISA", instructions)
    if cpu.obstacle() or not cpu.instructions().startswith(NAMES[instructions]):
        pytest.skip(f"the processor has no {NAMES[instructions]}")


def pair(seed: int = 0, **sizes) -> tuple[ElectraModel, ElectraModel]:
    """(served, reference) with the same weights, far from their initial values so that every part counts."""
    config = ElectraConfig(**{**SMALL, **sizes})
    torch.manual_seed(seed)
    served, reference = ElectraModel(config).eval(), ElectraModel(config, impl="torch").eval()
    with torch.no_grad():
        for parameter in served.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.dim() == 1 else 0.08))
    reference.load_state_dict(served.state_dict())
    return served, reference


def tokens(lengths: list[int], vocab_size: int = 50) -> tuple[torch.Tensor, PackedBatch]:
    starts = cu_seqlens_of(lengths)
    return torch.randint(vocab_size, (sum(lengths),)), PackedBatch.from_cu_seqlens(
        1, sum(lengths), starts, max(lengths)
    )
