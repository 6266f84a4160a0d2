"""The updates of pre-training. A step draws its sequences, masks, samples and dropouts from (seed, step) alone.

Masks and samples are drawn for the whole batch, and every process takes its rows. On a GPU a step is replayed as CUDA
graphs, except under FSDP.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, distributed

from ..model.packing import PackedBatch
from ..training.capture import CapturedStep, is_capturable
from ..training.distributed import World
from ..training.gpus import peak_flops
from ..training.gradients import gradients_of
from ..training.loop import Loop, mixed_seed
from ..training.optim import LAMB, Adam, AdamW
from ..training.step import Step
from .build import parameter_groups
from .cost import mfu
from .evaluate import auc
from .networks.objective import ElectraPretrainingModel
from .recipes import Recipe
from .run_options import PretrainingOptions
from .text.stream import SequenceStream

_MEANS = ("loss", "generator_loss", "discriminator_loss", "generator_accuracy")
# Tokens whose scores a process keeps for a record's AUC, the last ones: more would fill memory and gain no precision.
_SCORED_TOKENS = 2**18
Batch = tuple[Tensor, ...]


class TrainingLoop(Loop):
    """The updates of both networks.

    Args:
        stream: source of sequences; its position p is row p % batch_size of step p // batch_size.
        options: options of the run, with a precision, and with `n_steps` or `minutes`.

    Raises:
        ValueError: a batch that does not divide evenly, `decay_after_warmup` without `n_steps`.
    """

    def __init__(
        self,
        model: ElectraPretrainingModel,
        recipe: Recipe,
        stream: SequenceStream,
        world: World,
        options: PretrainingOptions,
    ):
        n_steps, n_parts = options.n_steps, world.size * options.accumulate
        if recipe.batch_size % n_parts:
            raise ValueError(
                f"batch_size must be a multiple of processes x accumulation, {world.size} x {options.accumulate}, got "
                f"{recipe.batch_size}"
            )
        if recipe.decay_after_warmup and n_steps is None:
            raise ValueError("decay_after_warmup needs n_steps: of minutes it is unknown what share the warm-up takes")
        warmup_steps = recipe.warmup_steps
        if n_steps is not None and n_steps < recipe.n_steps:
            warmup_steps = min(warmup_steps, n_steps // 10)
        self.recipe, self.stream = recipe, stream
        super().__init__(
            model,
            world,
            options,
            n_steps=n_steps,
            minutes=options.minutes,
            warmup_steps=warmup_steps,
            decay_power=recipe.decay_power,
            decay_start=warmup_steps / n_steps if recipe.decay_after_warmup else 0.0,
            parallel=options.parallel,
        )
        self.vocab_size, self._peak_flops = len(model.is_special), None
        if world.device.type == "cuda" and (peak := peak_flops(torch.cuda.get_device_name(world.device))):
            self._peak_flops = world.size * peak
        n_sequences = recipe.batch_size // n_parts
        # Batches without padding differ in their ids alone: what else an update reads is made once.
        self._unpadded = PackedBatch.full(n_sequences, recipe.seq_length, world.device)
        self._places = self._unpadded.position_ids(n_sequences * recipe.seq_length)
        self._types = torch.zeros_like(self._places)
        n_kept = max(1, _SCORED_TOKENS // (n_sequences * recipe.seq_length))
        self._scored: deque[tuple[Tensor, Tensor]] = deque(maxlen=n_kept)
        self._names: list[str] = []
        self._means: list[Tensor] = []  # of each forward, those of `_names`
        self._n_tokens = 0
        if recipe.temperature_end is not None:
            # A tensor, because a CUDA graph would contain a number.
            model.temperature = torch.tensor(float(recipe.temperature), device=world.device)

    def _new_optimizers(self) -> list[Adam]:
        """Makes one optimizer, or one per network if the recipe is decoupled; the first one has shared parameters."""
        recipe = self.recipe
        groups = parameter_groups(self.model, recipe)
        parts = [groups]
        if recipe.decoupled:
            parts = [[g for g in groups if (g["name"] == "discriminator") == is_last] for is_last in (False, True)]
        options = dict(
            betas=recipe.adam_betas,
            eps=recipe.adam_eps,
            bias_correction=recipe.bias_correction,
            max_grad_norm=recipe.max_grad_norm,
            impl=self.options.impl,
        )
        optimizer = {"adamw": AdamW, "lamb": LAMB}[recipe.optimizer]
        return [optimizer(part, **options) for part in parts]

    def _new_step(self) -> Step:
        if not is_capturable(self.world.device, self.options.impl, self.options.parallel):
            return super()._new_step()
        return CapturedStep(self._compute, self.optimizers, gradients_of(self.model, self.world.size))

    def _update(self) -> None:
        if isinstance(self.model.temperature, Tensor):
            self.model.temperature.fill_(self.recipe.temperature_at(self.progress))
        super()._update()

    def _batches(self) -> list[Batch]:
        size, device = self.recipe.batch_size, self.world.device
        share = size // self.world.size
        own = slice(self.world.rank * share, (self.world.rank + 1) * share)
        rows = self.stream.rows(self.step * size + own.start, share)
        self._n_tokens += rows.input_ids.numel() if rows.lengths is None else int(rows.lengths.sum())
        seq_length = rows.input_ids.shape[1]
        random = mask_numbers(self.seed, self.step, size, seq_length, device)[own]
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
        """Runs forward and backward on ids [b, S]; random: [b, 3, S]; is_token: [b, S] bool, None without padding."""
        packed, types, places, numbers = self._unpadded, self._types, self._places, random.transpose(0, 1).flatten(1)
        if is_token is not None:
            # On a GPU no shape may depend on the lengths; on a CPU padding would cost time.
            packed = (PackedBatch.with_padding if is_token.is_cuda else PackedBatch.from_mask)(is_token)
            types, places = packed.pack(token_type_ids), None
            numbers = numbers if packed.indices is None else numbers.index_select(1, packed.indices)
        output = self.model(
            packed.pack(input_ids),
            packed,
            types,
            random=numbers,
            word_starts=packed.pack(word_starts) if self.recipe.whole_word else None,
            position_ids=places,
        )
        self._backward(output.loss, 1 / self.accumulate)
        return {name: value.detach() for name, value in output.items()}

    def _collect(self, outputs: dict[str, Tensor]) -> None:
        # Copies in few launches: one for all means, one for the labels.
        self._names = [name for name in _MEANS if name in outputs]
        self._means.append(torch.stack([outputs[name] for name in self._names]))
        if "logits" in outputs:
            labels = torch.stack([outputs["is_replaced"], outputs["is_candidate"]])
            self._scored.append((outputs["logits"].clone(), labels))

    def _metrics(self, seconds: float) -> dict[str, float]:
        """Means over all processes; each process computes its own AUC first."""
        means, n_tokens = torch.stack(self._means, dim=1), self._n_tokens
        self._means, self._n_tokens = [], 0
        found = {name: values.mean().double() for name, values in zip(self._names, means, strict=True)}
        if self._scored:
            logits = torch.cat([logits for logits, _ in self._scored])
            is_replaced, is_candidate = torch.cat([labels for _, labels in self._scored], dim=1)
            logits, is_replaced = logits[is_candidate], is_replaced[is_candidate]
            found["discriminator_auc"] = torch.tensor(auc(logits, is_replaced)).to(found["loss"])
            found["replaced_share"] = is_replaced.double().mean()
            self._scored.clear()
        means = torch.stack(list(found.values())) / self.world.size
        if self.world.size > 1:
            distributed.all_reduce(means)
        metrics = dict(zip(found, means.tolist(), strict=True))
        # Every process has about as many tokens.
        metrics["tokens_per_second"] = self.world.size * n_tokens / seconds
        if self._peak_flops is not None:
            metrics["mfu"] = mfu(metrics["tokens_per_second"], self.recipe, self.vocab_size, self._peak_flops)
        optimizer = self.optimizers[0]
        return metrics | {"lr": optimizer.param_groups[0]["lr"], "grad_norm": float(optimizer.grad_norm)}


def mask_numbers(seed: int, step: int, size: int, seq_length: int, device: torch.device) -> Tensor:
    """The numbers [size, 3, seq_length] fp32 in [0, 1) that decide the masks and samples of a step's batch."""
    source = torch.Generator(device).manual_seed(mixed_seed(seed, step, "masks"))
    return torch.rand(size, 3, seq_length, generator=source, device=device)
