"""What a process may use of the processor."""

import pytest

from electra_fast import ElectraTokenizer
from electra_fast.model import cpu_encoder


def test_the_environment_limits_the_instruction_set(monkeypatch):
    monkeypatch.setenv("ELECTRA_FAST_ISA", "scalar")
    assert cpu_encoder.obstacle() == "ELECTRA_FAST_ISA=scalar allows neither AVX-512 nor AVX2 with FMA"
    monkeypatch.setenv("ELECTRA_FAST_ISA", "mmx")
    with pytest.raises(ValueError, match="ELECTRA_FAST_ISA must be one of avx512, avx2, neon, scalar, got 'mmx'"):
        cpu_encoder.obstacle()
    with pytest.raises(ValueError, match="ELECTRA_FAST_ISA"):
        ElectraTokenizer({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4})("a")
