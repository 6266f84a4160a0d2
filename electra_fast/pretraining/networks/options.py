"""The choices that make up a pre-training objective: this file alone decides which of them go together."""

from __future__ import annotations

from typing import Any, Literal, get_args

Objective = Literal["electra", "mlm", "electric"]
"""electra: replaced-token detection (Clark et al. 2020a). mlm: the masked language model alone, in full size. electric:
the energy-based cloze model (Clark et al. 2020b), whose negatives come from a two-tower generator."""

GeneratorKind = Literal["untied", "tied", "uniform"]
"""untied: a network of its own. tied: the discriminator's body with another head. uniform: no network, but
replacements drawn evenly from the vocabulary."""

EmbeddingSharing = Literal["es", "gdes", "nes"]
"""es: both networks have the same embeddings. gdes: the discriminator's tables are the generator's, without gradient,
plus a learned difference (He et al. 2021, DeBERTaV3). nes: nothing is shared."""

NetworkName = Literal["generator", "discriminator"]


def check_choice(name: str, value: Any, kind: Any) -> None:
    """Raises ValueError for a value that is not in the Literal `kind`."""
    if value not in get_args(kind):
        raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}")


def networks_of(objective: Objective, generator_kind: GeneratorKind) -> tuple[NetworkName, ...]:
    """The networks of an objective, generator first."""
    if objective == "mlm":
        return ("generator",)
    return ("discriminator",) if generator_kind == "uniform" else ("generator", "discriminator")


def check_networks(
    objective: Objective,
    generator_kind: GeneratorKind,
    embedding_sharing: EmbeddingSharing,
    frozen_generator: bool,
    never_label: bool,
) -> None:
    """Raises ValueError for an unknown name, and for choices that contradict each other."""
    check_choice("objective", objective, Objective)
    check_choice("generator_kind", generator_kind, GeneratorKind)
    check_choice("embedding_sharing", embedding_sharing, EmbeddingSharing)
    if objective != "electra" and generator_kind != "untied":
        reason = {
            "mlm": "it has no discriminator to be tied to or to sample for",
            "electric": "it needs the probabilities of its two-tower generator",
        }[objective]
        raise ValueError(f"objective {objective} needs generator_kind untied, got {generator_kind}: {reason}")
    if embedding_sharing != "es" and (objective == "mlm" or generator_kind != "untied"):
        what = "objective mlm" if objective == "mlm" else f"a {generator_kind} generator"
        raise ValueError(f"with {what} there is one network, so embedding_sharing must be es, got {embedding_sharing}")
    if frozen_generator and (objective == "mlm" or generator_kind != "untied"):
        what = "objective mlm" if objective == "mlm" else f"a {generator_kind} generator"
        raise ValueError(f"frozen_generator needs a generator apart from the network that learns, got {what}")
    if frozen_generator and embedding_sharing == "es":
        raise ValueError(
            "frozen_generator needs embedding_sharing gdes or nes, got es: shared tables would go on learning"
        )
    if never_label and objective != "electra":
        raise ValueError(f"never_label needs objective electra, got {objective}: what it samples must not be narrowed")


def check_sampling(
    objective: Objective, mask_prob: float, keep_prob: float, temperature: float, replacement: bool, whole_word: bool
) -> None:
    """Raises ValueError for a share or a temperature out of range, and for choices that contradict each other."""
    if not 0 < mask_prob < 1:
        raise ValueError(f"mask_prob must be between 0 and 1, got {mask_prob}")
    if not 0 <= keep_prob < 1:
        raise ValueError(f"keep_prob must be at least 0 and below 1, got {keep_prob}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if objective == "electric" and temperature != 1:
        raise ValueError(
            f"objective electric needs temperature 1, got {temperature}: its loss has the probability of each sample"
        )
    if whole_word and replacement:
        raise ValueError("whole words are drawn without replacement: replacement must be False, got True")
