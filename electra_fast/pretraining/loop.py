"""The training loop: one process, one device. On a GPU a step is recorded and replayed as CUDA graphs."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from ..ops import Impl
from ..packing import PackedBatch
from ..training.capture import CapturedStep
from ..training.optim import AdamW, decay_groups
from ..training.precision import DTYPES, lower_precision
from ..training.progress import JsonLines, ProgressLine
from ..training.schedule import warmup_decay
from .corpus import TokenSequences
from .evaluate import auc
from .objective import ElectraPretrainingModel, ElectraPretrainingOutput
from .presets import Recipe


class TrainingLoop:
    """Updates a model until its steps are done or its time is up.

    Args:
        n_steps, minutes: the limits; at least one of them. The learning rate falls with the share of the nearer one.
        log_every: updates between two records and two refreshes of the line.
        precision: of parameters and activations, "fp32" or "bf16"; the optimizer's state is fp32.

    Attributes:
        step: updates done.
        seconds: of training, up to the last update.
    """

    def __init__(
        self,
        model: ElectraPretrainingModel,
        recipe: Recipe,
        sequences: TokenSequences,
        seed: int,
        n_steps: int | None,
        minutes: float | None,
        log_every: int,
        impl: Impl = "auto",
        precision: str = "fp32",
    ):
        self.model, self.recipe, self.sequences = model, recipe, sequences
        self.n_steps, self.minutes, self.log_every = n_steps, minutes, log_every
        self.device = model.is_special.device
        self.random = torch.Generator(self.device).manual_seed(seed)
        self.warmup_steps = recipe.warmup_steps
        if n_steps is not None and n_steps < recipe.n_steps:
            self.warmup_steps = min(self.warmup_steps, n_steps // 10)
        self.optimizer = AdamW(
            decay_groups(model, recipe.weight_decay),
            lr=recipe.learning_rate,
            betas=recipe.adam_betas,
            eps=recipe.adam_eps,
            bias_correction=recipe.bias_correction,
            max_grad_norm=recipe.max_grad_norm,
            impl=impl,
        )
        lower_precision(self.optimizer, DTYPES[precision])
        self.step, self.seconds = 0, 0.0
        self._do_step = self._step_eagerly
        if self.device.type == "cuda":
            self._do_step = CapturedStep(self._compute, self.optimizer, generators=[self.random])

    def run(self, log: JsonLines) -> None:
        """Trains; raises ValueError where the loss is no number any more."""
        line = ProgressLine()
        window: list[ElectraPretrainingOutput] = []
        self.model.train()
        start = window_start = time.perf_counter()
        try:
            while (progress := self._progress()) < 1:
                window.append(self._update(progress))
                self.step += 1
                self.seconds = time.perf_counter() - start
                if self.step % self.log_every == 0 or self._progress() >= 1:
                    metrics = _summary(window)
                    n_tokens = sum(len(output.logits) for output in window)
                    now = time.perf_counter()
                    metrics["tokens_per_second"] = n_tokens / (now - window_start)
                    window, window_start = [], now
                    self._report(log, line, metrics)
        finally:
            line.end()

    def _progress(self) -> float:
        """The share of the run that is done."""
        by_steps = self.step / self.n_steps if self.n_steps else 0.0
        by_time = self.seconds / (60 * self.minutes) if self.minutes else 0.0
        return max(by_steps, by_time)

    def _update(self, progress: float) -> ElectraPretrainingOutput:
        """One step of the optimizer; returns what the forward found, without its graph."""
        batch = self.sequences.batch(self.step, self.recipe.batch_size).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * warmup_decay(self.step, progress, self.warmup_steps)
        output = self._do_step(batch)
        return ElectraPretrainingOutput(**{name: value.clone() for name, value in output.items()})

    def _compute(self, batch: Tensor) -> dict[str, Tensor]:
        """Forward and backward of sequences [B, S]."""
        packed = PackedBatch.full(*batch.shape, self.device)
        output = self.model(batch.flatten(), packed, random=self.random)
        output.loss.backward()
        return {name: value.detach() for name, value in output.items()}

    def _step_eagerly(self, batch: Tensor) -> dict[str, Tensor]:
        output = self._compute(batch)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return output

    def _report(self, log: JsonLines, line: ProgressLine, metrics: dict[str, float]) -> None:
        lr, grad_norm = self.optimizer.param_groups[0]["lr"], float(self.optimizer.grad_norm)
        log.write("train", step=self.step, seconds=self.seconds, lr=lr, grad_norm=grad_norm, **metrics)
        if not math.isfinite(metrics["loss"]):
            raise ValueError(
                f"the loss must stay a finite number, got {metrics['loss']} at step {self.step} (learning rate "
                f"{lr:.2g}, gradient norm {grad_norm:.3g}): a lower learning rate or a longer warm-up may help"
            )
        fields = {
            "gen": f"{metrics['generator_loss']:.3f}",
            "disc": f"{metrics['discriminator_loss']:.4f}",
            "acc": f"{metrics['generator_accuracy']:.1%}",
            "AUC": f"{metrics['discriminator_auc']:.3f}",
            "tokens/s": f"{metrics['tokens_per_second']:,.0f}",
        }
        line.show(self.step, self._progress(), self.seconds, fields)


def _summary(window: list[ElectraPretrainingOutput]) -> dict[str, float]:
    """Means over the steps since the last record; the AUC is that of all their candidates together."""
    names = ("loss", "generator_loss", "discriminator_loss", "generator_accuracy")
    metrics = {name: float(torch.stack([output[name] for output in window]).mean()) for name in names}
    logits, is_replaced = (
        torch.cat([output[name][output.is_candidate] for output in window]) for name in ("logits", "is_replaced")
    )
    return {**metrics, "discriminator_auc": auc(logits, is_replaced)}
