"""Directories of results for the tests of the report."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def results(tmp_path):
    """Writes rows into files of a directory, which it returns."""
    directory = tmp_path / "results"
    directory.mkdir()

    def write(*rows: dict, name: str = "rows.jsonl") -> Path:
        (directory / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return directory

    return write
