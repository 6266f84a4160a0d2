"""Tables, plots and the figures of pages, from the rows that the benchmarks have written on clean trees."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ...disk import made, written
from ..measure import check_directory, check_writable, require
from .figures import rewrite
from .history import history_tables
from .plots import plot_history, plot_ratios
from .rows import (
    BENCHES,
    OURS,
    RESULTS,
    Row,
    commit_of,
    digits,
    grouped,
    is_clean,
    machine_of,
    newest,
    origin,
    read_rows,
    settings_words,
    table,
    times,
    workload_words,
)


@dataclass(kw_only=True)
class ReportCommand:
    """Make tables and plots of what the benchmarks have measured.

    The report has the newest row of each case, provider and machine. It is printed unless --markdown, --plots or
    --readme says where results go. Rows of a commit that ends in -dirty are left out and named on the standard error:
    nobody can repeat a measurement of code that no commit holds.
    """

    results: Path = RESULTS
    """The directory with the rows, *.jsonl. Default: that of the checkout."""
    bench: tuple[str, ...] = tuple(BENCHES)
    """Report these benches only."""
    markdown: Path | None = None
    """Write the report to this Markdown file."""
    plots: Path | None = None
    """Draw a PNG file for each bench into this directory; needs matplotlib."""
    history: bool = False
    """Also show how each ratio changed from commit to commit."""
    readme: Path | None = None
    """Rewrite the blocks between `<!-- figures: NAME -->` and `<!-- end figures -->` in this file, README.md or
    docs/benchmarks.md, from the rows of all benches."""

    def run(self) -> None:
        if unknown := [name for name in self.bench if name not in BENCHES]:
            raise ValueError(f"unknown bench {unknown[0]!r}; the benches are {', '.join(BENCHES)}")
        check_writable(self.markdown, reads=(self.results,))
        check_directory(self.plots)
        rows = read_rows(self.results)
        chosen = {name: [row for row in rows if row["bench"] == name] for name in self.bench}
        chosen = {name: some for name, some in chosen.items() if some}
        if not chosen:
            raise ValueError(f"{self.results} has no rows of {', '.join(self.bench)}")
        clean = {name: [row for row in some if is_clean(row)] for name, some in chosen.items()}
        if self.plots is not None:
            require("matplotlib", "bench")
            made(self.plots)
            for path in (path for name, some in clean.items() for path in self._draw(name, some, self.plots)):
                print(path)
        if self.readme is not None:
            _write(self.readme, rewrite(self.readme.read_text(encoding="utf-8"), rows))
            print(self.readme)
        if self.markdown is not None:
            _write(self.markdown, self._text(clean))
            print(self.markdown)
        elif self.plots is None and self.readme is None:
            print(self._text(clean), end="")
        for line in _left_out(row for row in rows if self.readme is not None or row["bench"] in chosen):
            print(line, file=sys.stderr)

    def _draw(self, name: str, rows: list[Row], directory: Path) -> list[Path]:
        """Draws the plots of a bench and returns their files; a plot with nothing to compare is not drawn."""
        drawn = {directory / f"{name}.png": plot_ratios(newest(rows))}
        if self.history:
            drawn[directory / f"{name}-history.png"] = plot_history(rows)
        for path, figure in drawn.items():
            if figure is not None:
                with written(path, "wb") as file:
                    figure.savefig(file, format="png", dpi=120)
        return [path for path, figure in drawn.items() if figure is not None]

    def _text(self, chosen: dict[str, list[Row]]) -> str:
        parts = ["# Benchmarks"]
        for name, rows in chosen.items():
            parts += [f"## {name}", *(tables(newest(rows)) or ["To be measured on a clean tree."])]
            if self.history and rows:
                parts += [f"### {name}, commit by commit", history_tables(rows)]
        return "\n\n".join(parts) + "\n"


def _left_out(rows: Iterable[Row]) -> list[str]:
    """A line for each run on a tree that was not clean."""
    runs = grouped((row for row in rows if not is_clean(row)), lambda row: (row["bench"], *commit_of(row)))
    return [
        f"left out, to be measured on a clean tree: {bench}, {date} commit {commit}, rows: {len(some)}"
        for (bench, date, commit), some in runs.items()
    ]


def _write(path: Path, text: str) -> None:
    with written(path) as file:
        file.write(text)


# The tables


def tables(rows: Iterable[Row]) -> list[str]:
    """A Markdown table of one bench's rows for each machine, with date, machine, versions and commit below.

    Columns without content are left out, and so is the column of commits if there is only one commit.
    """
    parts = []
    for some in grouped(rows, machine_of).values():
        columns = {header: [write(row) for row in some] for header, write in _columns(some).items()}
        columns = {header: cells for header, cells in columns.items() if any(cells)}
        parts += [table(columns, zip(*columns.values(), strict=True)), origin(some)]
    return parts


def _columns(rows: list[Row]) -> dict[str, Callable[[Row], str]]:
    bench = BENCHES[rows[0]["bench"]]
    has_commits = len({commit_of(row) for row in rows}) > 1

    def value(row: Row) -> str:
        values = row.get(bench.value)
        return f"no figure: {row.get('status')}" if values is None else " / ".join(f"{v:.4g}" for v in values)

    def number(name: str, form: str) -> Callable[[Row], str]:
        return lambda row: "" if row.get(name) is None else format(row[name], form)

    return {
        "settings": settings_words,
        "workload": workload_words,
        "provider": lambda row: row["provider"],
        f"{bench.unit} (20 / 50 / 80 %)": value,
        "99 %": number("p99", ".4g"),
        "tokens/s": number("tokens_per_second", ",.0f"),
        "texts/s": number("texts_per_second", ",.0f"),
        "electra_fast is": ratio_words,
        "GFLOP/s": number("gflops", ".0f"),
        "of GEMM": number("gemm_share", ".0%"),
        "of ceiling, %": number("percent_of_ceiling", ".0f"),
        "MFU": number("mfu", ".1%"),
        "cold start, s": number("cold_start", ".3g"),
        "peak MB": number("peak_mb", ",.0f"),
        "differing texts": number("differing_share", ".2%"),
        "commit": lambda row: " ".join(commit_of(row)) if has_commits else "",
    }


def ratio_words(row: Row) -> str:
    """How many times as fast as a peer we are, with the range from 20 to 80 % if the row has it."""
    if row["provider"] == OURS or row.get("ratio") is None:
        return ""
    spread = row.get("ratios_20_80")
    return times(row["ratio"]) + (f" ({' to '.join(map(digits, spread))})" if spread else "")
