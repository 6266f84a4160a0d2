"""The updates of fine-tuning. The order of the items is drawn from (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, distributed

from ..training.distributed import World
from ..training.loop import Loop, mixed_seed
from ..training.optim import Adam, AdamW
from .data.features import Batch, Features
from .layer_rates import parameter_groups
from .networks import TaskNetworks
from .recipe import Recipe
from .run_options import FinetuningOptions

# Batches of similar lengths are cut from this many batches' worth of items: enough for lengths to be nearly equal.
_GROUPED_BATCHES = 100


class FinetuningLoop(Loop):
    """Trains the networks of tasks on the mixed items of all tasks.

    Every process, and in it every forward, takes an equal share of each update's items, dealt out by length. The loss
    is the mean over the targets of the whole update, however they are shared out.

    Args:
        train: the features of each task.
        options: options of the run, with a precision.

    Raises:
        ValueError: an update has fewer items than forwards.
    """

    def __init__(
        self,
        model: TaskNetworks,
        recipe: Recipe,
        train: Mapping[str, Features],
        world: World,
        options: FinetuningOptions,
    ):
        self.recipe = recipe
        self.order = ItemOrder(train, recipe.batch_size, options.seed, recipe.group_by_length)
        n_parts, least = world.size * options.accumulate, min(recipe.batch_size, len(self.order))
        if least < n_parts:
            raise ValueError(
                f"an update has {least} items, too few for {world.size} processes x {options.accumulate} forwards"
            )
        self._train = train
        n_steps = max(1, round(recipe.n_epochs * self.order.steps_per_epoch))
        super().__init__(
            model,
            world,
            options,
            n_steps=n_steps,
            warmup_steps=int(recipe.warmup_share * n_steps),
            decay_power=recipe.decay_power,
        )
        self._losses: list[Tensor] = []
        self._n_tokens = 0

    def _new_optimizers(self) -> list[Adam]:
        recipe = self.recipe
        groups = parameter_groups(self.model, self.model.encoder.config.num_hidden_layers, recipe)
        return [
            AdamW(
                groups,
                betas=recipe.adam_betas,
                eps=recipe.adam_eps,
                bias_correction=recipe.bias_correction,
                max_grad_norm=recipe.max_grad_norm,
                impl=self.options.impl,
            )
        ]

    def _batches(self) -> list[tuple[dict[str, Batch], dict[str, float]]]:
        items = self.order.items(self.step)
        n_items = sum(map(len, items.values()))
        n_targets = {name: int(self._train[name].n_targets[chosen].sum()) for name, chosen in items.items()}
        weights = {
            name: len(chosen) / n_items / max(1, n_targets[name]) for name, chosen in items.items() if len(chosen)
        }
        n_parts = self.world.size * self.accumulate
        return [
            (self._part(items, self.world.rank + i * self.world.size, n_parts), weights) for i in range(self.accumulate)
        ]

    def _part(self, items: Mapping[str, np.ndarray], number: int, n_parts: int) -> dict[str, Batch]:
        """Every `n_parts`-th item of each task, sorted by length, so that all parts have about the same size."""
        batches = {}
        for name, chosen in items.items():
            by_length = chosen[np.argsort(-self._train[name].item_lengths[chosen], kind="stable")]
            if len(part := by_length[number::n_parts]):
                batches[name] = self._train[name].batch(part, self.world.device)
        return batches

    def _compute(self, batches: dict[str, Batch], weights: dict[str, float]) -> dict[str, Tensor]:
        self._n_tokens += sum(len(batch.input_ids) for batch in batches.values())
        loss = self.model(batches, weights)
        self._backward(loss, self.world.size)  # gradients are averaged over processes, the loss is shared out
        return {"loss": loss.detach()}

    def _collect(self, outputs: Mapping[str, Tensor]) -> None:
        self._losses.append(outputs["loss"])

    def _metrics(self, seconds: float) -> dict[str, float]:
        loss = torch.stack(self._losses).double().sum()
        sums = torch.stack([loss, torch.full_like(loss, self._n_tokens)])
        if self.world.size > 1:
            distributed.all_reduce(sums)
        total, n_tokens = sums.tolist()
        n_updates, self._losses, self._n_tokens = len(self._losses) / self.accumulate, [], 0
        optimizer = self.optimizers[0]
        return {
            "loss": total / n_updates,
            "tokens_per_second": n_tokens / seconds,
            "lr": max(group["lr"] for group in optimizer.param_groups),
            "grad_norm": float(optimizer.grad_norm),
        }


class ItemOrder:
    """The items that each update sees: those of all tasks, in a new order every epoch.

    The last batch of an epoch is what is left, so it may be smaller.

    Args:
        group_by_length: make batches of items with similar lengths. The items of 100 batches are drawn at a time,
            sorted by length and cut into batches, and all batches are shuffled again.
    """

    def __init__(self, train: Mapping[str, Features], batch_size: int, seed: int, group_by_length: bool = False):
        self._sizes = {name: len(features) for name, features in train.items()}
        self._lengths = np.concatenate([features.item_lengths for features in train.values()])
        self._batch_size, self._seed, self._group_by_length = batch_size, seed, group_by_length
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return sum(self._sizes.values())

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self) // self._batch_size)

    def items(self, step: int) -> dict[str, np.ndarray]:
        """The items of an update, by task."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            source = np.random.default_rng(mixed_seed(self._seed, epoch, "order"))
            self._epoch, self._order = epoch, source.permutation(len(self))
            if self._group_by_length:
                self._order = self._grouped(source)
        chosen = self._order[place * self._batch_size : (place + 1) * self._batch_size]
        items, first = {}, 0
        for name, size in self._sizes.items():
            items[name] = chosen[(chosen >= first) & (chosen < first + size)] - first
            first += size
        return items

    def _grouped(self, source: np.random.Generator) -> np.ndarray:
        size, batches = self._batch_size, []
        for first in range(0, len(self), _GROUPED_BATCHES * size):
            drawn = self._order[first : first + _GROUPED_BATCHES * size]
            drawn = drawn[np.argsort(-self._lengths[drawn], kind="stable")]
            batches += [drawn[i : i + size] for i in range(0, len(drawn), size)]
        n_full = len(self) // size  # a last batch that is smaller stays the last
        return np.concatenate([batches[i] for i in [*source.permutation(n_full), *range(n_full, len(batches))]])
