"""The model card of a fine-tuned network: the README.md that the Hub shows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..training.model_card import PAPER, card, code_span, facts, plain, table, write_card
from .data.splits import fingerprint
from .data.tasks import Task
from .recipe import Recipe
from .summary import COLUMNS
from .task_data import TaskData

# For each kind: the Hub's name of it, and what its networks do.
_KINDS = {
    "classification": ("text-classification", "gives a text one of the labels"),
    "regression": ("text-classification", "gives a text a number"),
    "multilabel": ("text-classification", "gives a text any number of the labels"),
    "tagging": ("token-classification", "gives each word of a sentence one of the labels"),
    "choice": ("multiple-choice", "chooses the ending that continues a text"),
    "qa": ("question-answering", "finds the answer to a question in a text"),
}
# The Hub's names of metrics, where they are not ours.
_METRICS = {"matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"}
# The data sets on the Hub that have the published tasks' examples, with their configurations.
_GLUE = "cola sst2 mrpc stsb qqp mnli qnli rte wnli".split()
_MRQA = "newsqa naturalqs triviaqa searchqa".split()
_DATASETS: dict[str, tuple[str, str | None]] = {
    **{name: ("nyu-mll/glue", name) for name in _GLUE},
    **{name: ("mrqa-workshop/mrqa", None) for name in _MRQA},
    "squad1": ("rajpurkar/squad", None),
    "squad2": ("rajpurkar/squad_v2", None),
    "chunking": ("eriktks/conll2000", None),
    "ner": ("eriktks/conll2003", None),
    "pos": ("eriktks/conll2003", None),
    "swag": ("allenai/swag", None),
}

_PIPELINE = """from transformers import pipeline

network = pipeline("{tag}", model="{path}")
print(network({example}, top_k=None, truncation=True, max_length={max_length}))"""
_TAGGER = """from transformers import pipeline

network = pipeline("{tag}", model="{path}", aggregation_strategy="simple")
print(network({example}))"""
_CHOICE = """from transformers import AutoModelForMultipleChoice, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{path}")
network = AutoModelForMultipleChoice.from_pretrained("{path}")
pairs = {example}
inputs = tokenizer(pairs, padding=True, return_tensors="pt")
print(network(**{{name: x[None] for name, x in inputs.items()}}).logits.softmax(-1))"""
_QUESTION = """from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{path}")
network = AutoModelForQuestionAnswering.from_pretrained("{path}")
inputs = tokenizer({example}, return_tensors="pt")
output = network(**inputs)
start, end = output.start_logits.argmax(), output.end_logits.argmax()
print(tokenizer.decode(inputs["input_ids"][0, start : end + 1]))"""
_ELECTRA_FAST = """from electra_fast.finetuning import {example_class}, load_finetuned, predict

network = load_finetuned("{path}")
example = {example_class}(id="0", line=1, {example})
print(next(predict(network, [example])))"""


def write_model_cards(
    directory: str | os.PathLike,
    source: str | os.PathLike,
    tasks: Mapping[str, TaskData],
    recipe: Recipe,
    summary: Mapping[str, Any],
    run_record: Mapping[str, Any],
) -> None:
    """Writes the card of each network of a run, that of a single task into `directory`, others into directory/TASK.

    Args:
        source: the checkpoint that the run began with.
        summary: what `finetune` returns.
        run_record: the record of kind "run" in the log of the best seed.
    """
    for name in tasks:
        target = Path(directory) if len(tasks) == 1 else Path(directory) / name
        write_card(target, model_card(name, source, tasks, recipe, summary, run_record))


def model_card(
    name: str,
    source: str | os.PathLike,
    tasks: Mapping[str, TaskData],
    recipe: Recipe,
    summary: Mapping[str, Any],
    run_record: Mapping[str, Any],
    *,
    path: str = ".",
) -> str:
    """The text of a task's card: a YAML header for the Hub, what the network is, how to use it, how it was made.

    Args:
        name: the task's name among `tasks`.
        path: path that the examples load: the directory, or the repository's name on the Hub.
        source, summary, run_record: see `write_model_cards`.
    """
    data, task = tasks[name], tasks[name].task
    tag, what = _KINDS[task.kind]
    is_local = Path(source).is_dir()
    dataset, config = _DATASETS.get(name, (None, None))
    best = next(result for result in summary["results"] if result["seed"] == summary["best"])
    found = {
        split: best["metrics"][data.title(split, tasks)] for split in data.measured_splits if data.has_labels(split)
    }
    model_name = f"ELECTRA {name}"
    header = ModelCardData(
        library_name="transformers" if recipe.head == "transformers" else "electra_fast",
        pipeline_tag=tag,
        base_model=None if is_local else str(source),
        datasets=None if dataset is None else [dataset],
        metrics=list(dict.fromkeys(_METRICS.get(metric, metric) for metrics in found.values() for metric in metrics)),
        tags=["electra", "electra_fast"],
        model_name=model_name,
        eval_results=[
            EvalResult(
                task_type=tag,
                dataset_type=dataset or name,
                dataset_name=name,
                dataset_config=config,
                dataset_split=split,
                metric_type=_METRICS.get(metric, metric),
                metric_name=metric,
                metric_value=value,
            )
            for split, metrics in found.items()
            for metric, value in metrics.items()
        ],
    )
    others = [other for other in tasks if other != name]
    made = ("run", "kind", "step", "model", "recipe", "tasks", "data")
    sections = [
        f"# {plain(model_name)}",
        f"An ELECTRA ({PAPER}) that {what}, fine-tuned with electra_fast on the task {code_span(name)}"
        + (f", together with {', '.join(map(code_span, others))}" if others else "")
        + f", from {code_span(Path(source).name if is_local else str(source))}.",
        *([f"Labels: {', '.join(map(code_span, data.kind.labels))}."] if data.kind.labels else []),
        "## Use",
        *_uses(task, recipe, path),
        "## Results",
        *_results(data, tasks, found, summary),
        "## Data",
        table(("split", "examples", "file"), [_split_row(data, split) for split in data.splits]),
        f"Fingerprint of all examples: `{fingerprint(data.splits)}`.",
        "## Recipe",
        facts(asdict(recipe)),
        "## Run",
        facts({key: value for key, value in run_record.items() if key not in made}),
    ]
    return card(header, sections)


def _results(
    data: TaskData,
    tasks: Mapping[str, TaskData],
    found: Mapping[str, Mapping[str, float]],
    summary: Mapping[str, Any],
) -> list[str]:
    """The metrics of this network, and the statistics over the seeds where there are several."""
    rows = [(split, metric, value) for split, metrics in found.items() for metric, value in metrics.items()]
    n_runs = summary["runs"] - len(summary["failed"])
    if n_runs == 1:
        lines = [table(("split", "metric", "this network"), rows)]
    else:
        of_seeds = summary["metrics"]
        statistics = [
            [of_seeds[data.title(split, tasks)][metric][column] for column in COLUMNS] for split, metric, _ in rows
        ]
        columns = ("split", "metric", "this network", *COLUMNS)
        lines = [
            f"This network is that of seed {summary['best']}, the best of {n_runs} on the dev data, so its figures "
            "there are optimistic. The other columns are statistics over the seeds.",
            table(columns, [(*row, *of_row) for row, of_row in zip(rows, statistics, strict=True)]),
        ]
    if summary["failed"]:
        lines.append(f"{len(summary['failed'])} of {summary['runs']} runs did not learn, and are not counted.")
    return lines


def _split_row(data: TaskData, split: str) -> Sequence[Any]:
    examples, file = data.splits[split].examples, data.splits[split].path
    is_held_out = split != "train" and "train" in data.splits and file == data.splits["train"].path
    return split, f"{len(examples):,}", f"held out of {file.name}" if is_held_out else file.name


def _uses(task: Task, recipe: Recipe, path: str) -> list[str]:
    """The code for each library that can load the network."""
    example_class, example, code, call = _example(task)
    ours = _ELECTRA_FAST.format(path=path, example_class=example_class, example=example)
    theirs = code.format(tag=_KINDS[task.kind][0], path=path, example=call, max_length=recipe.max_length)
    by_library = {"transformers": theirs, "electra_fast": ours}
    if recipe.head != "transformers":
        del by_library["transformers"]
    return [f"With {library}:\n\n```python\n{code}\n```" for library, code in by_library.items()]


def _example(task: Task) -> tuple[str, str, str, str]:
    """The class and the arguments of an example for electra_fast, then the code for transformers and its example."""
    text, pair = "A lovely film, and far too short.", "The film was good."
    match task.kind:
        case "tagging":
            sentence = "Ada Lovelace lived in London ."
            return "TaggedExample", f"words=tuple({json.dumps(sentence)}.split())", _TAGGER, json.dumps(sentence)
        case "choice":
            start, text = "She", "She opened the book."
            endings = ("read it.", "ate it.", "sang it.", "flew away.")[: len(task.columns.endings)]
            pairs = [(text, f"{start} {ending}") for ending in endings]
            arguments = f"text={json.dumps(text)}, start={json.dumps(start)}, endings=tuple({json.dumps(endings)})"
            return "ChoiceExample", arguments, _CHOICE, json.dumps(pairs)
        case "qa":
            question, context = "Where did Ada Lovelace live?", "Ada Lovelace lived in London."
            arguments = f"question={json.dumps(question)}, context={json.dumps(context)}"
            return "QuestionExample", arguments, _QUESTION, f"{json.dumps(question)}, {json.dumps(context)}"
    if task.columns.pair is None:
        return "TextExample", f"text={json.dumps(text)}", _PIPELINE, json.dumps(text)
    inputs = {"text": text, "text_pair": pair}
    return "TextExample", f"text={json.dumps(text)}, pair={json.dumps(pair)}", _PIPELINE, json.dumps(inputs)
