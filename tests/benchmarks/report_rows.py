"""Rows of benchmarks that tests of the report are about, and its tables read back."""

from __future__ import annotations

import re

from electra_fast.benchmarks.report.rows import OURS

from electra_fast.cli.main import main


def row(provider=OURS, ratio=None, **changes) -> dict:
    """A row of `bench model`; ratios have a spread of 10 %."""
    return {
        "bench": "model",
        "size": "small",
        "dtype": "fp32",
        "from_text": False,
        "threads": 2,
        "workload": "full-128",
        "provider": provider,
        "status": "right",
        "milliseconds": [9.0, 10.0, 12.0],
        "p99": 15.5,
        "tokens_per_second": 12345,
        "ratio": ratio,
        "ratios_20_80": ratio and [0.9 * ratio, 1.1 * ratio],
        "date": "2026-01-02",
        "cpu": "CPU A",
        "cores": 2,
        "gpu": None,
        "torch": "2.13.0",
        "commit": "aaaaaaa",
        **changes,
    }


def fail(capsys, *argv) -> str:
    """The one line that a user's mistake gives."""
    code, captured = main(["bench", "report", *map(str, argv)]), capsys.readouterr()
    assert code == 2 and captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def cells(table: str) -> list[list[str]]:
    """The lines of a Markdown table, the header first."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if not set(line) <= set("|- ")
    ]
