"""Replaced-token detection: a generator fills masked positions, a discriminator tells which tokens are not original.

Clark et al. 2020, section 2; the details are those of google-research/electra, run_pretraining.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import ElectraConfig
from ..modeling import ElectraForMaskedLM, ElectraForPreTraining
from ..ops import Impl
from ..outputs import ModelOutput
from ..packing import PackedBatch

_SHARED = ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm")


@dataclass
class RandomNumbers:
    """All that one forward draws, besides dropout: each in [0, 1), fp32.

    Attributes:
        mask: [2, T]: which tokens are chosen, and which of them become [MASK].
        sample: [N]: one number a masked slot, for the generator's sample.
    """

    mask: Tensor
    sample: Tensor


@dataclass
class ElectraPretrainingOutput(ModelOutput):
    """One forward over T packed tokens with N slots for masked positions.

    Attributes:
        loss: gen_weight * generator_loss + disc_weight * discriminator_loss.
        generator_loss: mean cross-entropy at the masked positions.
        discriminator_loss: mean binary cross-entropy over all tokens.
        generator_accuracy: share of the masked positions where the likeliest token is the true one.
        logits: [T], the discriminator's; above zero where the token looks replaced.
        is_replaced: [T] bool, the truth. A sample that is the original token counts as original.
        is_candidate: [T] bool, tokens that may be masked: all but the special ones.
        corrupted_ids: [T] int64, what the discriminator read.
        targets, is_correct, is_used: [N], the true tokens of the masked slots, whether the generator's likeliest
            token is it, and which slots are in use.
    """

    loss: Tensor | None = None
    generator_loss: Tensor | None = None
    discriminator_loss: Tensor | None = None
    generator_accuracy: Tensor | None = None
    logits: Tensor | None = None
    is_replaced: Tensor | None = None
    is_candidate: Tensor | None = None
    corrupted_ids: Tensor | None = None
    targets: Tensor | None = None
    is_correct: Tensor | None = None
    is_used: Tensor | None = None


class ElectraPretrainingModel(nn.Module):
    """Generator and discriminator, trained together.

    The three embedding tables and the embeddings' LayerNorm are the same Parameters in both networks; the projection
    from them to the hidden size is each network's own. No gradient of the discriminator goes through the samples.

    Args:
        generator_config, discriminator_config: the two shapes; what concerns the shared embeddings must agree.
        mask_token_id: what is written at a masked position.
        special_token_ids: tokens that are never masked: [PAD], [CLS], [SEP], [MASK].
        mask_prob: the share of a sequence's tokens that is predicted.
        temperature: divides the generator's logits before sampling, not in its loss; above 1 the replacements are
            stranger, and easier to tell.
        gen_weight, disc_weight: weights of the two losses in their sum.
        impl: which code serves the ops, "auto", "triton" or "torch".

    Raises:
        ValueError: configs that do not agree, a share outside (0, 1), a temperature that is not positive, an id beyond
            the vocabulary.
    """

    def __init__(
        self,
        generator_config: ElectraConfig,
        discriminator_config: ElectraConfig,
        mask_token_id: int = 103,
        special_token_ids: Sequence[int] = (0, 101, 102, 103),
        mask_prob: float = 0.15,
        temperature: float = 1.0,
        gen_weight: float = 1.0,
        disc_weight: float = 50.0,
        impl: Impl = "auto",
    ):
        super().__init__()
        for name in ("vocab_size", "embedding_size", "max_position_embeddings", "type_vocab_size", "layer_norm_eps"):
            ours, theirs = getattr(generator_config, name), getattr(discriminator_config, name)
            if ours != theirs:
                raise ValueError(
                    f"the networks share their embeddings, so {name} must agree: got {ours} for the generator and "
                    f"{theirs} for the discriminator"
                )
        if not 0 < mask_prob < 1:
            raise ValueError(f"mask_prob must be between 0 and 1, got {mask_prob}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        vocab_size = discriminator_config.vocab_size
        for token_id in (mask_token_id, *special_token_ids):
            if not 0 <= token_id < vocab_size:
                raise ValueError(f"special token ids must be below vocab_size {vocab_size}, got {token_id}")
        self.discriminator = ElectraForPreTraining(discriminator_config, impl=impl)
        self.generator = ElectraForMaskedLM(generator_config, impl=impl)
        for name in _SHARED:
            setattr(self.generator.electra.embeddings, name, getattr(self.discriminator.electra.embeddings, name))
        self.generator.tie_weights()
        self.mask_token_id, self.mask_prob = mask_token_id, mask_prob
        self.temperature = temperature
        self.gen_weight, self.disc_weight = gen_weight, disc_weight
        is_special = torch.zeros(vocab_size, dtype=torch.bool)
        is_special[[mask_token_id, *special_token_ids]] = True
        self.register_buffer("is_special", is_special, persistent=False)

    def n_slots(self, packed: PackedBatch) -> int:
        """How many masked positions a batch has at most: known without looking at it, so that shapes are static."""
        n_tokens, n_sequences = packed.batch_size * packed.seq_length, len(packed.cu_seqlens) - 1
        if packed.indices is not None:
            n_tokens = len(packed.indices)
        longest = n_sequences * max(1, floor(self.mask_prob * packed.max_seqlen + 0.5))
        return min(longest, floor(self.mask_prob * n_tokens) + n_sequences)

    def draw(self, packed: PackedBatch, n_tokens: int, generator: torch.Generator | None = None) -> RandomNumbers:
        """The random numbers of one forward, from `generator` (on its device) or torch's own."""
        device = self.is_special.device
        source = device if generator is None else generator.device
        sizes = (2, n_tokens), (self.n_slots(packed),)
        return RandomNumbers(*(torch.rand(size, generator=generator, device=source).to(device) for size in sizes))

    def forward(
        self,
        input_ids: Tensor,
        packed: PackedBatch,
        token_type_ids: Tensor | None = None,
        random: RandomNumbers | torch.Generator | None = None,
    ) -> ElectraPretrainingOutput:
        """Masks, generates, corrupts and detects.

        Args:
            input_ids: [T] int64, packed original text with its special tokens.
            packed: where the sequences start.
            token_type_ids: [T]; zeros by default.
            random: the numbers to mask and sample with, or where to draw them from.
        """
        if not isinstance(random, RandomNumbers):
            random = self.draw(packed, len(input_ids), random)
        generator, discriminator, ops = self.generator, self.discriminator, self.generator.ops
        is_candidate = ~self.is_special[input_ids]

        masked_ids, positions, targets, is_used = ops.mask_tokens(
            input_ids,
            packed.cu_seqlens,
            is_candidate,
            random.mask,
            self.n_slots(packed),
            self.mask_token_id,
            self.mask_prob,
        )
        hidden = generator.electra.encode_packed(masked_ids, packed, token_type_ids)
        head = generator.generator_lm_head
        losses, is_correct, samples = ops.mlm_head(
            generator.generator_predictions(hidden.index_select(0, positions)),
            head.weight,
            head.bias,
            targets,
            random.sample,
            self.temperature,
        )
        n_used = is_used.sum().clamp(min=1)
        generator_loss = losses.masked_fill(~is_used, 0).sum() / n_used
        is_correct = is_correct & is_used

        corrupted_ids, is_replaced = ops.place_samples(input_ids, positions, samples, is_used)
        hidden = discriminator.electra.encode_packed(corrupted_ids, packed, token_type_ids)
        discriminator_loss, logits = discriminator.discriminator_predictions(hidden, is_replaced)

        return ElectraPretrainingOutput(
            loss=self.gen_weight * generator_loss + self.disc_weight * discriminator_loss,
            generator_loss=generator_loss,
            discriminator_loss=discriminator_loss,
            generator_accuracy=is_correct.sum() / n_used,
            logits=logits,
            is_replaced=is_replaced,
            is_candidate=is_candidate,
            corrupted_ids=corrupted_ids,
            targets=targets,
            is_correct=is_correct,
            is_used=is_used,
        )

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes `generator/` and `discriminator/`, directories as on the Hub; transformers loads them unchanged."""
        self.generator.save_pretrained(Path(directory) / "generator")
        self.discriminator.save_pretrained(Path(directory) / "discriminator")
