"""Floating-point operations of pre-training.

There are two ways to count, and their figures cannot be compared:

- `training_flops` is for hours and utilisation. It counts matrix products alone, 2 m n k each, as GPUs' peaks do. The
  backward counts twice the forward, because it has two products for each (Chowdhery et al. 2022, appendix B). Looking
  up embeddings is free, the vocabulary head sees masked positions only, and recomputing to save memory does not count.
- `papers_flops` is for comparison with published figures: google-research/electra, flops_computation.py. It counts
  element-wise work too, and the backward as much as the forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from ..model.config import ElectraConfig
from .recipes import Recipe


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of each network, for one sequence or another amount of work."""

    generator: float
    discriminator: float

    @property
    def total(self) -> float:
        return self.generator + self.discriminator


def training_flops(recipe: Recipe, vocab_size: int) -> Flops:
    """Counts forward and backward of one sequence of `recipe.seq_length` tokens, matrix products alone.

    A frozen generator has no backward. The two towers of objective electric count full, not causal, attention and
    predict every token.
    """
    length = recipe.seq_length
    generator, discriminator = recipe.generator_config(vocab_size), recipe.discriminator_config(vocab_size)
    of_generator = of_discriminator = 0
    if generator is not None:
        n_masked = max(1, floor(recipe.mask_prob * length + 0.5))
        n_towers, n_predicted = (2, length) if recipe.objective == "electric" else (1, n_masked)
        head = 2 * n_predicted * generator.embedding_size * (n_towers * generator.hidden_size + vocab_size)
        of_generator = n_towers * _encoder_flops(generator, length) + head
    if discriminator is not None:
        head = 2 * length * discriminator.hidden_size * (discriminator.hidden_size + 1)
        of_discriminator = _encoder_flops(discriminator, length) + head
    return Flops((1.0 if recipe.frozen_generator else 3.0) * of_generator, 3.0 * of_discriminator)


def _encoder_flops(config: ElectraConfig, length: int) -> int:
    """Counts a forward of one sequence: projection of embeddings, then layers of matrices and attention."""
    hidden, embedding = config.hidden_size, config.embedding_size
    projection = 2 * length * embedding * hidden if embedding != hidden else 0
    matrices = 2 * length * hidden * (4 * hidden + 2 * config.intermediate_size)
    attention = 4 * length * length * hidden
    return projection + config.num_hidden_layers * (matrices + attention)


def mfu(tokens_per_second: float, recipe: Recipe, vocab_size: int, peak_flops: float) -> float:
    """Model FLOPs utilisation: the share of the peak that the step's matrix products reach, by `training_flops`.

    Args:
        tokens_per_second: speed of all GPUs together, padding included.
        peak_flops: peak of all GPUs together (`training.gpus.peak_flops`).
    """
    return tokens_per_second / recipe.seq_length * training_flops(recipe, vocab_size).total / peak_flops


# Operations per element, from the paper's script.
_DROPOUT, _LAYER_NORM, _GELU, _SOFTMAX = 4, 5, 8, 5
_PAPERS_MASKED_SHARE = 0.15625


def papers_flops(recipe: Recipe, vocab_size: int, sparse_lookup: bool = False) -> Flops:
    """Counts forward and backward of one sequence as google-research/electra and the paper's tables do.

    Args:
        recipe: a recipe with objective electra and a generator that is trained; the script counts no other.
        sparse_lookup: whether looking up an embedding is free; the paper counts a product with one-hot vectors.
    """
    if recipe.objective != "electra" or recipe.generator_kind == "uniform" or recipe.frozen_generator:
        raise ValueError(
            "the paper's count needs objective electra and a generator that is trained, got objective "
            f"{recipe.objective}, generator_kind {recipe.generator_kind}, frozen_generator {recipe.frozen_generator}"
        )
    length = recipe.seq_length
    generator, discriminator = recipe.generator_config(vocab_size), recipe.discriminator_config(vocab_size)
    hidden, embedding = generator.hidden_size, generator.embedding_size
    vocabulary_head = _PAPERS_MASKED_SHARE * (
        2 * embedding * vocab_size
        + 2 * hidden * embedding
        + (1 + _GELU + _LAYER_NORM) * embedding
        + (_SOFTMAX + 2) * vocab_size
    )
    replaced_token_head = discriminator.hidden_size * (2 * discriminator.hidden_size + 1 + _GELU + 2)
    return Flops(
        2 * length * (_papers_encoder_flops(generator, length, sparse_lookup) + vocabulary_head),
        2 * length * (_papers_encoder_flops(discriminator, length, sparse_lookup) + replaced_token_head),
    )


def _papers_encoder_flops(config: ElectraConfig, length: int, sparse_lookup: bool) -> int:
    """Counts a forward per token."""
    hidden, embedding, heads = config.hidden_size, config.embedding_size, config.num_attention_heads
    intermediate = config.intermediate_size
    lookup = 0 if sparse_lookup else 2 * embedding * config.vocab_size
    inputs = embedding * (2 * (length + 2) + 2 + _LAYER_NORM + _DROPOUT)
    projection = hidden * (2 * embedding + 1) if embedding != hidden else 0
    attention = 2 * 2 * hidden * length + (_SOFTMAX + _DROPOUT + 1) * length * heads
    matrices = 2 * hidden * (4 * hidden + 2 * intermediate)
    biases = 3 * hidden + hidden + intermediate + hidden
    # The script counts 5 operations for the whole of attention's LayerNorm, not 5 per element.
    rest = 2 * (_DROPOUT + 1) * hidden + _LAYER_NORM + _LAYER_NORM * hidden + _GELU * intermediate
    return lookup + inputs + projection + config.num_hidden_layers * (matrices + attention + biases + rest)
