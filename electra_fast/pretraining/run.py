"""A pre-training run: text in, `generator/`, `discriminator/` and `log.jsonl` out; stopped, it goes on where it was."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict

import torch

from ..model.layers import checkpoint_activations
from ..model.precision import DTYPES, default_precision
from ..ops import Impl
from ..processor import cpu_threads
from ..tokenizer import ElectraTokenizer
from ..training.checkpoint import Checkpoints
from ..training.distributed import PARALLEL, join
from ..training.guard import Guard
from ..training.loop import stopped_by_signals
from ..training.report import RunReport
from ..versions import __version__
from .build import build_model
from .continued import load_pretrained, pretrained_tokenizer
from .evaluate import MAX_TOKENS, evaluate
from .extend_vocab import extended_tokenizer
from .loop import TrainingLoop
from .networks.objective import ElectraPretrainingModel
from .recipes import Recipe
from .results import export, save_results
from .run_directory import RunDirectory
from .text.corpus import Corpus
from .text.shards import ShardedCorpus
from .text.stream import SequenceStream, held_out_sequences
from .text.vocab import train_vocab, vocabulary_texts
from .text.windows import vocabulary_fingerprint

# What the line shows: label, metric, format.
_SHOWN = (
    ("gen", "generator_loss", ".3f"),
    ("disc", "discriminator_loss", ".4f"),
    ("acc", "generator_accuracy", ".1%"),
    ("AUC", "discriminator_auc", ".3f"),
    ("tokens/s", "tokens_per_second", ",.0f"),
    ("MFU", "mfu", ".1%"),
)


def pretrain(
    recipe: Recipe,
    corpus: Corpus | ShardedCorpus,
    out: str | os.PathLike,
    *,
    tokenizer: ElectraTokenizer | None = None,
    init_generator: str | os.PathLike | None = None,
    init_discriminator: str | os.PathLike | None = None,
    n_new_entries: int = 0,
    seed: int = 0,
    n_steps: int | None = None,
    minutes: float | None = None,
    log_every: int = 50,
    checkpoint_every: int = 1000,
    keep_checkpoints: int = 2,
    overwrite: bool = False,
    device: str = "auto",
    impl: Impl = "auto",
    precision: str | None = None,
    accumulate: int = 1,
    parallel: str = "ddp",
    gradient_checkpointing: bool = False,
    strict: bool = False,
    track: Sequence[str] = (),
) -> ElectraPretrainingModel:
    """Trains a generator and a discriminator on text, with a live line, a log and checkpoints.

    Evaluates on held-out text before the first step, at every checkpoint and at the end. Called again for the same
    `out` it goes on after the last checkpoint, whatever ended the run before, with any number of processes; a run that
    is done is trained no further. SIGTERM and Ctrl-C (as KeyboardInterrupt) write a checkpoint first. Processes that
    torchrun started train together. Torch's global generator is seeded.

    Args:
        recipe: shapes and hyperparameters.
        corpus: the text; about 1 document in 20 is held out.
        out: a directory for the outputs (`RunDirectory`); nothing is written before the input has turned out sound.
        tokenizer: where none is given, that of the checkpoints below, or a vocabulary of `recipe.vocab_size` trained on
            the training documents.
        init_generator, init_discriminator: directories or Hub names of networks to begin with, of the recipe's shapes
            (`fitted_recipe`).
        n_new_entries: how many entries the checkpoints' vocabulary gets from the training documents.
        seed: of weights, order of the text, masks, samples and dropout.
        n_steps: updates, in place of the recipe's; its warm-up is cut to a tenth of them.
        minutes: a limit on the training time; the learning rate then falls with the time.
        log_every: updates between two records.
        checkpoint_every: updates between two checkpoints; a multiple of `log_every`.
        keep_checkpoints: how many of the newest stay.
        overwrite: replace the outputs of an earlier run in `out`.
        device: "auto", "cpu", "cuda" or "cuda:1".
        precision: "fp32", or "bf16" or "fp16" with fp32 masters; default bf16 on a GPU. Saved is fp32.
        accumulate: forwards and backwards an update.
        parallel: "ddp", or "fsdp" where the state of a model does not fit one GPU.
        gradient_checkpointing: keep only the inputs of layers for the backward, and compute the rest again: less
            memory, a third more work.
        strict: stop, and not only warn, where a network does not learn (`Guard`).
        track: where else records go: "tensorboard", "wandb", "trackio".

    Returns:
        The model, in fp32 on the CPU, in the first process; in others one with fresh weights.

    Raises:
        FileExistsError: `out` is a file, or holds files that are no run and `overwrite` is false.
        ValueError: too little text, another run in `out`, a number that must be positive, a loss that is no number.
        OSError: a checkpoint cannot be written; those before it stay.
    """
    directory = RunDirectory(out)
    for name, value in (
        ("n_steps", n_steps),
        ("minutes", minutes),
        ("log_every", log_every),
        ("keep_checkpoints", keep_checkpoints),
        ("accumulate", accumulate),
    ):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    if checkpoint_every < 1 or checkpoint_every % log_every:
        raise ValueError(f"checkpoint_every must be a multiple of log_every {log_every}, got {checkpoint_every}")
    if parallel not in PARALLEL:
        raise ValueError(f"parallel must be one of {', '.join(PARALLEL)}, got {parallel!r}")
    if n_new_entries and (tokenizer is not None or (init_generator is None and init_discriminator is None)):
        raise ValueError("n_new_entries needs init_generator or init_discriminator, and no tokenizer of its own")
    directory.check(overwrite)
    if n_steps is None and minutes is None:
        n_steps = recipe.n_steps
    with join(device) as world, cpu_threads(recipe.cpu_threads):
        precision = precision or default_precision(world.device)
        if precision not in DTYPES:
            raise ValueError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
        is_new = world.shared(overwrite or not directory.holds_a_run)
        initial = {"generator": init_generator, "discriminator": init_discriminator}
        initial = {name: source for name, source in initial.items() if source is not None}
        if not is_new:
            tokenizer = tokenizer or ElectraTokenizer.from_pretrained(directory.tokenizer)
        elif tokenizer is None:
            tokenizer = world.shared(_new_tokenizer(corpus, recipe, initial, n_new_entries) if world.is_main else None)
        settings = {
            "recipe": asdict(recipe),
            "seed": seed,
            "n_steps": n_steps,
            "minutes": minutes,
            "precision": precision,
            "text": corpus.fingerprint(),
            "vocabulary": vocabulary_fingerprint(tokenizer),
            "initial": {name: str(source) for name, source in initial.items()},
        }
        if not is_new:
            directory.check_settings(settings)
        held_out = held_out_sequences(corpus, tokenizer, recipe.seq_length, max(1, MAX_TOKENS // recipe.seq_length))
        torch.manual_seed(seed)
        model = build_model(recipe, tokenizer, impl)
        checkpoints = Checkpoints(directory.checkpoints, keep_checkpoints)
        steps = world.shared([] if is_new else checkpoints.steps())
        if initial and not steps:
            load_pretrained(model, recipe, tokenizer, **initial)
        if gradient_checkpointing:
            checkpoint_activations(model)
        with SequenceStream(
            corpus, tokenizer, recipe.seq_length, seed, recipe.packing, threads=recipe.cpu_threads
        ) as stream:
            stream.rows(0, 1)  # text that does not do is refused before anything is written
            loop = TrainingLoop(
                model.to(world.device), recipe, stream, world, seed, n_steps, minutes, log_every, impl, precision,
                accumulate, parallel,
            )  # fmt: skip
            if is_new and world.is_main:
                directory.begin(settings, tokenizer)
            world.barrier()
            if steps:
                state = loop.state()
                checkpoints.load(steps[-1], state)
                loop.resume(steps[-1], state)
            if world.is_main:
                directory.rewind_log(loop.step)
            with directory.writer(track) if world.is_main else nullcontext() as writer:
                evaluation = evaluate(model, held_out)
                report = RunReport(writer, Guard(evaluation.unigram_loss, strict), _SHOWN)
                report.record(
                    "run" if loop.step == 0 else "resume",
                    step=loop.step,
                    **settings,
                    vocab_size=len(tokenizer),
                    n_held_out_tokens=held_out.numel(),
                    n_parameters=sum(p.numel() for p in model.parameters()),
                    device=str(world.device),
                    n_processes=world.size,
                    accumulate=accumulate,
                    parallel=parallel,
                    threads=torch.get_num_threads(),
                    versions={
                        "electra_fast": __version__,
                        "torch": torch.__version__,
                        "python": platform.python_version(),
                    },
                )
                if loop.step == 0:
                    report.record("evaluation", step=0, **asdict(evaluation))
                try:
                    with stopped_by_signals(loop) as signals:
                        while loop.progress < 1 and not loop.is_stopping:
                            loop.run(report, until=(loop.step // checkpoint_every + 1) * checkpoint_every)
                            if not loop.is_stopping:
                                evaluation = evaluate(model, held_out)
                                report.record("evaluation", step=loop.step, **asdict(evaluation))
                            checkpoints.save(loop.step, loop.state())
                        checkpoints.finish()
                finally:
                    checkpoints.close()
                    report.end()
                exported = export(loop.state()["parameters"], recipe, tokenizer)
                if world.is_main:
                    save_results(directory, exported, recipe, tokenizer, evaluation, corpus.description())
                reason = "done" if loop.progress >= 1 else "interrupted"
                report.record(
                    "end", step=loop.step, seconds=loop.seconds, wait_seconds=stream.wait_seconds, reason=reason
                )
                if reason == "interrupted":
                    report.say(f"stopped after step {loop.step}: the same command goes on from there")
                    if signal.SIGINT in signals:
                        raise KeyboardInterrupt
                else:
                    report.say(f"wrote {', '.join(str(directory.path / name) for name in exported.hub_networks)}")
            return exported


def _new_tokenizer(
    corpus: Corpus | ShardedCorpus, recipe: Recipe, initial: Mapping[str, str | os.PathLike], n_new_entries: int
) -> ElectraTokenizer:
    """That of the checkpoints to begin with, or one with a vocabulary trained on the text."""
    if not initial:
        return new_tokenizer(vocabulary_texts(corpus), recipe)
    tokenizer = pretrained_tokenizer(**initial)
    return extended_tokenizer(tokenizer, vocabulary_texts(corpus), n_new_entries) if n_new_entries else tokenizer


def new_tokenizer(documents: Sequence[str], recipe: Recipe) -> ElectraTokenizer:
    """A tokenizer with a vocabulary trained on the documents."""
    return as_tokenizer(train_vocab(documents, recipe.vocab_size), recipe)


def as_tokenizer(vocab: Sequence[str], recipe: Recipe) -> ElectraTokenizer:
    """A tokenizer for a recipe's networks, whose entries are numbered in order."""
    return ElectraTokenizer(
        vocab={token: i for i, token in enumerate(vocab)}, model_max_length=recipe.max_position_embeddings
    )
