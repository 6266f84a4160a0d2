"""Trackers that a run's records may go to: TensorBoard, Weights & Biases, Trackio. All write like `JsonLines`."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Protocol, get_args


class RecordWriter(Protocol):
    """Takes records of a kind: "run" once, with the settings, then "train", "evaluation" and others with their step."""

    def write(self, kind: str, **fields: Any) -> None: ...

    def close(self) -> None: ...


class RecordWriters:
    """Several writers as one; closes them all, in reverse order."""

    def __init__(self, writers: Sequence[RecordWriter]):
        self._writers = list(writers)

    def write(self, kind: str, **fields: Any) -> None:
        for writer in self._writers:
            writer.write(kind, **fields)

    def close(self) -> None:
        while self._writers:
            self._writers.pop().close()

    def __enter__(self) -> RecordWriters:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TensorBoard:
    """Event files in `directory`: scalars called kind/name, and the settings as a text."""

    def __init__(self, directory: str | os.PathLike):
        _import("tensorboard", "train")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(os.fspath(directory))

    def write(self, kind: str, **fields: Any) -> None:
        if kind == "run":
            self._writer.add_text("run", f"```\n{json.dumps(fields, indent=2, default=str)}\n```")
        for name, value in _scalars(kind, fields).items():
            self._writer.add_scalar(name, value, fields["step"])

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, or of Trackio, which has the same functions.

    The account, the mode and everything else come from the package's own settings and environment, such as WANDB_MODE.

    Args:
        directory: its name becomes the run's name, and Weights & Biases keeps its files there; Trackio uses its own.
        package: "wandb" or "trackio".
    """

    def __init__(self, directory: str | os.PathLike, package: str = "wandb", project: str = "electra_fast"):
        self._package, directory = _import(package, package), Path(directory)
        options = {"dir": os.fspath(directory)} if package == "wandb" else {}
        self._run = self._package.init(project=project, name=directory.resolve().name, **options)

    def write(self, kind: str, **fields: Any) -> None:
        if kind == "run":
            self._run.config.update(fields)
        if scalars := _scalars(kind, fields):
            self._run.log(scalars, step=fields["step"])

    def close(self) -> None:
        self._run.finish()


Tracker = Literal["tensorboard", "wandb", "trackio"]


def open_tracker(name: str, directory: str | os.PathLike) -> RecordWriter:
    """The tracker `name` for a run in `directory`; TensorBoard's files go to its folder `tensorboard`.

    Raises:
        ValueError: a name that is not in `Tracker`.
        ImportError: the package is not installed; the message names the extra.
    """
    if name not in get_args(Tracker):
        raise ValueError(f"the tracker must be one of {', '.join(get_args(Tracker))}, got {name!r}")
    return TensorBoard(Path(directory) / "tensorboard") if name == "tensorboard" else Wandb(directory, name)


def _import(package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"the tracker {package} needs its package: pip install 'electra_fast[{extra}]'") from error


def _scalars(kind: str, fields: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record that belongs to a step, as kind/name."""
    if "step" not in fields:
        return {}
    return {
        f"{kind}/{name}": float(value)
        for name, value in fields.items()
        if isinstance(value, Real) and not isinstance(value, bool) and name != "step"
    }
