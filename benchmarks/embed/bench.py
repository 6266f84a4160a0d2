"""How fast texts become embeddings, tokenising included: `embed` beside other libraries.

Providers take turns on the same weights and the same texts, two thousand a turn, until each has had all of them; a
ratio is the median of the ratios of neighbouring turns. A provider that orders texts by length orders those of a turn.
One whose vectors differ from those of transformers in fp32 gets no time. Tokens a second do not count padding.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tqdm import tqdm

from ...inference.embed import embed
from ...model.backbone import ElectraModel
from ...model.pretrained import load_complete
from ...pretraining.text.builtin import builtin_documents
from ...processor import cpu_threads
from .. import OURS
from ..measure import (
    append_rows,
    check_writable,
    machine,
    markdown,
    plot_bars,
    quantiles,
    quantiles_cell,
    ratio_cell,
    ratio_figures,
    require,
    seconds_of_calls,
    take_turns,
)
from ..model.files import SHAPES, write_weights
from ..model.work import read_lines, sentences_of
from .peers import BATCH_SIZE, PEERS, Provider, make_peers

REFERENCE = "transformers"
TOLERANCE = 1e-4  # for each number of a vector, and for the cosine
TEXTS_A_TURN = 2000
_N_CHECKED = 64
_WORDS = range(3, 41)  # words of a sentence of Python's documentation; what is longer is mostly no sentence


@dataclass(kw_only=True)
class EmbedBench:
    """Measure how fast texts become vectors, beside other libraries."""

    model: Path | None = None
    """A directory with a checkpoint. Default: random weights of --size, and the tokenizer that comes with the
    package."""
    size: str = "small"
    """Size of random weights: tiny, small, base, large."""
    texts: Path | None = None
    """Texts in the order they are embedded in: lines, or the first column of a .tsv, named by its first line.
    Default: sentences of Python's own documentation, shuffled."""
    n: int = 20_000
    """How many texts: the first ones, or as many as there are."""
    threads: int | None = None
    """How many threads each may use. Default: torch's."""
    against: tuple[str, ...] = tuple(PEERS)
    """The peers; those that are not installed are left out."""
    repeats: int = 3
    """How often all texts are embedded by each."""
    json: Path | None = None
    """Append one row a provider to this JSONL file."""
    plot: Path | None = None
    """Draw the times into this PNG file; needs matplotlib."""

    def run(self) -> None:
        self._check()
        require("transformers", "hf")
        texts, what = self._read()
        missing = {peer: hint for peer in self.against if (hint := PEERS[peer].obstacle)}
        name = f"{self.size}, random weights" if self.model is None else str(self.model)
        if self.threads is not None:
            os.environ["RAYON_NUM_THREADS"] = str(self.threads)  # read when tokenizers first uses threads
        with cpu_threads(self.threads), TemporaryDirectory() as folder:
            print(f"{name}; {what}", flush=True)
            _quiet()
            rows = self._measure(Path(folder), texts, [peer for peer in self.against if peer not in missing])
            about = {"threads": torch.get_num_threads(), **machine("torch", *_distributions(self.against))}
        source = "Python's documentation" if self.texts is None else self.texts.name
        rows = [{"bench": "embed", "model": name, "texts": source, **row, **about} for row in rows]
        if self.json is not None:
            append_rows(self.json, rows)
        print(f"\n{table(rows)}")
        if missing:
            print("\nnot installed: " + ", ".join(f"{peer} ({hint})" for peer, hint in missing.items()))
        timed = [row for row in rows if row["seconds"] is not None]
        if self.plot is not None and timed:
            plot_bars(timed, self.plot, "model", "threads", "texts", "provider", "seconds", "seconds for all texts")
        if len(timed) < len(rows):
            raise SystemExit("\n".join(row["status"] for row in rows if row["seconds"] is None))

    def _check(self) -> None:
        if unknown := [name for name in self.against if name not in PEERS]:
            raise ValueError(f"unknown peer {unknown[0]!r}; the peers are {', '.join(PEERS)}")
        if self.size not in SHAPES:
            raise ValueError(f"size must be one of {', '.join(SHAPES)}, got {self.size!r}")
        if min(self.n, self.repeats, 1 if self.threads is None else self.threads) < 1:
            given = f"{self.n}, {self.repeats} and {self.threads}"
            raise ValueError(f"n, repeats and threads must be above 0, got {given}")
        check_writable(self.json, self.plot, reads=(self.model, self.texts))
        if self.plot is not None:
            require("matplotlib", "bench")

    def _read(self) -> tuple[list[str], str]:
        """(the texts, what they are)"""
        if self.texts is None:
            texts, what = documentation_sentences(), "sentences of Python's documentation"
        else:
            texts, what = read_lines(self.texts)
        n_read = len(texts)
        if n_read == 0:
            raise ValueError(f"{self.texts} must hold texts, got none")
        fewer = f", fewer than the {self.n:,} asked for" if n_read < self.n else ""
        return texts[: self.n], f"{min(n_read, self.n):,} texts{fewer}: {what}"

    def _measure(self, folder: Path, texts: list[str], peers: Sequence[str]) -> list[dict]:
        config, tokenizer = write_weights(self.model or self.size, folder)
        model = load_complete(ElectraModel, folder, "an ELECTRA encoder")
        max_length = config.max_position_embeddings
        lengths = np.minimum(np.diff(tokenizer.encode_bulk(texts)[1]), max_length)
        share = _real_share(lengths)
        print(f"{lengths.sum():,} tokens, {share:.0%} of the positions of padded batches of {BATCH_SIZE}", flush=True)
        made = make_peers(list(dict.fromkeys([REFERENCE, *peers])), folder, max_length)
        providers: dict[str, Provider] = {OURS: partial(embed, model=model, tokenizer=tokenizer, max_length=max_length)}
        providers |= {name: made[name] for name in peers}
        status = check(providers, made[REFERENCE], checked_texts(texts))
        right = {name: provider for name, provider in providers.items() if status[name] == "right"}
        with tqdm(total=self.repeats * len(right) * len(_parts(texts)), disable=None, unit=" turns") as bar:
            seconds = seconds_of_turns(right, texts, self.repeats, bar)
        work = {"n_texts": len(texts), "n_tokens": int(lengths.sum()), "real_share": round(float(share), 3)}
        return [{"provider": name, "status": status[name], **work, **speed(name, seconds, work)} for name in providers]


def documentation_sentences() -> list[str]:
    """Different sentences of Python's own documentation and docstrings, always in the same random order."""
    found = sentences_of([" ".join(document.split()) for document in builtin_documents()])
    texts = sorted({text for text in found if len(text.split()) in _WORDS})
    random.Random(0).shuffle(texts)
    return texts


def checked_texts(texts: Sequence[str]) -> list[str]:
    """The texts that are compared: the first ones, and the longest."""
    longest = sorted(texts, key=len, reverse=True)
    return [*texts[: _N_CHECKED // 2], *longest[: _N_CHECKED // 2]]


def check(providers: Mapping[str, Provider], reference: Provider, texts: list[str]) -> dict[str, str]:
    """Says by provider "right", or what is wrong with its vectors."""
    expected = reference(texts).astype(np.float64)
    status = {}
    for name, provider in providers.items():
        try:
            found = provider(texts).astype(np.float64)
        except Exception as problem:  # the others shall have their times
            status[name] = f"{name} fails: {type(problem).__name__}: {problem}"[:300]
            continue
        error = np.abs(found - expected).max()
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        cosine = ((found * expected).sum(1) / norms).min()
        is_right = error <= TOLERANCE and cosine >= 1 - TOLERANCE
        status[name] = (
            "right" if is_right else f"{name} is wrong by up to {error:.1e}, cosine {cosine:.4f}: it gets no time"
        )
    return status


def seconds_of_turns(
    providers: Mapping[str, Provider], texts: list[str], repeats: int, bar: tqdm
) -> dict[str, np.ndarray]:
    """The seconds of each provider's turns [repeats, turns]."""
    parts = _parts(texts)
    turns = {name: partial(_seconds_of_next, provider, cycle(parts)) for name, provider in providers.items()}
    seconds = take_turns(turns, repeats * len(parts), bar)
    return {name: np.reshape(values, (repeats, len(parts))) for name, values in seconds.items()}


def _seconds_of_next(provider: Provider, parts: Iterator[list[str]]) -> float:
    return seconds_of_calls(provider, [(next(parts),)])[0]


def _parts(texts: list[str]) -> list[list[str]]:
    return [texts[start : start + TEXTS_A_TURN] for start in range(0, len(texts), TEXTS_A_TURN)]


def speed(name: str, seconds: Mapping[str, np.ndarray], work: Mapping[str, int]) -> dict:
    """The figures of a row; without any where a provider has no time."""
    if name not in seconds:
        return {"seconds": None}
    times = quantiles(seconds[name].sum(1))
    figures: dict = {
        "seconds": [round(time, 3) for time in times],
        "texts_per_second": round(work["n_texts"] / times[1], 1),
        "tokens_per_second": round(work["n_tokens"] / times[1]),
        "ratio": None,
    }
    if OURS in seconds:
        figures |= ratio_figures(seconds[name].ravel().tolist(), seconds[OURS].ravel().tolist())
    return figures


def _real_share(lengths: np.ndarray) -> float:
    """Real tokens by positions of padded batches in this order."""
    batches = [lengths[start : start + BATCH_SIZE] for start in range(0, len(lengths), BATCH_SIZE)]
    return lengths.sum() / sum(batch.max() * len(batch) for batch in batches)


def _distributions(peers: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(["transformers", "tokenizers", *(PEERS[name].packages[0] for name in peers)]))


def _quiet() -> None:
    """Silences transformers' remarks on what a checkpoint has besides the encoder."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def table(rows: Sequence[Mapping]) -> str:
    """A line for each row."""
    lines = []
    for row in rows:
        cells = ["no time", "", "", ""]
        if row["seconds"] is not None:
            texts, tokens = f"{row['texts_per_second']:,.0f}", f"{row['tokens_per_second']:,}"
            cells = [quantiles_cell(row["seconds"], ".3g"), texts, tokens, ratio_cell(row, "{ratio:.2f} x as fast")]
        lines.append([row["provider"], *cells])
    return markdown(["provider", "s (20 / 50 / 80 %)", "texts/s", "tokens/s", "electra_fast is"], lines)
