"""The subcommand `finetune`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from ..disk import check_apart, check_readable
from ..finetuning.run_options import FinetuningOptions
from .options import flattened

if TYPE_CHECKING:
    from ..finetuning.data.tasks import Task


@dataclass(kw_only=True)
class FinetuneCommand:
    """Train a network on a task, and measure it.

    Writes OUT/model, which transformers loads too (except with --head paper), OUT/results.json with the median over
    seeds and its spread, predictions, and pictures. The same command, given again, resumes a run that stopped. Under
    torchrun all processes train together.
    """

    model: str | None = None
    """The checkpoint to begin with: a directory, or a model on the Hub. Default: the small English discriminator that
    comes with the package."""
    task: tuple[str, ...]
    """A task of GLUE (cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli), squad1, squad2, newsqa, naturalqs, triviaqa,
    searchqa, chunking, ner, pos, swag; or a kind of task, on files of your own: classification, regression, multilabel,
    tagging, qa, choice. Several share an encoder."""
    data: Path | None = None
    """A directory with the files of the task (train, dev, test), or one file, of which a tenth is held out. For several
    tasks: a directory with a directory for each."""
    train: Path | None = None
    """The file to train on. Rows without a text or a label are left out, and counted."""
    dev: Path | None = None
    """The file to measure on; rows without a label are left out, and counted, and those without a text are kept.
    Default: a tenth of the file to train on."""
    test: Path | None = None
    """The file to predict, every row of it, and to measure on where it has labels."""
    out: Path
    """Directory to write to: empty, new, or that of the run to resume."""
    overwrite: bool = False
    """Replace the results of an earlier run in OUT."""
    text: str | None = None
    """The column of the text in your own files: a name, or a number from 0 with --no-header."""
    pair: str | None = None
    """The column of the second text of a pair."""
    label: str | None = None
    """The column of the label: a class, a number or several classes, as a list, as text with , ; or | between them, or
    as a vector of zeros and ones."""
    words: str | None = None
    """The column of the words to tag: a number from 0, or its name in CoNLL-U. Default: the first, or FORM."""
    tags: str | None = None
    """The column of the tags, for tagging; -1 is the last."""
    start: str | None = None
    """The column of the text before every ending, for choice."""
    endings: tuple[str, ...] = ()
    """The columns of the endings, for choice."""
    no_header: bool = False
    """Read the first line of a table as an example; columns are then numbers."""
    labels: tuple[str, ...] = ()
    """The classes or tags. Default: those of the file to train on. For multilabel without --label: the columns of zeros
    and ones, one for each label."""
    metric: str | None = None
    """The metric that decides which network is best. Default: the task's."""
    has_unanswerable: bool = False
    """Allow questions without an answer, for qa."""
    head: Literal["transformers", "paper"] = "transformers"
    """Head of the network: transformers', or the paper's. The paper's has no dense layer for classification, and for
    questions predicts start and end together, and whether there is an answer."""
    trials: int = 1
    """Number of seeds to train with; several show how much of a result is chance."""
    retries: int = 2
    """Number of runs to replace if they do not learn."""
    epochs: float | None = None
    """Passes over the training examples. Default: the task's."""
    batch_size: int | None = None
    """Items per update, of all processes together. Default: 32."""
    learning_rate: float | None = None
    """Learning rate of the head; lower layers get less. Default: the paper's for the model's size."""
    max_length: int | None = None
    """Most tokens in a row. Default: the task's."""
    n_train: int | None = None
    """Number of training examples, drawn at random. Default: all."""
    set: tuple[str, ...] = ()
    """Any other field of the recipe as NAME=VALUE: layer_decay=0.9 google_layer_decay=True dropout=0.0."""
    keep_all: bool = False
    """Keep the networks of all seeds, instead of only the best."""
    options: Annotated[FinetuningOptions, flattened] = field(default_factory=FinetuningOptions)

    def run(self) -> None:
        from ..bundled import bundled
        from ..finetuning.recipe import Recipe
        from ..finetuning.run import finetune
        from ..finetuning.task_data import TaskFiles, folder_of
        from .assignments import assigned_fields

        tasks = [self._task(name) for name in self.task]
        files = {name: path for name in ("train", "dev", "test") if (path := getattr(self, name)) is not None}
        if self.data is None and "train" not in files:
            raise ValueError("--data or --train is needed: a directory or a file to train on")
        if len(tasks) > 1 and files:
            raise ValueError("several tasks need --data, a directory with one for each, and no --train, --dev, --test")
        for path in files.values():
            check_readable(path)
        check_apart(self.out, self.model, self.data, *files.values())
        changes = {"n_epochs": self.epochs, "batch_size": self.batch_size, "learning_rate": self.learning_rate}
        changes = {name: value for name, value in changes.items() if value is not None}
        if self.max_length is not None:
            changes["max_length"] = self.max_length
        changes |= {"head": self.head, **assigned_fields(Recipe, self.set)}
        finetune(
            self.model or bundled("discriminator"),
            [
                TaskFiles(task, self.data if len(tasks) == 1 else folder_of(task, self.data), files, self.n_train)
                for task in tasks
            ],
            self.out,
            self.options,
            n_trials=self.trials,
            n_retries=self.retries,
            keep_all=self.keep_all,
            overwrite=self.overwrite,
            **changes,
        )

    def _task(self, name: str) -> Task:
        """The known task of this name, or a task of this kind on the user's own files."""
        from ..finetuning.data.tasks import KindName, custom_task, task

        columns: Mapping[str, object] = {
            "text": self.text,
            "pair": self.pair,
            "label": self.label,
            "words": self.words,
            "tags": self.tags,
            "start": self.start,
            "endings": self.endings or None,
            "labels": self.labels or None,
            "metric": self.metric,
        }
        given = {name: value for name, value in columns.items() if value is not None}
        if name in get_args(KindName):
            return custom_task(
                name, name=name, has_header=not self.no_header, has_unanswerable=self.has_unanswerable, **given
            )
        given |= {name: True for name in ("no_header", "has_unanswerable") if getattr(self, name)}
        if given:
            raise ValueError(
                f"--{', --'.join(given).replace('_', '-')}: of files of your own, with --task classification and the "
                f"like; the files of {name} are known"
            )
        return task(name)
