"""The files that a run leaves in its directory, and finds there when the same command is given again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..disk import made, read_json_object, removed, written
from .json_files import differences
from .lock import NAME as LOCK
from .lock import locked
from .progress import JsonLines, read_records, rewind_records
from .trackers import RecordWriters, open_tracker

if TYPE_CHECKING:
    from .distributed import World


class RunDirectory:
    """The files of one run. Only the first of several processes writes.

    run.json        its settings, and fingerprints of what it reads
    log.jsonl       all that it reported
    training.png    its curves

    Args:
        outputs: names of the other files a run leaves here; a new run removes them.
        defaults: values of settings that run.json does not have, because they could not be set then.
    """

    def __init__(self, path: str | os.PathLike, outputs: Sequence[str], defaults: Mapping[str, Any] | None = None):
        self.path = Path(path)
        self.log, self.plot, self._settings = (self.path / name for name in ("log.jsonl", "training.png", "run.json"))
        self._outputs, self.defaults = tuple(outputs), dict(defaults or {})

    def check(self, overwrite: bool) -> None:
        """Raises FileExistsError for a file, or for a directory with contents that are not a run's."""
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"the output must be a directory, but {self.path} is a file")
        if overwrite or not self.path.is_dir() or self.holds_a_run:
            return
        if any(path.name != LOCK for path in self.path.iterdir()):
            raise FileExistsError(
                f"{self.path} is not empty, and holds no run to go on with: give another directory, or overwrite it "
                f"(--overwrite)"
            )

    @contextmanager
    def locked(self, world: World) -> Iterator[None]:
        """Keeps other runs out of the directory, which is made; the first process has the lock (`lock.locked`).

        Raises:
            BlockingIOError: another run has it; in all processes.
        """
        with ExitStack() as stack:
            error = None
            if world.is_main:
                try:
                    stack.enter_context(locked(self.path))
                except OSError as found:
                    error = found
            if (error := world.shared(error)) is not None:
                raise error
            yield

    @property
    def holds_a_run(self) -> bool:
        return self._settings.is_file()

    @property
    def is_done(self) -> bool:
        """True once the run is finished."""
        return self.log.is_file() and any(record["reason"] == "done" for record in read_records(self.log, "end"))

    def clear(self) -> None:
        """Removes what an earlier run left; makes the directory."""
        made(self.path)
        for name in (self._settings.name, self.log.name, self.plot.name, *self._outputs):
            self.remove(name)

    def remove(self, name: str) -> None:
        """Removes a file or a directory, if it is there."""
        removed(self.path / name)

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Writes the run's settings; from now on the directory `holds_a_run`."""
        with written(self._settings) as file:
            file.write(json.dumps(settings, indent=2) + "\n")

    def settings(self) -> dict[str, Any]:
        """The settings of the run that is here; raises ValueError if run.json is damaged."""
        return read_json_object(self._settings)

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Raises ValueError, naming the differences, if the run here was begun with other settings."""
        if changes := differences(self.settings(), settings, self.defaults):
            raise ValueError(
                f"{self.path} holds a run with other settings ({changes}): repeat its command to go on with it, give "
                f"another directory, or overwrite it (--overwrite)"
            )

    def writer(self, trackers: Sequence[str]) -> RecordWriters:
        """A writer of records to the log, and to the trackers of these names."""
        return RecordWriters([JsonLines(self.log), *(open_tracker(name, self.path) for name in trackers)])

    def rewind_log(self, step: int) -> None:
        """Removes the log's records after the checkpoint that the run resumes from."""
        if self.log.is_file():
            rewind_records(self.log, step)
