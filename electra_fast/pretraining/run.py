"""A pre-training run: text in, `generator/`, `discriminator/` and `log.jsonl` out; a stopped run can resume."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..model.layers import checkpoint_activations
from ..processor import cpu_threads
from ..tokenizer import ElectraTokenizer
from ..tokenizer.unknown import UnknownTokens
from ..training.checkpoint import Checkpoints
from ..training.distributed import World, join
from ..training.guard import Guard
from ..training.loop import end_by_signal, stopped_by_signals
from ..training.options import by_owner, changed
from ..training.precision import chosen_precision
from ..training.report import RunReport
from ..versions import __version__
from .build import build_model
from .calibrate import calibrate
from .continued import load_pretrained, pretrained_tokenizer
from .evaluate import MAX_TOKENS, Evaluation, evaluate
from .extend_vocab import extended_tokenizer
from .loop import TrainingLoop
from .networks.objective import ElectraPretrainingModel
from .recipes import Recipe
from .results import export, save_results
from .run_directory import RunDirectory
from .run_options import PretrainingOptions
from .text.corpus import Corpus
from .text.shards import ShardedCorpus
from .text.stream import SequenceStream, held_out_sequences
from .text.vocab import train_vocab, vocabulary_texts
from .text.windows import vocabulary_fingerprint, word_start_table

# Metrics on the progress line: label, metric, format.
_SHOWN = (
    ("gen", "generator_loss", ".3f"),
    ("disc", "discriminator_loss", ".4f"),
    ("acc", "generator_accuracy", ".1%"),
    ("AUC", "discriminator_auc", ".3f"),
    ("tokens/s", "tokens_per_second", ",.0f"),
    ("MFU", "mfu", ".1%"),
)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run that is read, checked and built and may begin; nothing has been written yet.

    Attributes:
        options: the options, with a precision, and with `n_steps` or `minutes`.
        settings: contents of run.json.
        is_new: whether the directory has no run to resume.
        has_checkpoints: whether there are checkpoints to resume from.
    """

    recipe: Recipe
    corpus: Corpus | ShardedCorpus
    tokenizer: ElectraTokenizer
    options: PretrainingOptions
    world: World
    directory: RunDirectory
    settings: Mapping[str, Any]
    is_new: bool
    held_out: Tensor
    model: ElectraPretrainingModel
    checkpoints: Checkpoints
    has_checkpoints: bool
    stream: SequenceStream


def pretrain(
    recipe: Recipe,
    corpus: Corpus | ShardedCorpus,
    out: str | os.PathLike,
    options: PretrainingOptions | None = None,
    *,
    tokenizer: ElectraTokenizer | None = None,
    init_generator: str | os.PathLike | None = None,
    init_discriminator: str | os.PathLike | None = None,
    n_new_entries: int = 0,
    overwrite: bool = False,
    **changes: object,
) -> ElectraPretrainingModel:
    """Trains a generator and a discriminator on text, with a live line, a log and checkpoints.

    Evaluates on held-out text before the first step, at every checkpoint and at the end. A second call with the same
    `out` resumes after the last checkpoint, however the run ended before, with any number of processes; it trains a
    finished run no further. Ctrl-C, SIGTERM, SIGHUP and the warnings of schedulers (SIGUSR1, SIGUSR2, SIGXCPU) write a
    checkpoint first; then Ctrl-C raises KeyboardInterrupt, and the others SystemExit with the code 128 + their number.
    Processes that torchrun started train together. The call seeds torch's global generator.

    Args:
        recipe: shapes and hyperparameters.
        corpus: the text; about 1 document in 20 is held out.
        out: a directory for the outputs (`RunDirectory`); nothing is written before the input has been checked.
        options: options of the run.
        tokenizer: tokenizer of the text; default: that of the checkpoints below, or a vocabulary of
            `recipe.vocab_size` entries trained on the training documents.
        init_generator, init_discriminator: directories or Hub names of networks to begin with, which have the recipe's
            shapes (`fitted_recipe`).
        n_new_entries: number of entries to add to the checkpoints' vocabulary from the training documents.
        overwrite: whether to replace the outputs of an earlier run in `out`.
        **changes: fields of `PretrainingOptions` in place of those of `options`.

    Returns:
        The model, in fp32 on the CPU, in the first process; in others one with fresh weights.

    Raises:
        FileExistsError: `out` is a file, or holds files that are not a run's and `overwrite` is false.
        TypeError: a keyword that is not an option.
        ValueError: too little text, another run in `out`, a number that is not positive, a loss that is not finite;
            checkpoints of which none fits.
        BlockingIOError: another run is at work in `out`.
        OSError: a checkpoint cannot be written; those before it stay.
    """
    (option_changes,) = by_owner(changes, PretrainingOptions)
    options = changed(options, option_changes, PretrainingOptions)
    initial = {"generator": init_generator, "discriminator": init_discriminator}
    initial = {name: source for name, source in initial.items() if source is not None}
    if n_new_entries and (tokenizer is not None or not initial):
        raise ValueError("n_new_entries needs init_generator or init_discriminator, and no tokenizer of its own")
    directory = RunDirectory(out)
    directory.check(overwrite)
    with join(options.device) as world, cpu_threads(recipe.cpu_threads), directory.locked(world):
        is_new = world.shared(overwrite or not directory.holds_a_run)
        if not is_new:
            tokenizer = tokenizer or ElectraTokenizer.from_pretrained(directory.tokenizer)
        elif tokenizer is None:
            tokenizer = world.shared(_new_tokenizer(corpus, recipe, initial, n_new_entries) if world.is_main else None)
        run = _prepare(recipe, corpus, tokenizer, options, world, directory, initial, is_new)
        with run.stream:
            run.stream.rows(0, 1)  # refuses unusable text before anything is written
            loop, warnings = _begin(run)
            with directory.writer(options.track) if world.is_main else nullcontext() as writer:
                evaluation = evaluate(run.model, run.held_out)
                report = RunReport(writer, Guard(evaluation.unigram_loss, options.strict), _SHOWN)
                _record_begin(run, loop, report)
                for warning in warnings:
                    report.warn(loop.step, warning)
                evaluation = _train(run, loop, report, evaluation)
                model = _finish(run, loop, report, evaluation)
        # torchrun ends all processes as soon as one has failed: none may before the first has written everything.
        world.barrier()
    if loop.progress < 1:
        end_by_signal(loop.stopped_by)
    return model


def _prepare(
    recipe: Recipe,
    corpus: Corpus | ShardedCorpus,
    tokenizer: ElectraTokenizer,
    options: PretrainingOptions,
    world: World,
    directory: RunDirectory,
    initial: Mapping[str, str | os.PathLike],
    is_new: bool,
) -> _Run:
    """Reads, checks and builds the run; raises ValueError if the directory holds a run with other settings."""
    options = replace(options, precision=chosen_precision(options.precision, world))
    if options.n_steps is None and options.minutes is None:
        options = replace(options, n_steps=recipe.n_steps)
    begun_with = None if is_new else directory.settings().get("text")
    settings = {
        "recipe": asdict(recipe),
        "seed": options.seed,
        "n_steps": options.n_steps,
        "minutes": options.minutes,
        "precision": options.precision,
        "text": world.shared(_text_fingerprint(corpus, begun_with) if world.is_main else None),
        "vocabulary": vocabulary_fingerprint(tokenizer),
        "initial": {name: str(source) for name, source in initial.items()},
    }
    if not is_new:
        directory.check_settings(settings)
    held_out = held_out_sequences(corpus, tokenizer, recipe.seq_length, max(1, MAX_TOKENS // recipe.seq_length))
    if world.is_main:
        UnknownTokens(tokenizer, "the held-out text").count(held_out.numpy())
    torch.manual_seed(options.seed)
    model = build_model(recipe, tokenizer, options.impl)
    checkpoints = Checkpoints(directory.checkpoints, settings, options.keep_checkpoints, directory.defaults)
    steps = world.shared([] if is_new else checkpoints.steps())
    if initial and not steps:
        load_pretrained(model, recipe, tokenizer, **initial)
    if options.gradient_checkpointing:
        checkpoint_activations(model)
    return _Run(
        recipe=recipe,
        corpus=corpus,
        tokenizer=tokenizer,
        options=options,
        world=world,
        directory=directory,
        settings=settings,
        is_new=is_new,
        held_out=held_out,
        model=model.to(world.device),
        checkpoints=checkpoints,
        has_checkpoints=bool(steps),
        stream=SequenceStream(
            corpus, tokenizer, recipe.seq_length, options.seed, recipe.packing, threads=recipe.cpu_threads
        ),
    )


def _begin(run: _Run) -> tuple[TrainingLoop, list[str]]:
    """Makes the loop, at the step where the run begins or resumes, and prepares the directory.

    Returns:
        The loop, and what there is to say about the checkpoints.
    """
    loop, warnings = TrainingLoop(run.model, run.recipe, run.stream, run.world, run.options), []
    if run.is_new and run.world.is_main:
        run.directory.begin(run.settings, run.tokenizer)
    run.world.barrier()
    if run.has_checkpoints:
        state = loop.state()
        step, warnings = run.checkpoints.resume(state)
        loop.resume(step, state)
    if run.world.is_main:
        run.directory.rewind_log(loop.step)
    return loop, warnings


def _train(run: _Run, loop: TrainingLoop, report: RunReport, evaluation: Evaluation) -> Evaluation:
    """Trains to the end or until a signal, with checkpoints.

    Args:
        evaluation: evaluation of the networks before training.

    Returns:
        The last evaluation.
    """
    if loop.step == 0:
        report.record("evaluation", step=0, **asdict(evaluation))
    every = run.options.checkpoint_every
    try:
        with stopped_by_signals(loop):
            while loop.progress < 1 and not loop.is_stopping:
                loop.run(report, until=(loop.step // every + 1) * every)
                if not loop.is_stopping:
                    evaluation = evaluate(run.model, run.held_out)
                    report.record("evaluation", step=loop.step, **asdict(evaluation))
                    similarity = {"discriminator_similarity": evaluation.discriminator_similarity}
                    report.advise(loop.step, loop.progress, similarity)
                run.checkpoints.save(loop.step, loop.state())
            run.checkpoints.finish()
    finally:
        run.checkpoints.close()
        report.end()
    return evaluation


def _record_begin(run: _Run, loop: TrainingLoop, report: RunReport) -> None:
    report.record(
        "run" if loop.step == 0 else "resume",
        step=loop.step,
        **run.settings,
        vocab_size=len(run.tokenizer),
        n_held_out_tokens=run.held_out.numel(),
        n_parameters=sum(p.numel() for p in run.model.parameters()),
        device=str(run.world.device),
        n_processes=run.world.size,
        accumulate=run.options.accumulate,
        parallel=run.options.parallel,
        threads=torch.get_num_threads(),
        versions={
            "electra_fast": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    )


def _finish(run: _Run, loop: TrainingLoop, report: RunReport, evaluation: Evaluation) -> ElectraPretrainingModel:
    """Writes the networks and reports how the run ended."""
    exported = export(loop.state()["parameters"], run.recipe, run.tokenizer)
    if run.world.is_main:
        if run.recipe.objective == "electra":
            calibration = calibrate(exported, run.held_out, torch.from_numpy(word_start_table(run.tokenizer)))
            if calibration is not None:
                calibration.write(exported.discriminator.config)
        save_results(run.directory, exported, run.recipe, run.tokenizer, evaluation, run.corpus.description())
    is_done = loop.progress >= 1
    report.record(
        "end",
        step=loop.step,
        seconds=loop.seconds,
        wait_seconds=run.stream.wait_seconds,
        reason="done" if is_done else "interrupted",
    )
    if is_done:
        report.say(f"wrote {', '.join(str(run.directory.path / name) for name in exported.hub_networks)}")
    else:
        report.say(f"stopped after step {loop.step}: the same command goes on from there")
    return exported


def _text_fingerprint(corpus: Corpus | ShardedCorpus, begun_with: str | None) -> str:
    """The fingerprint of the text, by the rules of the one that the run began with: old ones cover files' edges."""
    if begun_with is not None and begun_with == (edges := corpus.fingerprint_of_edges()):
        return edges
    return corpus.fingerprint()


def _new_tokenizer(
    corpus: Corpus | ShardedCorpus, recipe: Recipe, initial: Mapping[str, str | os.PathLike], n_new_entries: int
) -> ElectraTokenizer:
    """The tokenizer of the initial checkpoints, or one with a vocabulary trained on the text."""
    if not initial:
        return new_tokenizer(vocabulary_texts(corpus), recipe)
    tokenizer = pretrained_tokenizer(**initial)
    return extended_tokenizer(tokenizer, vocabulary_texts(corpus), n_new_entries) if n_new_entries else tokenizer


def new_tokenizer(documents: Sequence[str], recipe: Recipe) -> ElectraTokenizer:
    """A tokenizer with a vocabulary trained on the documents."""
    return as_tokenizer(train_vocab(documents, recipe.vocab_size), recipe)


def as_tokenizer(vocab: Sequence[str], recipe: Recipe) -> ElectraTokenizer:
    """A tokenizer for a recipe's networks, with the vocabulary's entries numbered in order."""
    return ElectraTokenizer(
        vocab={token: i for i, token in enumerate(vocab)}, model_max_length=recipe.max_position_embeddings
    )
