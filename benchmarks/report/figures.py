"""The figures in README.md and docs/benchmarks.md: blocks between two comments, made from rows of clean trees alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from textwrap import fill

from .history import peers_of
from .rows import (
    BENCHES,
    OURS,
    Row,
    case_of,
    commit_of,
    grouped,
    is_clean,
    machine_of,
    newest,
    origin,
    table,
    times,
    words,
)

_BLOCK = re.compile(r"(<!-- figures: ([^\n]*?) -->\n)(.*?)(<!-- end figures -->)", flags=re.DOTALL)
_MARK = re.compile(r"<!-- (figures:|end figures)")
_WIDTH = 120

Peers = dict[str, Row]


@dataclass(frozen=True)
class Block:
    """One table of a page: a line for each case, with our figures and columns that compare with peers.

    Attributes:
        belongs: whether a row belongs to the block. Rows of a GPU belong to none.
        names: the columns that name a line; if they do not tell lines apart, all columns name it.
        ours: the columns with our figures: functions of our row, by their headers.
        peer: the content of a peer's column, from its row and ours; a cell is empty if the peer has no row.
        command: the command that repeats the measurement.
        beside: the header of a peer's column.
        comparisons: columns in place of one for each peer: functions of the rows of all peers, by their headers.
    """

    bench: str
    belongs: Callable[[Row], bool]
    names: tuple[str, ...]
    ours: dict[str, Callable[[Row], str]]
    peer: Callable[[Row, Row], str]
    command: str
    beside: str = "beside {}"
    comparisons: dict[str, Callable[[Peers], str]] | None = None


def rewrite(text: str, rows: Iterable[Row]) -> str:
    """The text with its blocks made anew from the rows.

    Raises:
        ValueError: a block has no end or no known name, or there is no block.
    """
    rows = list(rows)
    found = _BLOCK.findall(text)
    if not found or len(_MARK.findall(text)) != 2 * len(found):
        raise ValueError(
            "blocks of figures must be `<!-- figures: NAME -->`, lines, `<!-- end figures -->`; "
            f"got {len(found)} of them and {len(_MARK.findall(text))} such comments"
        )
    if unknown := [name for _, name, _, _ in found if name not in BLOCKS]:
        raise ValueError(f"unknown block of figures {unknown[0]!r}; the blocks are {', '.join(BLOCKS)}")
    return _BLOCK.sub(lambda match: f"{match[1]}{make(BLOCKS[match[2]], rows)}\n{match[4]}", text)


def make(block: Block, rows: Iterable[Row]) -> str:
    """The table of a block for the machine that measured last, and the origin of its rows.

    Rows of peers at other commits than our row of a case are left out, and so are rows of trees that were not clean. A
    case without other rows is shown as to be measured; a block without any case is one sentence that says so.
    """
    rows = [row for row in rows if row["bench"] == block.bench and row.get("gpu") is None and block.belongs(row)]
    clean = [row for row in rows if is_clean(row)]
    cases: dict[tuple, tuple[Row, Peers]] = {}
    shown = newest(row for row in clean if machine_of(row) == machine_of(clean[-1]))
    for case, some in grouped(shown, case_of).items():
        ours = next((row for row in some if _is_ours(row)), None)
        if ours is not None:
            cases[case] = ours, {row["provider"]: row for row in some if commit_of(row) == commit_of(ours)}
    if not cases:
        return f"To be measured on a clean tree: `{block.command}`."
    used = [row for _, by_name in cases.values() for row in by_name.values()]
    others = newest(row for row in rows if machine_of(row) == machine_of(used[0]) and case_of(row) not in cases)
    pending = [row for row in others if _is_ours(row)]
    names, common = _names(block, [*(ours for ours, _ in cases.values()), *pending])
    columns = _comparisons(block, peers_of(used))
    lines = []
    for name, (ours, by_name) in zip(names, cases.values(), strict=False):
        figures = (write(ours) for write in block.ours.values())
        lines.append((name, *figures, *(write(by_name) for write in columns.values())))
    n_empty = len(block.ours) - 1 + len(columns)
    lines += [(name, "to be measured", *[""] * n_empty) for name in names[len(cases) :]]
    where = "; ".join(filter(None, (common, origin(used)))) + "."
    below = fill(where, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return f"{table(('', *block.ours, *columns), lines)}\n\n{below}\nRepeat it with `{block.command}`."


def _is_ours(row: Row) -> bool:
    return row["provider"] == OURS and row.get(BENCHES[row["bench"]].value) is not None


def _comparisons(block: Block, peers: list[str]) -> dict[str, Callable[[Peers], str]]:
    if block.comparisons is not None:
        return block.comparisons
    return {block.beside.format(peer): lambda rows, peer=peer: _peer_cell(block, rows, peer) for peer in peers}


def _peer_cell(block: Block, rows: Peers, peer: str) -> str:
    if peer not in rows:
        return ""
    row = rows[peer]
    return "no figure" if row.get(BENCHES[block.bench].value) is None else block.peer(row, rows[OURS])


def _names(block: Block, rows: list[Row]) -> tuple[list[str], str]:
    """The name of each case, and the settings that all have in common, in words."""
    bench = BENCHES[block.bench]
    common = [name for name in bench.settings if len({row.get(name) for row in rows}) == 1]
    columns = [name for name in block.names if name not in common]
    names = [words(row, columns) for row in rows]
    if len(set(names)) < len(names):
        columns = [name for name in (*bench.settings, *bench.workload) if name not in common]
        names = [words(row, columns) for row in rows]
    return names, words(rows[0], common)


# What the columns have


def _number(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(name) is None else f"{row[name]:,.0f}"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _median(row: Row) -> str:
    return _three_digits(row[BENCHES[row["bench"]].value][1])


def _median_and_spread(row: Row) -> str:
    low, median, high = map(_three_digits, row[BENCHES[row["bench"]].value])
    return f"{median} ({low} to {high})"


def _ratio(row: Row, ours: Row) -> str:
    return times(row.get("ratio"))


def _latency(row: Row) -> str:
    tail = "" if row.get("p99") is None else f" / {_three_digits(row['p99'])}"
    return _median(row) + tail


def _latency_and_ratio(row: Row, ours: Row) -> str:
    return ", ".join(filter(None, (_latency(row), _ratio(row, ours))))


def _step(row: Row) -> str:
    peak = f" / {peak}" if (peak := _number("peak_mb")(row)) else ""
    return _median(row) + peak


def _step_and_ratio(row: Row, ours: Row) -> str:
    return ", ".join(filter(None, (_step(row), _ratio(row, ours))))


def _ratio_of_updates(row: Row, ours: Row) -> str:
    """The ratio of whole times for a peer that groups lengths: its updates go from long to short, ours do not.

    Other peers have the ratio of their row.
    """
    if row["provider"] == "trainer-grouped" and row.get("seconds") and ours.get("seconds"):
        return times(row["seconds"] / ours["seconds"])
    return _ratio(row, ours)


def _beside(peer: str) -> Callable[[Peers], str]:
    return lambda rows: times(rows[peer].get("ratio")) if peer in rows else ""


def _beside_fastest(rows: Peers) -> str:
    """The smallest ratio, and the peer that has it."""
    ratios = {name: row["ratio"] for name, row in rows.items() if not name.startswith(OURS) and row.get("ratio")}
    if not ratios:
        return ""
    fastest = min(ratios, key=ratios.__getitem__)
    return f"{times(ratios[fastest])} ({fastest})"


def _is_training(row: Row) -> bool:
    return str(row.get("workload")).startswith("train-")


def _is_model(row: Row) -> bool:
    return row.get("size") in ("small", "base") and row.get("from_text") is False and not _is_training(row)


def _is_quiet(row: Row) -> bool:
    return row.get("busy") is None


def _is_latency(row: Row) -> bool:
    return _is_model(row) and _is_quiet(row) and str(row.get("workload")).startswith("latency")


def _is_throughput(dtype: str) -> Callable[[Row], bool]:
    return lambda row: row.get("dtype") == dtype and _is_model(row) and _is_quiet(row) and not _is_latency(row)


def _is_summary(row: Row) -> bool:
    """Whether a row shows the least or the most that there is to gain: nothing padded, or batches of sentences."""
    return _is_throughput("fp32")(row) and row.get("workload") in ("full-128", "sentences")


def _is_shown_work(row: Row) -> bool:
    """Whether a row of the tokenizer is shown: two threads for ids only, and offsets as arrays only."""
    work = str(row.get("work"))
    return work != "ids and offsets, lists" and (row.get("threads") == 1 or work.startswith("ids,"))


BLOCKS = {
    "summary": Block(
        "model",
        _is_summary,
        ("size", "workload", "threads"),
        {"real tokens/s": _number("tokens_per_second")},
        _ratio,
        "electra-fast bench model --sizes small base --texts SST-2/dev.tsv",
        comparisons={
            "beside transformers sdpa": _beside("transformers sdpa"),
            "beside the fastest peer": _beside_fastest,
        },
    ),
    "model": Block(
        "model",
        _is_throughput("fp32"),
        ("size", "workload", "threads"),
        {"real tokens/s": _number("tokens_per_second")},
        _ratio,
        "electra-fast bench model --sizes small base --texts SST-2/dev.tsv",
    ),
    "model-int8": Block(
        "model",
        _is_throughput("int8"),
        ("size", "workload", "threads"),
        {"real tokens/s": _number("tokens_per_second")},
        _ratio,
        "electra-fast bench model --sizes small base --dtype int8 --texts SST-2/dev.tsv",
    ),
    "latency": Block(
        "model",
        _is_latency,
        ("size", "workload", "dtype", "threads"),
        {"ms, 50 / 99 %": _latency},
        _latency_and_ratio,
        "electra-fast bench model --sizes small base --texts SST-2/dev.tsv",
        beside="{}: ms, ratio",
    ),
    "busy": Block(
        "model",
        lambda row: _is_model(row) and not _is_quiet(row),
        ("busy", "size", "workload", "dtype", "threads"),
        {"ms, 50 / 99 %": _latency},
        _ratio,
        "electra-fast bench model --sizes small base --busy 2 --texts SST-2/dev.tsv",
        comparisons={"beside the fastest peer": _beside_fastest},
    ),
    "training": Block(
        "model",
        lambda row: _is_training(row) and _is_quiet(row),
        ("size", "workload", "dtype", "threads"),
        {"real tokens/s": _number("tokens_per_second"), "ms / MB": _step},
        _step_and_ratio,
        "electra-fast bench model --train --sizes tiny small base",
        beside="beside {}: ms / MB, ratio",
    ),
    "embed": Block(
        "embed",
        lambda row: True,
        ("model", "texts", "n_texts", "threads"),
        {"texts/s": _number("texts_per_second")},
        _ratio,
        "electra-fast bench embed --texts SST-2/train.tsv --n 20000",
    ),
    "finetune": Block(
        "finetune",
        lambda row: True,
        ("model", "task", "data", "mean_length"),
        {"ms an update": _median},
        _ratio_of_updates,
        "electra-fast bench finetune --model MODEL --task TASK --data DATA",
    ),
    "pretrain": Block(
        "pretrain",
        lambda row: True,
        ("preset", "batch_size", "seq_length", "precision", "threads"),
        {"tokens/s": _number("tokens_per_second")},
        _ratio,
        "electra-fast bench pretrain --providers electra_fast transformers-eager transformers-eager-gathered "
        "transformers-compiled-gathered",
    ),
    "tokenizer": Block(
        "tokenizer",
        _is_shown_work,
        ("corpus", "threads", "work"),
        {"electra_fast, MB/s": _median_and_spread},
        lambda row, ours: _median(row),
        "electra-fast bench tokenizer --vocab VOCAB --data PROSE SCRIPTS",
        beside="{}",
    ),
}
