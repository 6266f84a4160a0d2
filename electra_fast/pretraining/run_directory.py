"""What a run leaves in its directory, and what it finds there when the same command is given again.

run.json                what the run is: its settings, and fingerprints of its text and vocabulary
tokenizer/              the tokenizer it trains with
checkpoints/step-N/     its state, the last few
log.jsonl               all that it printed
training.png            its curves
generator/, discriminator/      the networks, as on the Hub
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args

from ..tokenizer import ElectraTokenizer
from ..training.progress import JsonLines, read_records, rewind_records
from ..training.trackers import RecordWriters, open_tracker
from .options import NetworkName
from .presets import Recipe

_DEFAULTS = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}


class RunDirectory:
    """The files of one run. Only the first of several processes writes."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.log, self.plot, self.tokenizer, self.checkpoints = (
            self.path / name for name in ("log.jsonl", "training.png", "tokenizer", "checkpoints")
        )
        self._settings = self.path / "run.json"

    def check(self, overwrite: bool) -> None:
        """Refuses what a run must not be mixed with; raises FileExistsError."""
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"the output must be a directory, but {self.path} is a file")
        if not overwrite and self.path.is_dir() and any(self.path.iterdir()) and not self.holds_a_run:
            raise FileExistsError(
                f"{self.path} is not empty, and holds no run to go on with: give another directory, or overwrite it "
                f"(--overwrite)"
            )

    @property
    def holds_a_run(self) -> bool:
        return self._settings.is_file()

    @property
    def is_done(self) -> bool:
        """Whether the run has come to its end."""
        return self.log.is_file() and any(record["reason"] == "done" for record in read_records(self.log, "end"))

    def begin(self, settings: dict[str, Any], tokenizer: ElectraTokenizer) -> None:
        """Removes what an earlier run left, and writes what this one is."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in (*get_args(NetworkName), self.tokenizer.name, self.checkpoints.name):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for file in (self._settings, self.log, self.plot):
            file.unlink(missing_ok=True)
        tokenizer.save_pretrained(self.tokenizer)
        temporary = self.path / ".run.json.tmp"
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, self._settings)

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Raises ValueError where the run that is here was begun with others, and names them."""
        # What a recipe did not have yet when the run began was as it now is by default.
        found = _flat({"recipe": _DEFAULTS}) | _flat(json.loads(self._settings.read_text(encoding="utf-8")))
        expected = _flat(settings)
        names = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
        if names:
            changes = "; ".join(f"{name}: {found.get(name)} then, {expected.get(name)} now" for name in names)
            raise ValueError(
                f"{self.path} holds a run with other settings ({changes}): repeat its command to go on with it, give "
                f"another directory, or overwrite it (--overwrite)"
            )

    def writer(self, trackers: Sequence[str]) -> RecordWriters:
        """Writes records to the log, and to the trackers of these names."""
        return RecordWriters([JsonLines(self.log), *(open_tracker(name, self.path) for name in trackers)])

    def rewind_log(self, step: int) -> None:
        """Leaves out of the log what came after the checkpoint that the run goes on from."""
        if self.log.is_file():
            rewind_records(self.log, step)

    @contextmanager
    def replacing(self, network: NetworkName) -> Iterator[Path]:
        """A directory to write a network to, which then takes the place of what was there before."""
        temporary = self.path / f".{network}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        shutil.rmtree(self.path / network, ignore_errors=True)
        os.replace(temporary, self.path / network)


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings within settings by names such as recipe.seq_length, as JSON has them."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = {f"{name}.{key}": x for key, x in value.items()} if isinstance(value, dict) else {name: value}
        flat |= inner
    return json.loads(json.dumps(flat))
