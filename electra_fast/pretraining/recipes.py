"""Recipes of pre-training: one per size, with the paper's numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ..model.config import ElectraConfig
from .networks.options import (
    EmbeddingSharing,
    GeneratorKind,
    NetworkName,
    Objective,
    check_networks,
    check_sampling,
    networks_of,
)
from .text.sequences import PackingName

_TEMPERATURE_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Shapes of both networks and how to train them; the defaults are common to the paper's sizes.

    Sources: Clark et al. 2020, table 6, and google-research/electra, configure_pretraining.py.
    """

    name: str
    objective: Objective = "electra"
    """"electra", "mlm" (the masked language model alone, of the discriminator's size) or "electric"."""
    num_hidden_layers: int = 12
    hidden_size: int
    num_attention_heads: int
    embedding_size: int
    generator_kind: GeneratorKind = "untied"
    """"untied", "tied" to the discriminator's body, or "uniform": no network, but even draws from the vocabulary."""
    generator_size: float
    """The generator's width, heads and feed-forward size, as a share of the discriminator's. Objective mlm and a
    uniform generator ignore `generator_size` and `generator_layers`."""
    generator_layers: float = 1.0
    """The generator's depth, as a share of the discriminator's."""
    generator_embedding_size: int | None = None
    """Width of the generator's embeddings; None: the discriminator's."""
    generator_dropout: float | None = None
    """Dropout of the generator; None: the discriminator's. 0 lets the generator sample at its best."""
    frozen_generator: bool = False
    """Only sample from the generator, and do not train it."""
    embedding_sharing: EmbeddingSharing = "es"
    """"es": both networks have the same embeddings; "gdes": the discriminator's tables are the generator's plus a
    difference; "nes": nothing is shared."""
    max_position_embeddings: int = 512
    dropout: float = 0.1
    initializer_range: float = 0.02
    neighbour_heads: bool = False
    """Start the first layer's heads looking at neighbouring tokens (networks/neighbours.py), for runs of minutes."""

    vocab_size: int = 30522
    """Entries of the vocabulary to train if none is given."""
    seq_length: int = 512
    packing: PackingName = "dense"
    """"dense": full sequences; "lines": each line one; "google": the original's padded pairs of segments."""
    batch_size: int
    """Sequences per update."""
    n_steps: int
    mask_prob: float = 0.15
    keep_prob: float = 0.15
    """The share of the predicted tokens that stay unchanged in the generator's input; 0 makes each of them [MASK]."""
    replacement: bool = False
    """Draw masked positions with replacement, as the original code does."""
    whole_word: bool = False
    """Mask whole words."""
    never_label: bool = False
    """Never sample the true token."""
    temperature: float = 1.0
    """Temperature of the generator's samples."""
    temperature_end: float | None = None
    """Temperature at the end of the run, reached in 20 equal steps; None keeps it constant."""
    gen_weight: float = 1.0
    disc_weight: float = 50.0

    learning_rate: float = 2e-4
    discriminator_learning_rate: float | None = None
    """Learning rate of the discriminator; None: `learning_rate`, which shared embeddings always have."""
    decoupled: bool = False
    """Give each network its own optimizer, with its own clipping."""
    optimizer: Literal["adamw", "lamb"] = "adamw"
    warmup_steps: int = 10_000
    decay_power: float = 1.0
    """Power of the decay: the learning rate falls as (1 - progress) ** decay_power."""
    decay_after_warmup: bool = False
    """Let the learning rate fall from the end of the warm-up on, instead of from the first step."""
    weight_decay: float = 0.01
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-6
    bias_correction: bool = False
    max_grad_norm: float = 1.0

    cpu_threads: int | None = None
    """Threads to train with on a CPU; None keeps torch's number."""

    def __post_init__(self) -> None:
        if not 3 <= self.seq_length <= self.max_position_embeddings:
            raise ValueError(
                f"seq_length must be from 3 to max_position_embeddings {self.max_position_embeddings}, "
                f"got {self.seq_length}"
            )
        positive = ("batch_size", "n_steps", "learning_rate", "generator_size", "generator_layers")
        optional = ("discriminator_learning_rate", "generator_embedding_size", "temperature_end")
        given = [name for name in optional if getattr(self, name) is not None]
        for name in (*positive, *given):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        check_networks(
            self.objective, self.generator_kind, self.embedding_sharing, self.frozen_generator, self.never_label
        )
        check_sampling(
            self.objective, self.mask_prob, self.keep_prob, self.temperature, self.replacement, self.whole_word
        )
        if self.temperature_end is not None and (self.objective != "electra" or self.generator_kind == "uniform"):
            raise ValueError(
                "temperature_end needs objective electra and a generator that is a network, got objective "
                f"{self.objective} and generator_kind {self.generator_kind}"
            )
        self._check_generator()
        self._check_rates()

    def _check_generator(self) -> None:
        """Raises ValueError for a shape of the generator that its kind cannot have."""
        if self.generator_kind == "tied" and (self.generator_size, self.generator_layers) != (1, 1):
            raise ValueError(
                "a tied generator is the discriminator's network: generator_size and generator_layers must be 1, got "
                f"{self.generator_size} and {self.generator_layers}"
            )
        if self.generator_embedding_size is not None and self.embedding_sharing != "nes":
            raise ValueError(
                f"generator_embedding_size needs embedding_sharing nes, got {self.embedding_sharing}: tables that are "
                "shared have one size"
            )
        if self.generator_dropout is not None and not self._has_own_generator:
            raise ValueError(
                "generator_dropout needs a generator beside the discriminator, got objective "
                f"{self.objective} and generator_kind {self.generator_kind}"
            )

    def _check_rates(self) -> None:
        """Raises ValueError for separate training of networks if only one of them is trained."""
        is_trained_apart = self._has_own_generator and not self.frozen_generator
        for name, is_asked in (
            ("discriminator_learning_rate", self.discriminator_learning_rate is not None),
            ("decoupled", self.decoupled),
        ):
            if is_asked and not is_trained_apart:
                raise ValueError(f"{name} needs two networks that are trained, each with parameters of its own")
        if self.decoupled and self.embedding_sharing == "es":
            raise ValueError(
                "decoupled needs embedding_sharing gdes or nes, got es: shared tables would belong to both optimizers"
            )

    @property
    def _has_own_generator(self) -> bool:
        return len(networks_of(self.objective, self.generator_kind)) == 2 and self.generator_kind == "untied"

    @property
    def networks(self) -> tuple[NetworkName, ...]:
        """The networks that the recipe trains or samples from."""
        return networks_of(self.objective, self.generator_kind)

    def temperature_at(self, progress: float) -> float:
        """The temperature when the share `progress`, in [0, 1], of the run is done.

        It changes in equal steps, 20 in all.
        """
        end = self.temperature if self.temperature_end is None else self.temperature_end
        done = round(min(1.0, progress) * _TEMPERATURE_STEPS) / _TEMPERATURE_STEPS
        return self.temperature + (end - self.temperature) * done

    def discriminator_config(self, vocab_size: int, pad_token_id: int = 0) -> ElectraConfig | None:
        """The discriminator's shape; None with objective mlm, which has no discriminator."""
        return self._full_size(vocab_size, pad_token_id) if "discriminator" in self.networks else None

    def generator_config(self, vocab_size: int, pad_token_id: int = 0) -> ElectraConfig | None:
        """The generator's shape, with objective electric that of each tower; None for a uniform generator."""
        if "generator" not in self.networks:
            return None
        if not self._has_own_generator:
            return self._full_size(vocab_size, pad_token_id)
        return self._config(
            vocab_size,
            pad_token_id,
            self.generator_embedding_size or self.embedding_size,
            round(self.hidden_size * self.generator_size),
            max(1, round(self.num_hidden_layers * self.generator_layers)),
            max(1, round(self.num_attention_heads * self.generator_size)),
            self.dropout if self.generator_dropout is None else self.generator_dropout,
        )

    def _full_size(self, vocab_size: int, pad_token_id: int) -> ElectraConfig:
        return self._config(
            vocab_size,
            pad_token_id,
            self.embedding_size,
            self.hidden_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.dropout,
        )

    def _config(
        self,
        vocab_size: int,
        pad_token_id: int,
        embedding_size: int,
        hidden_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        dropout: float,
    ) -> ElectraConfig:
        return ElectraConfig(
            vocab_size=vocab_size,
            embedding_size=embedding_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=num_attention_heads,
            intermediate_size=4 * hidden_size,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            max_position_embeddings=self.max_position_embeddings,
            initializer_range=self.initializer_range,
            pad_token_id=pad_token_id,
        )


# Our recipe for a CPU and a few minutes. It takes many small steps: with few large ones the generator stays on its
# unigram plateau. A run this short also needs Adam's bias correction: without it, the first hundreds of updates are
# several times too long.
TINY = Recipe(
    name="tiny",
    num_hidden_layers=3,
    hidden_size=128,
    num_attention_heads=4,
    embedding_size=128,
    generator_size=1.0,
    generator_layers=1 / 3,
    max_position_embeddings=64,
    dropout=0.0,
    initializer_range=0.05,
    # Two minutes bring the generator to an accuracy of 26 % instead of 21 %, in two seeds of three.
    neighbour_heads=True,
    vocab_size=4000,
    seq_length=64,
    batch_size=8,
    n_steps=10_000,
    # At temperature 1 the discriminator must know more than the generator, and reaches an AUC of 0.53 to 0.55 in a few
    # minutes. At 2 it learns to find words that do not fit (0.81), and the generator learns no less.
    temperature=2.0,
    learning_rate=2e-3,
    warmup_steps=400,
    bias_correction=True,
    # Steps this small gain little from a second thread, and wait long for it on a busy machine.
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

# The recipe of google/electra-small-* on the Hub: a generator of full size, longer sequences, four times the steps.
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

# NVIDIA's recipe (DeepLearningExamples, TensorFlow2/LanguageModeling/ELECTRA): few updates with very large batches,
# short sequences first. The second phase begins with the networks of the first.
BASE_LAMB_128 = replace(
    BASE,
    name="base-lamb-128",
    seq_length=128,
    batch_size=67_584,
    n_steps=10_000,
    optimizer="lamb",
    learning_rate=6e-3,
    warmup_steps=2_000,
    decay_power=0.5,
    decay_after_warmup=True,
    adam_betas=(0.878, 0.974),
    bias_correction=True,
)
BASE_LAMB_512 = replace(
    BASE_LAMB_128,
    name="base-lamb-512",
    seq_length=512,
    batch_size=27_648,
    n_steps=933,
    learning_rate=4e-3,
    warmup_steps=200,
)

PRESETS: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (TINY, SMALL, SMALL_PLUS, BASE, LARGE, BASE_LAMB_128, BASE_LAMB_512)
}
PresetName = Literal[tuple(PRESETS)]


def preset(name: str) -> Recipe:
    """The recipe called `name`; raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"the preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
