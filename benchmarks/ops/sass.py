"""Instructions of a kernel's binary for sm_90, its loops, and the cycles that they keep each pipe of an SM busy.

The binary is disassembled by the nvdisasm that Triton brings along. A loop is what lies between a branch and its target
further up. Branches that are not taken count like those that are.

Rates are those of "Arithmetic Instructions" in the CUDA C++ Programming Guide, for compute capability 9.0: of an SM's
four parts each issues one instruction a cycle, and a warp's integer or comparing instruction takes two cycles of its
part, one of transcendentals or conversions eight. Shared memory moves 128 bytes a cycle, and shuffles go the same way;
what matrix instructions and copies from global memory move there is left out.
Hopper's matrix instructions make 2,048 multiply-adds of 16 bits a cycle and SM, those of older GPUs half as many.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import triton

ARCH = 90
PARTS = 4  # of an SM, each with a scheduler
MULTIPLY_ADDS = 2048  # of 16 bits, a cycle and SM, by wgmma
_SHARED_BYTES = 128  # a cycle and SM

_LABEL = re.compile(r"^\s*(\.L_x_\d+):")
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)$")
_TARGET = re.compile(r"`\((\.L_x_\d+)\)")
_MATRIX = re.compile(r"(?:HG|QG|IG)MMA\.(\d+)x(\d+)x(\d+)")

_ALU = (
    "IADD3 IADD LOP3 LOP SHF SHL SHR LEA ISETP IMNMX VIMNMX FMNMX FSETP HSETP2 HMNMX2 FSEL SEL PRMT PLOP3 MOV IABS "
    "SGXT BMSK VOTE P2R R2P F2FP I2FP VABSDIFF FCHK ISCADD CSEL VIADD"
).split()
_SLOW = "MUFU F2F F2I I2F FRND POPC FLO BREV".split()
_SHARED = re.compile(r"^(LDS|STS|LDSM|STSM|ATOMS|SHFL)\b")


class Pipes(NamedTuple):
    """The work of one program on an SM.

    Attributes:
        instructions: those that a warp executes.
        issue, alu, mufu, shared, tensor: cycles that the program keeps each pipe of an SM busy.
    """

    instructions: float = 0
    issue: float = 0
    alu: float = 0
    mufu: float = 0
    shared: float = 0
    tensor: float = 0

    def times(self, factor: float) -> Pipes:
        return Pipes(*(factor * x for x in self))

    def plus(self, other: Pipes) -> Pipes:
        return Pipes(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Binary:
    """What a kernel's binary holds.

    Attributes:
        straight: the work outside of all loops.
        loops: the work of one round of each loop, without that of loops inside it, in the order of the code.
        parents: for each loop the number of the loop around it, -1 where there is none.
    """

    straight: Pipes
    loops: tuple[Pipes, ...]
    parents: tuple[int, ...]

    @property
    def n_instructions(self) -> int:
        """Instructions of the whole binary."""
        return round(self.straight.instructions + sum(loop.instructions for loop in self.loops))

    def work(self, trips: tuple[float, ...]) -> Pipes:
        """The work of a program whose loops run so often each time that they are reached."""
        total, factors = self.straight, []
        for loop, parent, n in zip(self.loops, self.parents, trips, strict=True):
            factors.append(n * (1 if parent < 0 else factors[parent]))
            total = total.plus(loop.times(factors[-1]))
        return total


@cache
def read(compiled: Any) -> Binary:
    """The binary of a `triton.compiler.CompiledKernel` for sm_90."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.nvdisasm.path, "-c", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return parse(text, compiled.metadata.num_warps)


def parse(text: str, n_warps: int) -> Binary:
    """The binary whose disassembly this is."""
    labels: dict[str, int] = {}
    code: list[tuple[str, str]] = []
    for line in text.splitlines():
        if match := _LABEL.match(line):
            labels[match[1]] = len(code)
        elif (match := _INSTRUCTION.match(line)) and match[1] != "NOP":
            code.append((match[1], match[2]))
    ends: dict[int, int] = {}  # of loops, by where they begin
    for place, (name, rest) in enumerate(code):
        target = _TARGET.search(rest) if name.startswith("BRA") else None
        if target and labels.get(target[1], len(code)) < place:  # the last instruction branches to itself
            begin = labels[target[1]]
            ends[begin] = max(place, ends.get(begin, 0))
    spans = sorted(ends.items(), key=lambda span: (span[0], -span[1]))
    parents = tuple(
        max((j for j, (b, e) in enumerate(spans[:i]) if b <= begin and end <= e), default=-1)
        for i, (begin, end) in enumerate(spans)
    )
    straight, loops = Pipes(), [Pipes() for _ in spans]
    for place, (name, rest) in enumerate(code):
        inner = max((i for i, (begin, end) in enumerate(spans) if begin <= place <= end), default=-1)
        work = _work(name, rest, n_warps)
        if inner < 0:
            straight = straight.plus(work)
        else:
            loops[inner] = loops[inner].plus(work)
    return Binary(straight, tuple(loops), parents)


def _work(name: str, rest: str, n_warps: int) -> Pipes:
    """The work of one instruction that all warps of a program execute."""
    op, share = name.split(".")[0], n_warps / PARTS
    shared = tensor = 0.0
    if match := _SHARED.match(op):
        shared = n_warps * (1 if match[1] == "SHFL" else _shared_bytes(name, rest) / _SHARED_BYTES)
    if match := _MATRIX.match(name):
        m, n, k = map(int, match.groups())
        tensor = share * m * n * k / MULTIPLY_ADDS  # of four warps together
    elif op == "HMMA":
        k = 8 if ".1688" in name else 16
        tensor = n_warps * 16 * 8 * k / (MULTIPLY_ADDS / 2)
    return Pipes(1, share, 2 * share * (op in _ALU), 8 * share * (op in _SLOW), shared, tensor)


def _shared_bytes(name: str, rest: str) -> int:
    """Bytes that a warp moves to or from shared memory."""
    if name.startswith(("LDSM", "STSM")):
        return 128 * int(match[1]) if (match := re.search(r"\.([24])\b", name)) else 128
    width = re.search(r"\.(8|U8|S8|16|U16|S16|64|128)\b", name)
    return 32 * (int(re.sub(r"\D", "", width[1])) // 8 if width else 4)
