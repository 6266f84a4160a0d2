"""The subcommand `pretrain`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..disk import check_apart
from ..pretraining.recipes import PresetName
from ..pretraining.run_options import PretrainingOptions
from ..pretraining.text.documents import DocumentsBy
from .options import flattened


@dataclass(frozen=True, kw_only=True)
class _Options(PretrainingOptions):
    n_steps: Annotated[int | None, tyro.conf.arg(name="steps")] = None


@dataclass(kw_only=True)
class PretrainCommand:
    """Train a generator and a discriminator from raw text.

    Writes OUT/generator and OUT/discriminator, which transformers loads too, OUT/log.jsonl and checkpoints. The same
    command, given again, resumes a run that stopped. Under torchrun all processes train together. About 1 in 20
    documents is held out for evaluation.
    """

    preset: PresetName = "small"
    """Shapes and hyperparameters: the paper's sizes; tiny, for a CPU and a few minutes; NVIDIA's two phases for base,
    with very large batches."""
    data: tuple[str, ...] = ()
    """Text and JSONL files (plain, .gz, .xz, .zst), directories of them, Hugging Face datasets (hf:NAME), or a
    directory written by `prepare`. Default: the documentation that comes with Python, about 2 MB."""
    documents_by: DocumentsBy = "blank-line"
    """End of the documents in text files: a blank line, every line, or that of the file."""
    text_key: str = "text"
    """Key of the text in a line of JSONL and in a dataset."""
    out: Path
    """Directory to write to: empty, new, or that of the run to resume."""
    overwrite: bool = False
    """Replace the results of an earlier run in OUT."""
    vocab: Path | None = None
    """A vocab.txt, or a tokenizer's directory. Default: the checkpoints' tokenizer, or one trained on the data."""
    vocab_size: int | None = None
    """Entries of a vocabulary trained on the data. Default: the preset's."""
    init_generator: str | None = None
    """Generator to begin with: a directory, or a model on the Hub. Shapes and vocabulary are then its own."""
    init_discriminator: str | None = None
    """Discriminator to begin with: a directory, or a model on the Hub."""
    new_entries: int = 0
    """Entries to add to the checkpoints' vocabulary, from the data."""
    batch_size: int | None = None
    """Sequences per update, of all processes together. Default: the preset's."""
    learning_rate: float | None = None
    """Peak of the learning rate. Default: the preset's."""
    set: tuple[str, ...] = ()
    """Any other field of the recipe as NAME=VALUE: seq_length=512 generator_kind=uniform whole_word=True."""
    options: Annotated[_Options, flattened] = field(default_factory=_Options)

    def run(self) -> None:
        from ..pretraining.continued import fitted_recipe
        from ..pretraining.recipes import Recipe, preset
        from ..pretraining.run import pretrain
        from ..pretraining.run_directory import RunDirectory
        from ..pretraining.text.shards import open_corpus
        from ..pretraining.text.vocab import load_tokenizer
        from .assignments import assigned_fields

        RunDirectory(self.out).check(self.overwrite)
        check_apart(self.out, *self.data, self.vocab, self.init_generator, self.init_discriminator)
        names = ("vocab_size", "batch_size", "learning_rate")
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        changes |= assigned_fields(Recipe, self.set)
        recipe, initial = preset(self.preset), (self.init_generator, self.init_discriminator)
        recipe = fitted_recipe(recipe, *initial, changes) if any(initial) else dataclasses.replace(recipe, **changes)
        pretrain(
            recipe,
            open_corpus(self.data, self.documents_by, self.text_key),
            self.out,
            self.options,
            tokenizer=None if self.vocab is None else load_tokenizer(self.vocab, recipe.max_position_embeddings),
            init_generator=self.init_generator,
            init_discriminator=self.init_discriminator,
            n_new_entries=self.new_entries,
            overwrite=self.overwrite,
        )
