"""A run's log as one picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..disk import written
from .progress import read_records

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Records = list[dict[str, Any]]

_TRAIN, _HELD_OUT, _CONSTANT = "#3b6ea8", "#d1495b", "#8a8a8a"
# (metric of training and evaluation records, its title, its value for the best constant guess: a number, a metric of
# evaluations, or None).
Panel = tuple[str, str, float | str | None]
# Panels of every run.
OPTIMIZER_PANELS: tuple[Panel, ...] = (
    ("lr", "learning rate", None),
    ("grad_norm", "gradient norm before clipping", None),
)


def plot_run(log_path: str | os.PathLike, png_path: str | os.PathLike, panels: Sequence[Panel], name: str) -> None:
    """Draws metrics over steps, each in a panel; evaluations are points.

    If a resumed run logged a step twice, the later record counts. Metrics that the run does not have get no panel.

    Args:
        log_path: a run's log.jsonl.
        png_path: the picture to write, whole or not at all.
        name: name of what was trained.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: there is no such log.
        ValueError: the log has no record of training.
    """
    records = read_records(log_path)
    train, evaluations = (_by_step(records, kind) for kind in ("train", "evaluation"))
    if not train:
        raise ValueError(f"the log must have at least one record of kind train, got none in {os.fspath(log_path)}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a plot of a run needs matplotlib: pip install 'electra_fast[train]'") from error

    panels = [panel for panel in panels if _points(train, panel[0]) or _points(evaluations, panel[0])]
    n_rows = -(-len(panels) // 2)
    figure = Figure(figsize=(10, 0.7 + 2.4 * n_rows), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    legend: dict[str, Artist] = {}
    for number, (metric, title, constant) in enumerate(panels, start=1):
        axes = figure.add_subplot(n_rows, 2, number, sharex=figure.axes[0] if figure.axes else None)
        axes.set_title(title, loc="left", fontsize=10)
        _draw(axes, _points(train, metric), _points(evaluations, metric))
        if isinstance(constant, str):
            constant = next((value for _, value in reversed(_points(evaluations, constant))), None)
        if constant is not None:
            axes.axhline(constant, color=_CONSTANT, linewidth=1, linestyle="--", label="best constant guess", zorder=1)
        if number > len(panels) - 2:
            axes.set_xlabel("step", fontsize=9)
        handles, labels = axes.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    figure.suptitle(_title(name, records, train), x=0.01, ha="left", fontsize=11)
    figure.legend(
        legend.values(), legend.keys(), loc="outside upper right", ncols=len(legend), frameon=False, fontsize=9
    )
    with written(png_path, "wb") as file:
        canvas.print_figure(file, format="png", dpi=120)


def _by_step(records: Records, kind: str) -> Records:
    latest = {record["step"]: record for record in records if record["kind"] == kind}
    return [latest[step] for step in sorted(latest)]


def _points(records: Records, name: str) -> list[tuple[int, float]]:
    return [(record["step"], record[name]) for record in records if record.get(name) is not None]


def _draw(axes: Axes, train: list[tuple[int, float]], held_out: list[tuple[int, float]]) -> None:
    if train:
        axes.plot(*zip(*train, strict=True), color=_TRAIN, linewidth=1.4, label="training")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o", color=_HELD_OUT, markersize=5, label="held out", zorder=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.02)


def _title(name: str, records: Records, train: Records) -> str:
    run = next((record for record in reversed(records) if record["kind"] == "run"), {})
    parts = [name]
    if "n_parameters" in run:
        parts.append(f"{run['n_parameters'] / 1e6:,.1f} M parameters")
    parts.append(f"{train[-1]['step']:,} steps")
    if train[-1].get("tokens_per_second") is not None:
        parts.append(f"{train[-1]['tokens_per_second']:,.0f} tokens/s")
    return ", ".join(parts)
