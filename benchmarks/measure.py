"""The tools that benchmarks share: runs in turn, quantiles, the machine they ran on, tables, rows of JSON."""

from __future__ import annotations

import gc
import importlib
import json
import os
import platform
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from tqdm import tqdm

from .. import disk
from ..processor import default_threads
from ..versions import installed_version
from . import OURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

# The instructions that decide how fast products of matrices are, on x86 and on ARM.
CPU_FLAGS = (
    "avx2 fma avx512f avx_vnni avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16 "
    "asimd asimddp i8mm bf16 sve sve2"
).split()

_PAUSE = 0.02  # seconds; threads that spin for more work have gone to sleep by then


def time_in_turn(
    make: Mapping[str, Callable[[], Callable[..., object]]], batches: Sequence[tuple], repeats: int, bar: tqdm
) -> dict[str, list[float]]:
    """The seconds that each provider takes for all batches, once a round, by `take_turns`.

    Every batch is timed by itself and its result deleted before the next one, outside of the timed region.

    Args:
        make: by provider, what gives the function to time; called anew every round, and not timed.
        batches: the arguments of the function's calls.
        bar: moves on by one a run.
    """
    turns = {name: partial(_seconds_of, make_run, batches) for name, make_run in make.items()}
    return take_turns(turns, repeats, bar)


def take_turns(turns: Mapping[str, Callable[[], T]], repeats: int, bar: tqdm) -> dict[str, list[T]]:
    """Gives each provider a turn in every round, and returns what the turns give.

    Whatever else the machine does falls on all alike, and turns of one round can be compared. Another provider begins
    each round: A B C, B C A, ... Before each turn is a pause in which the threads of the one before come to rest. The
    garbage collector is off.

    Args:
        turns: by provider, what measures one turn.
        bar: moves on by one a turn.
    """
    results: dict[str, list[T]] = {name: [] for name in turns}
    order = deque(turns)
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            for name in order:
                time.sleep(_PAUSE)
                results[name].append(turns[name]())
                bar.update()
            order.rotate(-1)
    finally:
        gc.enable()
    return results


def _seconds_of(make_run: Callable[[], Callable[..., object]], batches: Sequence[tuple]) -> float:
    run = make_run()
    return sum(seconds_of_calls(run, batches))


def seconds_of_calls(run: Callable[..., object], batches: Sequence[tuple]) -> list[float]:
    """The seconds of each call; its result is deleted before the next one, outside of the timed region."""
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        result = run(*batch)
        seconds.append(time.perf_counter() - start)
        del result
    return seconds


def quantiles(values: Iterable[float]) -> list[float]:
    """The values at 20, 50 and 80 per cent."""
    ordered = sorted(values)
    return [ordered[round(q * (len(ordered) - 1))] for q in (0.2, 0.5, 0.8)]


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times as fast we are: the median of the ratios of neighbouring runs."""
    return statistics.median(ratios(theirs, ours))


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """How many times as fast we are, round by round."""
    return [a / b for a, b in zip(theirs, ours, strict=True)]


def ratio_figures(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """The fields of a row for the ratios of neighbouring runs: their median, and 20 and 80 per cent."""
    low, _, high = quantiles(ratios(theirs, ours))
    return {"ratio": round(ratio(theirs, ours), 3), "ratios_20_80": [round(low, 3), round(high, 3)]}


def machine(*distributions: str) -> dict[str, str | int | None]:
    """The fields that a figure depends on: date, processor and its `CPU_FLAGS`, commit, and versions.

    Args:
        distributions: whose versions are told besides.
    """
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    has = set(about.get("flags", about.get("Features", "")).split())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": about.get("model name") or platform.processor(),
        "cpu_flags": " ".join(flag for flag in CPU_FLAGS if flag in has),
        "cores": default_threads(),
        "python": platform.python_version(),
        **{name: installed_version(name) for name in ("electra_fast", "numpy", *distributions)},
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit that the code is at, with `-dirty` where files differ from it, or are not in it.

    Rows do not count as a difference: those of one run would make the next one dirty. Outside of a checkout it is what
    the environment's ELECTRA_FAST_COMMIT says, or None.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return os.environ.get("ELECTRA_FAST_COMMIT") or None

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changes = git("status", "--porcelain", "--", ".", ":(exclude)benchmarks/results")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def require(module: str, extra: str) -> ModuleType:
    """Imports what only a benchmark needs, or says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this benchmark needs {module} ({error}): pip install electra_fast[{extra}]") from error


def import_error(module: str) -> str | None:
    """Why a module cannot be imported, None where it can."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return None


def check_writable(*paths: Path | None, reads: Iterable[str | Path | None] = ()) -> None:
    """Refuses a file that cannot be written, or is among what the bench reads, before hours are spent on it."""
    for path in paths:
        if path is not None:
            disk.check_writable(path)
            disk.check_apart(path, *reads)


def check_directory(path: Path | None) -> None:
    """Refuses a directory of outputs that cannot be made."""
    if path is not None:
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"the directory of the output does not exist: {path.parent}")
        if path.exists() and not path.is_dir():
            raise FileExistsError(f"the output must be a directory, but {path} is a file")


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends rows to a JSONL file."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, columns aligned for reading as text too."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def quantiles_cell(values: Iterable[float], form: str) -> str:
    """A cell with the quantiles of a row, each in this format."""
    return " / ".join(format(value, form) for value in values)


def ratio_cell(row: Mapping[str, Any], form: str) -> str:
    """A cell with the ratio of a peer to us; empty for ourselves, and where we have no time.

    Args:
        form: with the row's columns in braces.
    """
    return "" if row["provider"] == OURS or row["ratio"] is None else form.format_map(row)


def plot_bars(
    rows: Sequence[Mapping[str, Any]], path: Path, down: str, across: str, group: str, bar: str, value: str, label: str
) -> None:
    """Draws quantiles as bars on a log scale, with their median in figures.

    Args:
        path: the file to write.
        down, across: the columns that tell the panels apart, group and bar those within a panel.
        value: the column with the quantiles.
        label: what its axis is called.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    downs, acrosses, groups, bars = (
        list(dict.fromkeys(row[key] for row in rows)) for key in (down, across, group, bar)
    )
    height = 0.8 / len(bars)
    figure = Figure(figsize=(6.5 * len(acrosses), 1.5 + 0.9 * len(groups) * len(downs)), layout="constrained")
    panels = figure.subplots(len(downs), len(acrosses), sharex=True, sharey=True, squeeze=False)
    for (i, j), axes in np.ndenumerate(panels):
        panel = [row for row in rows if (row[down], row[across]) == (downs[i], acrosses[j])]
        for place, name in enumerate(groups):
            some = [row for row in panel if row[group] == name]
            places = place + height * (np.arange(len(some)) - (len(some) - 1) / 2)
            low, median, high = np.array([row[value] for row in some]).reshape(-1, 3).T
            colors = [f"C{bars.index(row[bar])}" for row in some]
            drawn = axes.barh(places, median, height, color=colors, xerr=(median - low, high - median))
            axes.bar_label(drawn, [f"{x:.3g}" for x in median], padding=3, fontsize=7)
        axes.set(title=f"{downs[i]}, {across}: {acrosses[j]}", xlabel=label, xscale="log")
        axes.set_yticks(range(len(groups)), groups)
        axes.margins(x=0.15)
    panels[0][0].invert_yaxis()
    names = [Patch(color=f"C{k}", label=name) for k, name in enumerate(bars)]
    figure.legend(handles=names, loc="outside lower center", ncols=len(bars))
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a drawing in the form that the file's name ends with, by default PNG."""
    with disk.written(path, "wb") as file:
        figure.savefig(file, format=path.suffix.removeprefix(".") or "png", dpi=150)
