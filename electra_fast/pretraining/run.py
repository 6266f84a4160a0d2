"""A pre-training run in one process: documents in, `generator/`, `discriminator/` and `log.jsonl` out."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from .. import __version__
from ..ops import Impl
from ..tokenizer import ElectraTokenizer
from ..training.precision import DTYPES, default_precision, precise_weights
from ..training.progress import JsonLines
from .corpus import TokenSequences, split_documents
from .evaluate import evaluate
from .loop import TrainingLoop
from .objective import ElectraPretrainingModel
from .presets import Recipe
from .vocab import train_vocab

LOG_NAME = "log.jsonl"
_NETWORKS = ("generator", "discriminator")


def pretrain(
    recipe: Recipe,
    documents: Sequence[str],
    out: str | os.PathLike,
    *,
    tokenizer: ElectraTokenizer | None = None,
    seed: int = 0,
    n_steps: int | None = None,
    minutes: float | None = None,
    log_every: int = 50,
    overwrite: bool = False,
    device: str | torch.device = "cpu",
    impl: Impl = "auto",
    precision: str | None = None,
) -> ElectraPretrainingModel:
    """Trains a generator and a discriminator on documents, with a live line and a log.

    Evaluates on held-out documents before the first step and after the last. Ctrl-C saves what there is, then goes on
    its way as KeyboardInterrupt. Torch's global generator is seeded.

    Args:
        recipe: shapes and hyperparameters.
        documents: the texts; about 1 in 20 is held out.
        out: a directory for the three outputs; nothing is written before the input has turned out sound.
        tokenizer: where none is given, a vocabulary of `recipe.vocab_size` is trained on the training documents.
        seed: of weights, order of the text, masks, samples and dropout.
        n_steps: updates, in place of the recipe's; its warm-up is cut to a tenth of them.
        minutes: a limit on the training time; the learning rate then falls with the time.
        log_every: updates between two records.
        overwrite: replace the outputs of an earlier run in `out`.
        precision: "fp32", or "bf16" with fp32 masters in the optimizer; default bf16 on a GPU. Saved is fp32.

    Raises:
        FileExistsError: `out` is a file, or holds files and `overwrite` is false.
        ValueError: too little text, a number that must be positive, a loss that is no number any more.
    """
    out = Path(out)
    for name, value in (("n_steps", n_steps), ("minutes", minutes), ("log_every", log_every)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    check_output(out, overwrite)
    precision = precision or default_precision(torch.device(device))
    if precision not in DTYPES:
        raise ValueError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
    torch.manual_seed(seed)
    training, held_out = split_documents(documents)
    if tokenizer is None:
        tokenizer = new_tokenizer(training, recipe)
    sequences = TokenSequences(training, tokenizer, recipe.seq_length, seed)
    held_out_sequences = TokenSequences(held_out, tokenizer, recipe.seq_length, None)
    model = build_model(recipe, tokenizer, impl).to(device)
    if n_steps is None and minutes is None:
        n_steps = recipe.n_steps
    loop = TrainingLoop(model, recipe, sequences, seed, n_steps, minutes, log_every, impl, precision)

    out.mkdir(parents=True, exist_ok=True)
    for name in _NETWORKS:
        shutil.rmtree(out / name, ignore_errors=True)
    (out / LOG_NAME).unlink(missing_ok=True)
    with cpu_threads(recipe.cpu_threads), JsonLines(out / LOG_NAME) as log:
        log.write(
            "run",
            recipe=asdict(recipe),
            seed=seed,
            n_steps=n_steps,
            minutes=minutes,
            vocab_size=len(tokenizer),
            n_documents=len(training),
            n_tokens=sequences.n_tokens,
            n_held_out_documents=len(held_out),
            n_held_out_tokens=held_out_sequences.n_tokens,
            n_parameters=sum(p.numel() for p in model.parameters()),
            device=str(device),
            precision=precision,
            threads=torch.get_num_threads(),
            versions={"electra_fast": __version__, "torch": torch.__version__, "python": platform.python_version()},
        )
        log.write("evaluation", step=0, **asdict(evaluate(model, held_out_sequences)))
        try:
            loop.run(log)
        except KeyboardInterrupt:
            with precise_weights(loop.optimizer):
                save(model, tokenizer, out)
            log.write("end", step=loop.step, seconds=loop.seconds, reason="interrupted")
            print(f"interrupted: the networks after step {loop.step} are in {out}", flush=True)
            raise
        log.write("evaluation", step=loop.step, **asdict(evaluate(model, held_out_sequences)))
        with precise_weights(loop.optimizer):
            save(model, tokenizer, out)
        log.write("end", step=loop.step, seconds=loop.seconds, reason="done")
    return model


def new_tokenizer(documents: Sequence[str], recipe: Recipe) -> ElectraTokenizer:
    """A tokenizer with a vocabulary trained on the documents."""
    vocab = train_vocab(documents, recipe.vocab_size)
    return ElectraTokenizer(
        vocab={token: i for i, token in enumerate(vocab)}, model_max_length=recipe.max_position_embeddings
    )


def build_model(recipe: Recipe, tokenizer: ElectraTokenizer, impl: Impl = "auto") -> ElectraPretrainingModel:
    """The recipe's two networks, with fresh weights, for a tokenizer's vocabulary."""
    size, pad = len(tokenizer), tokenizer.pad_token_id
    return ElectraPretrainingModel(
        recipe.generator_config(size, pad),
        recipe.discriminator_config(size, pad),
        mask_token_id=tokenizer.mask_token_id,
        special_token_ids=(pad, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id),
        mask_prob=recipe.mask_prob,
        temperature=recipe.temperature,
        gen_weight=recipe.gen_weight,
        disc_weight=recipe.disc_weight,
        impl=impl,
    )


def check_output(out: Path, overwrite: bool) -> None:
    """Refuses a directory that holds files, unless told to overwrite; raises FileExistsError."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"the output must be a directory, but {out} is a file")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty: give another directory, or overwrite it (--overwrite)")


def save(model: ElectraPretrainingModel, tokenizer: ElectraTokenizer, out: Path) -> None:
    """Writes `generator/` and `discriminator/` with the tokenizer's files; each appears whole or not at all."""
    for name in _NETWORKS:
        temporary = out / f".{name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        getattr(model, name).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        shutil.rmtree(out / name, ignore_errors=True)
        os.replace(temporary, out / name)


@contextmanager
def cpu_threads(n_threads: int | None) -> Iterator[None]:
    """Torch computes on so many threads within; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
