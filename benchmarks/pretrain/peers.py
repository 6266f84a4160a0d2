"""The peer of the pre-training benchmark: a generator and a discriminator of transformers in a plain training loop.

It is what somebody writes who has transformers and the paper: sdpa attention, the embeddings shared, masks by `topk`,
samples by the Gumbel trick, torch's fused AdamW (whose bias correction is undone where a recipe has none), clipping, a
schedule; in bf16 under autocast. It lacks what ours computes for the log (accuracy, kept logits), and its text lies on
the device: what is left out favours it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import floor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pretraining.networks.objective import ElectraPretrainingModel
from ...pretraining.recipes import Recipe
from ...training.optim import decay_groups
from ...training.schedule import warmup_decay


@dataclass(frozen=True)
class Variant:
    """A way to run the peer.

    Attributes:
        gathered: the vocabulary head is applied to masked positions only; transformers' own forward gives the logits of
            all positions, [B, S, V].
        compile: options of torch.compile, around all that gives the loss; None does not compile.
    """

    gathered: bool
    compile: dict[str, Any] | None


VARIANTS = {
    "transformers-eager": Variant(gathered=False, compile=None),
    "transformers-eager-gathered": Variant(gathered=True, compile=None),
    "transformers-compiled": Variant(gathered=False, compile={}),
    "transformers-compiled-gathered": Variant(gathered=True, compile={}),
    "transformers-graphed": Variant(gathered=True, compile={"mode": "reduce-overhead"}),
}


class TransformersPretraining(nn.Module):
    """transformers' networks with the weights of ours, and the objective around them.

    Args:
        ours: networks of a recipe with the paper's objective: an untied generator, shared embeddings, no replacement.
        gathered: as in `Variant`.
    """

    def __init__(self, ours: ElectraPretrainingModel, gathered: bool):
        import transformers

        super().__init__()
        self.gathered = gathered
        for name, network_class in (
            ("generator", transformers.ElectraForMaskedLM),
            ("discriminator", transformers.ElectraForPreTraining),
        ):
            own = getattr(ours, name)
            config = transformers.ElectraConfig(**own.config.to_dict())
            network = network_class._from_config(config, attn_implementation="sdpa")
            network.load_state_dict(own.state_dict())
            setattr(self, name, network)
        self.discriminator.electra.embeddings = self.generator.electra.embeddings
        self.register_buffer("is_special", ours.is_special.clone(), persistent=False)
        self.mask_token_id, self.mask_prob, self.keep_prob = ours.mask_token_id, ours.mask_prob, ours.keep_prob
        self.temperature, self.gen_weight, self.disc_weight = ours.temperature, ours.gen_weight, ours.disc_weight

    def forward(self, ids: Tensor, random: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, the generator's and the discriminator's, of ids [B, S] int64 without padding.

        random: [3, B, S] fp32 in [0, 1), the numbers that decide masks and samples, as in `ElectraPretrainingModel`;
        None draws others, the samples by Gumbel's trick.
        """
        masked_ids, positions = self.mask(
            ids, torch.rand(2, *ids.shape, device=ids.device) if random is None else random
        )
        generator_loss, logits = self.guess(ids, masked_ids, positions)
        samples = self.sample(logits) if random is None else self.sample_by(logits, random[2].gather(1, positions))
        discriminator_loss = self.detect(ids, ids.scatter(1, positions, samples))
        loss = self.gen_weight * generator_loss + self.disc_weight * discriminator_loss
        return loss, generator_loss, discriminator_loss

    def mask(self, ids: Tensor, random: Tensor) -> tuple[Tensor, Tensor]:
        """The text with [MASK] in it [B, S], and the positions that are predicted [B, N].

        random: [2, B, S], which tokens are chosen, and which of these become [MASK].
        """
        n_masked = max(1, floor(self.mask_prob * ids.shape[1] + 0.5))
        positions = random[0].masked_fill(self.is_special[ids], 2.0).topk(n_masked, largest=False).indices
        is_kept = random[1].gather(1, positions) >= 1 - self.keep_prob
        read = ids.gather(1, positions).masked_fill(~is_kept, self.mask_token_id)
        return ids.scatter(1, positions, read), positions

    def guess(self, ids: Tensor, masked_ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The generator's loss, and its logits at the positions [B, N, V]."""
        targets, rows = ids.gather(1, positions), torch.arange(len(ids), device=ids.device)[:, None]
        if not self.gathered:
            labels = torch.full_like(ids, -100).scatter(1, positions, targets)
            out = self.generator(input_ids=masked_ids, labels=labels)
            return out.loss, out.logits[rows, positions]
        hidden = self.generator.electra(input_ids=masked_ids).last_hidden_state[rows, positions]
        logits = self.generator.generator_lm_head(self.generator.generator_predictions(hidden))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), logits

    def sample(self, logits: Tensor) -> Tensor:
        """Tokens [B, N] by the softmax of the logits [B, N, V] over the temperature (Gumbel's trick)."""
        logits = logits.detach().float() / self.temperature
        return (logits - (-torch.rand_like(logits).log()).log()).argmax(-1)

    def sample_by(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """The same at given numbers [B, N] in [0, 1), by inverting the cumulative sum of the softmax."""
        cumulative = (logits.detach().float() / self.temperature).softmax(-1).cumsum(-1)
        found = torch.searchsorted(cumulative, (uniform * cumulative[..., -1])[..., None], right=True)
        return found.squeeze(-1).clamp(max=logits.shape[-1] - 1)

    def detect(self, ids: Tensor, corrupted_ids: Tensor) -> Tensor:
        """The discriminator's loss."""
        return self.discriminator(input_ids=corrupted_ids, labels=(corrupted_ids != ids).long()).loss


class TransformersTraining:
    """The peer's training loop, on the same batch again and again, or on those of the caller.

    Args:
        model: the networks, on their device, in fp32.
        ids: [B, S] int64 on the device, the batch of `train`.
        precision: "bf16" computes under autocast, "fp32" does not.
        compile: as in `Variant`.
    """

    def __init__(
        self,
        model: TransformersPretraining,
        recipe: Recipe,
        ids: Tensor,
        precision: str,
        compile: dict[str, Any] | None,
    ):
        self._ids = ids
        self._autocast: Callable[[], AbstractContextManager] = nullcontext
        if precision == "bf16":
            self._autocast = lambda: torch.autocast(ids.device.type, torch.bfloat16)
        self._is_compiled = compile is not None
        self._losses = torch.compile(model, dynamic=False, **compile) if self._is_compiled else model
        self._parameters = list(model.train().parameters())
        self._max_grad_norm = recipe.max_grad_norm
        self._optimizer = torch.optim.AdamW(
            decay_groups(model, recipe.weight_decay),
            lr=recipe.learning_rate,
            betas=recipe.adam_betas,
            eps=recipe.adam_eps,
            fused=True,
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer,
            lambda step: warmup_decay(step, step / recipe.n_steps, recipe.warmup_steps, recipe.decay_power),
        )
        if not recipe.bias_correction:
            self._optimizer.register_step_pre_hook(lambda *_: self._undo_bias_correction(recipe))

    @property
    def step(self) -> int:
        """Updates done."""
        return self._schedule.last_epoch

    def train(self, n_steps: int) -> tuple[Tensor, Tensor]:
        """Makes so many updates; returns the generator's and the discriminator's losses [n_steps], on the device."""
        found = [self.update(self._ids) for _ in range(n_steps)]
        generator_losses, discriminator_losses = zip(*found, strict=True)
        return torch.stack(generator_losses), torch.stack(discriminator_losses)

    def update(self, ids: Tensor, random: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Makes an update on a batch; returns both losses. The arguments are those of `TransformersPretraining`."""
        if self._is_compiled:
            torch.compiler.cudagraph_mark_step_begin()
        with self._autocast():
            loss, *found = self._losses(ids, random)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step()
        # What a CUDA graph returns is overwritten by its next replay.
        generator_loss, discriminator_loss = (x.detach().clone() for x in found)
        return generator_loss, discriminator_loss

    def _undo_bias_correction(self, recipe: Recipe) -> None:
        """Changes the rates of the next step, which the schedule writes anew, so that AdamW's factors cancel.

        At step t AdamW computes lr sqrt(c2) / c1 * m / (sqrt(v) + eps sqrt(c2)), with c = 1 - beta ** t.
        """
        c1, c2 = (1 - beta ** (self.step + 1) for beta in recipe.adam_betas)
        for group in self._optimizer.param_groups:
            group["lr"] *= c1 / c2**0.5
            group["eps"] = recipe.adam_eps / c2**0.5
            group["weight_decay"] = recipe.weight_decay * c2**0.5 / c1 if group["weight_decay"] else 0.0
