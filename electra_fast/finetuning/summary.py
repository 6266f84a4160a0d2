"""The summary of several runs with different seeds: the median of each metric, and its spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COLUMNS = ("median", "mean", "std", "min", "max", "runs")


def summarize(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The statistics of each metric over the runs that did not fail.

    Args:
        results: one per run: {"seed": 0, "metrics": {"dev": {"accuracy": 0.9}}}, or {"seed": 0, "failure": "why"}.

    Returns:
        {"runs": number of all runs, "failed": the results of failed runs, "metrics": {split: {metric: {"median",
        "mean", "std", "min", "max", "runs"}}}}. `std` is the sample estimate (n - 1), None for a single run; the inner
        `runs` is the number of runs that have the metric.

    Raises:
        ValueError: there are no results.
    """
    if not results:
        raise ValueError("a summary needs the results of at least one run, got none")
    values: dict[str, dict[str, list[float]]] = {}
    for result in results:
        if "failure" in result:
            continue
        for split, metrics in result["metrics"].items():
            for metric, value in metrics.items():
                values.setdefault(split, {}).setdefault(metric, []).append(value)
    return {
        "runs": len(results),
        "failed": [dict(result) for result in results if "failure" in result],
        "metrics": {
            split: {metric: _statistics(numbers) for metric, numbers in metrics.items()}
            for split, metrics in values.items()
        },
    }


def format_summary(summary: Mapping[str, Any]) -> str:
    """A summary as a table for a terminal of 80 columns: a line for each metric, and one for each failed run."""
    rows = []
    for split, metrics in summary["metrics"].items():
        rows.append((split, *COLUMNS))
        for metric, statistics in metrics.items():
            rows.append((f"  {metric}", *(_cell(statistics[column]) for column in COLUMNS)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *numbers in rows:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
    if summary["failed"]:
        lines.append(f"{len(summary['failed'])} of {summary['runs']} runs failed:")
        lines += [f"  seed {result['seed']}: {result['failure']}" for result in summary["failed"]]
    return "\n".join(lines)


def _statistics(numbers: Sequence[float]) -> dict[str, float | int | None]:
    values = np.asarray(numbers, dtype=np.float64)
    return {
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 else None,
        "min": float(values.min()),
        "max": float(values.max()),
        "runs": len(values),
    }


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.4g}"
