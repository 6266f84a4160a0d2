"""The training loop: the same updates from any number of processes.

One process on a GPU replays its step as CUDA graphs. What a step does is a function of the state before it and of
(seed, step): its sequences, masks, samples and dropouts are drawn from these alone, masks and samples for the whole
batch, of which every process takes its rows.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque

import torch
from torch import Tensor, distributed

from ..ops import Impl
from ..packing import PackedBatch
from ..training.capture import CapturedStep
from ..training.checkpoint import State, round_parameters, training_state
from ..training.distributed import World, average_gradients, parallelize
from ..training.gpus import peak_flops
from ..training.optim import LAMB, Adam, AdamW
from ..training.precision import DTYPES, LossScale, lower_precision
from ..training.schedule import warmup_decay
from .build import parameter_groups
from .cost import mfu
from .evaluate import auc
from .objective import ElectraPretrainingModel
from .presets import Recipe
from .report import RunReport
from .stream import SequenceStream

_MEANS = ("loss", "generator_loss", "discriminator_loss", "generator_accuracy")
_SCORES = ("logits", "is_replaced", "is_candidate")
# Tokens whose scores a process keeps for the AUC of a record: the last ones; more would tell no more, and fill memory.
_SCORED_TOKENS = 2**18
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
        is_stopping: whether a process was asked to `stop`; known to all of them after the same update.

    Raises:
        ValueError: a batch that cannot be shared out evenly, `decay_after_warmup` without `n_steps`.
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
        if recipe.decay_after_warmup and n_steps is None:
            raise ValueError("decay_after_warmup needs n_steps: of minutes it is unknown what share the warm-up takes")
        self.decay_start = self.warmup_steps / n_steps if recipe.decay_after_warmup else 0.0
        self.step, self.seconds, self.is_stopping, self._is_asked_to_stop = 0, 0.0, False, False
        self.vocab_size, self._peak_flops = len(model.is_special), None
        if world.device.type == "cuda" and (peak := peak_flops(torch.cuda.get_device_name(world.device))):
            self._peak_flops = world.size * peak
        n_forward_tokens = recipe.batch_size * recipe.seq_length // (world.size * accumulate)
        self._scored: deque[tuple[Tensor, ...]] = deque(maxlen=max(1, _SCORED_TOKENS // n_forward_tokens))
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

    def _new_optimizers(self, impl: Impl) -> list[Adam]:
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
        optimizer = {"adamw": AdamW, "lamb": LAMB}[recipe.optimizer]
        return [optimizer(part, **options) for part in parts]

    def state(self) -> State:
        """All that a checkpoint holds, besides the number of the step."""
        clock = {"seconds": torch.tensor(self.seconds, dtype=torch.float64)}
        return training_state(self.model, self.optimizers) | {"clock": clock}

    def resume(self, step: int, state: State) -> None:
        """Goes on after `step`; `state` is `state()`, into which a checkpoint was read."""
        round_parameters(self.optimizers)
        self.step, self.seconds = step, float(state["clock"]["seconds"])

    def stop(self) -> None:
        """Ends the run, in all processes, after the update that is being made or else the next; for signal handlers."""
        self._is_asked_to_stop = True

    def run(self, report: RunReport, until: int | None = None) -> None:
        """Trains to the end of the run, or until that many updates are done, or `is_stopping`.

        Raises ValueError where the report does.
        """
        forwards, n_tokens, window_start = [], 0, self.seconds
        self.module.train()
        start = time.perf_counter() - self.seconds
        while self.progress < 1 and self.step != until and not self.is_stopping:
            for output in self._update():
                forwards.append({name: output[name].clone() for name in _MEANS if name in output})
                n_tokens += len(output["is_candidate"])
                if "logits" in output:
                    self._scored.append(tuple(output[name].clone() for name in _SCORES))
            self.step += 1
            self._agree(time.perf_counter() - start)
            if self.step % self.log_every == 0 or self.progress >= 1:
                metrics = self._metrics(forwards, n_tokens, self.seconds - window_start)
                forwards, n_tokens, window_start = [], 0, self.seconds
                report.training(self.step, self.progress, self.seconds, metrics)

    @property
    def progress(self) -> float:
        """The share of the run that is done."""
        by_steps = self.step / self.n_steps if self.n_steps else 0.0
        by_time = self.seconds / (60 * self.minutes) if self.minutes else 0.0
        return max(by_steps, by_time)

    def _agree(self, seconds: float) -> None:
        """The first process says what time it is; where one was asked to stop, all do."""
        message = torch.tensor([seconds * self.world.is_main, self._is_asked_to_stop], dtype=torch.float64)
        if self.world.size > 1:
            distributed.all_reduce(message, distributed.ReduceOp.MAX)
        self.seconds, self.is_stopping = float(message[0]), bool(message[1])

    def _update(self) -> list[dict[str, Tensor]]:
        """One step of the optimizer; returns what its forwards found, in memory that the next one may write over."""
        progress = self.progress
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * warmup_decay(
                    self.step, progress, self.warmup_steps, self.recipe.decay_power, self.decay_start
                )
        self.model.temperature = self.recipe.temperature_at(progress)
        # Dropout differs from process to process, and is drawn anew after a restart as it would have been without.
        torch.manual_seed(_mix(self.seed, self.step, "dropout", self.world.rank))
        return self._do_step(self._batches())

    def _batches(self) -> list[Batch]:
        """This process's share of the step's batch, for each forward: the arguments of `_compute`."""
        size, device = self.recipe.batch_size, self.world.device
        share = size // self.world.size
        own = slice(self.world.rank * share, (self.world.rank + 1) * share)
        rows = self.stream.rows(self.step * size + own.start, share)
        seq_length = rows.input_ids.shape[1]
        source = torch.Generator(device).manual_seed(_mix(self.seed, self.step, "masks"))
        random = torch.rand(size, 3, seq_length, generator=source, device=device)[own]
        text = [rows.input_ids, rows.word_starts]
        if rows.lengths is not None:
            text += [torch.arange(seq_length) < rows.lengths[:, None], rows.token_type_ids]
        parts = [random, *(self._on_device(x) for x in text)]
        return list(zip(*(x.chunk(self.accumulate) for x in parts), strict=True))

    def _on_device(self, x: Tensor) -> Tensor:
        is_far = self.world.device.type == "cuda"
        return x.pin_memory().to(self.world.device, non_blocking=True) if is_far else x

    def _compute(
        self,
        random: Tensor,
        input_ids: Tensor,
        word_starts: Tensor,
        is_token: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Forward and backward of sequences [b, S]; random: [b, 3, S]; is_token: [b, S] bool, None without padding."""
        packed = PackedBatch.full(*input_ids.shape, input_ids.device)
        if is_token is not None:
            packed = PackedBatch.from_mask(is_token)
        output = self.module(
            packed.pack(input_ids),
            packed,
            None if token_type_ids is None else packed.pack(token_type_ids),
            random=packed.pack(random.transpose(1, 2)).T,
            word_starts=packed.pack(word_starts) if self.recipe.whole_word else None,
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

    def _metrics(self, forwards: list[dict[str, Tensor]], n_tokens: int, seconds: float) -> dict[str, float]:
        """Of the forwards since the last record, means over all processes; an AUC is first taken in each of them."""
        found = {name: torch.stack([forward[name] for forward in forwards]).mean().double() for name in forwards[0]}
        if self._scored:
            logits, is_replaced, is_candidate = (torch.cat(parts) for parts in zip(*self._scored, strict=True))
            logits, is_replaced = logits[is_candidate], is_replaced[is_candidate]
            found["discriminator_auc"] = torch.tensor(auc(logits, is_replaced)).to(found["loss"])
            found["replaced_share"] = is_replaced.double().mean()
            self._scored.clear()
        means = torch.stack(list(found.values())) / self.world.size
        if self.world.size > 1:
            distributed.all_reduce(means)
        metrics = dict(zip(found, means.tolist(), strict=True))
        # Every process has about as many.
        metrics["tokens_per_second"] = self.world.size * n_tokens / seconds
        if self._peak_flops is not None:
            metrics["mfu"] = mfu(metrics["tokens_per_second"], self.recipe, self.vocab_size, self._peak_flops)
        optimizer = self.optimizers[0]
        return metrics | {"lr": optimizer.param_groups[0]["lr"], "grad_norm": float(optimizer.grad_norm)}


def _mix(*parts: object) -> int:
    """A seed of 63 bits for what the parts name."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
