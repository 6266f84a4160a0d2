"""The subcommands `pretrain` and `train-vocab`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..pretraining.text.vocab import load_tokenizer

if TYPE_CHECKING:
    pass


@dataclass(kw_only=True)
class PretrainCommand:
    """Train a generator and a discriminator from raw text.

    Writes OUT/generator and OUT/discriminator, which transformers loads too, OUT/log.jsonl and checkpoints. The same
    command again goes on where a run stopped; under torchrun all processes train together. About 1 in 20 documents is
    held out, and evaluated on.
    """

    preset: Literal["tiny", "small", "small-plus", "base", "large", "base-lamb-128", "base-lamb-512"] = "small"
    """Shapes and hyperparameters: the paper's; tiny, for a CPU and a few minutes; NVIDIA's two phases for base, with
    very large batches."""
    data: tuple[str, ...] = ()
    """Text and JSONL files (plain, .gz, .xz, .zst), directories of them, Hugging Face datasets (hf:NAME), or a
    directory that `prepare` wrote. Default: the documentation that comes with Python, about 2 MB."""
    documents_by: Literal["blank-line", "file"] = "blank-line"
    """What separates the documents of text files."""
    text_key: str = "text"
    """Where the text is in a line of JSONL and in a dataset."""
    out: Path
    """Directory to write to: empty, not there yet, or that of the run to go on with."""
    overwrite: bool = False
    """Replace the results of an earlier run in OUT."""
    vocab: Path | None = None
    """A vocab.txt, or a directory with a tokenizer. Default: the checkpoints', or one trained on the data."""
    vocab_size: int | None = None
    """Entries of a vocabulary that is trained. Default: the preset's."""
    init_generator: str | None = None
    """A directory or a model on the Hub to begin with; shapes and vocabulary are then those of the checkpoints."""
    init_discriminator: str | None = None
    """The same for the discriminator."""
    new_entries: int = 0
    """Entries to add to the checkpoints' vocabulary, from the data."""
    steps: int | None = None
    """Updates. Default: the preset's."""
    minutes: float | None = None
    """Stop after so many minutes of training; the learning rate falls with the time."""
    batch_size: int | None = None
    """Sequences an update, of all processes together. Default: the preset's."""
    learning_rate: float | None = None
    """Default: the preset's."""
    set: tuple[str, ...] = ()
    """Any other field of the recipe as NAME=VALUE: seq_length=512 generator_kind=uniform whole_word=True."""
    accumulate: int = 1
    """Forwards and backwards an update, where a batch does not fit at once."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the work; fsdp also shares out weights and the optimizer's state."""
    log_every: int = 50
    """Updates between two records."""
    checkpoint_every: int = 1000
    """Updates between two checkpoints and evaluations; a multiple of log-every."""
    keep_checkpoints: int = 2
    """How many of the newest stay."""
    gradient_checkpointing: bool = False
    """Less memory for a third more work."""
    strict: bool = False
    """Stop, and not only warn, where a network does not learn."""
    track: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Where else records go."""
    seed: int = 0
    """Of weights, order of the text, masks and samples."""
    device: str = "auto"
    """Where to run: auto, cpu, cuda, cuda:1, ..."""
    impl: Literal["auto", "triton", "torch"] = "auto"
    """Which code serves the ops."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Of parameters and activations; the optimizer keeps fp32. Default: bf16 on a GPU, fp32 on a CPU."""

    def run(self) -> None:
        from ..pretraining.continued import fitted_recipe
        from ..pretraining.recipes import Recipe, preset
        from ..pretraining.run import pretrain
        from ..pretraining.run_directory import RunDirectory
        from ..pretraining.text.shards import open_corpus
        from .assignments import assigned_fields

        RunDirectory(self.out).check(self.overwrite)
        names = ("vocab_size", "batch_size", "learning_rate")
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        changes |= assigned_fields(Recipe, self.set)
        recipe, initial = preset(self.preset), (self.init_generator, self.init_discriminator)
        recipe = fitted_recipe(recipe, *initial, changes) if any(initial) else dataclasses.replace(recipe, **changes)
        pretrain(
            recipe,
            open_corpus(self.data, self.documents_by, self.text_key),
            self.out,
            tokenizer=None if self.vocab is None else load_tokenizer(self.vocab, recipe.max_position_embeddings),
            init_generator=self.init_generator,
            init_discriminator=self.init_discriminator,
            n_new_entries=self.new_entries,
            seed=self.seed,
            n_steps=self.steps,
            minutes=self.minutes,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
            keep_checkpoints=self.keep_checkpoints,
            overwrite=self.overwrite,
            device=self.device,
            impl=self.impl,
            precision=self.precision,
            accumulate=self.accumulate,
            parallel=self.parallel,
            gradient_checkpointing=self.gradient_checkpointing,
            strict=self.strict,
            track=self.track,
        )
