"""The history of each case's ratio from commit to commit, in the order in which rows were appended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .rows import (
    OURS,
    Row,
    case_of,
    commit_of,
    grouped,
    machine_of,
    machine_words,
    settings_of,
    settings_words,
    table,
    times,
    workload_words,
)


@dataclass(frozen=True)
class Run:
    """The results of one commit on one day; of repeated rows, the last.

    Attributes:
        rows: rows by provider.
    """

    date: str
    commit: str
    rows: dict[str, Row]


def runs_of(rows: Iterable[Row]) -> list[Run]:
    """The runs of one case, from its rows in order of time."""
    return [Run(*key, {row["provider"]: row for row in some}) for key, some in grouped(rows, commit_of).items()]


def peers_of(rows: Iterable[Row]) -> list[str]:
    """All providers but ours, in order."""
    return [name for name in dict.fromkeys(row["provider"] for row in rows) if name != OURS]


def history_tables(rows: Iterable[Row]) -> str:
    """A Markdown table for each pair of machine and settings, with both below it.

    Lines are runs; columns say how many times as fast as each peer electra_fast was.
    """
    tables = []
    for some in grouped(rows, lambda row: (machine_of(row), settings_of(row))).values():
        peers = peers_of(some)
        lines = []
        for of_case in grouped(some, case_of).values():
            for run in runs_of(of_case):
                ratios = [run.rows[name].get("ratio") if name in run.rows else None for name in peers]
                lines.append((workload_words(of_case[0]), run.date, run.commit or "not recorded", *map(times, ratios)))
        header = ("workload", "date", "commit", *(f"beside {name}" for name in peers))
        below = (settings_words(some[0]), machine_words(some[0]))
        tables.append(f"{table(header, lines)}\n\n{'; '.join(filter(None, below))}")
    return "\n\n".join(tables)
