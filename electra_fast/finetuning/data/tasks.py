"""The tasks: the form of their files, and the settings to train them with.

Files, labels and metrics of GLUE are those of its own download (gluebenchmark.com). Epochs, lengths and swapped pairs
are those of the original's fine-tuning configuration (google-research/electra, configure_finetuning.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

KindName = Literal["classification", "regression", "multilabel", "tagging", "qa", "choice"]

# The ends of names that mean CoNLL; a file .txt may be CoNLL, too.
CONLL_SUFFIXES = (".conll", ".bio", ".iob", ".iob2", ".tsv")

# A column: its name in the header, or its number from 0; in CoNLL files also from the end, as -1.
Column = str | int


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a file; None for those that it does not have.

    Attributes:
        text, pair: the text of an example, or its two texts.
        label: the class, number or classes of an example, or the number of its right ending; a tuple is of columns of
            zeros and ones, one for each class.
        id: the example's name in predictions; by default the number of its row.
        words, tags: the words and tags of a sentence. The default for words in CoNLL files is the first column, or in
            CoNLL-U that of forms.
        start, endings: the common beginning of all endings, and the endings of `text`.
        has_header: False for a table whose first row is an example.
    """

    text: Column | None = None
    pair: Column | None = None
    label: Column | tuple[Column, ...] | None = None
    id: Column | None = None
    words: Column | None = None
    tags: Column | None = None
    start: Column | None = None
    endings: tuple[Column, ...] = ()
    has_header: bool = True


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task to fine-tune a network for.

    Attributes:
        columns: columns of the task's tables or CoNLL files; files for question answering have none.
        test_columns: columns of test files, if they differ.
        labels: the classes or tags; None takes those of the file to train on.
        metric: the metric that counts; None takes the kind's first.
        files: the names that a split's file may have in a directory, the best first, in lower case and without .gz, .xz
            or .zst. Files in the directory may be packed, and their names may be in any case.
        options: arguments of the kind's constructor, apart from labels.
        n_epochs, max_length: default passes over the training examples, and default tokens of a row.
        swap_pairs: whether training also takes every pair in the other order.
        submission: the file that the benchmark expects for a split's predictions; labels are written as in `labels`.
        n_damaged_rows: how many of the published training rows may be damaged; they are left out, with a warning.
    """

    name: str
    kind: KindName
    columns: Columns = Columns()
    test_columns: Columns | None = None
    labels: tuple[str, ...] | None = None
    metric: str | None = None
    files: Mapping[str, tuple[str, ...]]
    options: Mapping[str, Any] = field(default_factory=dict)
    n_epochs: float = 3.0
    max_length: int = 128
    swap_pairs: bool = False
    submission: Mapping[str, str] = field(default_factory=dict)
    n_damaged_rows: int = 0


def is_labelled(split: str) -> bool:
    """Whether a split of this name, such as "dev_matched", must have labels: train and dev must, all others may."""
    return split == "train" or split.startswith("dev")


def task(name: str) -> Task:
    """The task with this name, ours or the original's; raises ValueError with all names."""
    found = TASKS.get(ALIASES.get(name, name))
    if found is None:
        raise ValueError(f"the task must be one of {', '.join([*TASKS, *ALIASES])}, got {name!r}")
    return found


def custom_task(
    kind: KindName,
    *,
    name: str = "custom",
    text: Column | None = None,
    pair: Column | None = None,
    label: Column | tuple[Column, ...] | None = None,
    id: Column | None = None,
    words: Column | None = None,
    tags: Column | None = None,
    start: Column | None = None,
    endings: tuple[Column, ...] = (),
    has_header: bool = True,
    labels: tuple[str, ...] | None = None,
    metric: str | None = None,
    has_unanswerable: bool = False,
) -> Task:
    """Makes a task for your own files; `Columns` says what the columns are.

    The number of a column may also be text of digits. `labels` are the classes or tags, by default those of the file to
    train on. Several labels may have a column each, of zeros and ones: `label` is then a tuple of them, by default the
    `labels`. `has_unanswerable` says that questions may have no answer.

    Raises:
        ValueError: the kind is unknown, a column that it needs is not given, or one that it does not use is.
    """
    if kind not in get_args(KindName):
        raise ValueError(f"the kind of task must be one of {', '.join(get_args(KindName))}, got {kind!r}")
    if kind == "multilabel":
        label = label or labels
        labels = labels or (tuple(map(str, label)) if isinstance(label, tuple) else None)
    given: dict[str, Any] = {"text": text, "pair": pair, "label": label, "id": id, "words": words, "tags": tags}
    given |= {"start": start, "endings": endings or None}
    given = {column: where for column, where in given.items() if where is not None}
    needed, allowed = _COLUMNS[kind]
    for column in needed:
        if column not in given:
            raise ValueError(f"a {kind} task needs the column {column!r}: name the one that has it")
    for column in given:
        if column not in (*needed, *allowed):
            raise ValueError(f"a {kind} task has no column {column!r}, got {given[column]!r}")
    if has_unanswerable and kind != "qa":
        raise ValueError(f"has_unanswerable is for qa, got a {kind} task")
    if labels is not None and kind not in _LABELLED:
        raise ValueError(f"labels are for {', '.join(_LABELLED)}, got a {kind} task")
    if kind == "tagging":
        given = {column: number_or_name(where) for column, where in given.items()}
    elif not has_header:
        given = {column: _numbers(where) for column, where in given.items()}
    if isinstance(label, tuple) and (kind != "multilabel" or len(label) != len(labels or ())):
        raise ValueError(
            f"only multilabel has several columns of labels, one for each label, got {label!r} as a {kind}"
        )
    if len(given.get("endings", (0, 1))) < 2:
        raise ValueError(f"a choice task needs two endings or more, got {given['endings']!r}")
    return Task(
        name=name,
        kind=kind,
        columns=Columns(**given, has_header=has_header),
        labels=labels,
        metric=metric,
        files=_FILES[kind],
        options={"has_unanswerable": True} if has_unanswerable else {},
        n_epochs=_QA_EPOCHS if kind == "qa" else 3.0,
        max_length={"qa": _QA_LENGTH, "tagging": _TAGGING_LENGTH}.get(kind, 128),
    )


# For each kind of task, the columns that it needs and those that it may have.
_COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "classification": (("text", "label"), ("pair", "id")),
    "regression": (("text", "label"), ("pair", "id")),
    "multilabel": (("text", "label"), ("pair", "id")),
    "tagging": (("tags",), ("words",)),
    "qa": ((), ()),
    "choice": (("text", "endings", "label"), ("start", "id")),
}
_LABELLED = ("classification", "multilabel", "tagging")


def number_or_name(column: Column) -> Column:
    """The column's number if it is text of digits, and the column as it is otherwise."""
    return int(column) if isinstance(column, str) and column.removeprefix("-").isdecimal() else column


def _numbers(columns: Column | tuple[Column, ...]) -> Any:
    if isinstance(columns, tuple):
        return tuple(_numbers(column) for column in columns)
    number = number_or_name(columns)
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"a column of a table without a header must be a number from 0, got {columns!r}")
    return number


def _named(stems: str, suffixes: str) -> tuple[str, ...]:
    return tuple(stem + suffix for stem in stems.split() for suffix in suffixes.split())


def _splits(suffixes: str) -> dict[str, tuple[str, ...]]:
    stems = {"train": "train", "dev": "dev valid validation val", "test": "test"}
    return {split: _named(names, suffixes) for split, names in stems.items()}


_TABLES = _splits(".tsv .csv .jsonl .json .parquet .txt")
_CONLL = _splits(" ".join((".txt", *CONLL_SUFFIXES)))
_CONLL_2003 = {
    "train": (*_CONLL["train"], "eng.train"),
    "dev": (*_CONLL["dev"], "testa.txt", "eng.testa"),
    "test": (*_CONLL["test"], "testb.txt", "eng.testb"),
}
_MRQA = _splits(".jsonl")
_FILES = {
    "classification": _TABLES,
    "regression": _TABLES,
    "multilabel": _TABLES,
    "choice": _TABLES,
    "tagging": _splits(".conllu .txt .conll .bio .iob .iob2 .tsv .jsonl .json .parquet"),
    "qa": _splits(".json .jsonl"),
}
_QA_EPOCHS, _QA_LENGTH = 2.0, 512
_TAGGING_LENGTH = 256


def _glue(name: str, submission: str, columns: Columns, *, labels: str = "0 1", **others: Any) -> Task:
    settings = {"kind": "classification", "files": _TABLES, "submission": {"test": submission}} | others
    return Task(name=name, columns=columns, labels=tuple(labels.split()) or None, **settings)


def _squad(name: str, version: str, options: Mapping[str, Any]) -> Task:
    files = {split: (f"{split}-{version}.json", f"{split}.json") for split in ("train", "dev", "test")}
    others = {"n_epochs": _QA_EPOCHS, "max_length": _QA_LENGTH, "submission": {"dev": "predictions.json"}}
    return Task(name=name, kind="qa", files=files, options=options, **others)


def _mrqa(name: str) -> Task:
    return Task(name=name, kind="qa", files=_MRQA, n_epochs=_QA_EPOCHS, max_length=_QA_LENGTH)


def _tagging(name: str, tags: int, files: Mapping[str, tuple[str, ...]], labels: tuple[str, ...] | None = None) -> Task:
    columns = Columns(words=0, tags=tags)
    return Task(name=name, kind="tagging", columns=columns, labels=labels, files=files, max_length=_TAGGING_LENGTH)


_SENTENCES = Columns(text="sentence1", pair="sentence2", label="label")

# Types of CoNLL-2000's chunks. All tags are listed, because its training data lacks I-LST, and so does CoNLL-2003's.
_CHUNKS = tuple("ADJP ADVP CONJP INTJ LST NP PP PRT SBAR UCP VP".split())
_CHUNK_TAGS = ("O", *(f"{place}-{chunk}" for place in "BI" for chunk in _CHUNKS))

_MNLI_FILES = {
    "train": _TABLES["train"],
    **{split: _named(split, ".tsv .csv .jsonl .json .parquet .txt") for split in ("dev_matched", "dev_mismatched")},
    **{split: _named(split, ".tsv .csv .jsonl .json .parquet .txt") for split in ("test_matched", "test_mismatched")},
    "diagnostics": ("ax.tsv", "diagnostic.tsv", "diagnostics.tsv"),
}
_MNLI_SUBMISSION = {"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv", "diagnostics": "AX.tsv"}

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _glue(
            "cola",
            "CoLA.tsv",
            Columns(text=3, label=1, has_header=False),
            test_columns=Columns(text="sentence", label="label"),
            metric="matthews",
        ),
        _glue("sst2", "SST-2.tsv", Columns(text="sentence", label="label")),
        _glue("mrpc", "MRPC.tsv", Columns(text="#1 String", pair="#2 String", label="Quality"), swap_pairs=True),
        _glue(
            "stsb",
            "STS-B.tsv",
            Columns(text="sentence1", pair="sentence2", label="score"),
            kind="regression",
            labels="",
            metric="pearson",
            n_epochs=10.0,
            swap_pairs=True,
        ),
        # A few dozen of the 364,000 training rows are broken by tabs and line ends in a question, or lack one.
        _glue(
            "qqp",
            "QQP.tsv",
            Columns(text="question1", pair="question2", label="is_duplicate"),
            n_damaged_rows=100,
        ),
        Task(
            name="mnli",
            kind="classification",
            columns=Columns(text="sentence1", pair="sentence2", label="gold_label"),
            labels=("contradiction", "entailment", "neutral"),
            files=_MNLI_FILES,
            submission=_MNLI_SUBMISSION,
        ),
        _glue(
            "qnli",
            "QNLI.tsv",
            Columns(text="question", pair="sentence", label="label"),
            labels="entailment not_entailment",
        ),
        _glue("rte", "RTE.tsv", _SENTENCES, labels="entailment not_entailment", n_epochs=10.0),
        _glue("wnli", "WNLI.tsv", _SENTENCES),
        _squad("squad1", "v1.1", {}),
        _squad("squad2", "v2.0", {"has_unanswerable": True}),
        *(_mrqa(name) for name in ("newsqa", "naturalqs", "triviaqa", "searchqa")),
        _tagging("chunking", 2, _CONLL, _CHUNK_TAGS),
        _tagging("ner", -1, _CONLL_2003),
        _tagging("pos", 1, _CONLL_2003),
        Task(
            name="swag",
            kind="choice",
            columns=Columns(
                text="sent1", start="sent2", endings=tuple(f"ending{number}" for number in range(4)), label="label"
            ),
            files=_TABLES,
        ),
    )
}
ALIASES = {"sst": "sst2", "sts": "stsb", "squad": "squad2", "squadv1": "squad1", "chunk": "chunking"}
