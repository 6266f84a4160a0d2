"""Speed and memory of pre-training beside transformers, side by side in one run.

Providers take turns (A B A B ...) at the same weights, shapes and batch, which lies in memory: nothing is read or
tokenised. Ours is the training loop of `electra-fast pretrain`, without its records; peers are those of peers.py. A
turn is a few updates, and ends when the GPU is done. The ratio is the median of the ratios of neighbouring turns.

Before any time is taken, one step without dropout, at the same masks and samples in fp32, must have the losses and the
norm of the gradients that transformers has. Then the first updates, as they are timed, must have losses like those of
transformers run eagerly. What is wrong gets no time.

Peak memory is the most that tensors take while a provider is made and makes its first updates: it compiles and records
in them. On a CPU there is no such count for one of several providers in a process.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from ...model.precision import default_precision
from ...pretraining.build import build_model
from ...pretraining.cost import mfu
from ...pretraining.loop import TrainingLoop
from ...pretraining.networks.objective import ElectraPretrainingModel
from ...pretraining.recipes import Recipe, preset
from ...pretraining.run import as_tokenizer
from ...pretraining.run_options import PretrainingOptions
from ...pretraining.text.stream import Rows
from ...processor import cpu_threads
from ...tokenizer import ElectraTokenizer
from ...training.distributed import World
from ...training.gpus import peak_flops
from ...training.guard import Guard
from .. import OURS
from ..gpu import check_device, device_names
from ..measure import (
    append_rows,
    check_writable,
    machine,
    markdown,
    quantiles,
    quantiles_cell,
    ratio,
    ratio_cell,
    require,
)
from ..training import (
    STEPS_A_TURN,
    ElectraFastTraining,
    Training,
    WrongLosses,
    milliseconds,
    noting_fault,
    print_faults,
    time_trainings,
)
from .check import LOOSE, PLAIN, PLAIN_GATHERED, Losses, check_losses, is_far
from .peers import VARIANTS, TransformersPretraining, TransformersTraining

PROVIDERS = (OURS, *VARIANTS)
# The compiled variants are left out on a CPU: each compiles for a minute or two.
DEFAULT_PROVIDERS = {"cpu": (OURS, PLAIN, PLAIN_GATHERED), "cuda": tuple(p for p in PROVIDERS if p != PLAIN_GATHERED)}
DEFAULT_PRESETS = {"cpu": ("tiny",), "cuda": ("small", "base")}
DEFAULT_LENGTHS = {"cpu": (64,), "cuda": (128, 512)}

WARMUP_STEPS = 10


class Pretraining(Training, Protocol):
    """One provider's pre-training."""

    def warm_up(self) -> Losses:
        """Makes the first updates, `WARMUP_STEPS` of them, and returns their mean losses."""


@dataclass(kw_only=True)
class PretrainBench:
    """Measure pre-training beside transformers."""

    presets: tuple[str, ...] | None = None
    """Recipes: tiny, small, small-plus, base, large. By default tiny on a CPU, small and base on a GPU."""
    lengths: tuple[int, ...] | None = None
    """Tokens a sequence. By default 64 on a CPU, 128 and 512 on a GPU."""
    batch_size: int | None = None
    """Sequences an update. By default the recipe's, and above 128 tokens as many as have no more tokens than these."""
    steps: int = 100
    """Timed updates of each provider, in turns of 5."""
    providers: tuple[str, ...] | None = None
    """Providers: electra_fast, transformers-eager, transformers-eager-gathered (the vocabulary head at masked positions
    only), transformers-compiled, transformers-compiled-gathered, transformers-graphed (that in CUDA graphs). By default
    on a GPU all but eager-gathered, on a CPU those that are not compiled."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device to train on."""
    precision: Literal["fp32", "bf16"] | None = None
    """Type of activations; the peer's parameters stay in fp32, under autocast. Default: bf16 on a GPU, else fp32."""
    seconds: float = float("inf")
    """When to stop: what has not begun by then is left out."""
    json: Path | None = None
    """Append one row a provider and workload to this JSONL file."""

    def run(self) -> None:
        self._check()
        begin = time.perf_counter()
        recipes = list(self._recipes())
        device = torch.device(self.device)
        about = machine("torch", "triton", "transformers") | device_names(device)
        rows: list[dict] = []
        left_out = []
        with tqdm(total=len(recipes) * len(self._providers) * self.steps // STEPS_A_TURN, disable=None) as bar:
            for recipe in recipes:
                if time.perf_counter() - begin > self.seconds:
                    left_out.append(_name(recipe))
                    continue
                with cpu_threads(recipe.cpu_threads):
                    threads = {"threads": torch.get_num_threads()}
                    new = [row | threads | about for row in self._measure(recipe, device, bar)]
                rows += new
                if self.json is not None:
                    append_rows(self.json, new)
        print(table(rows))
        if left_out:
            print(f"left out after {self.seconds:g} s: {'; '.join(left_out)}")
        print_faults(rows, lambda row: f"{row['preset']}, length {row['seq_length']}: {row['provider']}")

    def _check(self) -> None:
        if unknown := set(self._providers) - set(PROVIDERS):
            raise ValueError(f"providers must be among {', '.join(PROVIDERS)}, got {' '.join(sorted(unknown))}")
        if not self._providers or self.steps < 1 or self.steps % STEPS_A_TURN:
            raise ValueError(
                f"steps must be a positive multiple of {STEPS_A_TURN}, of at least one provider, got {self.steps} "
                f"steps of {len(self._providers)}"
            )
        check_device(self.device)
        if self.device == "cpu" and "transformers-graphed" in self._providers:
            raise ValueError("provider transformers-graphed needs device cuda, got cpu")
        if not list(self._recipes()):
            raise ValueError("presets and lengths must name at least one of each, got none")
        check_writable(self.json)
        require("transformers", "hf")

    @property
    def _providers(self) -> tuple[str, ...]:
        return DEFAULT_PROVIDERS[self.device] if self.providers is None else self.providers

    def _recipes(self) -> Iterator[Recipe]:
        for name in DEFAULT_PRESETS[self.device] if self.presets is None else self.presets:
            recipe = preset(name)
            if recipe.optimizer != "adamw":
                raise ValueError(f"the preset must have optimizer adamw, as the peer, got {name} of {recipe.optimizer}")
            for length in DEFAULT_LENGTHS[self.device] if self.lengths is None else self.lengths:
                batch_size = self.batch_size
                if batch_size is None:
                    batch_size = max(1, recipe.batch_size * 128 // max(128, length))
                yield replace(recipe, seq_length=length, batch_size=batch_size)

    def _measure(self, recipe: Recipe, device: torch.device, bar: tqdm) -> list[dict]:
        torch.compiler.reset()  # else, after some shapes, torch.compile gives up and runs eagerly
        precision = self.precision or default_precision(device)
        tokenizer = numbered_tokenizer(recipe)
        ids = text(recipe, tokenizer)
        torch.manual_seed(0)
        model = build_model(recipe, tokenizer)
        wrong = check_losses(recipe, tokenizer, ids[:8].to(device), model)
        expected = make_training(PLAIN_GATHERED, model, recipe, ids, device, precision).warm_up()
        faults = {name: wrong[uncompiled(name)] for name in self._providers if uncompiled(name) in wrong}
        rows: dict[str, dict[str, Any]] = {name: {"provider": name} for name in self._providers}
        trainings: dict[str, Pretraining] = {}
        for name in [name for name in self._providers if name not in faults]:
            with noting_fault(faults, name):
                with peak_megabytes(rows[name], device):
                    training = make_training(name, model, recipe, ids, device, precision)
                    losses = training.warm_up()
                if is_far(losses, expected, LOOSE):
                    raise WrongLosses(losses, expected)
                trainings[name] = training
        times = time_trainings(trainings, self.steps // STEPS_A_TURN, device, bar)
        peak = device_peak(device)
        for name, seconds in times.items():
            a_step = [t / STEPS_A_TURN for t in quantiles(seconds)]
            tokens_per_second = recipe.batch_size * recipe.seq_length / a_step[1]
            rows[name] |= {
                "milliseconds": milliseconds(a_step),
                "tokens_per_second": round(tokens_per_second),
                "mfu": None if peak is None else mfu(tokens_per_second, recipe, len(tokenizer), peak),
                "ratio": round(ratio(seconds, times[OURS]), 3) if OURS in times else None,
            }
        shared = {
            "bench": "pretrain",
            "preset": recipe.name,
            "seq_length": recipe.seq_length,
            "batch_size": recipe.batch_size,
            "precision": precision,
            "steps": self.steps,
        }
        untimed = dict.fromkeys(("milliseconds", "tokens_per_second", "mfu", "peak_mb", "ratio"))
        return [shared | untimed | row | {"status": faults.get(name, "right")} for name, row in rows.items()]


# The work


def numbered_tokenizer(recipe: Recipe) -> ElectraTokenizer:
    """A vocabulary of the recipe's size; it makes the same networks as any other of that size."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    return as_tokenizer([*special, *(f"word{i}" for i in range(recipe.vocab_size - len(special)))], recipe)


def text(recipe: Recipe, tokenizer: ElectraTokenizer) -> Tensor:
    """A batch [B, S] int64 of full sequences; tokens are as frequent as those of a language (Zipf's law).

    Frequencies matter: the gradients of a table of embeddings take longer where tokens repeat.
    """
    random = torch.Generator().manual_seed(0)
    weights = 1 / torch.arange(1, len(tokenizer) + 1).float()
    weights[tokenizer.all_special_ids] = 0
    size = recipe.batch_size, recipe.seq_length
    ids = weights.multinomial(math.prod(size), replacement=True, generator=random).view(size)
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    return ids


# The providers


class OurPretraining(ElectraFastTraining):
    """The training loop of `electra-fast pretrain` on one batch; every step masks and samples anew."""

    def __init__(
        self, model: ElectraPretrainingModel, recipe: Recipe, ids: Tensor, device: torch.device, precision: str
    ):
        loop = TrainingLoop(
            model.to(device),
            recipe,
            _OneBatch(ids),
            World(0, 1, device),
            PretrainingOptions(
                n_steps=recipe.n_steps, log_every=WARMUP_STEPS, checkpoint_every=WARMUP_STEPS, precision=precision
            ),
        )
        super().__init__(loop, Guard())

    def warm_up(self) -> Losses:
        self.train(WARMUP_STEPS)
        self.loop.log_every = sys.maxsize
        return Losses(self.records[-1]["generator_loss"], self.records[-1]["discriminator_loss"])


class _OneBatch:
    """A stream that has one batch."""

    def __init__(self, ids: Tensor):
        self._rows = Rows(ids, torch.ones_like(ids, dtype=torch.bool))

    def rows(self, first: int, count: int) -> Rows:
        return self._rows


class PeerPretraining(TransformersTraining):
    """The peer's training loop, with the means of its first losses."""

    def warm_up(self) -> Losses:
        return Losses(*(losses.double().mean().item() for losses in self.train(WARMUP_STEPS)))


def make_training(
    name: str, model: ElectraPretrainingModel, recipe: Recipe, ids: Tensor, device: torch.device, precision: str
) -> Pretraining:
    """A provider with a copy of the model's weights."""
    if name == OURS:
        return OurPretraining(deepcopy(model), recipe, ids, device, precision)
    variant = VARIANTS[name]
    peer = TransformersPretraining(model, variant.gathered).to(device)
    return PeerPretraining(peer, recipe, ids.to(device), precision, variant.compile)


def uncompiled(name: str) -> str:
    """The provider that computes the same without a compiler: the one whose step is checked."""
    if name == OURS:
        return OURS
    return PLAIN_GATHERED if VARIANTS[name].gathered else PLAIN


def device_peak(device: torch.device) -> float | None:
    """The most operations a second; None for a CPU and for a GPU that is not listed."""
    return peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


@contextmanager
def peak_megabytes(row: dict[str, Any], device: torch.device) -> Iterator[None]:
    """Sets the row's `peak_mb`: the most memory that tensors take within, beyond what they took before."""
    if device.type != "cuda":
        yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield
    torch.cuda.synchronize(device)
    row["peak_mb"] = round((torch.cuda.max_memory_allocated(device) - before) / 1e6, 1)


# What is shown


def _name(recipe: Recipe) -> str:
    return f"{recipe.name}, {recipe.batch_size} x {recipe.seq_length}"


def table(rows: list[dict]) -> str:
    """A line for each row."""
    lines = []
    for row in rows:
        name = f"{row['preset']}, {row['batch_size']} x {row['seq_length']}, {row['precision']}"
        if row["milliseconds"] is None:
            lines.append((name, row["provider"], "no time", "", "", "", ""))
            continue
        times, tokens = quantiles_cell(row["milliseconds"], "g"), f"{row['tokens_per_second']:,}"
        used = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
        peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:,.0f}"
        lines.append((name, row["provider"], times, tokens, used, peak, ratio_cell(row, "{ratio:.2f} x as fast")))
    header = ("recipe, batch", "provider", "ms/step (20 / 50 / 80 %)", "tokens/s", "MFU", "peak MB", "electra_fast is")
    return markdown(header, lines)
