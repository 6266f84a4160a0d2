"""The data that a task is trained and measured on: kind, splits, and features, which are made once for all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..tokenizer import ElectraTokenizer
from ..tokenizer.unknown import UnknownTokens
from .data.examples import Example, answer_of
from .data.features import Features
from .data.splits import fingerprint, labels_of, open_splits, swapped
from .data.tasks import Task
from .kinds.kind import Kind
from .kinds.table import make_kind
from .recipe import Recipe


@dataclass(frozen=True)
class TaskFiles:
    """A task and where its examples are.

    Attributes:
        data: a directory with the files that the task names, or a single file to train on.
        files: files by split, in place of those in `data`.
        n_train: number of examples to train on, drawn by the seed of the run; None takes all.
    """

    task: Task
    data: Path | None = None
    files: Mapping[str, Path] | None = None
    n_train: int | None = None

    def open(self, tokenizer: ElectraTokenizer, recipe: Recipe, seed: int) -> TaskData:
        """Reads and checks everything; raises ValueError and FileNotFoundError as `open_splits` does."""
        splits = open_splits(self.task, self.data, self.files, seed=seed, n_train=self.n_train)
        return TaskData(self.task, splits, labels_of(self.task, splits), tokenizer, recipe)


def folder_of(task: Task, data: Path) -> Path:
    """The folder of a task in a directory that has one for each of several tasks.

    The folder's name must be the task's; case, hyphens and underscores do not matter, so SST-2 is the folder of sst2.

    Raises:
        FileNotFoundError: there is no such directory, or no folder for the task in it.
    """
    if not data.is_dir():
        raise FileNotFoundError(f"no such directory: {data}")
    for path in sorted(data.iterdir()):
        if path.is_dir() and path.name.lower().replace("-", "").replace("_", "") == task.name:
            return path
    raise FileNotFoundError(f"{data} must hold a directory for each task, got none for {task.name}")


class TaskData:
    """The splits of a task as the network reads them.

    Attributes:
        kind: the kind of the task, with its labels.
        train: the features to train on.
    """

    def __init__(self, task: Task, splits: dict, labels: tuple[str, ...], tokenizer: ElectraTokenizer, recipe: Recipe):
        self.task, self.splits = task, splits
        self.kind: Kind = self._made_kind(labels)
        if task.metric is not None and task.metric not in self.kind.metric_names:
            names = ", ".join(self.kind.metric_names)
            raise ValueError(f"the metric of {task.name} must be one of {names}, got {task.metric!r}")
        self.kind.model_class(recipe.head)  # refuses a head that the kind does not have, before any training
        self._tokenizer, self._recipe = tokenizer, recipe
        self._features: dict[str, Features] = {}

    def _made_kind(self, labels: tuple[str, ...]) -> Kind:
        """Makes the kind; where the file to train on has too few labels, the error names file and column."""
        task = self.task
        try:
            return make_kind(task.kind, labels, task.options)
        except ValueError as error:
            column = task.columns.tags if task.kind == "tagging" else task.columns.label
            if task.labels is not None or column is None:
                raise
            raise ValueError(f"{self.splits['train'].path}, column {column!r}: {error}") from error

    @cached_property
    def train(self) -> Features:
        examples = self.splits["train"].examples
        if self._recipe.swap_pairs:
            examples = [*examples, *swapped(examples)]
        return self.kind.features(examples, self._tokenizer, self._recipe.max_length)

    def features(self, split: str) -> Features:
        """The features of a split to measure on."""
        if split not in self._features:
            examples = self.splits[split].examples
            self._features[split] = self.kind.features(examples, self._tokenizer, self._recipe.max_length)
        return self._features[split]

    def warn_of_unknown_tokens(self) -> None:
        """Warns of the first split, if any, whose words the vocabulary does not know (`UnknownTokens`)."""
        for split in self.splits:
            unknown = UnknownTokens(self._tokenizer, f"the {split} examples of {self.task.name}")
            unknown.count((self.train if split == "train" else self.features(split)).input_ids)
            if unknown.has_warned:
                return

    @property
    def measured_splits(self) -> list[str]:
        return [name for name in self.splits if name != "train"]

    def has_labels(self, split: str) -> bool:
        """Whether a split can be measured on: the answers to some of its examples are known."""
        return any(answer_of(example) is not None for example in self.splits[split].examples)

    def answered(self, split: str, predictions: Sequence[dict]) -> tuple[list[Example], list[dict]]:
        """The examples of a split whose answers are known, and their predictions."""
        pairs = zip(self.splits[split].examples, predictions, strict=True)
        examples, found = zip(*(pair for pair in pairs if answer_of(pair[0]) is not None), strict=True)
        return list(examples), list(found)

    def metrics(self, split: str, predictions: Sequence[dict]) -> dict[str, float]:
        """The metrics of a split's predictions where answers are known, the one that counts first."""
        found = self.kind.metrics(*self.answered(split, predictions))
        first = self.task.metric or self.kind.metric_names[0]
        return {first: found[first], **found}

    def rows(self) -> dict[str, dict]:
        """The counts of rows by split, of those that have rows without a text or a label."""
        found = {name: split.counts and split.counts.as_json() for name, split in self.splits.items()}
        return {name: counts for name, counts in found.items() if counts}

    def said_of_rows(self) -> list[str]:
        """The same counts as lines for people."""
        lines = [split.counts and split.counts.said(split.path) for split in self.splits.values()]
        return [line for line in lines if line]

    def title(self, split: str, tasks: Mapping[str, TaskData]) -> str:
        """The name of a split among those of all tasks: with several tasks, the task's name comes first."""
        return split if len(tasks) == 1 else f"{self.task.name} {split}"

    def fingerprint(self) -> str:
        return fingerprint(self.splits)
