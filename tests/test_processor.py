"""What a process may use of the processor, and of the memory."""

import pytest

from electra_fast import ElectraConfig, ElectraModel, ElectraTokenizer, processor
from electra_fast.model import cpu_encoder


def test_the_environment_limits_the_instruction_set(monkeypatch):
    monkeypatch.setenv("ELECTRA_FAST_ISA", "scalar")
    assert cpu_encoder.obstacle() == "ELECTRA_FAST_ISA=scalar allows neither AVX-512, nor AVX2 with FMA, nor NEON"
    monkeypatch.setenv("ELECTRA_FAST_ISA", "mmx")
    with pytest.raises(ValueError, match="ELECTRA_FAST_ISA must be one of avx512, avx2, neon, scalar, got 'mmx'"):
        cpu_encoder.obstacle()
    with pytest.raises(ValueError, match="ELECTRA_FAST_ISA"):
        ElectraTokenizer({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4})("a")


GIB = 1 << 30
TWO = "sys/fs/cgroup"
ONE = "sys/fs/cgroup/memory"
# What /proc/self/cgroup says, the files of limits, and the limits that hold.
CGROUPS = {
    "none": ("", {}, set()),
    "another controller": ("9:name=systemd:/a", {f"{ONE}/a/memory.limit_in_bytes": GIB}, set()),
    "version 2": ("0::/a/b", {f"{TWO}/a/b/memory.max": 3 * GIB}, {3 * GIB}),
    "a limit around it": (
        "0::/a/b",
        {f"{TWO}/a/b/memory.max": "max", f"{TWO}/a/memory.max": GIB, f"{TWO}/other/memory.max": 5},
        {GIB},
    ),
    "a container": ("0::/", {f"{TWO}/memory.max": GIB}, {GIB}),
    "a container that sees the host's path": ("0::/../../docker/1", {f"{TWO}/memory.max": GIB}, {GIB}),
    "version 1": (
        "9:name=systemd:/a\n4:memory:/a\n2:cpuacct:/b",
        {f"{ONE}/a/memory.limit_in_bytes": GIB, f"{ONE}/memory.limit_in_bytes": 0x7FFFFFFFFFFFF000},
        {GIB, 0x7FFFFFFFFFFFF000},
    ),
    "version 1 in a container": (
        "4:cpuset,memory:/docker/1\n0::/docker/1",
        {f"{ONE}/memory.limit_in_bytes": GIB},
        {GIB},
    ),
    "a path with a colon": ("0::/a:b", {f"{TWO}/a:b/memory.max": GIB}, {GIB}),
    "what is no number": ("0::/", {f"{TWO}/memory.max": ""}, set()),
}


@pytest.mark.parametrize("name", CGROUPS)
def test_limits_of_cgroups(tmp_path, name):
    groups, limits, expected = CGROUPS[name]
    for path, content in {"proc/self/cgroup": groups, **limits}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{content}\n")
    assert set(processor._memory_limits(tmp_path)) == expected


def test_the_memory_is_the_least_of_all_limits(monkeypatch, tmp_path):
    assert list(processor._memory_limits(tmp_path)) == []  # not Linux
    machine = processor.memory()
    monkeypatch.setattr(processor, "_memory_limits", lambda: iter([machine + 1, 1000, 1 << 62]))
    assert processor.memory() == 1000
    with pytest.raises(ValueError, match="a model must fit into the memory that this process may use"):
        ElectraModel(ElectraConfig(hidden_size=4, num_attention_heads=1, embedding_size=4, num_hidden_layers=1))
