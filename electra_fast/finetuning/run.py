"""Fine-tuning on tasks with several seeds: from a checkpoint to the best seed's network and the medians over seeds."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from ..disk import copied, moved, written
from ..model.config import ElectraConfig
from ..tokenizer import ElectraTokenizer
from ..training.distributed import join
from ..training.loop import end_by_signal
from ..training.options import by_owner, changed
from ..training.precision import chosen_precision
from ..training.progress import read_records
from ..training.run_directory import RunDirectory
from .model_card import write_model_cards
from .recipe import Recipe, recipe_for
from .run_options import FinetuningOptions
from .seed_run import Interrupted, SeedDirectory, SeedRun
from .summary import format_summary, summarize
from .task_data import TaskFiles


def finetune(
    model: str | os.PathLike,
    tasks: Sequence[TaskFiles],
    out: str | os.PathLike,
    options: FinetuningOptions | None = None,
    *,
    n_trials: int = 1,
    n_retries: int = 2,
    keep_all: bool = False,
    overwrite: bool = False,
    **changes: object,
) -> dict[str, Any]:
    """Trains a network on tasks, with several seeds, and measures it on their held-out splits.

    A seed whose network does not learn is given up at half of its run, and the next seed is tried. Called again with
    the same `out`, the function continues after the last checkpoint, whatever ended the run before. Ctrl-C, SIGTERM,
    SIGHUP and the warnings of schedulers (SIGUSR1, SIGUSR2, SIGXCPU) write a checkpoint first; then Ctrl-C raises
    KeyboardInterrupt, and the others SystemExit with the code 128 + their number. Processes that torchrun started train
    together. Torch's global generator is seeded.

    Args:
        model: the checkpoint to begin with, a directory or a model on the Hub; its head is kept where it fits.
        tasks: one task, or several, which share the encoder.
        out: a directory for the outputs; nothing is written before all input has been checked.
        options: how to make the run.
        n_trials: how many runs count, with the seeds `seed`, `seed` + 1, ...
        n_retries: how many failed runs are replaced by further ones. Later runs are trained to their end and count,
            with a warning, whether the network learns or not.
        keep_all: keep the networks of all seeds, not only that of the best.
        overwrite: replace the outputs of an earlier run in `out`.
        **changes: fields of `FinetuningOptions` in place of those of `options`, and fields of the recipe
            (`recipe.Recipe`) in place of what `recipe_for` takes from the paper.

    Returns:
        The summary (`summary.summarize`), with all `results` and `best`, the seed whose network is in `out`/model;
        and `rows`, by task and split, the counts of rows that lack a text or a label (`data.examples.RowCounts`).

    Raises:
        FileExistsError: `out` is a file, or holds files that are no run and `overwrite` is false.
        TypeError: neither the options nor the recipe has the keyword.
        ValueError: a row is no example, `out` holds another run or a damaged one, or a number is not positive.
        BlockingIOError: another run is at work in `out`.
    """
    option_changes, recipe_changes = by_owner(changes, FinetuningOptions, Recipe)
    options = changed(options, option_changes, FinetuningOptions)
    if n_trials < 1:
        raise ValueError(f"n_trials must be positive, got {n_trials}")
    names = [files.task.name for files in tasks]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"there must be at least one task, and each once, got {', '.join(names) or 'none'}")
    directory = RunDirectory(out, (*SeedDirectory.outputs, "results.json"))
    directory.check(overwrite)
    with join(options.device) as world, directory.locked(world):
        options = replace(
            options,
            precision=chosen_precision(options.precision, world),
            checkpoint_every=options.checkpoint_every or 50 * options.log_every,
        )
        tokenizer = ElectraTokenizer.from_pretrained(model)
        recipe = recipe_for(ElectraConfig.from_pretrained(model), [files.task for files in tasks], **recipe_changes)
        with world.warning_once():
            data = {files.task.name: files.open(tokenizer, recipe, options.seed) for files in tasks}
        if world.is_main:
            for line in itertools.chain.from_iterable(task_data.said_of_rows() for task_data in data.values()):
                print(line, flush=True)
        settings = {
            "model": str(model),
            "recipe": asdict(recipe),
            "precision": options.precision,
            "tasks": {name: asdict(task_data.task) for name, task_data in data.items()},
            "data": {name: task_data.fingerprint() for name, task_data in data.items()},
        }
        if world.is_main:
            for task_data in data.values():
                task_data.warn_of_unknown_tokens()
        is_new = world.shared(overwrite or not directory.holds_a_run)
        if not is_new:
            directory.check_settings(settings)
        run = SeedRun(
            source=str(model),
            tasks=data,
            recipe=recipe,
            tokenizer=tokenizer,
            world=world,
            settings=settings,
            options=options,
        )
        if is_new and world.is_main:
            directory.clear()
            for path in directory.path.glob("seed-*"):
                directory.remove(path.name)
            directory.write_settings(settings)
        world.barrier()
        try:
            results = _train_seeds(run, directory, n_trials, n_retries)
        except Interrupted as interrupted:
            # torchrun ends all processes as soon as one has failed: none may before the first has written everything.
            world.barrier()
            end_by_signal(interrupted.number)
        best = max((result for result in results if "failure" not in result), key=lambda result: result["score"])
        rows = {name: task_data.rows() for name, task_data in data.items()}
        summary = summarize(results) | {"results": results, "best": best["seed"], "rows": rows}
        if world.is_main:
            _keep_best(directory, summary, keep_all)
            record = read_records(_seed_directory(directory, best["seed"]).log, "run")[0]
            write_model_cards(directory.path / "model", model, data, recipe, summary, record)
            print(format_summary(summary))
            print(f"wrote {directory.path / 'model'}, that of seed {best['seed']}", flush=True)
        world.barrier()
    return summary


def _train_seeds(run: SeedRun, directory: RunDirectory, n_trials: int, n_retries: int) -> list[dict[str, Any]]:
    """Trains one seed after the other until `n_trials` runs count; returns the results of all."""
    results: list[dict[str, Any]] = []
    n_failed = 0
    for number in itertools.count(run.options.seed):
        result, signal_number = run.train(
            _seed_directory(directory, number), number, stop_if_failing=n_failed < n_retries
        )
        results.append(result)
        n_failed += "failure" in result
        if n_failed > n_retries:
            raise ValueError(f"{n_failed} of {len(results)} runs failed; of the last: {result['failure']}")
        if len(results) - n_failed == n_trials:
            return results
        if signal_number:
            if run.world.is_main:
                print(f"stopped after seed {number}: the same command goes on from there", flush=True)
            raise Interrupted(signal_number)


def _seed_directory(directory: RunDirectory, seed: int) -> SeedDirectory:
    return SeedDirectory(directory.path / f"seed-{seed}")


def _keep_best(directory: RunDirectory, summary: dict[str, Any], keep_all: bool) -> None:
    """Makes the best seed's outputs those of the run; deletes the networks of the others, unless `keep_all` is set."""
    best = _seed_directory(directory, summary["best"])
    for source in (*(best.path / name for name in best.outputs), *best.path.glob("*.png")):
        if not source.exists():  # an earlier run, completed or interrupted here, has moved it already
            continue
        directory.remove(source.name)
        if keep_all:
            copied(source, directory.path / source.name)
        else:
            moved(source, directory.path / source.name)
    if not keep_all:
        for result in summary["results"]:
            _seed_directory(directory, result["seed"]).remove("model")
    with written(directory.path / "results.json") as file:
        file.write(json.dumps(summary, indent=2) + "\n")
