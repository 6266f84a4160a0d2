"""Speed of ElectraTokenizer beside its peers on the same texts, and the share of texts for which a peer's ids differ.

- The kinds of work are in `kinds_of_work`, what each peer does for them in peers.py. A first pass is by a tokenizer
  that has been built, but has seen no text yet.
- Each number of threads has a process of its own: most peers read it from the environment, once. Where the system
  allows it, the process may use that many cores only.
- All ids are compared with those of `tokenizers`. A peer whose ids differ still gets its time, with the share beside
  it; if those of electra_fast differ, the benchmark ends there.
- MB/s counts the bytes of the texts in UTF-8, also of what truncation cuts off.
"""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tqdm import tqdm

from ...pretraining.text.builtin import builtin_documents
from ...pretraining.text.vocab import load_tokenizer, train_vocab
from ...processor import default_threads
from ...tokenizer import ElectraTokenizer
from .. import OURS
from ..measure import (
    append_rows,
    check_writable,
    import_error,
    machine,
    markdown,
    plot_bars,
    quantiles,
    quantiles_cell,
    ratio,
    ratio_cell,
    require,
    time_in_turn,
)
from .peers import MAX_LENGTH, PEERS, PROVIDERS, Provider, backend, rows_of_ids

_VOCAB_SIZE = 8000
_TEXTS_A_CALL = 1024  # a call that makes tensors or lists has so many
_SENTENCES_A_CALL, _MAX_SENTENCE_CALLS = 256, 16
_JOB, _ROWS = "job.json", "rows.jsonl"


@dataclass(kw_only=True)
class TokenizerBench:
    """Measure ElectraTokenizer beside other tokenizers, and whether they give the same ids."""

    data: tuple[Path, ...] = ()
    """Text files (.txt or .txt.xz), each a corpus, with a text a line. Default: the documentation in Python itself."""
    vocab: Path | None = None
    """A vocab.txt, or a directory with a tokenizer. Default: train 8,000 entries on each corpus."""
    megabytes: float = 10.0
    """How much of each corpus: whole texts from its start until there is so much."""
    repeats: int = 7
    """Timed rounds; each runs every tokenizer once."""
    threads: tuple[int, ...] = tuple(sorted({1, default_threads()}))
    """Numbers of threads. Default: one, and as many as there are cores."""
    against: tuple[str, ...] = tuple(PEERS)
    """The peers; those that are not installed are left out."""
    json: Path | None = None
    """Append one row for each work, tokenizer and number of threads to this JSONL file."""
    plot: Path | None = None
    """Draw the speeds into this PNG file; needs matplotlib."""

    def run(self) -> None:
        self._check()
        missing = {name: error for name in self.against if (error := import_error(PEERS[name].module))}
        providers = [OURS, *(name for name in self.against if name not in missing)]
        about = machine(*PEERS)
        all_rows: list[dict] = []
        for corpus, texts in self._corpora():
            size = {"corpus": corpus, "megabytes": round(n_megabytes(texts), 6), "n_texts": len(texts)}
            rows = [{"bench": "tokenizer", **size, **row, **about} for row in self._measure(texts, providers)]
            print(f"{corpus}: {size['megabytes']:.3g} MB in {len(texts):,} texts\n\n{table(rows)}\n", flush=True)
            if self.json is not None:
                append_rows(self.json, rows)
            all_rows += rows
        if missing:
            print("not installed: " + ", ".join(f"{name} ({error})" for name, error in missing.items()))
        if self.plot is not None:
            plot_bars(all_rows, self.plot, "corpus", "threads", "work", "provider", "mb_per_second", "MB/s")

    def _check(self) -> None:
        if unknown := [name for name in self.against if name not in PEERS]:
            raise ValueError(f"unknown peer {unknown[0]!r}; the peers are {', '.join(PEERS)}")
        if not self.threads or min(self.megabytes, self.repeats, *self.threads) <= 0:
            given = f"{self.megabytes:g}, {self.repeats} and {' '.join(map(str, self.threads)) or 'none'}"
            raise ValueError(f"megabytes, repeats and threads must be above 0, got {given}")
        check_writable(self.json, self.plot, reads=(*self.data, self.vocab))
        if self.plot is not None:
            require("matplotlib", "bench")

    def _corpora(self) -> list[tuple[str, list[str]]]:
        if not self.data:
            return [("Python's documentation", head(builtin_documents(), self.megabytes))]
        return [(path.name, head(read_texts(path), self.megabytes)) for path in self.data]

    def _measure(self, texts: list[str], providers: list[str]) -> list[dict]:
        """The rows of one corpus; a process for each number of threads finds its job in a folder, and leaves rows."""
        if self.vocab is None:
            tokenizer = ElectraTokenizer({token: i for i, token in enumerate(train_vocab(texts, _VOCAB_SIZE))})
        else:
            tokenizer = load_tokenizer(self.vocab, MAX_LENGTH)
        with TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            job = {"texts": texts, "providers": providers, "repeats": self.repeats}
            Path(folder, _JOB).write_text(json.dumps(job), encoding="utf-8")
            for n_threads in self.threads:
                pools = {name: str(n_threads) for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS")}
                pools["TOKENIZERS_PARALLELISM"] = str(n_threads > 1).lower()
                command = [sys.executable, "-P", "-m", __name__, folder, str(n_threads)]
                if code := subprocess.run(command, env=os.environ | pools).returncode:
                    raise SystemExit(f"the measurement with {n_threads} threads ended with exit code {code}")
            return [json.loads(line) for line in Path(folder, _ROWS).read_text(encoding="utf-8").splitlines()]


def read_texts(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    if not path.is_file():
        raise FileNotFoundError(f"no such data file: {path}")
    try:
        with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as lines:
            texts = [line.rstrip("\n") for line in lines if line.strip()]
    except (UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path} must be UTF-8 text, plain or .xz, got: {error}") from error
    if not texts:
        raise ValueError(f"{path} must hold text, got nothing but white space")
    return texts


def head(texts: Sequence[str], megabytes: float) -> list[str]:
    """Whole texts from the start until there is so much."""
    ends = np.cumsum([len(text.encode()) for text in texts])
    return list(texts[: int(np.searchsorted(ends, megabytes * 1e6)) + 1])


def n_megabytes(texts: Sequence[str]) -> float:
    """The size of texts in UTF-8."""
    return sum(len(text.encode()) for text in texts) / 1e6


@dataclass(frozen=True)
class Work:
    """A kind of work for tokenizers.

    Attributes:
        method: the method of a provider that does it; who has none takes no part.
        calls: the arguments of each call: texts, or first and second texts.
        max_length: where ids are cut.
        is_fresh: a new tokenizer does it every time.
    """

    name: str
    method: str
    calls: list[tuple[list[str], ...]]
    max_length: int | None = None
    is_fresh: bool = False


def kinds_of_work(texts: list[str]) -> list[Work]:
    """All kinds of work that there are with these texts."""

    def calls(size: int, *columns: list[str]) -> list[tuple[list[str], ...]]:
        return [tuple(c[start : start + size] for c in columns) for start in range(0, len(columns[-1]), size)]

    sentences = [sentence for text in texts for sentence in text.split(". ") if sentence.strip()]
    all_works = [
        Work("ids, first pass", "ids", [(texts,)], is_fresh=True),
        Work("ids, repeated", "ids", [(texts,)]),
        Work("ids and offsets, arrays", "spans", [(texts,)]),
        Work("ids and offsets, lists", "offset_lists", calls(_TEXTS_A_CALL, texts)),
        Work("pairs to tensors", "pairs", calls(_TEXTS_A_CALL, texts[:-1:2], texts[1::2]), MAX_LENGTH),
        Work(
            f"{_SENTENCES_A_CALL} sentences to tensors",
            "tensors",
            calls(_SENTENCES_A_CALL, sentences)[:_MAX_SENTENCE_CALLS],
            MAX_LENGTH,
        ),
    ]
    return [work for work in all_works if work.calls]  # a single text makes no pair


def measure(folder: Path, n_threads: int) -> None:
    """Measures what a folder's job asks for, and appends the rows to the folder's. Runs in a process of its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-n_threads:])
    job = json.loads((folder / _JOB).read_text(encoding="utf-8"))
    providers = {name: PROVIDERS[name] for name in job["providers"] if n_threads <= PROVIDERS[name].max_threads}
    works = [
        (work, {name: provider for name, provider in providers.items() if hasattr(provider, work.method)})
        for work in kinds_of_work(job["texts"])
    ]
    with tqdm(total=job["repeats"] * sum(len(able) for _, able in works), unit="run", disable=None) as bar:
        for work, able in works:
            bar.set_description(f"{work.name}, threads: {n_threads}")
            append_rows(folder / _ROWS, measure_work(work, able, folder, n_threads, job["repeats"], bar))


def measure_work(
    work: Work, providers: dict[str, type[Provider]], folder: Path, n_threads: int, repeats: int, bar: tqdm
) -> list[dict]:
    """A row for each provider, and an end to the benchmark if ours gives other ids than `tokenizers`."""
    expected = expected_ids(work, folder)
    make: dict[str, Callable[[], Callable[..., Any]]] = {}
    n_differing: dict[str, int] = {}
    for name, provider in providers.items():

        def build(provider: type[Provider] = provider) -> Callable[..., Any]:
            return getattr(provider(folder, n_threads), work.method)

        run = build()
        make[name] = build if work.is_fresh else lambda run=run: run
        rows = (row for call in work.calls for row in rows_of_ids(run(*call)))
        inner = slice(None) if provider.frames else slice(1, -1)
        n_differing[name] = sum(not np.array_equal(a, b[inner]) for a, b in zip(rows, expected, strict=True))
    if n_differing[OURS]:
        raise SystemExit(f"{work.name}: electra_fast gives other ids than tokenizers for {n_differing[OURS]} texts")
    times = time_in_turn(make, work.calls, repeats, bar)
    megabytes = sum(n_megabytes(texts) for call in work.calls for texts in call)
    return [
        {
            "work": work.name,
            "provider": name,
            "threads": n_threads,
            "mb_per_second": [float(f"{q:.4g}") for q in quantiles(megabytes / s for s in seconds)],
            "ratio": float(f"{ratio(seconds, times[OURS]):.4g}"),
            "n_differing": n_differing[name],
            "differing_share": round(n_differing[name] / len(expected), 6),
        }
        for name, seconds in times.items()
    ]


def expected_ids(work: Work, folder: Path) -> list[np.ndarray]:
    """The right ids of every text or pair."""
    inputs = [item for call in work.calls for item in (call[0] if len(call) == 1 else zip(*call, strict=True))]
    return [np.array(encoding.ids) for encoding in backend(folder, work.max_length).encode_batch_fast(inputs)]


def table(rows: list[dict]) -> str:
    """A line for each row."""
    lines = []
    for row in rows:
        speeds, speed = quantiles_cell(row["mb_per_second"], ".3g"), ratio_cell(row, "{ratio:.3g} x as fast")
        share = f"{row['differing_share']:.2%} ({row['n_differing']:,})"
        lines.append((row["work"], str(row["threads"]), row["provider"], speeds, speed, share))
    header = ("work", "threads", "tokenizer", "MB/s (20 / 50 / 80 %)", f"{OURS} is", "texts that differ")
    return markdown(header, lines)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # the process that started this one is interrupted, too
        measure(Path(sys.argv[1]), int(sys.argv[2]))
