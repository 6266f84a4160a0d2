"""The results that the run of a seed writes: networks as on the Hub, predictions, submissions and pictures."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping

from ..disk import replaced
from ..tokenizer import ElectraTokenizer
from ..training.plot import OPTIMIZER_PANELS, plot_run
from ..training.progress import read_records
from ..training.run_directory import RunDirectory
from .confusion import plot_confusion
from .data.examples import answer_of
from .data.tasks import is_labelled
from .networks import TaskNetworks
from .recipe import Recipe
from .saved import save_finetuned
from .submission import write_glue, write_squad
from .task_data import TaskData

# A confusion matrix with more labels would be unreadable.
_MAX_CONFUSED_LABELS = 30


def save_results(
    directory: RunDirectory,
    model: TaskNetworks,
    tasks: Mapping[str, TaskData],
    recipe: Recipe,
    tokenizer: ElectraTokenizer,
    predictions: Mapping[str, Mapping[str, list[dict]]],
    metrics: Mapping[str, Mapping[str, float]],
) -> None:
    """Writes networks, predictions by task and split, submissions and pictures; each directory appears whole.

    The network of a single task is model/. With several tasks each network is model/TASK/, and the names of the other
    files begin with the task.
    """
    is_alone = len(tasks) == 1
    with replaced(directory.path / "model") as temporary:
        for name, data in tasks.items():
            target = temporary if is_alone else temporary / name
            save_finetuned(target, model.models[name], data.task.kind, data.task.options, recipe.max_length, tokenizer)
    with replaced(directory.path / "predictions") as temporary:
        for name, by_split in predictions.items():
            for split, found in by_split.items():
                file = temporary / f"{split if is_alone else f'{name}.{split}'}.jsonl"
                with open(file, "w", encoding="utf-8") as lines:
                    lines.writelines(json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in found)
    submitted = {
        (name, split): file
        for name, data in tasks.items()
        for split, file in data.task.submission.items()
        if split in predictions[name]
    }
    if submitted:
        with replaced(directory.path / "submission") as temporary:
            for (name, split), file in submitted.items():
                if tasks[name].task.kind == "qa":
                    write_squad(temporary, predictions[name][split])
                else:
                    write_glue(temporary / file, predictions[name][split])
    if None in (importlib.util.find_spec("matplotlib"), importlib.util.find_spec("sklearn")):
        print(
            "no pictures of the run: they need matplotlib and scikit-learn, pip install 'electra_fast[train,eval]'",
            flush=True,
        )
    else:
        _draw(directory, tasks, predictions, metrics)


def _draw(
    directory: RunDirectory,
    tasks: Mapping[str, TaskData],
    predictions: Mapping[str, Mapping[str, list[dict]]],
    metrics: Mapping[str, Mapping[str, float]],
) -> None:
    if read_records(directory.log, "train"):
        panels = [("loss", "loss", read_records(directory.log, "run")[0]["constant_loss"])]
        for data in tasks.values():
            for title in (data.title(split, tasks) for split in data.measured_splits if is_labelled(split)):
                metric = next(iter(metrics[title]))
                panels.append((f"{title}/{metric}", f"{title} {metric}", None))
        plot_run(directory.log, directory.plot, [*panels, *OPTIMIZER_PANELS], f"ELECTRA on {', '.join(tasks)}")
    for name, data in tasks.items():
        labels = data.kind.labels
        if data.task.kind not in ("classification", "tagging") or len(labels) > _MAX_CONFUSED_LABELS:
            continue
        for split in data.measured_splits:
            if data.has_labels(split):
                true, predicted = _answers(data, split, predictions[name][split])
                title = data.title(split, tasks)
                png = directory.path / f"confusion.{title.replace(' ', '.')}.png"
                plot_confusion(labels, true, predicted, png, title)


def _answers(data: TaskData, split: str, predictions: list[dict]) -> tuple[list[str], list[str]]:
    """The true and the predicted answers: a class for each example, or a tag for each word."""
    examples, predictions = data.answered(split, predictions)
    if data.task.kind == "classification":
        return [str(answer_of(example)) for example in examples], [p["label"] for p in predictions]
    return [tag for e in examples for tag in e.tags], [tag for p in predictions for tag in p["tags"]]
