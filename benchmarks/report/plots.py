"""Pictures of ratios: bars of the newest rows, and lines from commit to commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from textwrap import fill
from typing import TYPE_CHECKING

from .history import Run, peers_of, runs_of
from .rows import (
    OURS,
    Row,
    case_of,
    digits,
    grouped,
    machine_of,
    machine_words,
    settings_of,
    settings_words,
    workload_words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL = "times as fast as the peer (log scale)"
_BAR = 0.24  # inches
_N_COLUMNS = 2
_WRAPPED = 36  # characters of a label
_HISTORY_COLUMNS, _HISTORY_SIZE = 4, (4.5, 2.6)  # panels side by side; inches of each
_HISTORY_LABELS = 4  # more would run into each other


def plot_ratios(rows: Iterable[Row]) -> Figure | None:
    """Draws bars of ratios, with whiskers from 20 to 80 %, in a panel for each machine and settings.

    Bars begin at 1 and go to the right if electra_fast is faster. Peers without a ratio have no bar. Returns None if no
    row has a ratio.
    """
    rows = [row for row in rows if row["provider"] != OURS and row.get("ratio") is not None]
    if not rows:
        return None
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colors = _colors(rows)
    panels = list(grouped(rows, lambda row: (machine_of(row), settings_of(row))).values())
    lines = [panels[i : i + _N_COLUMNS] for i in range(0, len(panels), _N_COLUMNS)]
    heights = [0.9 + _BAR * max(len(panel) + 0.8 * len(grouped(panel, case_of)) for panel in line) for line in lines]
    n_columns = min(len(panels), _N_COLUMNS)
    n_names = 2 if n_columns == 1 else 4  # beside each other in the legend
    legend = 0.3 * (1 + len(colors) // n_names)
    figure = Figure(figsize=(7.0 * n_columns, 0.6 + legend + sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(lines), n_columns, height_ratios=heights)
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(grid[divmod(place, _N_COLUMNS)])
        _draw_bars(axes, panel, colors)
        axes.set_title(_title(panel[0], rows), loc="left", fontsize=10)
    figure.suptitle(f"bench {rows[0]['bench']}: electra_fast beside its peers", x=0.01, ha="left", fontsize=12)
    patches = [Patch(color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=n_names, frameon=False)
    return figure


def _draw_bars(axes: Axes, rows: Sequence[Row], colors: dict[str, str]) -> None:
    from matplotlib.ticker import NullLocator

    place, ticks, lows, highs = 0.0, {}, [0.8], [1.25]
    for case in grouped(rows, case_of).values():
        for offset, row in enumerate(case):
            ratio = row["ratio"]
            low, high = row.get("ratios_20_80") or (ratio, ratio)
            axes.barh(place + offset, ratio - 1, 0.85, left=1, color=colors[row["provider"]])
            axes.plot((low, high), (place + offset,) * 2, color="black", linewidth=1, marker="|", markersize=4)
            end = max(high, 1.0)
            axes.annotate(
                digits(ratio),
                (end, place + offset),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
            lows.append(min(low, ratio))
            highs.append(max(high, ratio))
        ticks[place + (len(case) - 1) / 2] = fill(workload_words(case[0]), _WRAPPED)
        place += len(case) + 0.8
    axes.set_xscale("log")
    span = max(highs) / min(lows)
    axes.set_xlim(min(lows) / span**0.03, max(highs) * span**0.12)
    numbers = _round_numbers(*axes.get_xlim())
    axes.set_xticks(numbers, [f"{number:g}" for number in numbers], fontsize=8)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=9)
    axes.set_ylim(place - 0.9, -0.9)
    axes.axvline(1, color="black", linewidth=1, zorder=3)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(_LABEL, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def plot_history(rows: Iterable[Row]) -> Figure | None:
    """Draws the ratio to each peer over commits, in a panel for each case that two or more runs have measured.

    Returns None if there is no such case.
    """
    rows = list(rows)
    cases = {case: runs_of(some) for case, some in grouped(rows, case_of).items()}
    panels = [runs for runs in cases.values() if sum(map(_has_ratio, runs)) > 1]
    if not panels:
        return None
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullLocator

    shown = [row for runs in panels for run in runs for row in run.rows.values()]
    colors = _colors(shown)
    n_columns = min(len(panels), _HISTORY_COLUMNS)
    n_lines = -(-len(panels) // n_columns)
    n_names = 2 if n_columns == 1 else 4  # beside each other in the legend
    legend = 0.3 * (1 + len(colors) // n_names)
    size = (_HISTORY_SIZE[0] * max(n_columns, 2), 0.6 + legend + _HISTORY_SIZE[1] * n_lines)
    figure = Figure(figsize=size, layout="constrained")
    for number, runs in enumerate(panels, start=1):
        axes = figure.add_subplot(n_lines, n_columns, number)
        runs = [run for run in runs if _has_ratio(run)]
        values = [1.0]
        for name, color in colors.items():
            points = [(x, run.rows[name]["ratio"]) for x, run in enumerate(runs) if _ratio(run.rows.get(name))]
            axes.plot(*zip(*points, strict=True) if points else ((), ()), color=color, marker="o", markersize=4)
            values += [ratio for _, ratio in points]
        axes.axhline(1, color="black", linewidth=1)
        axes.set_yscale("log")
        axes.set_ylim(min(values) / 1.15, max(values) * 1.15)
        ticks = _round_numbers(*axes.get_ylim())
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
        axes.yaxis.set_minor_locator(NullLocator())
        every = -(-len(runs) // _HISTORY_LABELS)
        places = range(0, len(runs), every)
        axes.set_xticks(places, [f"{runs[x].date}\n{runs[x].commit}" for x in places], fontsize=7)
        row = next(iter(runs[0].rows.values()))
        axes.set_title(f"{workload_words(row)} ({_title(row, shown)})", loc="left", fontsize=9)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"bench {shown[0]['bench']}: {_LABEL}", x=0.01, ha="left", fontsize=11)
    handles = [Line2D([], [], color=color, marker="o", label=name) for name, color in colors.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=n_names, frameon=False)
    return figure


def _has_ratio(run: Run) -> bool:
    return any(name != OURS and _ratio(row) for name, row in run.rows.items())


def _ratio(row: Row | None) -> float | None:
    return None if row is None else row.get("ratio")


def _colors(rows: Iterable[Row]) -> dict[str, str]:
    """A colour for each peer."""
    return dict(zip(peers_of(rows), (f"C{i % 10}" for i in count()), strict=False))


def _title(row: Row, rows: Iterable[Row]) -> str:
    """The title of a panel: its settings, and its machine if the rows are from several."""
    machine = machine_words(row) if len(grouped(rows, machine_of)) > 1 else ""
    return ", ".join(filter(None, (settings_words(row), machine)))


def _round_numbers(low: float, high: float) -> list[float]:
    """Ticks of a log scale: 1, 2, 5, 10, ...; finer where the span is small."""
    coarse, middle, fine = (1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8), (1, 1.1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 6, 8, 9)
    span = high / low
    steps = coarse if span > 15 else middle if span > 2.5 else fine
    ticks = (step * 10.0**power for power in range(-4, 7) for step in steps)
    return [tick for tick in ticks if low <= tick <= high]
