"""The run of one seed, from a checkpoint to a fine-tuned network with its metrics. A stopped run can be continued."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from ..disk import read_json_object, written
from ..model.layers import checkpoint_activations
from ..tokenizer import ElectraTokenizer
from ..training.checkpoint import Checkpoints
from ..training.distributed import World
from ..training.loop import stopped_by_signals
from ..training.progress import read_records
from ..training.report import RunReport
from ..training.run_directory import RunDirectory
from ..versions import __version__
from .data.tasks import is_labelled
from .failure import FailedRun, FailureGuard
from .loop import FinetuningLoop
from .networks import TaskNetworks, load_networks
from .prediction import score_features
from .recipe import Recipe
from .results import save_results
from .run_options import FinetuningOptions
from .task_data import TaskData

# Contents of the progress line: label, metric, format.
_SHOWN = (("loss", "loss", ".4f"), ("tokens/s", "tokens_per_second", ",.0f"))
_BATCH_TOKENS = 8192


class Interrupted(Exception):
    """Says that a signal ended the run; `number` is the signal's."""

    def __init__(self, number: int):
        super().__init__(f"interrupted by signal {number}")
        self.number = number


class SeedDirectory(RunDirectory):
    """The directory of the run of one seed.

    result.json             the run's metrics, or why it failed; written last
    model/                  the network; model/TASK/ for each of several tasks
    predictions/            predictions for every split but train, one JSON object per line
    submission/             test predictions as the benchmark takes them
    confusion*.png          confusion matrices of the dev splits
    checkpoints/step-N/     the state of the run, as long as it is under way
    """

    outputs = ("model", "predictions", "submission")

    def __init__(self, path: Path):
        super().__init__(path, (*self.outputs, "result.json", "checkpoints"))
        self.checkpoints, self._result = self.path / "checkpoints", self.path / "result.json"

    def result(self) -> dict[str, Any] | None:
        """The result, or None if the run is not complete yet; raises ValueError if it is damaged."""
        if not self._result.is_file():
            return None
        result = read_json_object(self._result)
        if missing := {"seed", *(() if "failure" in result else ("metrics", "score"))} - result.keys():
            raise ValueError(f"{self._result} must be the result of a run, but has no {', '.join(sorted(missing))}")
        return result

    def write_result(self, result: Mapping[str, Any]) -> None:
        with written(self._result) as file:
            file.write(json.dumps(result, indent=2) + "\n")


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """The part that the runs of all seeds have in common.

    Attributes:
        source: the checkpoint to begin with, a directory or a model on the Hub.
        settings: settings that must be the same when a run is continued.
        options: options of every seed's run, apart from the seed; with a precision and `checkpoint_every`.
    """

    source: str
    tasks: Mapping[str, TaskData]
    recipe: Recipe
    tokenizer: ElectraTokenizer
    world: World
    settings: Mapping[str, Any]
    options: FinetuningOptions

    def train(self, directory: SeedDirectory, seed: int, stop_if_failing: bool) -> tuple[dict[str, Any], int]:
        """Trains a network with this seed, measures it and writes the results; reads them if that was done before.

        Args:
            stop_if_failing: whether to give up a network that does not learn.

        Returns:
            `seed`, and `metrics` by split or `failure`; also `warning` if the network has not learnt. Besides, the
            number of a signal that came too late to stop this seed's run, or 0.

        Raises:
            Interrupted: a signal ended the run; a checkpoint was written.
            ValueError: the directory holds another run, or a damaged one.
        """
        world = self.world
        if (result := world.shared(directory.result())) is not None:
            return result, 0
        settings = {**self.settings, "seed": seed}
        is_new = world.shared(not directory.holds_a_run)
        if not is_new:
            directory.check_settings(settings)
        elif world.is_main:
            directory.clear()
            directory.write_settings(settings)
        world.barrier()
        loop = self._loop(seed)
        constant_loss = self._constant_loss(loop)
        guard = FailureGuard(constant_loss, stop_if_failing)
        checkpoints, warnings = Checkpoints(directory.checkpoints, settings), []
        if world.shared(checkpoints.steps()):
            state = loop.state()
            step, warnings = checkpoints.resume(state)
            loop.resume(step, state)
        if world.is_main:
            directory.rewind_log(loop.step)
        records = world.shared(read_records(directory.log) if directory.log.is_file() else [])
        for record in records:
            if record["kind"] == "train":
                guard.recall(record["step"] / loop.n_steps, record["loss"])
        measured = [record["step"] for record in records if record["kind"] == "evaluation"]
        with directory.writer(self.options.track) if world.is_main else nullcontext() as writer:
            report = RunReport(writer, guard, _SHOWN)
            report.record(
                "run" if loop.step == 0 else "resume",
                step=loop.step,
                **settings,
                n_items=len(loop.order),
                n_steps=loop.n_steps,
                constant_loss=constant_loss,
                n_parameters=sum(p.numel() for p in loop.model.parameters()),
                device=str(world.device),
                n_processes=world.size,
                accumulate=self.options.accumulate,
                threads=torch.get_num_threads(),
                versions={
                    "electra_fast": __version__,
                    "torch": torch.__version__,
                    "python": platform.python_version(),
                },
            )
            for warning in warnings:
                report.warn(loop.step, warning)
            try:
                result = {"seed": seed, **self._train(loop, report, checkpoints, directory, {0, *measured})}
            except FailedRun as failure:
                result = {"seed": seed, "failure": str(failure)}
                report.say(f"seed {seed} failed: {failure}")
            finally:
                checkpoints.close()
                report.end()
            if guard.finding is not None and "failure" not in result:
                result["warning"] = guard.finding
            report.record("end", step=loop.step, seconds=loop.seconds, reason="done", **result)
        if world.is_main:
            directory.write_result(result)
            directory.remove("checkpoints")
        world.barrier()
        return result, loop.stopped_by

    def _loop(self, seed: int) -> FinetuningLoop:
        torch.manual_seed(seed)
        kinds = {name: data.kind for name, data in self.tasks.items()}
        model = load_networks(self.source, kinds, self.recipe, self.tokenizer.n_ids, self.options.impl)
        if self.options.gradient_checkpointing:
            checkpoint_activations(model)
        return FinetuningLoop(
            model.to(self.world.device),
            self.recipe,
            {name: data.train for name, data in self.tasks.items()},
            self.world,
            replace(self.options, seed=seed),
        )

    def _constant_loss(self, loop: FinetuningLoop) -> float:
        """The constant loss of all tasks together, weighted as the loss is."""
        sizes = {name: len(data.train) for name, data in self.tasks.items()}
        return sum(
            sizes[name] / len(loop.order) * data.kind.constant_loss(data.train) for name, data in self.tasks.items()
        )

    def _train(
        self,
        loop: FinetuningLoop,
        report: RunReport,
        checkpoints: Checkpoints,
        directory: SeedDirectory,
        measured: Collection[int],
    ) -> dict[str, Any]:
        """Makes the updates, with an evaluation after each epoch, then measures the network and writes its results.

        Args:
            measured: the steps of evaluations that were made before an interruption.
        """
        checkpoint_every = self.options.checkpoint_every
        with stopped_by_signals(loop):
            while loop.progress < 1 and not loop.is_stopping:
                if loop.step % loop.order.steps_per_epoch == 0 and loop.step not in measured:
                    self._measure(loop.model, loop.step, report, only_dev=True)
                stops = (checkpoint_every, loop.order.steps_per_epoch)
                loop.run(report, until=min((loop.step // n + 1) * n for n in stops))
                if loop.is_stopping or (loop.step % checkpoint_every == 0 and loop.progress < 1):
                    checkpoints.save(loop.step, loop.state())
            checkpoints.finish()
        loop.agree_on_signals()
        if loop.progress < 1:
            report.record("end", step=loop.step, seconds=loop.seconds, reason="interrupted")
            report.say(f"stopped after step {loop.step} of seed {loop.seed}: the same command goes on from there")
            raise Interrupted(loop.stopped_by)
        predictions, metrics = self._measure(loop.model, loop.step, report, only_dev=False)
        make_precise(loop)
        if self.world.is_main:
            save_results(directory, loop.model, self.tasks, self.recipe, self.tokenizer, predictions, metrics)
        return {"metrics": metrics, "score": score(self.tasks, metrics)}

    def _measure(
        self, model: TaskNetworks, step: int, report: RunReport, only_dev: bool
    ) -> tuple[dict[str, dict[str, list[dict]]], dict[str, dict[str, float]]]:
        """Returns predictions by task and split, and metrics of the splits that have labels; records the metrics."""
        predictions: dict[str, dict[str, list[dict]]] = {}
        metrics: dict[str, dict[str, float]] = {}
        for name, data in self.tasks.items():
            predictions[name] = {}
            for split in data.measured_splits:
                if only_dev and not is_labelled(split):
                    continue
                examples, features = data.splits[split].examples, data.features(split)
                scores = score_features(
                    model.models[name], data.kind, features, _BATCH_TOKENS, self.world.device, self.world
                )
                found = data.kind.predictions(examples, features, scores)
                predictions[name][split] = found
                if data.has_labels(split):
                    metrics[data.title(split, self.tasks)] = data.metrics(split, found)
        flat = {f"{split}/{metric}": value for split, found in metrics.items() for metric, value in found.items()}
        report.record("evaluation", step=step, **flat)
        counted = [f"{split} {next(iter(found))} {next(iter(found.values())):.4f}" for split, found in metrics.items()]
        report.say(f"step {step}: {', '.join(counted)}")
        return predictions, metrics


def make_precise(loop: FinetuningLoop) -> None:
    """Gives the model the fp32 values of its parameters, on the CPU; the loop cannot be used after that."""
    precise = loop.state()["parameters"]
    for name, p in loop.model.named_parameters():
        p.data = precise[name].detach().cpu()
    loop.model.cpu().eval()


def score(tasks: Mapping[str, TaskData], metrics: Mapping[str, Mapping[str, float]]) -> float:
    """The score that seeds are compared by: the mean over tasks and dev splits of the metric that counts."""
    return mean(
        next(iter(metrics[data.title(split, tasks)].values()))
        for data in tasks.values()
        for split in data.measured_splits
        if is_labelled(split)
    )
