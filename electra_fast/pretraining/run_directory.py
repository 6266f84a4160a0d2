"""The files that a pre-training run leaves in its directory, besides those of every run (`training.run_directory`).

tokenizer/              the tokenizer it trains with
checkpoints/step-N/     its state, the last few
generator/, discriminator/      the networks, as on the Hub
"""

from __future__ import annotations

import os
from dataclasses import MISSING, fields
from typing import Any, get_args

from ..tokenizer import ElectraTokenizer
from ..training import run_directory
from .networks.options import NetworkName
from .recipes import Recipe

# Fields that a recipe did not have when an old run began had the values that are now their defaults.
_DEFAULTS = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}


class RunDirectory(run_directory.RunDirectory):
    """The files of one pre-training run."""

    def __init__(self, path: str | os.PathLike):
        super().__init__(path, (*get_args(NetworkName), "tokenizer", "checkpoints"), {"recipe": _DEFAULTS})
        self.tokenizer, self.checkpoints = self.path / "tokenizer", self.path / "checkpoints"

    def begin(self, settings: dict[str, Any], tokenizer: ElectraTokenizer) -> None:
        """Removes the files of an earlier run, and writes this run's tokenizer and settings."""
        self.clear()
        tokenizer.save_pretrained(self.tokenizer)
        self.write_settings(settings)
