"""Speed of the models beside their peers, side by side in one run: inference, or training steps.

Providers (peers.py, train_peers.py) take turns on the same weights and the same padded batches (work.py); one that
computes something else gets no figure (measure.py, train_measure.py). Tokens a second counts real tokens only. On a
GPU a run ends when the GPU is done, so launching counts where it takes longer. Start and memory are those of a fresh
process (cold_start.py, step_memory.py). Busy neighbours compute beside all of these, and beside every provider alike.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from tqdm import tqdm

from ...model.config import ElectraConfig
from ...processor import cpu_threads
from ...tokenizer import ElectraTokenizer
from .. import OURS
from ..gpu import Ceilings, check_device, device_names
from ..measure import append_rows, check_writable, import_error, machine, require, save_figure
from ..neighbours import neighbours
from .cold_start import cold_start, write_batches
from .cost import ceilings, forward_flops
from .files import SHAPES, WRITERS, write_weights
from .measure import Contest, failure
from .peers import PEERS, TABLE, Entry, Setup
from .table import tables
from .train_measure import TrainingContest
from .train_peers import TRAIN_TABLE
from .work import (
    TEXT_WORKLOADS,
    TRAIN_WORKLOADS,
    WORKLOADS,
    Workload,
    fixed_workload,
    needed_positions,
    paragraphs_of_python,
    read_lines,
    sentences_of,
    text_workload,
    training_workload,
)

_DISTRIBUTIONS = ("torch", "triton", "transformers", "onnxruntime", "openvino", "nncf")
_FIGURES = ("p99", "tokens_per_second", "ratio", "ratios_20_80", "rounds", "cold_start", "peak_mb")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(kw_only=True)
class ModelBench:
    """Measure inference of ElectraModel beside its peers, or training steps of ElectraForPreTraining and
    ElectraForSequenceClassification."""

    sizes: tuple[str, ...] = ("small",)
    """Model sizes with random weights: tiny, small, base, large."""
    model: Path | None = None
    """A directory with a checkpoint, ours or transformers', in place of sizes."""
    against: tuple[str, ...] = PEERS
    """The peers: transformers, compiled, onnxruntime, openvino. Those that are not installed are left out."""
    workloads: tuple[str, ...] = ()
    """Workloads: latency-16, latency-128, full-128, full-512, mixed, sentences, paragraphs; of training steps
    train-rtd-full, train-rtd-third, train-class-full, train-class-third (a third of the padded positions is real).
    Default: all that fit."""
    train: bool = False
    """Measure training steps: forward, backward and AdamW with dropout 0.1; in bf16 under autocast."""
    dtype: Literal["fp32", "int8", "bf16", "fp16"] = "fp32"
    """Type of weights and activations."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device to run on; on cuda the batches are larger, and ours also runs captured in CUDA graphs."""
    texts: Path | None = None
    """Sentences, one a line, or the first column of a .tsv file. Default: those of Python's documentation."""
    paragraphs: Path | None = None
    """Paragraphs, one a line, or the first column of a .tsv file. Default: those of Python's documentation."""
    from_text: bool = False
    """Count tokenising, too: the workloads of texts only."""
    threads: int | None = None
    """Threads of every provider. Default: as torch has them."""
    busy: int = 0
    """Other processes that compute beside every provider, such as one a core; they stop when the run ends."""
    repeats: int | None = None
    """Timed rounds; each runs every provider once. Default: as many as fit into 12 s a workload, from 5 to 50."""
    seconds: float = float("inf")
    """When to stop: what has not begun by then is left out."""
    cold_start: bool = True
    """Measure start and memory in fresh processes; of training steps memory alone."""
    json: Path | None = None
    """Append one row a provider and workload to this JSONL file."""
    plot: Path | None = None
    """Draw the ratios into this PNG file; needs matplotlib."""

    def run(self) -> None:
        self._check()
        logging = require("transformers", "bench").utils.logging
        logging.disable_progress_bar()
        logging.set_verbosity_error()  # else it lists the weights of a checkpoint's head
        begin = time.perf_counter()
        texts = self._texts()
        rows: list[dict] = []
        with cpu_threads(self.threads), tqdm(total=0, unit="turn", disable=None) as bar:
            threads = torch.get_num_threads()
            os.environ["RAYON_NUM_THREADS"] = str(threads)  # tokenizers read it once, when they first run
            entries, left_out = choose(self.against, self.dtype, self.device, TRAIN_TABLE if self.train else TABLE)
            for line in left_out:
                tqdm.write(line, file=sys.stderr)
            best = ceilings(torch.device(self.device), self._peak_dtype)
            about = self._about(threads, best)
            for model in (self.model,) if self.model else self.sizes:
                with TemporaryDirectory() as folder:
                    setup = Setup(Path(folder), self.device, threads)
                    for row in self._measure(model, setup, entries, texts, begin, bar):
                        row["gemm_share"] = row["gflops"] and round(row["gflops"] * 1e9 / best.flops_per_second, 3)
                        rows.append(row | about)
                        if self.json is not None:
                            append_rows(self.json, rows[-1:])
        self._show(rows)

    def _check(self) -> None:
        if self.train and (self.from_text or self.dtype not in ("fp32", "bf16")):
            asked = "texts" if self.from_text else self.dtype
            raise ValueError(f"training steps must be of ids, in fp32 or bf16, got {asked}")
        workloads = TRAIN_WORKLOADS if self.train else WORKLOADS
        for name, known in (("sizes", SHAPES), ("against", PEERS), ("workloads", workloads)):
            unknown = [value for value in getattr(self, name) if value not in known]
            if unknown:
                raise ValueError(f"{name} must be among {', '.join(known)}, got {unknown[0]}")
        numbers = {"repeats": self.repeats, "threads": self.threads, "seconds": self.seconds}
        for name, value in numbers.items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        if self.busy < 0:
            raise ValueError(f"busy must be a number of processes from 0 on, got {self.busy}")
        if self.from_text and not set(self.workloads) <= set(TEXT_WORKLOADS):
            raise ValueError(f"from text there are {' and '.join(TEXT_WORKLOADS)}, got {' '.join(self.workloads)}")
        check_device(self.device)
        if self.device == "cpu" and self.dtype == "bf16" and not _BF16_FLAGS & set(machine()["cpu_flags"].split()):
            raise ValueError("dtype bf16 needs a processor that has it, and this one's flags name none")
        check_writable(self.json, self.plot, reads=(self.model, self.texts, self.paragraphs))
        if self.plot is not None:
            require("matplotlib", "bench")

    def _texts(self) -> dict[str, list[str]]:
        paragraphs = paragraphs_of_python()
        texts = {"sentences": sentences_of(paragraphs), "paragraphs": paragraphs}
        for name, path in (("sentences", self.texts), ("paragraphs", self.paragraphs)):
            if path is not None:
                texts[name], line = read_lines(path)
                print(f"{name}: {line}", file=sys.stderr)
        return texts

    def _source(self, workload: str) -> str | None:
        """The origin of a workload's texts; None if it has none."""
        if workload not in TEXT_WORKLOADS:
            return None
        path = self.texts if workload == "sentences" else self.paragraphs
        return "Python's documentation" if path is None else str(path)

    @property
    def _peak_dtype(self) -> torch.dtype:
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.dtype, torch.float32)

    def _about(self, threads: int, best: Ceilings) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "from_text": self.from_text,
            "threads": threads,
            "busy": self.busy or None,  # rows of quiet machines from before this column have None
            "gemm_gflops": round(best.flops_per_second / 1e9, 1),
            "copy_gb_per_second": round(best.bytes_per_second / 1e9, 1),
            **machine(*_DISTRIBUTIONS),
            **device_names(torch.device(self.device)),
        }

    def _measure(
        self,
        model: str | Path,
        setup: Setup,
        entries: list[Entry],
        texts: dict[str, list[str]],
        begin: float,
        bar: tqdm,
    ) -> Iterator[dict]:
        """Yields the rows of one model, workload by workload."""
        size = model if isinstance(model, str) else model.name
        bar.set_description(f"{size}: files")
        config, tokenizer = write_weights(model, setup.folder)
        sentences = self._workload("sentences", size, config, texts, tokenizer)
        needed = {file for entry in entries for file in entry.files}
        for file, write in WRITERS.items():
            if file in needed:
                write(setup.folder, sentences.batches)
        with neighbours(self.busy):
            starts = self._starts(setup, entries, sentences, bar)
        torch.compiler.reset()  # what was compiled for another size
        contest = self._contest(config, setup, entries)
        for name in self.workloads or self._all_workloads:
            where = f"{size}, {name}"
            if time.perf_counter() - begin > self.seconds:
                tqdm.write(f"{where} is left out: {self.seconds:g} s are over", file=sys.stderr)
                continue
            if needed_positions(name) > config.max_position_embeddings:
                limit = config.max_position_embeddings
                tqdm.write(f"{where} is left out: the model takes {limit} tokens", file=sys.stderr)
                continue
            bar.set_description(where)
            workload = self._workload(name, size, config, texts, tokenizer)
            passes = 3 if self.train else 1  # the backward computes as much as two forwards
            gflop = passes * forward_flops(config, workload.lengths) / len(workload.batches) / 1e9
            with neighbours(self.busy):
                measured = contest.measure(workload, self.repeats, bar)
            for row in measured:
                milliseconds = row["milliseconds"]
                yield {
                    "bench": "model",
                    "size": size,
                    "workload": name,
                    "texts": self._source(name),
                    "real_share": round(workload.real_share, 3),
                    **dict.fromkeys(_FIGURES),
                    **row,
                    "gflops": milliseconds and round(gflop / milliseconds[1] * 1e3, 1),
                    **starts.get(row["provider"], {}),
                }

    @property
    def _all_workloads(self) -> tuple[str, ...]:
        if self.train:
            return TRAIN_WORKLOADS
        return TEXT_WORKLOADS if self.from_text else WORKLOADS

    def _contest(self, config: ElectraConfig, setup: Setup, entries: list[Entry]) -> Contest | TrainingContest:
        if self.train:
            return TrainingContest(entries, setup, self.dtype, has_memory=self.cold_start)
        return Contest(entries, setup, self.dtype, config.max_position_embeddings if self.from_text else None)

    def _workload(
        self, name: str, size: str, config: ElectraConfig, texts: dict[str, list[str]], tokenizer: ElectraTokenizer
    ) -> Workload:
        if name in TRAIN_WORKLOADS:
            return training_workload(name, size, self.device, config.vocab_size, config.max_position_embeddings)
        if name in TEXT_WORKLOADS:
            return text_workload(name, self.device, texts[name], tokenizer, config.max_position_embeddings)
        return fixed_workload(name, self.device, config.vocab_size)

    def _starts(self, setup: Setup, entries: list[Entry], sentences: Workload, bar: tqdm) -> dict[str, dict]:
        starts: dict[str, dict] = {}
        if not self.cold_start or self.train:
            return starts
        batch = sentences.batches[0]
        write_batches(setup.folder, batch.ids, batch.mask)
        for entry in entries:
            bar.set_description(f"start of {entry.name}")
            try:
                seconds, peak = cold_start(entry.name, self.dtype, setup)
            except RuntimeError as error:
                tqdm.write(failure(entry.name, error), file=sys.stderr)
                continue
            starts[entry.name] = {"cold_start": round(seconds, 3), "peak_mb": peak and round(peak)}
        return starts

    def _show(self, rows: list[dict]) -> None:
        if not rows:
            raise ValueError("nothing was measured: every workload was left out")
        print(tables(rows))
        wrong = [row for row in rows if row["milliseconds"] is None]
        for row in wrong:
            print(f"{row['size']}, {row['workload']}: {row['status']}", file=sys.stderr)
        if self.plot is not None:
            self._draw(rows)
        if any(row["provider"] == OURS for row in wrong):
            raise SystemExit(1)

    def _draw(self, rows: list[dict]) -> None:
        from ..report.plots import plot_ratios

        figure = plot_ratios(rows)
        if figure is None:
            raise ValueError(f"{self.plot} is not written: no row has a ratio")
        save_figure(figure, self.plot)


def choose(
    against: Sequence[str], dtype: str, device: str, table: Sequence[Entry] = TABLE
) -> tuple[list[Entry], list[str]]:
    """(the providers of a table that take part, a line for each that is left out, and why)."""
    asked = [entry for entry in table if entry.against is None or entry.against in against]
    able = [entry for entry in asked if dtype in entry.dtypes and device in entry.devices]
    absent = set(against) - {entry.against for entry in able}
    lines = [f"{peer} takes no part in {dtype} on {device}" for peer in against if peer in absent]
    chosen = []
    for entry in able:
        missing = [module for module in entry.modules if import_error(module) is not None]
        if missing:
            names = " and ".join(missing)
            lines.append(f"{entry.name} is left out, {names} not installed: pip install 'electra_fast[bench]'")
        else:
            chosen.append(entry)
    return chosen, lines
