"""Directories of results for the tests of the report, and a machine whose best rates nobody waits for."""

import json
from pathlib import Path

import pytest
from electra_fast.benchmarks.model import cost


@pytest.fixture
def results(tmp_path):
    """Writes rows into files of a directory, which it returns."""
    directory = tmp_path / "results"
    directory.mkdir()

    def write(*rows: dict, name: str = "rows.jsonl") -> Path:
        (directory / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return directory

    return write


@pytest.fixture(autouse=True)
def short_ceilings(monkeypatch):
    """The best rates of the machine by one small product: a test looks at what is made of them."""
    monkeypatch.setattr(cost, "_PRODUCTS", ((256, 256, 256),))
    monkeypatch.setattr(cost, "_COPIED_BYTES", 1 << 16)
