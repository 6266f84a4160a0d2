"""Memory that a launch reads and writes, and how often its loops run, from the kernel's Triton IR.

The IR's text is walked from top to bottom for some programs of the grid, as a calculator of its scalar integers would:
program ids and arguments are known, what is loaded is not, but for the starts of sequences. Pointers are followed from
the arguments to loads and stores. So nobody declares what a kernel reads, or how long its loops are.

Every byte of an argument counts once, however often programs read it: what is read again should come from L2. A tensor
that is read in part (a table of embeddings) counts by the elements that are asked for, if these are fewer.
"""

from __future__ import annotations

import math
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import Tensor

from .launches import Launch

_N_SAMPLES = 16  # programs of a grid that are walked
_BYTES = {"i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "bf16": 2, "f16": 2, "f32": 4, "f64": 8}

_LINE = re.compile(r"(?:(%[\w.$-]+)(?::\d+)? = )?\"?((?:[a-z_]+\.)[\w.]+)\"?(.*)")
_NAME = re.compile(r"%[\w.$-]+(?:#\d+)?")
_POINTER = re.compile(r"tensor<((?:\d+x)*)!tt\.ptr<(\w+)>|!tt\.ptr<(\w+)>|!tt\.tensordesc<(?:tensor<)?((?:\d+x)*)(\w+)")
_LOOP = re.compile(r"scf\.for (%[\w.$-]+) = (\S+) to (\S+) step (\S+)")
_ITER_ARG = re.compile(r"(%[\w.$-]+) = (%[\w.$-]+(?:#\d+)?)")

_AXES = ("x", "y", "z")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "slt": operator.lt, "sle": operator.le, "sgt": operator.gt,
    "sge": operator.ge, "ult": operator.lt, "ule": operator.le, "ugt": operator.gt, "uge": operator.ge,
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "addi": operator.add, "subi": operator.sub, "muli": operator.mul, "minsi": min, "maxsi": max, "minui": min,
    "maxui": max, "andi": operator.and_, "ori": operator.or_, "xori": operator.xor, "shli": operator.lshift,
    "shrsi": operator.rshift, "divsi": lambda a, b: int(a / b), "divui": operator.floordiv,
    "remsi": lambda a, b: int(math.fmod(a, b)), "remui": operator.mod, "ceildivsi": lambda a, b: -(-a // b),
}  # fmt: skip
_SAME = ("arith.extsi", "arith.extui", "arith.trunci", "arith.index_cast")
_POINTER_STEPS = ("tt.splat", "tt.broadcast", "tt.expand_dims", "tt.bitcast", "arith.select", "tt.reshape")
_TABLE = "address of a table"


@dataclass(frozen=True)
class Loop:
    """A loop of the IR.

    Attributes:
        trips: how often its body runs each time that it is reached; None where data decide.
        is_constant: whether it always runs so often, so that a compiler may have unrolled it.
    """

    trips: float | None
    is_constant: bool


@dataclass
class Traffic:
    """The traffic of a launch.

    Attributes:
        reads, writes: bytes by argument; what a kernel reaches by addresses in a table has a name of its own.
        loops: loops in the order of the text.
        working: the share of the programs that do not return at once.
    """

    reads: dict[str, int] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)
    loops: list[Loop] = field(default_factory=list)
    working: float = 1.0

    @property
    def n_bytes(self) -> int:
        return sum(self.reads.values()) + sum(self.writes.values())


def traffic(launch: Launch, contents: Mapping[str, Callable[[int], int]]) -> Traffic:
    """The traffic of a launch.

    Args:
        contents: for arguments whose numbers decide how long loops are, their elements by index.

    Raises:
        ValueError: an operation on pointers that is not known.
    """
    samples = [_Walk(launch, contents, place) for place in _sampled(launch.grid)]
    working = [walk for walk in samples if not walk.has_returned]
    found = Traffic(working=len(working) / len(samples))
    if not working:
        return found
    found.loops = [_mean(loops) for loops in zip(*(walk.loops for walk in working), strict=True)]
    for name, total in (("asked", found.reads), ("given", found.writes)):
        for key in dict.fromkeys(key for walk in working for key in getattr(walk, name)):
            volume = sum(getattr(walk, name)[key] for walk in working) / len(working) * found.working
            total[key] = _bytes_of(launch, key, volume * launch.n_programs)
    return found


def _bytes_of(launch: Launch, name: str, volume: float) -> int:
    """What is moved of an argument: all of it at most, and of what a table leads to as much as is asked for."""
    given = launch.arguments.get(name)
    tensor = getattr(given, "base", given)  # a descriptor's
    if isinstance(tensor, Tensor):
        volume = min(volume, tensor.numel() * tensor.element_size())
    if not math.isfinite(volume):
        raise ValueError(f"{launch.name}: expected a loop of known length around {name}, or a tensor")
    return round(volume)


def _mean(loops: tuple[Loop, ...]) -> Loop:
    known = [loop.trips for loop in loops if loop.trips is not None]
    trips = sum(known) / len(known) if len(known) == len(loops) else None
    return Loop(trips, all(loop.is_constant for loop in loops))


def _sampled(grid: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Programs spread over the whole grid."""
    n = math.prod(grid)
    places = sorted({(2 * i + 1) * n // (2 * _N_SAMPLES) for i in range(_N_SAMPLES)}) if n > _N_SAMPLES else range(n)
    return [(p % grid[0], p // grid[0] % grid[1], p // (grid[0] * grid[1])) for p in places]


@cache
def _lines(compiled: Any) -> tuple[str, ...]:
    """The lines of a compiled kernel's IR, without where they come from."""
    text = re.sub(r" loc\((?:[^()\"]|\"[^\"]*\"|\([^()]*\))*\)", "", compiled.asm["ttir"])
    return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


class _Walk:
    """One program's way through the IR: its scalars, pointers, loops, and the bytes that it asks for and gives."""

    def __init__(self, launch: Launch, contents: Mapping[str, Callable[[int], int]], place: tuple[int, int, int]):
        self.launch, self.contents, self.place = launch, contents, place
        self.scalars: dict[str, int | None] = {}
        self.origins: dict[str, str] = {}
        self.offsets: dict[str, int | None] = {}
        self.constants: set[str] = set()
        self.loops: list[Loop] = []
        self.asked: dict[str, float] = defaultdict(float)
        self.given: dict[str, float] = defaultdict(float)
        self.has_returned = False
        self._exit: str | None = None
        self._open: list[float] = []  # how often each open brace's region runs
        for line in _lines(launch.compiled):
            self._step(line)
            if self.has_returned:
                break

    def _step(self, line: str) -> None:
        if line.startswith("tt.func"):
            self._arguments(line)
        elif line.startswith("^") and self._exit is not None and line.startswith(f"{self._exit}:"):
            self.has_returned = True  # a block that only returns, and the condition that leads to it is met
        elif match := _LINE.match(line):
            self._operation(match[1], match[2], match[3], line)
        if line.startswith("}") and self._open:
            self._open.pop()
        if line.endswith("{"):
            self._open.append(self._trips_here if (match := _LOOP.search(line)) else 1.0)

    @property
    def _times(self) -> float:
        return 0.0 if 0 in self._open else math.prod(self._open)

    def _arguments(self, line: str) -> None:
        for name, kind in re.findall(r"(%[\w.]+): ([^\s{,)]+)", line):
            plain = name[1:]
            if "ptr<" in kind or "tensordesc" in kind:
                self.origins[name], self.offsets[name] = plain, 0
            else:
                value = self.launch.arguments.get(plain)
                self.scalars[name] = int(value) if isinstance(value, int) else None

    def _operation(self, result: str | None, op: str, rest: str, line: str) -> None:
        names = _NAME.findall(rest)
        if result is not None:  # regions beside each other use names again
            self._forget(result)
        if op == "scf.for":
            self._loop(line, result)
        elif op == "scf.while":
            self.loops.append(Loop(None, False))
            self._carry(rest, result)
        elif op in ("tt.load", "tt.descriptor_load", "tt.descriptor_gather"):
            self._move(self.asked, names[0], rest)
            if result is not None:
                self.scalars[result] = self._content(names[0])
        elif op in ("tt.store", "tt.descriptor_store", "tt.descriptor_scatter", "tt.descriptor_reduce"):
            self._move(self.given, names[0], rest)
        elif op in ("tt.atomic_rmw", "tt.atomic_cas"):
            pointer = next(name for name in names if name in self.origins)
            self._move(self.asked, pointer, rest)
            self._move(self.given, pointer, rest)
        elif op == "tt.int_to_ptr":
            self.origins[result], self.offsets[result] = f"{_TABLE}, {result}", None
        elif op == "cf.cond_br":
            condition, blocks = self.scalars.get(names[0]), re.findall(r"\^\w+", rest)
            self._exit = blocks[0] if condition else None
        elif any(name in self.origins for name in names) and result is not None:
            self._point(result, op, names)
        elif result is not None:
            self.scalars[result] = self._scalar(op, names, rest)
            if op == "arith.constant" or (names and all(name in self.constants for name in names)):
                self.constants.add(result)

    def _point(self, result: str, op: str, names: list[str]) -> None:
        """The origin of a pointer that is made of another."""
        origins = [self.origins[name] for name in names if name in self.origins]
        if op == "tt.addptr":
            before, by = self.offsets.get(names[0]), self.scalars.get(names[1])
            self.offsets[result] = None if before is None or by is None else before + by
        elif op == "tt.make_tensor_descriptor" or op in _POINTER_STEPS:
            self.offsets[result] = None
        else:
            raise ValueError(f"{self.launch.name}: expected known operations on pointers, got {op}")
        if len(set(origins)) > 1:
            raise ValueError(f"{self.launch.name}: expected a pointer into one argument, got {' or '.join(origins)}")
        self.origins[result] = origins[0]

    def _move(self, total: dict[str, float], pointer: str, rest: str) -> None:
        kind = _POINTER.search(rest.rpartition(" : ")[2] if " : " in rest else rest)
        if pointer not in self.origins or kind is None:
            raise ValueError(f"{self.launch.name}: expected a pointer whose origin is known, got {pointer}{rest}")
        shape, dtype = kind[1] or kind[4] or "", kind[2] or kind[3] or kind[5]
        volume = math.prod(int(n) for n in shape.split("x") if n) * _BYTES[dtype] * self._times
        origin = self.origins[pointer]
        # The branches of a table's kernel, with and without a mask, exclude each other.
        total[origin] = max(total[origin], volume) if origin.startswith(_TABLE) else total[origin] + volume

    def _content(self, pointer: str) -> int | None:
        """The number that a scalar load gives."""
        offset, content = self.offsets.get(pointer), self.contents.get(self.origins[pointer])
        return None if offset is None or content is None else content(offset)

    def _loop(self, line: str, result: str | None) -> None:
        match = _LOOP.search(line)
        variable, *bounds = match.groups()
        low, high, step = (self.scalars.get(name) for name in bounds)
        trips = None if None in (low, high, step) else max(0, -(-(high - low) // step))
        self.loops.append(Loop(trips, all(name in self.constants for name in bounds)))
        self._trips_here = 1.0 if trips is None else float(trips)
        if trips is None:
            self._trips_here = math.inf
        # The middle of the way stands for all of it, where inner loops depend on it.
        self.scalars[variable] = None if trips is None else low + step * (trips // 2)
        self._carry(line.partition("iter_args(")[2], result)

    def _carry(self, text: str, result: str | None) -> None:
        """Pointers that a loop carries on point where they pointed before it."""
        for i, (name, initial) in enumerate(_ITER_ARG.findall(text.partition(") ->")[0])):
            for place in (name, f"{result}#{i}", result if i == 0 else ""):
                if initial in self.origins and place:
                    self.origins[place], self.offsets[place] = self.origins[initial], None
                else:
                    self._forget(place)

    def _forget(self, name: str) -> None:
        for known in (self.scalars, self.origins, self.offsets):
            known.pop(name, None)
        self.constants.discard(name)

    def _scalar(self, op: str, names: list[str], rest: str) -> int | None:
        """The value of an integer, None where it is not known."""
        kind, _, name = op.partition(".")
        if op == "arith.constant":
            match = re.match(r" (-?\d+) : (?:i\d+|index)$|( true)|( false)", rest)
            return None if match is None else int(match[1]) if match[1] is not None else int(match[2] is not None)
        if op in ("tt.get_program_id", "tt.get_num_programs"):
            axis = _AXES.index(rest.split()[0])
            return (self.place if name == "get_program_id" else self.launch.grid)[axis]
        values = [self.scalars.get(name) for name in names]
        if op == "arith.select":
            return None if values[0] is None else values[1 if values[0] else 2]
        if not values or None in values:
            return None
        if op in _SAME:
            return values[0]
        if op == "arith.cmpi":
            return int(_COMPARE[rest.split(",")[0].strip()](*values))
        if kind == "arith" and name in _ARITHMETIC and len(values) == 2:
            return None if values[1] == 0 and ("div" in name or "rem" in name) else _ARITHMETIC[name](*values)
        return None
