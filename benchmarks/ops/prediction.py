"""Time that a step should take on an H200, from its census and the binaries: a model, not a measurement.

    seconds = launch + sqrt(memory^2 + work^2)

memory is bytes over a share of the bandwidth. work is a product's operations over a share of the peak, or the cycles of
a Triton kernel's programs on all SMs. Nothing stays in L2 between two launches.

A program keeps an SM as long as its busiest pipe, and a tenth more, where two programs share the SM; alone it cannot do
its matrix products and the rest at once, and takes the sum. The assumptions are the fields of `Gpu`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest

from . import sass
from .census import Event, Step
from .resources import figures
from .sass import Binary, Pipes
from .ttir import Traffic

_REGISTERS, _THREADS, _SHARED = 65536, 2048, 227 * 1024  # of an SM
_REDUCTIONS = ("aten::sum", "aten::native_layer_norm_backward", "aten::linalg_vector_norm")
_SORT_PASSES = 8


@dataclass(frozen=True)
class Gpu:
    """The rates that the model assumes; by default those of an H200.

    Attributes:
        flops: 16-bit operations a second in products of matrices.
        bandwidth: bytes a second.
        clock: cycles a second.
        launch: seconds from the end of one kernel to the beginning of the next, in a CUDA graph.
        reached: share of either limit that the vendor's products, and kernels that stream, reach.
        reached_by_long_sums: share of the peak that products reach whose sums are longer than their result is wide.
        reached_by_reductions: share of the bandwidth that torch's sums over rows reach.
    """

    flops: float = 788e12
    bandwidth: float = 4.3e12
    clock: float = 1.755e9
    multiprocessors: int = 132
    launch: float = 1.3e-6
    reached: float = 0.9
    reached_by_long_sums: float = 0.65
    reached_by_reductions: float = 0.6

    def seconds(self, event: Event) -> float:
        """The time of one operation."""
        share = self.reached_by_reductions if event.name in _REDUCTIONS else self.reached
        passes = _SORT_PASSES if event.name == "aten::sort" else 1
        memory = passes * event.n_bytes / (share * self.bandwidth)
        return event.n_launches * self.launch + math.hypot(memory, self._work(event))

    def step_seconds(self, step: Step) -> float:
        return sum(map(self.seconds, step.events))

    def _work(self, event: Event) -> float:
        if event.launch is None:
            rows, columns, inner = event.product
            share = self.reached_by_long_sums if inner > 4 * max(rows, columns) else self.reached
            return 2 * rows * columns * inner / (share * self.flops)
        program = Program.of(event)
        waves = max(1.0, event.traffic.working * event.launch.n_programs / self.multiprocessors)
        return waves * program.cycles / self.clock


@dataclass(frozen=True)
class Program:
    """One program of a launch.

    Attributes:
        binary: the kernel's binary.
        trips: how often each of the binary's loops runs each time that it is reached.
        work: the work of all its warps on an SM.
        n_resident: programs that share an SM.
    """

    binary: Binary
    trips: tuple[float, ...]
    work: Pipes
    n_resident: int

    @classmethod
    def of(cls, event: Event) -> Program:
        compiled = event.launch.compiled
        binary = sass.read(compiled)
        trips = matched_trips(binary, event.traffic)
        return cls(binary, trips, binary.work(trips), _n_resident(compiled))

    @property
    def cycles(self) -> float:
        """Cycles of an SM that a program takes, programs beside it counted."""
        tensor, other = self.work.tensor, max(self.work[1:-1])
        return 1.1 * max(tensor, other) if self.n_resident > 1 else tensor + other

    @property
    def bound_by(self) -> str:
        """The busiest pipe."""
        return max(Pipes._fields[1:], key=lambda name: getattr(self.work, name))


def matched_trips(binary: Binary, traffic: Traffic) -> tuple[float, ...]:
    """How often each loop of a binary runs: as often as the IR's loops, in their order.

    Where the binary has fewer, the compiler has unrolled some, those of constant length first, and the shortest of
    them. A loop whose length only data tell counts once, and so does one that only the binary has.
    """
    known = [i for i, loop in enumerate(traffic.loops) if loop.trips is not None]
    known.sort(key=lambda i: (not traffic.loops[i].is_constant, traffic.loops[i].trips))
    unrolled = known[: max(0, len(traffic.loops) - len(binary.loops))]
    left = [loop.trips for i, loop in enumerate(traffic.loops) if i not in unrolled]
    return tuple(1.0 if trips is None else trips for trips, _ in zip_longest(left, binary.loops))[: len(binary.loops)]


def _n_resident(compiled: object) -> int:
    """Programs that share an SM, by their registers, threads and shared memory."""
    metadata, registers = compiled.metadata, figures(compiled)["registers"]
    threads = 32 * metadata.num_warps
    by_registers = _REGISTERS // (threads * -(-registers // 8) * 8)
    return max(1, min(by_registers, _THREADS // threads, _SHARED // (metadata.shared + 1024), 32))
