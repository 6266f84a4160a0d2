"""Whole pre-training steps: launches and bytes, the work of each kernel, and the time that a model predicts.

Nothing is measured and no GPU is needed: see census.py, sass.py and prediction.py for what is counted and assumed. What
is written is a ratchet: a step with more launches, or a kernel with longer loops, than the file says is a fault.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import triton
import tyro

from ...cli.console import exit_code
from ...pretraining.recipes import preset
from ...processor import default_threads
from ..measure import check_writable, markdown
from . import census
from .census import Event, Step
from .prediction import Gpu, Program
from .resources import replace_table, written_table

MARK = "steps"
GROWTH = 1.03  # of the instructions of a loop
# Sequences and their tokens: the paper's batch, and 65,536 tokens.
WORKLOADS = {"small": ((128, 128), (512, 128)), "base": ((256, 512), (512, 128), (128, 512))}

_SHOWN = "512 x 128"  # the steps whose parts the file shows; the output has all

_STEP_HEADER = ("step", "launches", "GB", "launches a layer", "U a layer", "predicted ms", "M tokens/s")
_KERNEL_HEADER = (
    "kernel",
    "with",
    "of",
    "instructions",
    "issue",
    "ALU",
    "MUFU",
    "shared",
    "tensor",
    "programs",
    "bound",
)


@dataclass(frozen=True)
class StepRow:
    """A line for a whole step: what it launches and moves, and a discriminator layer of it; and the predicted time."""

    name: str
    n_launches: int
    n_bytes: int
    layer_launches: int
    layer_units: float
    seconds: float
    n_tokens: int

    @classmethod
    def of(cls, step: Step, gpu: Gpu) -> StepRow:
        layer, n_bytes = step.layer(), sum(event.n_bytes for event in step.events)
        units = sum(event.n_bytes for event in layer) / step.unit
        launches, seconds = sum(event.n_launches for event in layer), gpu.step_seconds(step)
        return cls(step_name(step), step.n_launches, n_bytes, launches, units, seconds, step.n_tokens)

    def cells(self) -> tuple[str, ...]:
        rate = self.n_tokens / self.seconds / 1e6
        traffic = f"{self.n_bytes / 1e9:.1f}", str(self.layer_launches), f"{self.layer_units:.1f}"
        return self.name, str(self.n_launches), *traffic, f"{1e3 * self.seconds:.2f}", f"{rate:.2f}"


@dataclass(frozen=True)
class KernelRow:
    """A line for one variant of a kernel.

    Attributes:
        constants: its constexprs but for sizes of blocks, which tell variants apart.
        sizes: the presets whose steps launch it.
        straight, loops: instructions outside of all loops, and of each loop.
        work: cycles of an SM that a program keeps each pipe busy, from issue to tensor, in the last preset's step.
        n_resident: programs that share an SM.
        bound_by: the busiest pipe.
    """

    name: str
    constants: str
    sizes: tuple[str, ...]
    straight: int
    loops: tuple[int, ...]
    work: tuple[float, ...]
    n_resident: int
    bound_by: str

    @classmethod
    def of(cls, event: Event, size: str) -> KernelRow:
        program, arguments = Program.of(event), event.launch.arguments
        known = {name: value for name, value in arguments.items() if name.isupper() and not name.startswith("BLOCK")}
        shown = [name if value is True else f"{name}={value}" for name, value in known.items() if value is not False]
        straight, *loops = (round(pipes.instructions) for pipes in (program.binary.straight, *program.binary.loops))
        pipes = tuple(program.work[1:])
        return cls(
            event.name, " ".join(shown), (size,), straight, tuple(loops), pipes, program.n_resident, program.bound_by
        )

    def cells(self) -> tuple[str, ...]:
        instructions = " + ".join(map(str, (self.straight, *self.loops)))
        cycles = (f"{x:.0f}" for x in self.work)
        return (
            f"`{self.name}`",
            self.constants,
            ", ".join(self.sizes),
            instructions,
            *cycles,
            str(self.n_resident),
            (self.bound_by),
        )


@dataclass(frozen=True)
class Report:
    """The steps of one preset: a line for each, the kernels that they launch, and a table for each step's parts."""

    steps: list[StepRow]
    kernels: list[KernelRow]
    parts: dict[str, str]
    layers: dict[str, str]


def step_name(step: Step) -> str:
    recipe = step.recipe
    return f"{recipe.name} {recipe.batch_size} x {recipe.seq_length}"


def report(size: str, workloads: Sequence[tuple[int, int]]) -> Report:
    """The steps of a preset at (sequences, tokens of each)."""
    gpu, found = Gpu(), Report([], [], {}, {})
    for batch_size, seq_length in workloads:
        step = census.take(replace(preset(size), batch_size=batch_size, seq_length=seq_length))
        found.steps.append(StepRow.of(step, gpu))
        found.parts[step_name(step)] = _parts(step, gpu)
        found.layers[step_name(step)] = _operations(step.layer(), step, gpu)
        found.kernels.extend(KernelRow.of(event, size) for event in step.events if event.launch is not None)
    return found


def _parts(step: Step, gpu: Gpu) -> str:
    """A row for each part of a step; of a network's layers the sum."""
    events: dict[str, list[Event]] = {}
    for event in step.events:
        events.setdefault(re.sub(r"\.layer\.\d+$", ".layers", event.part).replace("electra.", ""), []).append(event)
    return markdown(("part", "forward", "backward", "MB", "predicted us"), (_cells(*x, gpu) for x in events.items()))


def _operations(layer: Iterable[Event], step: Step, gpu: Gpu) -> str:
    """A row for each operation of a layer."""
    rows = []
    for event in layer:
        launches, units = _cells("", [event], gpu)[1:3], f"{event.n_bytes / step.unit:.2f}"
        rows.append((event.name.removeprefix("aten::"), *launches, units, f"{1e6 * gpu.seconds(event):.1f}"))
    return markdown(("operation", "forward", "backward", "U", "predicted us"), rows)


def _cells(name: str, events: list[Event], gpu: Gpu) -> tuple[str, ...]:
    forward, backward = (sum(e.n_launches for e in events if e.is_backward == side) for side in (False, True))
    n_bytes, seconds = sum(event.n_bytes for event in events), sum(map(gpu.seconds, events))
    return name, str(forward), str(backward), f"{n_bytes / 1e6:.0f}", f"{1e6 * seconds:.0f}"


def merged(rows: Iterable[KernelRow]) -> list[KernelRow]:
    """Kernels by name and constants, with all their sizes; of several binaries the one with the most instructions."""
    found: dict[tuple[str, str], KernelRow] = {}
    for row in rows:
        key = row.name, row.constants
        before = found.get(key, row)
        largest = max(before, row, key=lambda each: (sum((each.straight, *each.loops)), each.work))
        found[key] = replace(largest, sizes=tuple(dict.fromkeys((*before.sizes, *row.sizes))))
    return [found[key] for key in sorted(found)]


def text(steps: Sequence[StepRow], kernels: Sequence[KernelRow], parts: dict[str, str]) -> str:
    """What stands between the markers of the file."""
    tables = [f"Triton {triton.__version__}.", markdown(_STEP_HEADER, (row.cells() for row in steps))]
    for name in (name for name in parts if name.endswith(_SHOWN)):
        tables += [f"The parts of {name}:", parts[name]]
    return "\n\n".join((*tables, "The kernels of these steps:", markdown(_KERNEL_HEADER, (k.cells() for k in kernels))))


def faults(written: str, steps: Iterable[StepRow], kernels: Iterable[KernelRow]) -> list[str]:
    """What has grown since the file was written, one per line; nothing if that was with another Triton."""
    if not written.strip().startswith(f"Triton {triton.__version__}."):
        return []
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in written.splitlines() if line[:1] == "|"
    ]
    launches = {row[0]: int(row[1]) for row in rows if len(row) == len(_STEP_HEADER) and row[1].isdigit()}
    counts = {(row[0], row[1]): row[3] for row in rows if len(row) == len(_KERNEL_HEADER) and row[0][:1] == "`"}
    found = []
    for row in steps:
        if row.n_launches > launches.get(row.name, row.n_launches):
            found.append(f"a step of {row.name} has {row.n_launches} launches, {launches[row.name]} before")
    for row in kernels:
        name, constants, _, now, *_ = row.cells()
        before = counts.get((name, constants), now)
        if _loops(now) > GROWTH * _loops(before):
            found.append(
                f"{row.name} ({constants}) has {now} instructions, outside of loops + in each, {before} before"
            )
    return found


def _loops(instructions: str) -> int:
    """The instructions of a kernel's loops, or of all of it where it has none."""
    straight, *loops = map(int, instructions.split(" + "))
    return sum(loops) if loops else straight


@dataclass(kw_only=True)
class Steps:
    """Count launches, bytes and instructions of whole pre-training steps, and predict their time; needs no GPU.

    Exit code 1: a step has more launches, or a loop more instructions, than `against` says.
    """

    sizes: tuple[str, ...] = tuple(WORKLOADS)
    """Presets."""
    against: Path | None = None
    """File whose figures must not be exceeded."""
    write: Path | None = None
    """Put the tables into this file, between its two markers, if nothing is exceeded."""

    def run(self) -> None:
        if not self.sizes or not set(self.sizes) <= set(WORKLOADS):
            raise ValueError(f"sizes must be among {', '.join(WORKLOADS)}, got {' '.join(self.sizes) or 'none'}")
        check_writable(self.write)
        with ProcessPoolExecutor(min(default_threads(), len(self.sizes)), get_context("spawn")) as pool:
            reports = list(pool.map(report, self.sizes, [WORKLOADS[size] for size in self.sizes]))
        steps = [row for each in reports for row in each.steps]
        kernels = merged(row for each in reports for row in each.kernels)
        parts = {name: table for each in reports for name, table in each.parts.items()}
        print(text(steps, kernels, parts))
        for each in reports:
            for name, table in each.layers.items():
                print(f"\nThe parts of {name}:\n\n{parts[name]}\n\nA layer of its discriminator:\n\n{table}")
        grown = faults(written_table(self.against, MARK), steps, kernels) if self.against is not None else []
        if grown:
            raise SystemExit("\n".join(grown))
        if self.write is not None:
            replace_table(self.write, text(steps, kernels, parts), MARK)


if __name__ == "__main__":
    sys.exit(exit_code("steps", lambda: tyro.cli(Steps, config=(tyro.conf.FlagCreatePairsOff,)).run()))
