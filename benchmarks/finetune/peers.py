"""The peers of the fine-tuning benchmark: transformers' network under its Trainer, and in a plain loop of torch.

Both have the hyperparameters of ours: its groups of learning rates, torch's fused AdamW, the same schedule and
clipping. Their rows are tokenised beforehand and lie in memory as lists, which is no slower than a `datasets.Dataset`;
a collator pads them to the longest of a batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ...finetuning.data.features import Features
from ...finetuning.layer_rates import parameter_groups
from ...finetuning.recipe import Recipe
from ...model.base import ElectraPreTrainedModel
from ...training.schedule import warmup_decay
from .work import Work

# The order of items that each peer asks for.
STRATEGIES = {"trainer": "random", "trainer-grouped": "group_by_length", "loop": "random"}
# The peer that does the same where the order is given.
UNGROUPED = {"trainer-grouped": "trainer"}

Row = dict[str, Any]
# Makes the rows of a batch padded tensors, as the network takes them.
Collator = Callable[[list[Row]], dict[str, torch.Tensor]]


def twin(ours: ElectraPreTrainedModel) -> nn.Module:
    """transformers' network of the same class, with the same weights and dropout, and sdpa attention."""
    network_class = getattr(transformers, type(ours).__name__)
    config = transformers.ElectraConfig(**ours.config.to_dict())
    network = network_class._from_config(config, attn_implementation="sdpa")
    network.load_state_dict(ours.state_dict())
    return network


def rows_of(features: Features) -> list[Row]:
    """The items, each of one row, as transformers' collators take them."""
    assert len(features.row_starts) == len(features) + 1, "an item of several rows"
    rows = []
    for i, (first, end) in enumerate(zip(features.row_starts[:-1], features.row_starts[1:], strict=True)):
        row = {
            "input_ids": features.input_ids[first:end].tolist(),
            "token_type_ids": features.token_type_ids[first:end].tolist(),
            "attention_mask": [1] * int(end - first),
        }
        row |= {name: values[i].tolist() for name, values in features.item_targets.items()}
        row |= {name: values[first:end].tolist() for name, values in features.token_targets.items() if name == "labels"}
        rows.append(row)
    return rows


def collator(source: str | Path, has_token_labels: bool) -> Collator:
    """transformers' own collator: `DataCollatorForTokenClassification` where tokens have labels, or
    `DataCollatorWithPadding`.

    Args:
        source: where the tokenizer is, a directory or a model on the Hub.
    """
    tokenizer = transformers.BertTokenizerFast.from_pretrained(source)
    if has_token_labels:
        return transformers.DataCollatorForTokenClassification(tokenizer)
    return transformers.DataCollatorWithPadding(tokenizer)


def make_peer(
    name: str, work: Work, rows: list[Row], strategy: str, device: torch.device, precision: str, directory: Path
) -> TrainerTraining | LoopTraining:
    """A peer with a copy of the weights. The other arguments are those of `TrainerTraining`.

    Args:
        name: a key of `STRATEGIES`.
    """
    model, has_token_labels = twin(work.model).to(device), "labels" in work.data.train.token_targets
    collate = collator(work.source, has_token_labels)
    if name == "loop":
        return LoopTraining(model, work, rows, collate, strategy, precision)
    return TrainerTraining(model, work, rows, collate, strategy, precision, directory)


def _optimizer(model: nn.Module, recipe: Recipe, n_steps: int) -> tuple[torch.optim.AdamW, LambdaLR]:
    groups = parameter_groups(model, model.config.num_hidden_layers, recipe)
    optimizer = torch.optim.AdamW(groups, betas=recipe.adam_betas, eps=recipe.adam_eps, fused=True)
    n_warmup = int(recipe.warmup_share * n_steps)
    return optimizer, LambdaLR(optimizer, lambda step: warmup_decay(step, step / n_steps, n_warmup, recipe.decay_power))


class TrainerTraining:
    """transformers' Trainer with its default settings, some updates at a time.

    `Trainer.train` runs once, from the first update to the last, in a thread of its own; it waits where a turn ends. So
    a turn has all that the Trainer does between two updates, and collation; the first one also has the drawing of the
    order, and the last one what comes after the updates. Nothing is evaluated or saved.

    Args:
        model: on its device, in fp32.
        strategy: the order of items: "random", the default of the Trainer; "group_by_length", in which a batch has
            items of similar lengths; or "sequential".
        precision: "bf16" computes under autocast, "fp32" does not.
        directory: where the Trainer may write; with these settings it does not.
    """

    def __init__(
        self,
        model: nn.Module,
        work: Work,
        rows: list[Row],
        collate: Collator,
        strategy: str,
        precision: str,
        directory: Path,
    ):
        self.model, recipe = model, work.recipe
        device = next(model.parameters()).device
        arguments = transformers.TrainingArguments(
            output_dir=str(directory),
            per_device_train_batch_size=recipe.batch_size,
            max_steps=work.n_steps,
            max_grad_norm=recipe.max_grad_norm,
            train_sampling_strategy=strategy,
            seed=work.seed,
            use_cpu=device.type == "cpu",
            bf16=precision == "bf16",
            dataloader_pin_memory=device.type == "cuda",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        self._trainer = transformers.Trainer(
            model,
            arguments,
            data_collator=collate,
            train_dataset=rows,
            optimizers=_optimizer(model, recipe, work.n_steps),
            callbacks=[_Pause(self)],
        )
        self._trainer.remove_callback(transformers.PrinterCallback)
        self._until, self._is_done, self._problem = 0, False, None
        self._is_its_turn, self._is_our_turn = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()
        self._wait()  # it does things before the first update

    def train(self, n_steps: int) -> None:
        """Makes so many updates more, or those that are left."""
        self._until += n_steps
        if not self._is_done:
            self._is_its_turn.release()
            self._wait()

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights it has trained."""
        return self.model.state_dict()

    def _wait(self) -> None:
        self._is_our_turn.acquire()
        if self._problem is not None:
            raise self._problem

    def _run(self) -> None:
        try:
            self._trainer.train()
        except Exception as problem:  # the thread that waits raises it again
            self._problem = problem
        self._is_done = True
        self._is_our_turn.release()

    def pause_after(self, step: int, n_steps: int) -> None:
        """Waits, in the Trainer's thread, where the turn ends at this update and it is not the last."""
        if step == self._until < n_steps:
            self._is_our_turn.release()
            self._is_its_turn.acquire()


class _Pause(transformers.TrainerCallback):
    """Lets the Trainer wait where a turn ends."""

    def __init__(self, training: TrainerTraining):
        self._training = training

    def on_train_begin(self, args: object, state: transformers.TrainerState, control: object, **_: object) -> None:
        self._training.pause_after(0, state.max_steps)

    def on_step_end(self, args: object, state: transformers.TrainerState, control: object, **_: object) -> None:
        self._training.pause_after(state.global_step, state.max_steps)


class LoopTraining:
    """transformers' network in the plain loop that one writes without a Trainer; arguments as in `TrainerTraining`."""

    def __init__(
        self,
        model: nn.Module,
        work: Work,
        rows: list[Row],
        collate: Collator,
        strategy: str,
        precision: str,
    ):
        self.model, self._max_grad_norm = model.train(), work.recipe.max_grad_norm
        self._optimizer, self._schedule = _optimizer(model, work.recipe, work.n_steps)
        self._device = next(model.parameters()).device
        self._autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16")
        self._loader = torch.utils.data.DataLoader(
            rows,
            work.recipe.batch_size,
            shuffle=strategy == "random",
            generator=torch.Generator().manual_seed(work.seed),
            collate_fn=collate,
            pin_memory=self._device.type == "cuda",
        )
        self._batches, self._n_left = self._epochs(), work.n_steps

    def train(self, n_steps: int) -> None:
        """Makes so many updates more, or those that are left."""
        for _ in range(min(n_steps, self._n_left)):
            batch = {name: x.to(self._device, non_blocking=True) for name, x in next(self._batches).items()}
            with self._autocast:
                loss = self.model(**batch).loss
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self._max_grad_norm)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad()
            self._n_left -= 1

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights it has trained."""
        return self.model.state_dict()

    def _epochs(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield from self._loader
