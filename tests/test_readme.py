"""The README and docs/ are true: their Python runs, their commands and options exist, their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from electra_fast import ElectraConfig, ElectraForPreTraining, ElectraTokenizer
from electra_fast.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
BLOCKS = {
    f"{name}-{number}": block
    for name, text in PAGES.items()
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
}
CALLS = {
    name: re.findall(r"^    electra-fast +(.*?)(?: {2,}#.*)?$", text, flags=re.MULTILINE)
    for name, text in PAGES.items()
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A directory that stands where the README has the Hub's google/electra-small-discriminator."""
    directory = tmp_path_factory.mktemp("checkpoint")
    words = "the quick brown fox fake over lazy dog a short one".split()
    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    ElectraTokenizer(vocab).save_pretrained(directory)
    ElectraForPreTraining(ElectraConfig(vocab_size=len(vocab), num_hidden_layers=1)).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_python_blocks_run(block, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(block.replace("google/electra-small-discriminator", str(checkpoint)), {})


def test_the_readme_has_what_is_tested():
    assert {name.rpartition("-")[0] for name in BLOCKS} == set(PAGES)
    assert {call.split()[0] for call in CALLS["README.md"]} == set(COMMANDS)


@pytest.mark.parametrize("call", sorted({call for calls in CALLS.values() for call in calls}))
def test_options_exist(call):
    name, *arguments = call.split()
    command = [sys.executable, "-m", "electra_fast", name, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert option in shown


def test_make_targets_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = re.findall(r"`?make ([a-z-]+)", PAGES["README.md"])
    assert named
    assert set(named) <= set(targets)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    folder = ROOT if name == "README.md" else ROOT / "docs"
    links = re.findall(r"\]\(([^)#]+)\)", PAGES[name])
    assert [link for link in links if not link.startswith("http") and not (folder / link).exists()] == []
