"""The figures in README.md: each block between its two comments is made of rows, and of nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .history import peers_of
from .rows import BENCHES, OURS, Row, case_of, commit_of, grouped, machine_of, newest, origin, table, times, words

_BLOCK = re.compile(r"(<!-- figures: ([^\n]*?) -->\n)(.*?)(<!-- end figures -->)", flags=re.DOTALL)
_MARK = re.compile(r"<!-- (figures:|end figures)")


@dataclass(frozen=True)
class Block:
    """One table of the README: a line for each case, with our figures and a column for each peer.

    Attributes:
        belongs: whether a row is in it. Rows of a GPU are in none.
        names: the columns that name a line; where they do not tell lines apart, all columns do.
        ours: the columns of our rows, by their headers.
        peer: what a peer's column has, given its row and ours; it is empty without.
        beside: the header of a peer's column.
        command: what repeats it.
    """

    bench: str
    belongs: Callable[[Row], bool]
    names: tuple[str, ...]
    ours: dict[str, Callable[[Row], str]]
    peer: Callable[[Row, Row], str]
    command: str
    beside: str = "beside {}"


def rewrite(text: str, rows: Iterable[Row]) -> str:
    """The text with its blocks made anew of the rows.

    Raises:
        ValueError: a block has no end or no known name, or there is none.
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
    """The table of a block and a line below it, of the machine that measured last; peers of other commits than our
    row of a case are left out."""
    chosen = [row for row in rows if row["bench"] == block.bench and row.get("gpu") is None and block.belongs(row)]
    chosen = newest(row for row in chosen if machine_of(row) == machine_of(chosen[-1]))
    cases: list[tuple[Row, dict[str, Row]]] = []
    for some in grouped(chosen, case_of).values():
        ours = next((row for row in some if row["provider"] == OURS), None)
        if ours is not None and ours.get(BENCHES[block.bench].value) is not None:
            cases.append((ours, {row["provider"]: row for row in some if commit_of(row) == commit_of(ours)}))
    if not cases:
        return f"Not measured yet: `{block.command}`."
    used = [row for _, by_name in cases for row in by_name.values()]
    peers = peers_of(used)
    names, common = _names(block, [ours for ours, _ in cases])
    lines = []
    for name, (ours, by_name) in zip(names, cases, strict=True):
        cells = [_peer_cell(block, by_name.get(peer), ours) for peer in peers]
        lines.append((name, *(write(ours) for write in block.ours.values()), *cells))
    header = ("", *block.ours, *map(block.beside.format, peers))
    return f"{table(header, lines)}\n\n{'; '.join(filter(None, (common, origin(used))))}; `{block.command}`."


def _peer_cell(block: Block, row: Row | None, ours: Row) -> str:
    if row is None:
        return ""
    return "no figure" if row.get(BENCHES[block.bench].value) is None else block.peer(row, ours)


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


def _ratio_of_updates(row: Row, ours: Row) -> str:
    """Of whole times where a peer groups lengths: its updates go from long to short, and ours do not."""
    if row["provider"] == "trainer-grouped" and row.get("seconds") and ours.get("seconds"):
        return times(row["seconds"] / ours["seconds"])
    return _ratio(row, ours)


def _is_model(row: Row) -> bool:
    return row.get("size") in ("small", "base") and row.get("from_text") is False


def _is_latency(row: Row) -> bool:
    return _is_model(row) and str(row.get("workload")).startswith("latency")


def _is_throughput(dtype: str) -> Callable[[Row], bool]:
    return lambda row: row.get("dtype") == dtype and _is_model(row) and not _is_latency(row)


def _is_shown_work(row: Row) -> bool:
    """Two threads for ids only; arrays stand for offsets."""
    work = str(row.get("work"))
    return work != "ids and offsets, lists" and (row.get("threads") == 1 or work.startswith("ids,"))


BLOCKS = {
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
        "electra-fast bench pretrain",
    ),
    "tokenizer": Block(
        "tokenizer",
        _is_shown_work,
        ("corpus", "threads", "work"),
        {"electra_fast, MB/s": _median_and_spread},
        lambda row, ours: _median(row),
        "electra-fast bench tokenizer --data PROSE SCRIPTS",
        beside="{}",
    ),
}
