"""The splits of a task: their files, the examples held out of training, and the labels."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...disk import plain_name
from .examples import Split, TextExample, classes_in
from .slips import doubts_about, same_but_for_slips
from .split_files import read_split, with_classes
from .tasks import Task

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def open_splits(
    task: Task,
    data: Path | None = None,
    files: Mapping[str, Path] | None = None,
    *,
    seed: int = 0,
    dev_share: float = 0.1,
    n_train: int | None = None,
) -> dict[str, Split]:
    """Reads and checks all splits that there are; returns them by name.

    If there is a file to train on but none to evaluate on, a part of the training examples is held out as "dev"; the
    seed alone decides which part. The `path` of this "dev" is that of "train", which tells it from a file of its own.

    `split_files.read_split` says which rows are left out; `Split.counts` has their number.

    Args:
        data: a directory with files named as the task's are, or a file to train on.
        files: files by the names of splits, in place of those in `data`.
        dev_share: the share of the training examples to hold out; at least one example is held out.
        n_train: how many of the remaining training examples to take, chosen by the seed; None takes all.

    Raises:
        FileNotFoundError: a file or directory is missing, or the directory has no file to train on.
        ValueError: a name is no split's, a row is bad (the message names file and line), or there are too few training
            examples.
    """
    if data is None and not files:
        raise ValueError("give a directory of data, or files by the names of splits, got neither")
    paths = _find(task, Path(data)) if data is not None else {}
    for name, path in (files or {}).items():
        if name not in task.files and name.split("_")[0] not in ("dev", "test"):
            raise ValueError(f"a split must be one of {', '.join(task.files)}, got {name!r}")
        paths[name] = Path(path)
    if data is not None and "train" not in paths:
        names = ", ".join(task.files["train"])
        raise FileNotFoundError(f"{data} must hold the training examples of {task.name} as one of {names}")
    splits = {name: read_split(task, name, path) for name, path in paths.items()}
    if task.kind == "multilabel":
        splits = with_classes(task, splits)
    if "train" not in splits:
        return splits
    train = splits["train"]
    if not any(name.startswith("dev") for name in splits):
        splits["train"], held_out = _parted(train, seed, dev_share)
        splits = {"train": splits.pop("train"), "dev": held_out, **splits}
    if n_train is not None:
        splits["train"] = _subset(splits["train"], seed, n_train)
    return splits


def labels_of(task: Task, splits: Mapping[str, Split]) -> tuple[str, ...]:
    """The classes or tags of a task; () for kinds without.

    They are the task's own, or else those of the whole file to train on: "O" first, then numbers by size, then text.
    What looks like a slip in them is told in a warning, and so are labels that no example is left to train on.

    Raises:
        ValueError: the file to train on does not have some label; the message names file and line.
    """
    if task.kind not in ("classification", "multilabel", "tagging"):
        return ()
    if task.labels is not None:
        return task.labels
    train = splits["train"]
    labels = train.labels
    for doubt in doubts_about(labels, task.kind):
        warnings.warn(f"{train.path}: {doubt}", stacklevel=2)
    untrained = labels - {label for example in train.examples for label in classes_in(example)}
    if untrained:
        names = ", ".join(_sorted(untrained))
        warnings.warn(f"{train.path}: no example is left to train on with the label {names}", stacklevel=2)
    for split in splits.values():
        for example in split.examples:
            for label in classes_in(example):
                if label not in labels:
                    like = [other for other in labels if same_but_for_slips(other) == same_but_for_slips(label)]
                    raise ValueError(
                        f"{split.path}, line {example.line}: the label must be one of the training examples' "
                        f"({', '.join(_sorted(labels))}) or all labels must be named, got {label!r}"
                        + (f", which differs from {like[0]!r} by a slip alone" if like else "")
                    )
    return _sorted(labels)


def swapped(examples: Sequence[TextExample]) -> list[TextExample]:
    """The same pairs with their two texts exchanged."""
    return [replace(example, text=example.pair, pair=example.text) for example in examples]


def fingerprint(splits: Mapping[str, Split]) -> str:
    """32 hexadecimal digits that change with any example of any split, wherever the files are."""
    digest = hashlib.blake2b(digest_size=16)
    for name, split in sorted(splits.items()):
        digest.update(f"{name}\0{len(split.examples)}\0".encode())
        for example in split.examples:
            digest.update(repr(example).encode() + b"\0")
    return digest.hexdigest()


def _find(task: Task, data: Path) -> dict[str, Path]:
    if not data.exists():
        raise FileNotFoundError(f"no such data file or directory: {data}")
    if not data.is_dir():
        return {"train": data}
    there = {plain_name(path).lower(): path for path in sorted(data.iterdir(), reverse=True) if path.is_file()}
    found = {}
    for split, names in task.files.items():
        path = next((there[name] for name in names if name in there), None)
        if path is not None:
            found[split] = path
    return found


def _parted(train: Split, seed: int, share: float) -> tuple[Split, Split]:
    n = len(train.examples)
    n_dev = max(1, round(share * n))
    if not 0 < share < 1 or n_dev >= n:
        raise ValueError(f"{train.path}: cannot hold out a share of {share} of {n} training examples: give a dev file")
    held_out = set(np.random.default_rng((seed, 0)).permutation(n)[:n_dev].tolist())
    return (
        replace(train, examples=[example for i, example in enumerate(train.examples) if i not in held_out]),
        Split("dev", train.path, [train.examples[i] for i in sorted(held_out)]),
    )


def _subset(train: Split, seed: int, n_train: int) -> Split:
    n = len(train.examples)
    if not 0 < n_train <= n:
        raise ValueError(f"{train.path}: n_train must be between 1 and the {n} training examples, got {n_train}")
    chosen = np.random.default_rng((seed, 1)).permutation(n)[:n_train]
    return replace(train, examples=[train.examples[i] for i in sorted(chosen.tolist())])


def _sorted(labels: Collection[str]) -> tuple[str, ...]:
    def order(label: str) -> tuple[bool, float, str]:
        return (label != "O", float(label) if _NUMBER.fullmatch(label) else math.inf, label)

    return tuple(sorted(labels, key=order))
