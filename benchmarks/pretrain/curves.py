"""Losses of pre-training beside transformers, update by update: the same text, order, masks and numbers to sample by.

Ours is the loop of `electra-fast pretrain`. The peer is transformers' networks with torch's AdamW (peers.py), which
reads the same sequences and random numbers, but masks, samples, and computes by code of its own. There is no dropout.

Two programs that round differently go apart in the long run, for an update carries on every difference before it, and a
sample may become another token. A third run tells how fast: ours again, whose first weights are larger by one part in
2**23.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from ...disk import made, written
from ...pretraining.build import build_model
from ...pretraining.loop import TrainingLoop, mask_numbers
from ...pretraining.networks.objective import ElectraPretrainingModel
from ...pretraining.recipes import PresetName, Recipe, preset
from ...pretraining.run_options import PretrainingOptions
from ...pretraining.text.shards import open_corpus
from ...pretraining.text.stream import Rows, SequenceStream
from ...pretraining.text.vocab import load_tokenizer
from ...processor import cpu_threads
from ...training.distributed import World
from ...training.guard import Guard
from .. import OURS
from ..measure import check_directory, markdown, require, save_figure
from ..training import ElectraFastTraining
from .check import Losses
from .peers import TransformersPretraining, TransformersTraining

PEER, CONTROL = "transformers", "electra_fast, rounded"
_SEED = 0
_MEAN_OF = 50  # updates
_LEAST = 1e-8  # the lower end of a log axis of distances, where equal numbers lie


@dataclass(kw_only=True)
class CurvesBench:
    """Draw the losses of pre-training beside transformers', update by update."""

    data: tuple[str, ...]
    """Text, as `electra-fast pretrain` takes it."""
    vocab: Path
    """A vocab.txt, or a tokenizer's directory."""
    out: Path
    """Directory of curves.jsonl, curves.png and the checkpoint; the same command again goes on from there."""
    preset: PresetName = "small"
    """Recipe, with dropout 0; its schedule is that of its whole run, of which these are the first updates."""
    steps: int = 2000
    """Updates to make."""
    batch_size: int | None = None
    """Sequences an update. Default: the recipe's."""
    length: int | None = None
    """Tokens a sequence. Default: the recipe's."""
    checkpoint_every: int = 100
    """Updates between two checkpoints."""
    device: str = "cpu"
    """Device to train on, in fp32."""

    def run(self) -> None:
        recipe = self._recipe()
        check_directory(self.out)
        require("transformers", "hf")
        require("matplotlib", "train")
        tokenizer = load_tokenizer(self.vocab, recipe.max_position_embeddings)
        settings = {"recipe": asdict(recipe), "vocab_size": tokenizer.n_ids, "data": list(self.data)}
        settings = json.loads(json.dumps(settings))
        corpus = open_corpus(self.data)
        with cpu_threads(recipe.cpu_threads), SequenceStream(corpus, tokenizer, recipe.seq_length, _SEED) as stream:
            torch.manual_seed(_SEED)
            trainings = make_trainings(recipe, build_model(recipe, tokenizer), stream, torch.device(self.device))
            curves = Curves(made(self.out), settings, trainings)
            with tqdm(total=self.steps, initial=curves.step, disable=None) as bar:
                while curves.step < self.steps:
                    curves.update()
                    bar.update()
                    if curves.step % self.checkpoint_every == 0 or curves.step == self.steps:
                        curves.save()
        draw(
            curves.records, f"preset {recipe.name}, {recipe.batch_size} x {recipe.seq_length}", self.out / "curves.png"
        )
        print(summary(curves.records))

    def _recipe(self) -> Recipe:
        recipe = preset(self.preset)
        if recipe.optimizer != "adamw":
            raise ValueError(
                f"the preset must have optimizer adamw, as the peer, got {self.preset} of {recipe.optimizer}"
            )
        if not 1 <= self.steps <= recipe.n_steps or self.checkpoint_every < 1:
            raise ValueError(
                f"steps must be from 1 to the recipe's {recipe.n_steps}, and checkpoint_every positive, got "
                f"{self.steps} and {self.checkpoint_every}"
            )
        return replace(
            recipe,
            batch_size=recipe.batch_size if self.batch_size is None else self.batch_size,
            seq_length=recipe.seq_length if self.length is None else self.length,
            dropout=0.0,
        )


# The trainings


class Followed(Protocol):
    """One provider's training, on the stream's sequences."""

    def next(self) -> Losses:
        """Makes an update."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""

    def load(self, step: int, state: dict[str, Any]) -> None:
        """Goes on after `step` from what `state` returned then."""


def make_trainings(
    recipe: Recipe, model: ElectraPretrainingModel, stream: SequenceStream, device: torch.device
) -> dict[str, Followed]:
    """By provider, trainings that begin with the model's weights."""
    shared = _LastRows(stream)
    peer = TransformersPretraining(model, gathered=True).to(device)
    rounded = deepcopy(model)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.mul_(1 + 2**-23)
    return {
        OURS: OurTraining(model, recipe, shared, device),
        PEER: PeerTraining(peer, recipe, shared, device),
        CONTROL: OurTraining(rounded, recipe, shared, device),
    }


class _LastRows:
    """A stream that keeps what was asked last, which the other providers ask next."""

    def __init__(self, stream: SequenceStream):
        self._stream, self._asked, self._rows = stream, (0, 0), Rows(torch.empty(0), torch.empty(0))

    def rows(self, first: int, count: int) -> Rows:
        if (first, count) != self._asked:
            self._asked, self._rows = (first, count), self._stream.rows(first, count)
        return self._rows


class OurTraining(ElectraFastTraining):
    """The loop of `electra-fast pretrain`, with a record an update."""

    def __init__(self, model: ElectraPretrainingModel, recipe: Recipe, stream: _LastRows, device: torch.device):
        options = PretrainingOptions(
            n_steps=recipe.n_steps, log_every=1, checkpoint_every=1, seed=_SEED, precision="fp32"
        )
        super().__init__(TrainingLoop(model.to(device), recipe, stream, World(0, 1, device), options), Guard())

    def next(self) -> Losses:
        self.train(1)
        return Losses(self.records[-1]["generator_loss"], self.records[-1]["discriminator_loss"])

    def state(self) -> dict[str, Any]:
        return self.loop.state()

    def load(self, step: int, state: dict[str, Any]) -> None:
        own = self.loop.state()
        for part, tensors in own.items():
            for name, tensor in tensors.items():
                tensor.copy_(state[part][name])
        self.loop.resume(step, own)


class PeerTraining(TransformersTraining):
    """The peer's loop on the same sequences, with the same numbers for masks and samples."""

    def __init__(self, model: TransformersPretraining, recipe: Recipe, stream: _LastRows, device: torch.device):
        super().__init__(model, recipe, torch.empty(0, device=device), "fp32", None)
        self._model, self._recipe, self._stream, self._device = model, recipe, stream, device

    def next(self) -> Losses:
        size, length = self._recipe.batch_size, self._recipe.seq_length
        ids = self._stream.rows(self.step * size, size).input_ids.to(self._device)
        numbers = mask_numbers(_SEED, self.step, size, length, self._device).transpose(0, 1)
        return Losses(*(loss.item() for loss in self.update(ids, numbers)))

    def state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts()}

    def load(self, step: int, state: dict[str, Any]) -> None:
        for name, part in self._parts():
            part.load_state_dict(state[name])

    def _parts(self) -> Iterable[tuple[str, Any]]:
        return ("model", self._model), ("optimizer", self._optimizer), ("schedule", self._schedule)


# Records and checkpoints


class Curves:
    """The trainings side by side, with a record an update: its number, and each provider's losses.

    Args:
        directory: where curves.jsonl and the checkpoint lie; if there is one, the trainings go on from it.
        settings: plain values that a checkpoint must have in common with this run.

    Raises:
        ValueError: a checkpoint of other settings.
    """

    def __init__(self, directory: Path, settings: dict[str, Any], trainings: dict[str, Followed]):
        self._directory, self._settings, self._trainings = directory, settings, trainings
        self.records: list[dict[str, Any]] = []
        if self._checkpoint.exists():
            found = torch.load(self._checkpoint, weights_only=True)
            if found["settings"] != settings:
                raise ValueError(
                    f"{directory} holds a run of other settings: expected {settings}, got {found['settings']}"
                )
            self.records = found["records"]
            for name, training in trainings.items():
                training.load(self.step, found["states"][name])

    @property
    def step(self) -> int:
        """Updates done."""
        return len(self.records)

    def update(self) -> None:
        """Makes an update of each training."""
        losses = {name: training.next()._asdict() for name, training in self._trainings.items()}
        self.records.append({"step": self.step + 1, **losses})

    def save(self) -> None:
        """Writes the checkpoint, and then the records."""
        states = {name: training.state() for name, training in self._trainings.items()}
        with written(self._checkpoint, "wb") as file:
            torch.save({"settings": self._settings, "records": self.records, "states": states}, file)
        with written(self._directory / "curves.jsonl") as file:
            file.writelines(json.dumps(record) + "\n" for record in self.records)

    @property
    def _checkpoint(self) -> Path:
        return self._directory / "checkpoint.pt"


# What is shown


def apart(records: Sequence[dict[str, Any]], name: str, loss: str) -> np.ndarray:
    """How much greater a provider's loss is than ours, update by update [n]."""
    return np.array([record[name][loss] - record[OURS][loss] for record in records])


def summary(records: Sequence[dict[str, Any]]) -> str:
    """A table of the greatest distances from ours: of single updates, and of means over many."""
    rows = []
    for name in (PEER, CONTROL):
        for loss in Losses._fields:
            values = apart(records, name, loss)
            means = [values[i : i + _MEAN_OF].mean() for i in range(0, len(values), _MEAN_OF)]
            rows.append((name, loss, *(f"{np.abs(found).max():.2g}" for found in (values, means))))
    return markdown(("beside ours", "loss", "greatest distance", f"of means over {_MEAN_OF} updates"), rows)


def draw(records: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draws both losses of ours and of the peer over updates, and below how far peer and control are from ours."""
    from matplotlib.figure import Figure

    steps = [record["step"] for record in records]
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, height_ratios=(3, 2))
    for column, loss in zip(panels.T, Losses._fields, strict=True):
        for name, color, width, alpha in ((OURS, "C0", 3.0, 0.45), (PEER, "black", 0.6, 1.0)):
            values = [record[name][loss] for record in records]
            column[0].plot(steps, values, color=color, linewidth=width, alpha=alpha, label=name)
        for name, color in ((PEER, "black"), (CONTROL, "C1")):
            distances = np.maximum(np.abs(apart(records, name, loss)), _LEAST)
            column[1].plot(steps, distances, ".", color=color, markersize=2.5, label=name)
        column[0].set_title(f"{loss}: loss [nats]", loc="left")
        column[1].set_title("distance from electra_fast", loc="left")
        column[1].set(yscale="log", xlabel="update")
        for axes in column:
            axes.grid(color="#e6e6e6", linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left")
    named = {line.get_label(): line for axes in panels[:, 0] for line in axes.get_lines()}
    figure.legend(named.values(), named.keys(), loc="outside upper right", ncols=3, frameon=False, markerscale=3)
    save_figure(figure, path)
