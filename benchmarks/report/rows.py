"""The rows of the benchmarks: how to read them, what tells two apart, and which are the newest.

Rows are appended to `results/*.jsonl` and never replaced, so the files are also the history. A row is the result of one
provider for one case on one machine at one commit. A case is a bench with its settings and a workload. Columns that
older rows lack count as None. Only rows of a clean tree are published: nobody can repeat a measurement of code that no
commit holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..measure import markdown

Row = dict[str, Any]

OURS = "electra_fast"
RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Bench:
    """How the rows of a bench are read.

    Attributes:
        settings: the columns under which workloads are shown together.
        workload: the columns that tell workloads apart.
        value: the column with 20, 50 and 80 per cent of what was measured.
        unit: the unit of `value`.
    """

    settings: tuple[str, ...]
    workload: tuple[str, ...]
    value: str
    unit: str


BENCHES = {
    "model": Bench(("size", "dtype", "from_text", "threads", "busy"), ("workload", "texts"), "milliseconds", "ms"),
    "embed": Bench(("texts", "n_texts", "threads"), ("model",), "seconds", "s"),
    "tokenizer": Bench(("corpus", "n_texts", "threads"), ("work",), "mb_per_second", "MB/s"),
    "finetune": Bench(
        ("precision", "threads", "batch_size"),
        ("model", "task", "data", "n_items", "mean_length", "max_length"),
        "milliseconds",
        "ms",
    ),
    "pretrain": Bench(("precision", "threads"), ("preset", "batch_size", "seq_length"), "milliseconds", "ms"),
    "ops": Bench(("size", "dtype"), ("op", "tokens", "length", "direction"), "milliseconds", "ms"),
}

_MACHINE = ("cpu", "cores", "gpu")
_NUMBERS = (
    "ratio p99 tokens_per_second texts_per_second gflops gemm_share percent_of_ceiling mfu cold_start peak_mb seconds "
    "differing_share cores threads busy n_texts n_items tokens seq_length"
).split()
_VERSIONS = (
    "python electra_fast torch triton transformers accelerate tokenizers onnxruntime openvino nanotoken "
    "flash-tokenizer blingfire"
).split()


# Reading


def read_rows(directory: Path) -> list[Row]:
    """The rows of a directory's *.jsonl files, the oldest first; rows of one date stay in the order of the files.

    Raises:
        FileNotFoundError: there is no such directory.
        ValueError: the directory has no rows, or a line is damaged.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"no directory of results: {directory}; name one with --results")
    rows = [row for path in sorted(directory.glob("*.jsonl")) for row in _read_file(path)]
    if not rows:
        raise ValueError(f"{directory} must hold *.jsonl files with rows, got none")
    return sorted(rows, key=lambda row: row.get("date") or "")


def _read_file(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            _check(row)
        except ValueError as error:  # errors of JSON and UTF-8 are ValueErrors, too
            raise ValueError(f"{path}, line {number}: {error}") from error
        rows.append(row)
    return rows


def _check(row: Any) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object, got {type(row).__name__}")
    if row.get("bench") not in list(BENCHES):
        raise ValueError(f"bench must be one of {', '.join(BENCHES)}, got {row.get('bench')!r}")
    if not isinstance(row.get("provider"), str):
        raise ValueError(f"provider must be a string, got {row.get('provider')!r}")
    bench = BENCHES[row["bench"]]
    scalars = str | int | float | bool | None
    for name in (*bench.settings, *bench.workload):
        if not isinstance(row.get(name), scalars):
            raise ValueError(f"{name} must be a string or a number, got {row[name]!r}")
    for name in ("date", "commit", "cpu", "gpu"):
        if not isinstance(row.get(name), str | None):
            raise ValueError(f"{name} must be a string, got {row[name]!r}")
    lists = {bench.value: 3, "ratios_20_80": 2}
    for name, size in lists.items():
        values = row.get(name)
        if values is not None and not (isinstance(values, list) and len(values) == size and all(map(_is_real, values))):
            raise ValueError(f"{name} must be {size} numbers, got {values!r}")
    for name in _NUMBERS:
        if name not in lists and row.get(name) is not None and not _is_real(row[name]):
            raise ValueError(f"{name} must be a number, got {row[name]!r}")
    ratios = [row.get("ratio"), *(row.get("ratios_20_80") or ())]
    if any(ratio is not None and ratio <= 0 for ratio in ratios):
        raise ValueError(f"ratios must be above 0, got {ratios}")


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# What tells rows apart


def machine_of(row: Row) -> tuple:
    """The machine of a row: processor, cores and GPU."""
    return tuple(row.get(name) for name in _MACHINE)


def settings_of(row: Row) -> tuple:
    return tuple(row.get(name) for name in BENCHES[row["bench"]].settings)


def case_of(row: Row) -> tuple:
    """The case of a row: everything but provider and commit. Rows of one case can be compared."""
    workload = tuple(row.get(name) for name in BENCHES[row["bench"]].workload)
    return row["bench"], machine_of(row), settings_of(row), workload


def commit_of(row: Row) -> tuple[str, str]:
    """The date and the commit of a run."""
    return row.get("date") or "", row.get("commit") or ""


def is_clean(row: Row) -> bool:
    """Whether the commit holds the code that was measured; git names a tree with other changes `-dirty`."""
    return bool(row.get("commit")) and not row["commit"].endswith("-dirty")


def newest(rows: Iterable[Row]) -> list[Row]:
    """The last row of each case and provider, from rows in order of time."""
    return list({(case_of(row), row["provider"]): row for row in rows}.values())


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Rows by a key; keys and rows stay in order."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


# In words


def _counted(name: str) -> Callable[[Any], str]:
    return lambda n: f"{n:,} {name}" if n != 1 else f"1 {name.removesuffix('s')}"


# Words for columns whose value alone would not say what it is; None is left out, and so is "".
_WRITTEN: dict[str, Callable[[Any], str]] = {
    "from_text": lambda is_from_text: "with tokenising" if is_from_text else "",
    "threads": _counted("threads"),
    "busy": _counted("busy neighbours"),
    "n_texts": _counted("texts"),
    "n_items": _counted("items"),
    "tokens": _counted("tokens"),
    "mean_length": lambda n: f"{n} tokens on average",
    "max_length": lambda n: f"at most {n}",
    "batch_size": lambda n: f"batches of {n}",
    "seq_length": _counted("tokens"),
    "length": lambda n: f"rows of {n}",
}


def words(row: Row, columns: Iterable[str]) -> str:
    """Columns of a row in words, such as "small, fp32, 2 threads"."""
    parts = (_WRITTEN.get(name, str)(row[name]) for name in columns if row.get(name) is not None)
    return ", ".join(dict.fromkeys(filter(None, parts)))


def settings_words(row: Row) -> str:
    return words(row, BENCHES[row["bench"]].settings)


def workload_words(row: Row) -> str:
    return words(row, BENCHES[row["bench"]].workload)


def digits(ratio: float) -> str:
    return f"{ratio:.3g}" if ratio >= 10 else f"{ratio:.2f}"


def times(ratio: float | None) -> str:
    """A ratio of speeds, "" for none."""
    return "" if ratio is None else f"{digits(ratio)} x"


def table(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table of any words."""
    clean = [[" ".join(cell.replace("|", "\\|").split()) for cell in line] for line in (header, *lines)]
    return markdown(clean[0], clean[1:])


def machine_words(row: Row) -> str:
    """The machine of a row in words, such as "2 cores of AMD EPYC, NVIDIA H200"."""
    cpu, cores, gpu = machine_of(row)
    processor = " of ".join(filter(None, (f"{cores} cores" if cores else "", cpu)))
    return ", ".join(filter(None, (processor, gpu)))


def origin(rows: Iterable[Row]) -> str:
    """The origin of figures of one machine: the machine, and all dates, versions and commits among the rows."""
    rows = list(rows)

    def values(name: str) -> str:
        found = (" ".join(map(str, v)) if isinstance(v := row.get(name), list) else v for row in rows)
        return ", ".join(dict.fromkeys(str(value) for value in found if value is not None))

    flags = f"with {flags}" if (flags := values("cpu_flags")) else ""
    versions = ", ".join(f"{name} {version}" for name in _VERSIONS if (version := values(name)))
    commit = f"commit {values('commit') or 'not recorded'}"
    return "; ".join(filter(None, (values("date"), machine_words(rows[0]), flags, versions, commit)))
