"""The pre-training objectives: replaced-token detection, masked language modelling and Electric.

Sources: Clark et al. 2020, section 2; details from google-research/electra, run_pretraining.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import floor, log
from pathlib import Path

import torch
from torch import Tensor, nn

from ... import ops
from ...model.base import ElectraPreTrainedModel
from ...model.config import ElectraConfig
from ...model.modeling import ElectraForMaskedLM, ElectraForPreTraining
from ...model.outputs import ModelOutput
from ...model.packing import PackedBatch
from ...ops import Impl
from ...ops.reference import rtd_loss
from .generators import Guesses, MaskedBatch, Sampling, TwoTowerGenerator, UniformGenerator, guess_masked
from .masking import mask_words
from .options import (
    EmbeddingSharing,
    GeneratorKind,
    NetworkName,
    Objective,
    check_networks,
    check_sampling,
    networks_of,
)
from .sharing import check_embeddings, check_same_shape, load_merged, merged_state, share_embeddings


@dataclass
class ElectraPretrainingOutput(ModelOutput):
    """Output of one forward over T packed tokens with N slots for masked positions.

    Fields of a network that does not exist are None: with objective mlm all of the discriminator's, with a uniform
    generator its loss and accuracy and `is_correct`.

    Attributes:
        loss: gen_weight * generator_loss + disc_weight * discriminator_loss; with a frozen generator only the
            second term.
        generator_loss: mean cross-entropy at the masked positions; with objective electric, at all candidates.
        discriminator_loss: mean binary cross-entropy over all tokens but padding.
        generator_accuracy: share of the masked positions where the likeliest token is the true one.
        logits: [T], the discriminator's logits, above zero where the token looks replaced. With objective electric they
            include log q and the log-odds of being masked.
        is_replaced: [T] bool, which tokens are replaced. A sample equal to the original token counts as original, but
            with objective electric every masked token counts as replaced.
        is_candidate: [T] bool, tokens that may be masked: all but the special ones.
        corrupted_ids: [T] int64, the text that the discriminator read.
        targets, is_correct, is_used: [N], the true token of each masked slot, whether it is the generator's likeliest
            token, and whether the slot is in use; only then do the others mean anything.
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
    """Generator and discriminator trained together.

    By default the three embedding tables and the embeddings' LayerNorm are the same Parameters in both networks; the
    projection from them to the hidden size is each network's own. The discriminator's gradient does not pass
    through the samples.

    Args:
        generator_config, discriminator_config: shapes of the networks; sizes of shared embeddings must agree. None for
            a network that does not exist: the discriminator with objective mlm, or a uniform generator. A tied
            generator has the discriminator's config.
        mask_token_id: id written at a masked position.
        special_token_ids: tokens that are never masked: [PAD], [CLS], [SEP], [MASK].
        mask_prob: share of a sequence's tokens to predict.
        temperature: divisor of the generator's logits in sampling, not in its loss; above 1 the replacements are
            stranger and easier to detect. The attribute may be set between steps, also to an fp32
            tensor [] on the device, which a CUDA graph reads at each replay.
        gen_weight, disc_weight: weights of the two losses in their sum.
        impl: code that serves the ops, "auto", "triton" or "torch".
        objective: "electra", "mlm" or "electric".
        generator_kind: "untied", "tied" to the discriminator's body, or "uniform".
        embedding_sharing: "es", "gdes" or "nes".
        frozen_generator: whether the generator gets no gradient, and the sum leaves out its loss.
        keep_prob: share of the predicted tokens that stay unchanged in the generator's input, instead of [MASK].
        replacement: whether to draw masked positions with replacement, as google-research/electra does.
        never_label: whether to never sample the true token.

    Raises:
        ValueError: configs that disagree or are missing, choices that contradict each other, a share outside (0, 1), a
            temperature that is not positive, an id beyond the vocabulary.
    """

    def __init__(
        self,
        generator_config: ElectraConfig | None,
        discriminator_config: ElectraConfig | None,
        mask_token_id: int = 103,
        special_token_ids: Sequence[int] = (0, 101, 102, 103),
        mask_prob: float = 0.15,
        temperature: float = 1.0,
        gen_weight: float = 1.0,
        disc_weight: float = 50.0,
        impl: Impl = "auto",
        *,
        objective: Objective = "electra",
        generator_kind: GeneratorKind = "untied",
        embedding_sharing: EmbeddingSharing = "es",
        frozen_generator: bool = False,
        keep_prob: float = 0.15,
        replacement: bool = False,
        never_label: bool = False,
    ):
        super().__init__()
        check_networks(objective, generator_kind, embedding_sharing, frozen_generator, never_label)
        check_sampling(objective, mask_prob, keep_prob, temperature, replacement, whole_word=False)
        self.networks: tuple[NetworkName, ...] = networks_of(objective, generator_kind)
        for name, config in (("generator", generator_config), ("discriminator", discriminator_config)):
            if (config is not None) != (name in self.networks):
                wanted = "an ElectraConfig" if name in self.networks else "None"
                got = "None" if config is None else "a config"
                raise ValueError(
                    f"objective {objective} with generator_kind {generator_kind} needs {name}_config to be {wanted}, "
                    f"got {got}"
                )
        vocab_size = (discriminator_config or generator_config).vocab_size
        for token_id in (mask_token_id, *special_token_ids):
            if not 0 <= token_id < vocab_size:
                raise ValueError(f"special token ids must be below vocab_size {vocab_size}, got {token_id}")
        is_special = torch.zeros(vocab_size, dtype=torch.bool)
        is_special[[mask_token_id, *special_token_ids]] = True
        self.register_buffer("is_special", is_special, persistent=False)
        self.register_buffer("is_maskable", ~is_special, persistent=False)

        if discriminator_config is not None:
            self.discriminator = ElectraForPreTraining(discriminator_config, impl=impl)
        if generator_config is None:
            self.generator = UniformGenerator(is_special)
        elif objective == "electric":
            self.generator = TwoTowerGenerator(generator_config, impl)
        else:
            self.generator = ElectraForMaskedLM(generator_config, impl=impl)
        if generator_kind == "tied":
            check_same_shape(generator_config, discriminator_config)
            self.generator.electra = self.discriminator.electra
            self.generator.tie_weights()
        elif len(self.networks) == 2:
            check_embeddings(generator_config, discriminator_config, embedding_sharing)
            share_embeddings(self.generator, self.discriminator, embedding_sharing)
        if frozen_generator:
            self.generator.requires_grad_(False)

        self.objective, self.frozen_generator = objective, frozen_generator
        self.mask_token_id, self.mask_prob, self.keep_prob = mask_token_id, mask_prob, keep_prob
        self.replacement, self.never_label = replacement, never_label
        self.temperature: float | Tensor = temperature
        self.gen_weight, self.disc_weight = gen_weight, disc_weight
        self.ops = ops.select(impl)

    def n_slots(self, packed: PackedBatch) -> int:
        """The largest possible number of masked positions; it does not depend on the ids, so shapes are static."""
        n_tokens, n_sequences = packed.batch_size * packed.seq_length, packed.n_sequences
        if packed.indices is not None:
            n_tokens = len(packed.indices)
        longest = n_sequences * max(1, floor(self.mask_prob * packed.max_seqlen + 0.5))
        return min(longest, floor(self.mask_prob * n_tokens) + n_sequences)

    def forward(
        self,
        input_ids: Tensor,
        packed: PackedBatch,
        token_type_ids: Tensor | None = None,
        random: Tensor | torch.Generator | None = None,
        word_starts: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> ElectraPretrainingOutput:
        """Masks, generates, corrupts and detects.

        Args:
            input_ids: [T] int64, packed original text with its special tokens.
            packed: starts of the sequences.
            token_type_ids: [T] int64; zeros by default.
            random: [3, T] fp32 in [0, 1), numbers that decide which tokens are chosen, which of them become [MASK], and
                what is sampled for them; or a generator to draw them from, by default torch's own.
            word_starts: [T] bool, the first token of each word, to mask whole words; None masks single tokens.
            position_ids: [T] int64; by default each token's place in its sequence.
        """
        if not isinstance(random, Tensor):
            source = input_ids.device if random is None else random.device
            random = torch.rand(3, len(input_ids), generator=random, device=source).to(input_ids.device)
        batch = self._mask(input_ids, packed, token_type_ids, random[:2], word_starts, position_ids)
        guesses = self._guess(batch, random[2])
        found = {"is_candidate": batch.is_candidate, "targets": batch.targets, "is_used": batch.is_used}
        loss = None
        if guesses.samples is not None:
            found |= self._detect(batch, guesses)
            loss = self.disc_weight * found["discriminator_loss"]
        if guesses.loss is not None:
            accuracy = self.ops.masked_mean(guesses.is_correct, batch.is_used)
            found |= {"generator_loss": guesses.loss, "generator_accuracy": accuracy, "is_correct": guesses.is_correct}
            if loss is None:
                loss = self.gen_weight * guesses.loss
            elif not self.frozen_generator:
                loss = torch.add(loss, guesses.loss, alpha=self.gen_weight)
        return ElectraPretrainingOutput(loss=loss, **found)

    def _mask(
        self,
        input_ids: Tensor,
        packed: PackedBatch,
        token_type_ids: Tensor | None,
        uniform: Tensor,
        word_starts: Tensor | None,
        position_ids: Tensor | None = None,
    ) -> MaskedBatch:
        is_candidate = self.is_maskable[input_ids]
        if packed.n_padding:
            is_candidate &= packed.is_text(len(input_ids))
        text = input_ids, packed.cu_seqlens, is_candidate
        options = self.n_slots(packed), self.mask_token_id, self.mask_prob, 1 - self.keep_prob
        if word_starts is None:
            masked = self.ops.mask_tokens(*text, uniform, *options, self.replacement)
        elif self.replacement:
            raise ValueError("whole words are drawn without replacement: expected word_starts to be None, got a tensor")
        else:
            masked = mask_words(*text, word_starts, uniform, *options)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        if position_ids is None:
            position_ids = packed.position_ids(len(input_ids))
        return MaskedBatch(input_ids, packed, token_type_ids, position_ids, is_candidate, *masked)

    def _guess(self, batch: MaskedBatch, uniform: Tensor) -> Guesses:
        """The generator's loss and samples."""
        has_reader = "discriminator" in self.networks
        sampling = Sampling(uniform if has_reader else None, self.temperature, self.never_label)
        with torch.no_grad() if self.frozen_generator else nullcontext():
            if isinstance(self.generator, ElectraForMaskedLM):
                return guess_masked(self.generator, batch, sampling)
            return self.generator.guess(batch, sampling)

    def _detect(self, batch: MaskedBatch, guesses: Guesses) -> dict[str, Tensor]:
        """The discriminator's loss and logits on the text with the generator's samples in it."""
        corrupted_ids, is_replaced = self.ops.place_samples(
            batch.input_ids, batch.positions, guesses.samples, batch.is_used
        )
        hidden = self.discriminator.electra.encode_packed(
            corrupted_ids, batch.packed, batch.token_type_ids, batch.position_ids
        )
        if guesses.log_q is None:
            labels = _of_text(batch.packed, is_replaced)
            loss, logits = self.discriminator.discriminator_predictions(hidden, labels)
        else:
            # Noise-contrastive estimation: the odds that a token is a sample are q * mask_prob / (p * (1 - mask_prob)).
            is_replaced = batch.place(batch.is_used, torch.zeros_like(corrupted_ids)) != 0
            _, logits = self.discriminator.discriminator_predictions(hidden)
            logits = logits.to(guesses.log_q.dtype) + guesses.log_q + log(self.mask_prob / (1 - self.mask_prob))
            loss = rtd_loss(logits, _of_text(batch.packed, is_replaced))
        return {
            "discriminator_loss": loss,
            "logits": logits,
            "is_replaced": is_replaced,
            "corrupted_ids": corrupted_ids,
        }

    @property
    def hub_networks(self) -> tuple[NetworkName, ...]:
        """The networks that have a form on the Hub: all but a uniform or a two-tower generator."""
        return tuple(name for name in self.networks if isinstance(getattr(self, name), ElectraPreTrainedModel))

    def save_network(self, name: NetworkName, directory: str | os.PathLike) -> None:
        """Writes one of `hub_networks` in the Hub's form, which transformers loads unchanged."""
        network = getattr(self, name)
        network.save_pretrained(directory, state_dict=merged_state(network))

    def load_network(self, name: NetworkName, state: Mapping[str, Tensor]) -> None:
        """Loads one of `hub_networks` from a state dict in the Hub's form; with shared tables, the generator first."""
        load_merged(getattr(self, name), state)

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes `generator/` and `discriminator/`, those that are `hub_networks`.

        Objective mlm writes only `generator/`; objective electric or a uniform generator, only `discriminator/`. A tied
        network is written twice, once with each head.
        """
        for name in self.hub_networks:
            self.save_network(name, Path(directory) / name)


def _of_text(packed: PackedBatch, is_replaced: Tensor) -> Tensor:
    """Labels [T] of the replaced-token loss: padding, if there is any, is below zero and does not count."""
    if not packed.n_padding:
        return is_replaced
    return is_replaced.to(torch.int8).masked_fill(~packed.is_text(len(is_replaced)), -1)
