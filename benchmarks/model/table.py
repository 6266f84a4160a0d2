"""Tables of the rows of `bench model`, for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import Any

from ..measure import ratio_cell

WIDTH = 100
_NO_FIGURE = "no figure"
_VERSIONS = "electra_fast torch transformers onnxruntime openvino".split()


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Speeds by model and workload, starts by model, and the machine."""
    parts = []
    for size in dict.fromkeys(row["size"] for row in rows):
        of_size = [row for row in rows if row["size"] == size]
        kind = ", from text" if of_size[0]["from_text"] else ""
        if n := of_size[0]["busy"]:
            kind += f", beside {n} busy process{'es' if n > 1 else ''}"
        parts.append(f"{size}, {of_size[0]['dtype']}{kind}\n{_speeds(of_size)}")
        if any(row["cold_start"] for row in of_size):
            parts.append(_starts(of_size))
        elif any(row["peak_mb"] for row in of_size):
            parts.append(_peaks(of_size))
    return "\n\n".join([*parts, fill(_machine(rows[0]), WIDTH)])


def _speeds(rows: Iterable[dict[str, Any]]) -> str:
    header = ("workload", "provider", "ms", "tokens/s", "electra_fast is", "error")
    lines, last = [], None
    for row in rows:
        workload, last = "" if row["workload"] == last else row["workload"], row["workload"]
        error = "" if row["error"] is None else f"{row['error']:.0e}"
        if row["milliseconds"] is None:
            lines.append((workload, row["provider"], _NO_FIGURE, "", "", error))
            continue
        times = " / ".join(f"{t:.3g}" if t < 100 else f"{t:.0f}" for t in (row["milliseconds"][1], row["p99"]) if t)
        speed = ratio_cell(row, "{ratio:.2f} x ({ratios_20_80[0]:.2f} - {ratios_20_80[1]:.2f})")
        lines.append((workload, row["provider"], times, f"{row['tokens_per_second']:,}", speed, error))
    note = "ms: of a call or a step; / 99 %. electra_fast is x times as fast (20 - 80 % of the rounds)."
    return f"{_columns(header, lines, '<<>><>')}\n{note}"


def _starts(rows: Iterable[dict[str, Any]]) -> str:
    by_provider = {row["provider"]: row for row in rows if row["cold_start"] is not None}
    lines = [
        (name, f"{row['cold_start']:.2f}", "" if row["peak_mb"] is None else f"{row['peak_mb']:,.0f}")
        for name, row in by_provider.items()
    ]
    return _columns(("a fresh process", "s to the first result", "peak MB"), lines, "<>>")


def _peaks(rows: Sequence[dict[str, Any]]) -> str:
    """The peak memory of training steps: a line a provider, a column a workload."""
    peaks = {(row["provider"], row["workload"]): row["peak_mb"] for row in rows}
    providers, workloads = (list(dict.fromkeys(names)) for names in zip(*peaks, strict=True))
    lines = [
        (name, *("" if (peak := peaks[name, work]) is None else f"{peak:,.0f}" for work in workloads))
        for name in providers
    ]
    return _columns(("peak MB", *workloads), lines, "<" + ">" * len(workloads))


def _machine(row: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {row[name]}" for name in _VERSIONS if row.get(name))
    place = f"{row['cpu']}, {row['cores']} cores ({row['cpu_flags']})" + (f", {row['gpu']}" if row["gpu"] else "")
    best = f"products {row['gemm_gflops']:,.0f} GFLOP/s, copies {row['copy_gb_per_second']:.3g} GB/s"
    return f"{row['date']}, {place}, {row['threads']} threads; {best}; {versions}; commit {row['commit']}"


def _columns(header: Sequence[str], lines: Iterable[Sequence[str]], align: str) -> str:
    """Columns for reading, two spaces between them; `align` has < or > for each."""
    table = [header, *lines]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, align, widths, strict=True)).rstrip()
        for line in table
    )
