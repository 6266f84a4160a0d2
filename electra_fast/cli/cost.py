"""The subcommand `cost`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ..pretraining.cost import papers_flops, training_flops
from ..pretraining.recipes import PresetName, Recipe, preset
from ..training.gpus import GPUS


@dataclass(kw_only=True)
class CostCommand:
    """Estimate what pre-training takes: operations, tokens, and hours on GPUs.

    The hours depend on the share of the peak that a run reaches (MFU), which is a guess until it is measured. NVIDIA's
    published figures for ELECTRA-base on V100 and A100 come to 0.2 to 0.3.
    """

    preset: PresetName = "small"
    """Shapes and hyperparameters, as for pretrain."""
    gpu: Literal["v100", "a100", "h100", "h100-pcie", "h200", "b200", "l4", "rtx-4090"] | None = None
    """Type of the GPUs. Default: one line for each type."""
    gpus: int = 1
    """Number of GPUs."""
    mfu: float = 0.3
    """Share of the GPU's dense bf16 peak that the run reaches."""
    steps: int | None = None
    """Updates. Default: the preset's."""
    batch_size: int | None = None
    """Sequences per update. Default: the preset's."""
    seq_length: int | None = None
    """Tokens per sequence. Default: the preset's."""
    vocab_size: int | None = None
    """Entries of the vocabulary. Default: the preset's."""

    def run(self) -> None:
        if self.gpus < 1:
            raise ValueError(f"gpus must be at least 1, got {self.gpus}")
        if not 0 < self.mfu <= 1:
            raise ValueError(f"mfu must be above 0 and at most 1, got {self.mfu}")
        given = {
            "n_steps": self.steps,
            "batch_size": self.batch_size,
            "seq_length": self.seq_length,
            "vocab_size": self.vocab_size,
        }
        recipe = replace(preset(self.preset), **{name: value for name, value in given.items() if value is not None})
        names = [self.gpu] if self.gpu else list(GPUS)
        print(cost_table(recipe, {name: GPUS[name].peak_flops for name in names}, self.gpus, self.mfu))


def cost_table(recipe: Recipe, peaks: dict[str, float], n_gpus: int, mfu: float) -> str:
    """A table of what a recipe takes, with the hours on each type of GPU.

    Args:
        peaks: the dense peak of each GPU by its name, in FLOP/s.
        mfu: the share of the peak that the run reaches, in (0, 1].
    """
    a_sequence = training_flops(recipe, recipe.vocab_size)
    n_sequences = recipe.n_steps * recipe.batch_size
    total, papers = a_sequence.total * n_sequences, papers_flops(recipe, recipe.vocab_size).total * n_sequences
    facts = {
        "preset": recipe.name,
        "per step": f"{recipe.batch_size:,} sequences of {recipe.seq_length:,} tokens",
        "steps": f"{recipe.n_steps:,}",
        "tokens": f"{n_sequences * recipe.seq_length:.3g}",
        "FLOPs per sequence": f"{a_sequence.total:.3g}, {a_sequence.generator / a_sequence.total:.0%} in the generator",
        "FLOPs per step": f"{a_sequence.total * recipe.batch_size:.3g}",
        "FLOPs": f"{total:.3g} in matrix products; {papers:.3g} as the paper counts",
    }
    lines = [f"{name:<20}{value}" for name, value in facts.items()]
    lines += ["", f"{'GPUs':<16}{'peak TFLOP/s':>14}{'tokens/s':>14}{'hours':>12}   at MFU {mfu:.0%}"]
    for name, peak in peaks.items():
        seconds = total / (n_gpus * peak * mfu)
        tokens_per_second = n_sequences * recipe.seq_length / seconds
        label = f"{n_gpus} x {name}"
        lines.append(f"{label:<16}{n_gpus * peak / 1e12:>14,.0f}{tokens_per_second:>14,.0f}{seconds / 3600:>12,.2f}")
    return "\n".join(lines)
