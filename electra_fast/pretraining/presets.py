"""The recipes: one per size, with the paper's numbers."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import ElectraConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Shapes of both networks and how to train them; the defaults are what the paper's sizes have in common.

    Sources: Clark et al. 2020, table 6, and google-research/electra, configure_pretraining.py.
    """

    name: str
    num_hidden_layers: int = 12
    hidden_size: int
    num_attention_heads: int
    embedding_size: int
    generator_size: float
    """The generator's width, heads and feed-forward size, as a share of the discriminator's; its depth is the same."""
    max_position_embeddings: int = 512
    dropout: float = 0.1
    initializer_range: float = 0.02

    vocab_size: int = 30522
    """Entries to train a vocabulary for, where none is given."""
    seq_length: int = 512
    batch_size: int
    """Sequences an update."""
    n_steps: int
    mask_prob: float = 0.15
    temperature: float = 1.0
    """Of the generator's samples."""
    gen_weight: float = 1.0
    disc_weight: float = 50.0

    learning_rate: float = 2e-4
    warmup_steps: int = 10_000
    weight_decay: float = 0.01
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-6
    bias_correction: bool = False
    max_grad_norm: float = 1.0

    cpu_threads: int | None = None
    """Threads to train with on a CPU; None leaves torch's number."""

    def __post_init__(self) -> None:
        if not 3 <= self.seq_length <= self.max_position_embeddings:
            raise ValueError(
                f"seq_length must be from 3 to max_position_embeddings {self.max_position_embeddings}, "
                f"got {self.seq_length}"
            )
        for name in ("batch_size", "n_steps", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def discriminator_config(self, vocab_size: int, pad_token_id: int = 0) -> ElectraConfig:
        return self._config(vocab_size, pad_token_id, 1.0)

    def generator_config(self, vocab_size: int, pad_token_id: int = 0) -> ElectraConfig:
        return self._config(vocab_size, pad_token_id, self.generator_size)

    def _config(self, vocab_size: int, pad_token_id: int, share: float) -> ElectraConfig:
        hidden_size = round(self.hidden_size * share)
        return ElectraConfig(
            vocab_size=vocab_size,
            embedding_size=self.embedding_size,
            hidden_size=hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=max(1, round(self.num_attention_heads * share)),
            intermediate_size=4 * hidden_size,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            max_position_embeddings=self.max_position_embeddings,
            initializer_range=self.initializer_range,
            pad_token_id=pad_token_id,
        )


# Ours, for a CPU and a few minutes. Many small steps: with few large ones the generator stays on its unigram plateau.
# Few steps also want Adam's bias corrected: without it, the updates of the first hundreds are several times too long.
TINY = Recipe(
    name="tiny",
    num_hidden_layers=3,
    hidden_size=128,
    num_attention_heads=2,
    embedding_size=128,
    generator_size=0.25,
    max_position_embeddings=64,
    dropout=0.0,
    initializer_range=0.05,
    vocab_size=4000,
    seq_length=64,
    batch_size=8,
    n_steps=10_000,
    # At temperature 1 a few minutes bring the discriminator to an AUC of 0.53 to 0.55: it must know more than the
    # generator. At 2 it learns to tell words that do not belong (0.79), and the generator learns no less.
    temperature=2.0,
    learning_rate=2e-3,
    warmup_steps=200,
    bias_correction=True,
    # Steps this small gain little from a second thread, and wait for it long where the machine is busy.
    cpu_threads=1,
)

SMALL = Recipe(
    name="small",
    hidden_size=256,
    num_attention_heads=4,
    embedding_size=128,
    generator_size=0.25,
    seq_length=128,
    batch_size=128,
    n_steps=1_000_000,
    learning_rate=5e-4,
)

# What google/electra-small-* on the Hub are: a generator of full size, longer sequences, four times the steps.
SMALL_PLUS = Recipe(
    name="small-plus",
    hidden_size=256,
    num_attention_heads=4,
    embedding_size=128,
    generator_size=1.0,
    seq_length=512,
    batch_size=128,
    n_steps=4_000_000,
    learning_rate=5e-4,
)

BASE = Recipe(
    name="base",
    hidden_size=768,
    num_attention_heads=12,
    embedding_size=768,
    generator_size=1 / 3,
    batch_size=256,
    n_steps=766_000,
)

LARGE = Recipe(
    name="large",
    num_hidden_layers=24,
    hidden_size=1024,
    num_attention_heads=16,
    embedding_size=1024,
    generator_size=0.25,
    batch_size=2048,
    n_steps=400_000,
    mask_prob=0.25,
)

PRESETS: dict[str, Recipe] = {recipe.name: recipe for recipe in (TINY, SMALL, SMALL_PLUS, BASE, LARGE)}


def preset(name: str) -> Recipe:
    """The recipe of that name; raises ValueError for one that does not exist."""
    if name not in PRESETS:
        raise ValueError(f"the preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
