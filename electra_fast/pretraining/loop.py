"""The training loop: the same updates from any number of processes.

One process on a GPU replays its step as CUDA graphs. What a step does is a function of the state before it and of
(seed, step): its sequences, masks, samples and dropouts are drawn from these alone, masks and samples for the whole
batch, of which every process takes its rows.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

import torch
from torch import Tensor, distributed

from ..ops import Impl
from ..packing import PackedBatch
from ..training.capture import CapturedStep
from ..training.checkpoint import State, round_parameters, training_state
from ..training.distributed import World, average_gradients, parallelize
from ..training.guard import Guard
from ..training.optim import AdamW
from ..training.precision import DTYPES, LossScale, lower_precision
from ..training.progress import JsonLines, ProgressLine
from ..training.schedule import warmup_decay
from .build import parameter_groups
from .evaluate import auc
from .objective import ElectraPretrainingModel, ElectraPretrainingOutput, RandomNumbers
from .presets import Recipe
from .stream import SequenceStream

_MEANS = ("loss", "generator_loss", "discriminator_loss", "generator_accuracy")
Batch = tuple[Tensor, ...]


class TrainingLoop:
    """Updates a model until its steps are done or its time is up.

    Args:
        stream: where sequences come from; position p of it is row p % batch_size of step p // batch_size.
        n_steps, minutes: the limits; at least one of them. The learning rate falls with the share of the nearer one.
        log_every: updates between two records and two refreshes of the line.
        precision: of activations, and of parameters but under FSDP: "fp32", "bf16" or "fp16"; the optimizer's state is
            fp32.
        accumulate: forwards and backwards an update, each with an equal share of a process's sequences.
        parallel: "ddp" or "fsdp".

    Attributes:
        step: updates done.
        seconds: of training, up to the last update.
        is_stopping: set it to end the run after the update that is being made.

    Raises:
        ValueError: a batch that cannot be shared out evenly.
    """

    def __init__(
        self,
        model: ElectraPretrainingModel,
        recipe: Recipe,
        stream: SequenceStream,
        world: World,
        seed: int,
        n_steps: int | None,
        minutes: float | None,
        log_every: int,
        impl: Impl = "auto",
        precision: str = "fp32",
        accumulate: int = 1,
        parallel: str = "ddp",
    ):
        if recipe.batch_size % (world.size * accumulate):
            raise ValueError(
                f"batch_size must be a multiple of processes x accumulation, {world.size} x {accumulate}, got "
                f"{recipe.batch_size}"
            )
        self.model, self.recipe, self.stream, self.world, self.seed = model, recipe, stream, world, seed
        self.n_steps, self.minutes, self.log_every, self.accumulate = n_steps, minutes, log_every, accumulate
        self.warmup_steps = recipe.warmup_steps
        if n_steps is not None and n_steps < recipe.n_steps:
            self.warmup_steps = min(self.warmup_steps, n_steps // 10)
        self.step, self.seconds, self.is_stopping = 0, 0.0, False
        dtype = DTYPES[precision]
        if parallel == "fsdp":
            self.module = parallelize(model, world, parallel, dtype)
        self.optimizers = self._new_optimizers(impl)
        if precision == "fp16":
            scale = LossScale(world.device)
            for optimizer in self.optimizers:
                optimizer.loss_scale = scale
        if parallel == "ddp":
            for optimizer in self.optimizers:
                lower_precision(optimizer, dtype)
            self.module = parallelize(model, world, parallel, dtype)
        self._do_step = self._step_eagerly
        is_alone = world.size == accumulate == len(self.optimizers) == 1
        if world.device.type == "cuda" and is_alone and recipe.temperature_end is None:
            self._captured = CapturedStep(self._compute, self.optimizers[0])
            self._do_step = lambda batches: [self._captured(*batches[0])]

    def _new_optimizers(self, impl: Impl) -> list[AdamW]:
        """One for all parameters, or where the recipe is decoupled one a network, with shared ones in the first."""
        groups, recipe = parameter_groups(self.model, self.recipe), self.recipe
        parts = [groups]
        if recipe.decoupled:
            parts = [[g for g in groups if (g["name"] == "discriminator") == is_last] for is_last in (False, True)]
        options = dict(
            betas=recipe.adam_betas,
            eps=recipe.adam_eps,
            bias_correction=recipe.bias_correction,
            max_grad_norm=recipe.max_grad_norm,
            impl=impl,
        )
        return [AdamW(part, **options) for part in parts]

    def state(self) -> State:
        """All that a checkpoint holds, besides the number of the step."""
        clock = {"seconds": torch.tensor(self.seconds, dtype=torch.float64)}
        return training_state(self.model, self.optimizers) | {"clock": clock}

    def resume(self, step: int, state: State) -> None:
        """Goes on after `step`; `state` is `state()`, into which a checkpoint was read."""
        round_parameters(self.optimizers)
        self.step, self.seconds = step, float(state["clock"]["seconds"])

    def run(self, log: JsonLines | None, guard: Guard, until: int | None = None) -> None:
        """Trains to the end of the run, or until that many updates are done, or `is_stopping`.

        Only the first process has a log, and shows a line. Raises ValueError where the guard does.
        """
        line = ProgressLine()
        window: list[ElectraPretrainingOutput] = []
        self.module.train()
        start = time.perf_counter() - self.seconds
        window_start = self.seconds
        try:
            while self.progress < 1 and self.step != until and not self.is_stopping:
                window += self._update()
                self.step += 1
                self._agree(time.perf_counter() - start)
                if self.step % self.log_every == 0 or self.progress >= 1:
                    metrics = self._summary(window)
                    n_tokens = self.world.size * sum(len(output.is_candidate) for output in window)
                    metrics["tokens_per_second"] = n_tokens / (self.seconds - window_start)
                    window, window_start = [], self.seconds
                    self._report(log, guard, line, metrics)
        finally:
            line.end()

    @property
    def progress(self) -> float:
        """The share of the run that is done."""
        by_steps = self.step / self.n_steps if self.n_steps else 0.0
        by_time = self.seconds / (60 * self.minutes) if self.minutes else 0.0
        return max(by_steps, by_time)

    def _agree(self, seconds: float) -> None:
        """The first process says what time it is, and whether to stop."""
        message = torch.tensor([seconds, self.is_stopping], dtype=torch.float64)
        if self.world.size > 1:
            distributed.broadcast(message, src=0)
        self.seconds, self.is_stopping = float(message[0]), bool(message[1])

    def _update(self) -> list[ElectraPretrainingOutput]:
        """One step of the optimizer; returns what its forwards found, without their graphs."""
        progress = self.progress
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * warmup_decay(self.step, progress, self.warmup_steps)
        self.model.temperature = self.recipe.temperature_at(progress)
        # Dropout differs from process to process, and is drawn anew after a restart as it would have been without.
        torch.manual_seed(_mix(self.seed, self.step, "dropout", self.world.rank))
        outputs = self._do_step(self._batches())
        return [ElectraPretrainingOutput(**{name: x.clone() for name, x in out.items()}) for out in outputs]

    def _batches(self) -> list[Batch]:
        """This process's share of the step's batch, for each forward: ids [b, S], where words start [b, S], and the
        numbers to mask [b, 2, S] and to sample [b, N] with."""
        size, device = self.recipe.batch_size, self.world.device
        share = size // self.world.size
        own = slice(self.world.rank * share, (self.world.rank + 1) * share)
        rows = self.stream.rows(self.step * size + own.start, share)
        seq_length = rows.input_ids.shape[1]
        n_slots = self.model.n_slots(PackedBatch.full(1, seq_length, device))
        random = torch.Generator(device).manual_seed(_mix(self.seed, self.step, "masks"))
        numbers = [
            torch.rand(size, *shape, generator=random, device=device)[own] for shape in [(2, seq_length), (n_slots,)]
        ]
        text = [self._on_device(x) for x in (rows.input_ids, rows.word_starts)]
        return list(zip(*(x.chunk(self.accumulate) for x in (*text, *numbers)), strict=True))

    def _on_device(self, x: Tensor) -> Tensor:
        is_far = self.world.device.type == "cuda"
        return x.pin_memory().to(self.world.device, non_blocking=True) if is_far else x

    def _compute(self, ids: Tensor, word_starts: Tensor, mask: Tensor, sample: Tensor) -> dict[str, Tensor]:
        """Forward and backward of full sequences [b, S]."""
        output = self.module(
            ids.flatten(),
            PackedBatch.full(*ids.shape, ids.device),
            random=RandomNumbers(mask.transpose(0, 1).flatten(1), sample.flatten()),
            word_starts=word_starts.flatten() if self.recipe.whole_word else None,
        )
        loss, scale = output.loss / self.accumulate, self.optimizers[0].loss_scale
        (loss if scale is None else loss * scale.value).backward()
        return {name: value.detach() for name, value in output.items()}

    def _step_eagerly(self, batches: list[Batch]) -> list[dict[str, Tensor]]:
        outputs = []
        for i, batch in enumerate(batches):
            average_gradients(self.module, i == len(batches) - 1)
            outputs.append(self._compute(*batch))
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return outputs

    def _report(self, log: JsonLines | None, guard: Guard, line: ProgressLine, metrics: dict[str, float]) -> None:
        optimizer = self.optimizers[0]
        metrics |= {"lr": optimizer.param_groups[0]["lr"], "grad_norm": float(optimizer.grad_norm)}
        if log is not None:
            log.write("train", step=self.step, seconds=self.seconds, **metrics)
            line.show(self.step, self.progress, self.seconds, _fields(metrics))
        advice = guard.check(self.step, self.progress, metrics)
        if advice is not None and log is not None:
            line.end()
            log.write("warning", step=self.step, advice=advice)
            print(f"warning: {advice}", flush=True)

    def _summary(self, window: list[ElectraPretrainingOutput]) -> dict[str, float]:
        """Means over the steps since the last record and over all processes; the AUC is that of all candidates that
        this process saw together."""
        names = [name for name in _MEANS if name in window[0]]
        means = torch.stack([torch.stack([output[name] for output in window]).mean() for name in names]).double()
        if self.world.size > 1:
            distributed.all_reduce(means)
        metrics = dict(zip(names, (means / self.world.size).tolist(), strict=True))
        if "logits" in window[0]:
            logits, is_replaced = (
                torch.cat([output[name][output.is_candidate] for output in window])
                for name in ("logits", "is_replaced")
            )
            metrics |= {
                "discriminator_auc": auc(logits, is_replaced),
                "replaced_share": float(is_replaced.float().mean()),
            }
        return metrics


def _fields(metrics: dict[str, Any]) -> dict[str, str]:
    """What the line shows."""
    shown = {
        "gen": ("generator_loss", ".3f"),
        "disc": ("discriminator_loss", ".4f"),
        "acc": ("generator_accuracy", ".1%"),
        "AUC": ("discriminator_auc", ".3f"),
        "tokens/s": ("tokens_per_second", ",.0f"),
    }
    return {label: format(metrics[name], form) for label, (name, form) in shown.items() if name in metrics}


def _mix(*parts: object) -> int:
    """A seed of 63 bits for what the parts name."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
