"""The subcommands `pretrain` and `train-vocab`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..tokenizer import ElectraTokenizer


@dataclass(kw_only=True)
class PretrainCommand:
    """Train a generator and a discriminator from raw text.

    Writes OUT/generator and OUT/discriminator, which transformers loads too, and OUT/log.jsonl. About 1 in 20 documents
    is held out, and evaluated on before and after.
    """

    preset: Literal["tiny", "small", "small-plus", "base", "large"] = "small"
    """Shapes and hyperparameters: the paper's, or tiny for a CPU and a few minutes."""
    data: tuple[Path, ...] = ()
    """Text files (plain, .gz or .xz) or directories of them; blank lines separate documents. Default: the documentation
    that comes with Python, about 2 MB."""
    out: Path
    """Directory to write to; it must be empty, or not there yet."""
    overwrite: bool = False
    """Replace the results of an earlier run in OUT."""
    vocab: Path | None = None
    """A vocab.txt, or a directory with a tokenizer. Default: train one on the data."""
    vocab_size: int | None = None
    """Entries of a vocabulary that is trained. Default: the preset's."""
    steps: int | None = None
    """Updates. Default: the preset's."""
    minutes: float | None = None
    """Stop after so many minutes of training; the learning rate falls with the time."""
    batch_size: int | None = None
    """Sequences an update. Default: the preset's."""
    learning_rate: float | None = None
    """Default: the preset's."""
    log_every: int = 50
    """Updates between two records."""
    seed: int = 0
    """Of weights, order of the text, masks and samples."""
    device: str = "auto"
    """Where to run: auto, cpu, cuda, cuda:1, ..."""
    impl: Literal["auto", "triton", "torch"] = "auto"
    """Which code serves the ops."""
    precision: Literal["fp32", "bf16"] | None = None
    """Of parameters and activations; the optimizer keeps fp32. Default: bf16 on a GPU, fp32 on a CPU."""

    def run(self) -> None:
        import torch

        from .presets import preset
        from .run import check_output, pretrain

        check_output(self.out, self.overwrite)
        names = ("vocab_size", "batch_size", "learning_rate")
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        recipe = dataclasses.replace(preset(self.preset), **changes)
        device = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        pretrain(
            recipe,
            load_documents(self.data),
            self.out,
            tokenizer=None if self.vocab is None else load_tokenizer(self.vocab, recipe.max_position_embeddings),
            seed=self.seed,
            n_steps=self.steps,
            minutes=self.minutes,
            log_every=self.log_every,
            overwrite=self.overwrite,
            device=device,
            impl=self.impl,
            precision=self.precision,
        )
        print(f"wrote {self.out / 'generator'}, {self.out / 'discriminator'} and {self.out / 'log.jsonl'}")


@dataclass(kw_only=True)
class TrainVocabCommand:
    """Make a WordPiece vocabulary from raw text.

    Writes one entry a line, as in vocab.txt on the Hub, the special tokens first.
    """

    data: tuple[Path, ...] = ()
    """Text files (plain, .gz or .xz) or directories of them. Default: the documentation that comes with Python."""
    size: int = 30522
    """Entries; a small corpus may give fewer."""
    cased: bool = False
    """Keep upper case and accents."""
    out: Path
    """The file to write, vocab.txt by custom."""

    def run(self) -> None:
        from .vocab import train_vocab, write_vocab

        if not self.out.parent.is_dir():
            raise FileNotFoundError(f"the directory of the output does not exist: {self.out.parent}")
        vocab = train_vocab(load_documents(self.data), self.size, lowercase=not self.cased)
        write_vocab(vocab, self.out)
        print(f"wrote {len(vocab)} entries to {self.out}")


def load_documents(paths: tuple[Path, ...], max_chars: int | None = None) -> list[str]:
    """The documents of the paths given, or of the built-in corpus."""
    from .corpus import builtin_documents, read_documents

    return read_documents(paths, max_chars) if paths else builtin_documents()


def load_tokenizer(path: Path, model_max_length: int) -> ElectraTokenizer:
    """A tokenizer from a vocab.txt or from a directory."""
    from ..tokenizer import ElectraTokenizer

    if path.is_dir():
        return ElectraTokenizer.from_pretrained(path)
    return ElectraTokenizer(vocab=path, model_max_length=model_max_length)
