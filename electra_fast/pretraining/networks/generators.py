"""Sources of replacements: a masked language model, a two-tower cloze model, or even draws from the vocabulary."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ... import ops
from ...model.backbone import ElectraModel
from ...model.config import ElectraConfig
from ...model.heads import ElectraGeneratorPredictions
from ...model.modeling import ElectraForMaskedLM
from ...model.packing import PackedBatch
from ...ops import Impl


@dataclass(frozen=True)
class MaskedBatch:
    """T packed tokens of which up to N are masked.

    Attributes:
        input_ids: [T] int64, the original text.
        packed: starts of the sequences.
        token_type_ids, position_ids: [T] int64, which all networks read.
        is_candidate: [T] bool, tokens that may be masked.
        masked_ids: [T] int64, the text with [MASK] in it.
        positions, targets, is_used: [N], places and ids of the masked tokens, and whether a slot is in use.
    """

    input_ids: Tensor
    packed: PackedBatch
    token_type_ids: Tensor
    position_ids: Tensor
    is_candidate: Tensor
    masked_ids: Tensor
    positions: Tensor
    targets: Tensor
    is_used: Tensor

    def place(self, values: Tensor, over: Tensor) -> Tensor:
        """Writes the used slots' values [N] over [T]; a token with several slots gets the largest value."""
        # Unused slots write to an extra entry behind the last token.
        index = torch.where(self.is_used, self.positions, len(over))
        values = values.to(over.dtype)
        return torch.cat([over, over[:1]]).scatter_reduce(0, index, values, "amax", include_self=False)[:-1]


@dataclass(frozen=True)
class Sampling:
    """Arguments of a generator's sampling: `uniform` [T] fp32 in [0, 1), or None for no samples; see `ops.mlm_head`."""

    uniform: Tensor | None
    temperature: float | Tensor
    never_label: bool


@dataclass(frozen=True)
class Guesses:
    """A generator's output for a masked batch.

    Attributes:
        samples: [N] int64, the replacements; None if none were asked for.
        loss: scalar; None without a network.
        is_correct: [N] bool, whether the likeliest token of a slot in use is the true one; None without a network.
        log_q: [T], the log-probability of each token of the corrupted text given the others, without gradient; None
            unless a cloze model made it.
    """

    samples: Tensor | None
    loss: Tensor | None = None
    is_correct: Tensor | None = None
    log_q: Tensor | None = None


def guess_masked(generator: ElectraForMaskedLM, batch: MaskedBatch, sampling: Sampling) -> Guesses:
    """Samples from a masked language model; its loss is the mean over the masked tokens."""
    text = batch.masked_ids, batch.packed, batch.token_type_ids, batch.position_ids
    hidden = generator.electra.encode_packed(*text, read=batch.positions)
    head = generator.generator_lm_head
    losses, is_correct, samples = generator.ops.mlm_head(
        generator.generator_predictions(hidden),
        head.weight,
        head.bias,
        batch.targets,
        None if sampling.uniform is None else sampling.uniform[batch.positions],
        sampling.temperature,
        sampling.never_label,
    )
    return Guesses(samples, generator.ops.masked_mean(losses, batch.is_used), is_correct)


class UniformGenerator(nn.Module):
    """A generator without a network: all tokens of the vocabulary but the special ones are equally likely.

    Args:
        is_special: [V] bool, the special tokens.
    """

    def __init__(self, is_special: Tensor):
        super().__init__()
        self.register_buffer("tokens", (~is_special).nonzero().squeeze(1), persistent=False)
        self.register_buffer("rank", (~is_special).cumsum(0) - 1, persistent=False)

    def guess(self, batch: MaskedBatch, sampling: Sampling) -> Guesses:
        n_tokens = len(self.tokens) - sampling.never_label
        index = (sampling.uniform[batch.positions] * n_tokens).long().clamp(max=n_tokens - 1)
        if sampling.never_label:
            index = index + (index >= self.rank[batch.targets])
        return Guesses(self.tokens[index])


class TwoTowerGenerator(nn.Module):
    """Electric's noise distribution: it predicts every token from all others, in one pass over unmasked text.

    One causal encoder reads from the left, another from the right. One head, whose matrix is the word table, predicts a
    token from the left encoder's state before it and the right encoder's state after it (Clark et al. 2020,
    "Pre-Training Transformers as Energy-Based Cloze Models", section 2; google-research/electra,
    TwoTowerClozeTransformer). Both towers have the same embeddings. The first and the last token of a sequence take a
    state from its other end: they are special and not predicted.
    """

    def __init__(self, config: ElectraConfig, impl: Impl = "auto"):
        super().__init__()
        causal = copy.deepcopy(config)
        causal.is_decoder = True
        joined = copy.deepcopy(config)
        joined.hidden_size = 2 * config.hidden_size
        self.left, self.right = ElectraModel(causal, impl), ElectraModel(causal, impl)
        self.generator_predictions = ElectraGeneratorPredictions(joined, impl)
        self.generator_predictions.apply(self.left._init_weights)
        self.generator_lm_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.ops = ops.select(impl)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Gives the right tower the left one's embeddings."""
        for name, module in self.left.embeddings.named_children():
            setattr(self.right.embeddings, name, module)

    def guess(self, batch: MaskedBatch, sampling: Sampling) -> Guesses:
        """Samples for the masked tokens; the loss is the mean over all tokens that may be masked."""
        hidden = self._encode(batch.input_ids, batch.packed, batch.token_type_ids, batch.position_ids)
        head = self.left.embeddings.word_embeddings.weight, self.generator_lm_bias
        losses, is_correct, samples = self.ops.mlm_head(hidden, *head, batch.input_ids, sampling.uniform)
        samples = samples[batch.positions]
        with torch.no_grad():
            # The corrupted text differs at masked tokens only.
            losses_of_samples, _, _ = self.ops.mlm_head(hidden.index_select(0, batch.positions), *head, samples)
            log_q = batch.place(-losses_of_samples, -losses)
        loss = self.ops.masked_mean(losses, batch.is_candidate)
        return Guesses(samples, loss, is_correct[batch.positions], log_q)

    def _encode(self, input_ids: Tensor, packed: PackedBatch, types: Tensor, places: Tensor) -> Tensor:
        """Encodes ids, types and positions [T] as states [T, E], the input of the vocabulary's logits."""
        tokens = torch.arange(len(input_ids), device=input_ids.device)
        first = tokens - places
        last = first + packed.cu_seqlens.diff().long()[torch.bucketize(tokens, packed.cu_seqlens[1:], right=True)] - 1
        backwards = first + last - tokens
        left = self.left.encode_packed(input_ids, packed, types, places)
        right = self.right.encode_packed(input_ids[backwards], packed, types[backwards], places[backwards])
        before = torch.where(tokens == first, last, tokens - 1)
        after = torch.where(tokens == last, first, tokens + 1)
        states = [left.index_select(0, before), right.index_select(0, backwards[after])]
        return self.generator_predictions(torch.cat(states, -1))
