"""Speed of fine-tuning beside transformers' Trainer, side by side in one run.

Providers take turns (A B A B ...), five updates each, from the same weights and with the same hyperparameters, through
all updates of a run. Ours is the loop of `electra-fast finetune` with its records; peers are those of peers.py. A turn
begins with tokenised examples in memory: it makes batches, with padding where a peer pads, but reads, tokenises and
evaluates nothing. The ratio is the median of the ratios of neighbouring turns. The items of "trainer-grouped" go from
long to short, again and again, and so do its turns: compare its seconds, for in a whole epoch all providers see the
same items.

Before any time is taken, the first updates without dropout, on the same batches in fp32, must have the losses of
transformers' network in a plain loop. What is wrong gets no time.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...finetuning.data.tasks import KindName, Task, custom_task, is_labelled, task
from ...finetuning.failure import FailureGuard
from ...finetuning.loop import FinetuningLoop, ItemOrder
from ...finetuning.networks import TaskNetworks
from ...finetuning.prediction import score_features
from ...finetuning.run_options import FinetuningOptions
from ...finetuning.seed_run import make_precise
from ...finetuning.task_data import TaskFiles
from ...model.precision import default_precision
from ...processor import cpu_threads
from ...training.distributed import World
from .. import OURS
from ..gpu import check_device, device_names
from ..measure import (
    append_rows,
    check_writable,
    machine,
    markdown,
    quantiles,
    quantiles_cell,
    ratio_cell,
    ratio_figures,
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
from .work import Work, first_updates, make_work, write_random_model, write_sentences

Peer = Literal["trainer", "trainer-grouped", "loop"]

CHECKED_STEPS = 3
# The loss of a checked update may differ by so much, relative and absolute.
EXACT = 1e-4
EVALUATION_TOKENS = 8192


class Finetuning(Training, Protocol):
    """One provider's run."""

    def weights(self) -> Mapping[str, Tensor]:
        """The weights it has trained, under the names of the Hub, in fp32; nothing is trained after that."""


@dataclass(kw_only=True)
class FinetuneBench:
    """Measure fine-tuning beside transformers' Trainer."""

    model: str | None = None
    """The checkpoint to begin with: a directory, or a model on the Hub. Default: two layers of the small shape, with
    random weights."""
    task: str = "classification"
    """A task of `finetune` with a text, a pair or tagged words: sst2, mrpc, stsb, ner, ...; or a kind of task:
    classification, regression, multilabel, tagging."""
    data: Path | None = None
    """A directory with the files of the task, or one file. Default, for a kind: 1280 sentences of Python's
    documentation, with made-up labels."""
    text: str | None = None
    """The column of the text, in files of your own."""
    pair: str | None = None
    """The column of the second text of a pair."""
    label: str | None = None
    """The column of the class, number or classes."""
    words: str | None = None
    """The column of the words, for tagging."""
    tags: str | None = None
    """The column of the tags, for tagging."""
    n_train: int | None = None
    """Train on so many examples, drawn at random. Default: all."""
    epochs: float = 1.0
    """Passes over the examples."""
    batch_size: int = 32
    """Items an update."""
    max_length: int | None = None
    """Tokens of a row. Default: the task's."""
    against: tuple[Peer, ...] = get_args(Peer)
    """Peers: trainer, trainer-grouped (batches of similar lengths), loop (transformers' network in a plain loop)."""
    quality: bool = False
    """Also measure on the dev examples what each has learnt."""
    seed: int = 0
    """Seed for the head's weights, dropout, and the orders of items."""
    threads: int | None = None
    """Threads of torch. Default: its own choice."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device to train on."""
    precision: Literal["fp32", "bf16"] | None = None
    """Type of activations; the peers' parameters stay in fp32, under autocast. Default: bf16 on a GPU, else fp32."""
    json: Path | None = None
    """Append one row a provider to this JSONL file."""

    def run(self) -> None:
        self._check()
        device = torch.device(self.device)
        with tempfile.TemporaryDirectory() as temporary, cpu_threads(self.threads):
            directory = Path(temporary)
            work = self._work(directory)
            about = {"threads": torch.get_num_threads(), **machine("torch", "transformers", "accelerate")}
            rows = [row | about | device_names(device) for row in self._measure(work, device, directory)]
        if self.json is not None:
            append_rows(self.json, rows)
        print(table(rows))
        print_faults(rows, lambda row: row["provider"])

    def _check(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be positive, got {self.threads}")
        check_device(self.device)
        check_writable(self.json, reads=(self.model, self.data))
        for module in ("transformers", "accelerate"):
            require(module, "hf")

    def _work(self, directory: Path) -> Work:
        """The models, tasks and texts to train; made-up ones are written to the directory."""
        the_task, data, model = self._task(), self.data, self.model
        if data is None:
            data = directory / "sentences.jsonl"
            write_sentences(data, the_task.kind)
        if model is None:
            model = str(directory / "model")
            write_random_model(model)
        changes = {"n_epochs": self.epochs, "batch_size": self.batch_size}
        if self.max_length is not None:
            changes["max_length"] = self.max_length
        return make_work(model, TaskFiles(the_task, data, n_train=self.n_train), self.seed, **changes)

    def _task(self) -> Task:
        given = {name: getattr(self, name) for name in ("text", "pair", "label", "words", "tags")}
        given = {name: column for name, column in given.items() if column is not None}
        if self.task not in get_args(KindName):
            if given or self.data is None:
                raise ValueError(
                    f"--task {self.task} needs --data, and its columns are known: got "
                    f"{'--' + ', --'.join(given) if given else 'no --data'}"
                )
            return task(self.task)
        if self.data is None:
            if given:
                raise ValueError(f"columns are of files of your own, with --data: got --{', --'.join(given)}")
            names = ("words", "tags") if self.task == "tagging" else ("text", "label")
            given = {name: name for name in names}
        return custom_task(self.task, name=self.task, **given)

    def _measure(self, work: Work, device: torch.device, directory: Path) -> list[dict]:
        precision = self.precision or default_precision(device)
        providers = (OURS, *self.against)
        faults = check_losses(work, providers, device, directory)
        rows = {name: {"provider": name, "status": faults.get(name, "right")} for name in providers}
        trainings = {
            name: make_training(name, work, device, precision, directory) for name in providers if name not in faults
        }
        n_turns = math.ceil(work.n_steps / STEPS_A_TURN)
        with tqdm(total=len(trainings) * n_turns, disable=None) as bar:
            times = time_trainings(trainings, n_turns, device, bar)
        steps = [min(STEPS_A_TURN, work.n_steps - first) for first in range(0, work.n_steps, STEPS_A_TURN)]
        lengths = work.data.train.item_lengths
        n_items = len(lengths) * work.n_steps / work.steps_per_epoch
        for name, seconds in times.items():
            a_step = quantiles(t / n for t, n in zip(seconds, steps, strict=True))
            rows[name] |= {
                "milliseconds": milliseconds(a_step),
                "seconds": float(f"{sum(seconds):.5g}"),
                "examples_per_second": round(n_items / sum(seconds), 1),
                "tokens_per_second": round(n_items * float(lengths.mean()) / sum(seconds)),
                "dev": dev_metrics(work, trainings[name].weights(), device) if self.quality else None,
            }
            if OURS in times:
                rows[name] |= ratio_figures(seconds, times[OURS])
        shared = {
            "bench": "finetune",
            "model": self.model or "random",
            "task": self.task,
            "data": None if self.data is None else str(self.data),
            "n_items": len(lengths),
            "mean_length": round(float(lengths.mean()), 1),
            "max_length": work.recipe.max_length,
            "batch_size": work.recipe.batch_size,
            "n_steps": work.n_steps,
            "learning_rate": work.recipe.learning_rate,
            "seed": work.seed,
            "precision": precision,
        }
        untimed = (
            "milliseconds",
            "seconds",
            "examples_per_second",
            "tokens_per_second",
            "ratio",
            "ratios_20_80",
            "dev",
        )
        return [shared | dict.fromkeys(untimed) | row for row in rows.values()]


# The providers


class OurFinetuning(ElectraFastTraining):
    """The loop of `electra-fast finetune`, with a copy of the weights."""

    def __init__(self, work: Work, device: torch.device, precision: str, log_every: int = 10):
        name = work.data.task.name
        self.model = deepcopy(work.model).to(device)
        loop = FinetuningLoop(
            TaskNetworks({name: self.model}, {name: work.data.kind}),
            work.recipe,
            {name: work.data.train},
            World(0, 1, device),
            FinetuningOptions(seed=work.seed, log_every=log_every, precision=precision),
        )
        super().__init__(loop, FailureGuard(math.inf, stop=False))

    def weights(self) -> Mapping[str, Tensor]:
        make_precise(self.loop)
        return self.model.state_dict()


def make_training(name: str, work: Work, device: torch.device, precision: str, directory: Path) -> Finetuning:
    """A provider with a copy of the weights."""
    if name == OURS:
        return OurFinetuning(work, device, precision)
    from . import peers  # needs transformers, for which `run` has asked

    rows = peers.rows_of(work.data.train)
    return peers.make_peer(name, work, rows, peers.STRATEGIES[name], device, precision, directory)


# What providers must get right, and what they have learnt


def check_losses(work: Work, providers: tuple[str, ...], device: torch.device, directory: Path) -> dict[str, str]:
    """Says by provider what is wrong with it.

    The first updates without dropout, on the same batches in fp32, must have the losses that transformers' network has
    in a plain loop.
    """
    from . import peers

    work = first_updates(work, CHECKED_STEPS)
    order = ItemOrder({"": work.data.train}, work.recipe.batch_size, work.seed, work.recipe.group_by_length)
    items = np.concatenate([order.items(step)[""] for step in range(work.n_steps)]).tolist()
    rows = peers.rows_of(work.data.train)
    rows = [rows[item] for item in items]

    @cache
    def losses_of(name: str) -> list[float]:
        if name == OURS:
            training = OurFinetuning(work, device, "fp32", log_every=1)
            training.train(work.n_steps)
            return [record["loss"] for record in training.records]
        losses: list[float] = []
        training = peers.make_peer(name, work, rows, "sequential", device, "fp32", directory)
        training.model.register_forward_hook(lambda module, arguments, output: losses.append(output.loss.item()))
        training.train(work.n_steps)
        return losses

    expected, faults = losses_of("loop"), {}
    for name in providers:
        with noting_fault(faults, name):
            losses = losses_of(peers.UNGROUPED.get(name, name))
            if not np.allclose(losses, expected, rtol=EXACT, atol=EXACT):
                raise WrongLosses(*(", ".join(f"{loss:.5f}" for loss in some) for some in (losses, expected)))
    return faults


def dev_metrics(work: Work, weights: Mapping[str, Tensor], device: torch.device) -> dict[str, dict[str, float]]:
    """The metrics of these weights by dev split; our network computes them, whoever has trained it."""
    model = deepcopy(work.model)
    model.load_state_dict(weights)
    model.to(device)
    metrics = {}
    for split in filter(is_labelled, work.data.measured_splits):
        examples, features = work.data.splits[split].examples, work.data.features(split)
        scores = score_features(model, work.data.kind, features, EVALUATION_TOKENS, device)
        metrics[split] = work.data.metrics(split, work.data.kind.predictions(examples, features, scores))
    return metrics


# What is shown


def table(rows: list[dict]) -> str:
    """A title and a line for each row; there is a column "dev" where it was measured."""
    first = rows[0]
    title = (
        f"{first['task']}, {first['model']}: {first['n_items']:,} items of {first['mean_length']:g} tokens, "
        f"{first['n_steps']} updates of {first['batch_size']}, {first['precision']}, {first['threads']} threads"
    )
    lines = []
    for row in rows:
        if row["milliseconds"] is None:
            lines.append((row["provider"], "no time", "", "", "", "", ""))
            continue
        times, measured = quantiles_cell(row["milliseconds"], "g"), ""
        if row["dev"]:
            metric, value = next(iter(next(iter(row["dev"].values())).items()))
            measured = f"{metric} {value:.4f}"
        speed = ratio_cell(row, "{ratio:.2f} x ({ratios_20_80[0]:.2f} to {ratios_20_80[1]:.2f})")
        examples, tokens = f"{row['examples_per_second']:,.0f}", f"{row['tokens_per_second']:,}"
        lines.append((row["provider"], times, examples, tokens, f"{row['seconds']:.1f}", measured, speed))
    header = (
        "provider",
        "ms/update (20 / 50 / 80 %)",
        "examples/s",
        "tokens/s",
        "s in all",
        "dev",
        "electra_fast is faster",
    )
    if all(row["dev"] is None for row in rows):
        header, *lines = ([*line[:5], line[6]] for line in (header, *lines))
    return f"{title}\n\n{markdown(header, lines)}"
