"""Progress of a run: one live line on the screen, and JSONL records of everything."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ..disk import named_if_full, written
from .json_files import parsed_object

# Seconds between two lines if the output is not a terminal.
_PLAIN_INTERVAL = 15.0


class JsonLines:
    """An append-only file with one JSON object per line, each written whole; NaN and infinities become null."""

    def __init__(self, path: str | Path):
        self._path, self._file = path, open(path, "a", encoding="utf-8")  # noqa: SIM115 - lives as long as the run

    def write(self, kind: str, **fields: Any) -> None:
        record = {"kind": kind, **{name: _json_value(value) for name, value in fields.items()}}
        with named_if_full(self._path):
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        with named_if_full(self._path):
            self._file.close()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_records(path: str | Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The records of a log, or those of one kind, without a last line that was cut off.

    Raises:
        ValueError: a line that is no record, naming it.
    """
    records = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n")[:-1], start=1):
        place = f"{path}, line {number}"
        record = parsed_object(line, place)
        if not isinstance(record.get("kind"), str) or not isinstance(record.get("step", 0), int):
            raise ValueError(f"{place} must have a text as kind and a number as step, got: {line[:80].decode()}")
        if kind in (None, record["kind"]):
            records.append(record)
    return records


def rewind_records(path: str | Path, step: int) -> None:
    """Removes the records of later steps than `step`, and of an end, from a log, because the run resumes there."""
    kept = [record for record in read_records(path) if record.get("step", 0) <= step and record["kind"] != "end"]
    with written(path) as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)


class ProgressLine:
    """One line that is rewritten in place on a terminal, and repeated every 15 seconds elsewhere."""

    def __init__(self, stream: IO[str] | None = None):
        self._stream = stream or sys.stdout or io.StringIO()  # a process may have no standard output
        self._is_live = self._stream.isatty()
        self._width = 0
        self._last = -math.inf

    def show(self, step: int, progress: float, seconds: float, fields: Mapping[str, str]) -> None:
        """Shows step/total, the share done, the fields as `name value`, and the time left.

        Args:
            progress: the share of the run that is done, in (0, 1]; the total is computed from it.
            seconds: time since the run began.
        """
        total, left = round(step / progress), seconds * (1 / progress - 1)
        parts = [f"step {step}/{total}", f"{progress:4.0%}", *(f"{name} {value}" for name, value in fields.items())]
        self._put("  ".join([*parts, f"ETA {format_duration(left)}"]), is_last=progress >= 1)

    def _put(self, line: str, is_last: bool) -> None:
        now = time.monotonic()
        if self._is_live:
            # Spaces overwrite the rest of a longer line before.
            self._write(f"\r{line:<{self._width}}")
            self._width = len(line)
        elif is_last or now - self._last >= _PLAIN_INTERVAL:
            self._write(line + "\n")
            self._last = now

    def say(self, text: str) -> None:
        """Prints a text on a line of its own."""
        self.end()
        self._write(text + "\n")

    def end(self) -> None:
        """Ends the line, so that the next output starts on a new one."""
        if self._is_live and self._width:
            self._write("\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError as error:
            if not self._is_live or error.errno != errno.EIO:
                raise
            # The terminal was closed. A run does not end by that, and one that SIGHUP ends has yet to write its state.
            # From now on all output of the process goes nowhere.
            with open(os.devnull, "w", encoding="utf-8") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())


def format_duration(seconds: float) -> str:
    """Formats seconds: 75 -> "1:15", 3675 -> "1:01:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
