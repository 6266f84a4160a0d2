"""The README is true: its Python runs, its commands and their options exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from electra_fast import ElectraConfig, ElectraForPreTraining, ElectraTokenizer
from electra_fast.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
CALLS = re.findall(r"^    electra-fast +(.*?)(?: {2,}#.*)?$", README, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A directory that stands where the README has the Hub's google/electra-small-discriminator."""
    directory = tmp_path_factory.mktemp("checkpoint")
    words = "the quick brown fox fake over lazy dog a short one".split()
    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    ElectraTokenizer(vocab).save_pretrained(directory)
    ElectraForPreTraining(ElectraConfig(vocab_size=len(vocab), num_hidden_layers=1)).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_blocks_run(block, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(block.replace("google/electra-small-discriminator", str(checkpoint)), {})


def test_the_readme_has_what_is_tested():
    assert len(BLOCKS) >= 2
    assert {call.split()[0] for call in CALLS} == set(COMMANDS)


@pytest.mark.parametrize("call", CALLS)
def test_options_exist(call):
    name, *arguments = call.split()
    command = [sys.executable, "-m", "electra_fast", name, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert option in shown


def test_make_targets_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = re.findall(r"`?make ([a-z-]+)", README)
    assert named
    assert set(named) <= set(targets)
